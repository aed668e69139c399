"""One absurd value is not believed until others say the same.

A counter that overflowed, an export that mixed units: a single step a million times the load would
stretch the level, the noise and with them every quantile for a day. So a value more than HUNDREDFOLD the
fifth largest of its window counts as unknown, unless the step before or after it is of its size, or the
days before the window have seen such a load. A real jump is believed from its second step on, one of
less than a hundred times all that the day has seen at once, and so is a burst like last week's.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.quantiles import FloatArray

HUNDREDFOLD = 100.0
WITNESSES = 5  # values of that size in the window, the value itself among them
NEAR_RATIO = 0.1  # of a value: a neighbour that large says the same


def believable(
    recent: FloatArray, earlier: Callable[[NDArray[np.int64]], FloatArray] | None = None
) -> FloatArray:
    """Return windows (R, W), NaN where a value stands alone above all others.

    `earlier` gives the largest load that was seen before the window, (r,) of some rows (r,), NaN for none.
    A window of fewer than WITNESSES positive values is left as it is: nothing is known of its size.
    """
    known = np.where(np.isfinite(recent), recent, 0.0)
    most, count = known.max(axis=1), (known > 0).sum(axis=1)
    # what stands alone holds nearly all of the sum: cheap to see, and hardly a row passes
    alone = known.sum(axis=1) <= most * (WITNESSES - 1 + count / HUNDREDFOLD)
    rows = np.flatnonzero(alone & (count >= WITNESSES))
    if rows.size == 0:
        return recent
    here = known[rows]
    usual = np.partition(here, -WITNESSES, axis=1)[:, -WITNESSES]
    if earlier is not None:
        usual = np.fmax(usual, earlier(rows))
    beside = np.zeros_like(here)
    beside[:, 1:] = here[:, :-1]
    beside[:, :-1] = np.maximum(beside[:, :-1], here[:, 1:])
    absurd = (here > HUNDREDFOLD * usual[:, np.newaxis]) & (beside < NEAR_RATIO * here)
    out = recent.copy()
    out[rows] = np.where(absurd, np.nan, recent[rows])
    return out

"""One absurd value is not believed until others say the same.

A counter that overflowed, an export that mixed units: a single step a million times the load would
stretch the level, the noise and with them every quantile for a day. So a value more than HUNDREDFOLD the
fifth largest of its window counts as unknown. A real jump is believed from its fifth step on, and one of
less than a hundred times all that the day has seen at once.
"""

import numpy as np

from models.quantiles import FloatArray

HUNDREDFOLD = 100.0
WITNESSES = 5  # values of that size in the window, the value itself among them


def believable(recent: FloatArray) -> FloatArray:
    """Return windows (R, W), NaN where a value stands alone above all others.

    A window of fewer than WITNESSES positive values is left as it is: nothing is known of its size.
    """
    known = np.where(np.isfinite(recent), recent, 0.0)
    most, count = known.max(axis=1), (known > 0).sum(axis=1)
    # what stands alone holds nearly all of the sum: cheap to see, and hardly a row passes
    alone = known.sum(axis=1) <= most * (WITNESSES - 1 + count / HUNDREDFOLD)
    rows = np.flatnonzero(alone & (count >= WITNESSES))
    if rows.size == 0:
        return recent
    fifth = np.partition(known[rows], -WITNESSES, axis=1)[:, -WITNESSES]
    out = recent.copy()
    out[rows] = np.where(recent[rows] > HUNDREDFOLD * fifth[:, np.newaxis], np.nan, recent[rows])
    return out

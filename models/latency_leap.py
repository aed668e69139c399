"""A new fit that contradicts the one before it beyond belief: refused, reported, taken if it persists.

Between two trainings an engine may change its pace, but what a replica carries does not change threefold
unnoticed: a renamed label that counts two services as one does that, milliseconds read as seconds, a replica
count that is missing. The pair then keeps what it had. If the next trainings find the same again it is how
things are (other accelerators under an old name), and it is taken.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.step_time import Coefficients, request_work

FloatArray = NDArray[np.float64]
MOST_TIMES = 3.0  # more or less than before: no plausible change
SAME_TIMES = 1.5  # two findings that agree
REFUSALS = 2  # trainings in a row before a leap is believed
ISL_TOKENS, OSL_TOKENS = 1000.0, 200.0  # the mix on which two fits are compared


def judged(
    new: FloatArray, old: FloatArray, before: dict[str, Any]
) -> tuple[bool, dict[str, Any] | None]:
    """Return whether to take `new` coefficients (F,) after `old` (F,), and what to note of a leap.

    `before`: the note of the last training, empty where it had none. The note: how many `times` as much as
    before a replica would carry, and how many trainings in a row have been `refused`.
    """
    times = float(_most_rps(new) / _most_rps(old))
    if 1.0 / MOST_TIMES <= times <= MOST_TIMES:
        return True, None
    apart = abs(np.log(times / before["times"])) if before else np.inf
    refused = int(before["refused"]) if apart <= np.log(SAME_TIMES) else 0
    if refused >= REFUSALS:
        return True, None
    return False, {
        "times": float(f"{times:.4g}"),
        "refused": refused + 1,
        "note": f"a replica would carry {times:.3g} times what it did; allowed: {MOST_TIMES:g} times more "
        f"or less, or {REFUSALS + 1} trainings that agree. The fit before it stays",
    }


def _most_rps(columns: FloatArray) -> float:
    c = Coefficients.from_columns(columns)
    work = request_work(c, np.asarray(ISL_TOKENS), np.asarray(OSL_TOKENS))
    return float(1.0 / work.saturation_seconds)

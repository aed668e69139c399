"""The first step after a gap often holds a part of its load only.

Counting began within that step: what came before is lost with the gap. Such a step looks as if the load had
fallen and come back. So it counts as unknown where it is less than HALF of the step before the gap, as long
as no second step says the same. Asked only of gaps with two known steps before them: where every other step
is missing, nothing stands out.
"""

import numpy as np

from models.quantiles import FloatArray

HALF = 0.5


def without_cut_steps(recent: FloatArray) -> FloatArray:
    """Return windows (R, W), newest last, NaN where a step after a gap holds part of its load."""
    known = np.isfinite(recent)
    rows = np.flatnonzero((known[:, 1:] < known[:, :-1]).any(axis=1))  # hardly any has a gap
    if rows.size == 0:
        return recent
    here, seen = recent[rows], known[rows]
    steps = np.arange(recent.shape[1])
    newest = np.maximum.accumulate(np.where(seen, steps, 0), axis=1)  # last known step up to each
    r, at = np.nonzero(seen[:, 2:] & ~seen[:, 1:-1])
    at += 2
    last = newest[r, at - 1]
    after = np.minimum(at + 1, steps[-1])  # of the newest step: itself, which says nothing
    told = (after > at) & seen[r, after]
    least = np.where(told, np.minimum(here[r, last], here[r, after]), here[r, last])
    whole = (last >= 1) & seen[r, last] & seen[r, last - 1]
    part = whole & (here[r, at] < HALF * least)
    if not part.any():
        return recent
    out = recent.copy()
    out[rows[r[part]], at[part]] = np.nan
    return out

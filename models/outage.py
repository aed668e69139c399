"""An outage is not an absence of demand: zeros of a service that nobody could reach are unknown.

Where no replica was ready a count of zero arrivals says something only if the service was at zero because
nobody asked for it. It was not if replicas were starting; and where starts are not told, if requests came
until then and stopped at once.
"""

import numpy as np
from numpy.typing import NDArray

from models.quantiles import FloatArray

NO_REPLICA = 0.01  # mean ready replicas of an interval below which there was none
LEAST_REQUESTS = 5.0  # in the step before, and
LEAST_RATIO = 0.2  # of the hour before's mean: what stops at once from there is no lull
HOUR_SECONDS = 3600.0
Mask = NDArray[np.bool_]


def unreachable(
    requests: FloatArray, ready: FloatArray, starting: FloatArray, step_seconds: float
) -> Mask:
    """Return which steps (T,) of one service say nothing of its demand.

    `requests` (T,) a step; `ready` and `starting` (T,) replicas over all variants, NaN where not told. A step
    with a request in it, or with a ready replica, is left as it is: something counted there.
    """
    dark: Mask = (requests == 0) & (ready < NO_REPLICA)
    wanted: Mask = dark & (starting > 0)
    out = wanted.copy()
    hour = max(1, round(HOUR_SECONDS / step_seconds))
    for begin, end in _runs(dark):
        untold = np.isnan(starting[begin:end]).all()
        if wanted[begin:end].any() or (untold and _stopped(requests[:begin], hour)):
            out[begin:end] = True
    return out


def _stopped(before: FloatArray, hour_steps: int) -> bool:
    """Whether requests came until the end of `before`, and were no last ones of a lull."""
    recent = before[-hour_steps:]
    known = recent[np.isfinite(recent)]
    if before.size == 0 or known.size == 0:
        return False
    return bool(before[-1] >= max(LEAST_REQUESTS, LEAST_RATIO * float(known.mean())))


def _runs(mask: Mask) -> list[tuple[int, int]]:
    """Begin and end of each run of True."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]

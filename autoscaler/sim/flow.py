"""The inner loop of a fluid fleet, compiled: an interval in steps (fluid.py says what they mean)."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@njit(cache=True, nogil=True)  # calls no other kernel: its own file is all it depends on
def flow(
    curve: FloatArray,
    scale: FloatArray,
    levels: FloatArray,
    arrivals: float,
    can_rps: float,
    seconds: float,
    steps: int,
) -> float:
    """Move `levels` (queue, admitted, ended: requests) on by `seconds`; return the mean utilization.

    curve, scale: shape (K,), requests in flight and the utilization that keeps as many.
    """
    span, total = seconds / steps, 0.0
    queue, admitted, ended = levels
    for _ in range(steps):
        flight = admitted - ended
        utilization = np.interp(flight, curve, scale)
        total += utilization
        leave = min(flight, utilization * can_rps * span)
        queue += arrivals / steps
        enter = min(queue, max(0.0, curve[-1] - flight + leave))
        queue -= enter
        admitted += enter
        ended += leave
    levels[0], levels[1], levels[2] = queue, admitted, ended
    return total / steps

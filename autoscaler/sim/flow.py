"""The inner loops of a fluid fleet, compiled: an interval in steps, and what it shows (fluid.py explains)."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


# cache: the kernels call none of another file, so this one is all that they depend on
@njit(cache=True, nogil=True)
def flow(
    curve: FloatArray,
    scale: FloatArray,
    levels: tuple[float, float, float],
    arrivals: float,
    can_rps: float,
    seconds: float,
    steps: int,
) -> tuple[float, float, float]:
    """Move `levels` (queue, admitted, ended: requests) on by `seconds`.

    Returns admitted, ended and the mean utilization. curve, scale: shape (K,), requests in flight and the
    utilization that keeps as many.
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
    return admitted, ended, total / steps


@njit(cache=True, nogil=True)
def row_at(table: FloatArray, loads: FloatArray, utilization: float, size: float) -> FloatArray:
    """Return a row of `table` (2, L, C) between its fleet sizes, at a utilization between its loads (L,)."""
    u = min(max(utilization, loads[0]), loads[-1])
    k = min(np.searchsorted(loads, u, side="right") - 1, len(loads) - 2)
    part = (u - loads[k]) / (loads[k + 1] - loads[k])
    row = np.empty(table.shape[2])
    for c in range(len(row)):
        one = table[0, k, c] + part * (table[0, k + 1, c] - table[0, k, c])
        many = table[1, k, c] + part * (table[1, k + 1, c] - table[1, k, c])
        row[c] = one + size * (many - one)
    return row


@njit(cache=True, nogil=True)
def answered(
    row: FloatArray, levels: FloatArray, wait_seconds: float, ttft_seconds: float
) -> tuple[tuple[float, float, float], tuple[float, float, float], float]:
    """Return p50, p95 and p99 of TTFT, those of TPOT, and the share with a TTFT of up to `ttft_seconds`.

    A row begins with the K quantiles of TTFT, to which the wait is added, and the K of TPOT; levels (K + 2,)
    are theirs, between 0 and 1.
    """
    inner = levels[1:-1]
    ttft, tpot = row[: len(inner)], row[len(inner) : 2 * len(inner)]
    first = (
        wait_seconds + np.interp(0.5, inner, ttft),
        wait_seconds + np.interp(0.95, inner, ttft),
        wait_seconds + np.interp(0.99, inner, ttft),
    )
    token = (
        np.interp(0.5, inner, tpot),
        np.interp(0.95, inner, tpot),
        np.interp(0.99, inner, tpot),
    )
    known = np.empty(len(levels))
    known[0], known[1:-1], known[-1] = 0.0, ttft, 2 * ttft[-1]
    return first, token, np.interp(ttft_seconds - wait_seconds, known, levels)

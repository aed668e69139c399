"""What other controllers would have ordered, minute by minute, and what of it would have been ready.

Arrays have shape (S, T): services and minutes. `lead` (S,) is in minutes. An order is the count of replicas
that exist; it is paid for from then on, and serves after one lead. What is given up goes at once, the
youngest first: so what is ready is the least that was ordered at any time of the last lead.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.hpa import DEFAULT_SCALE_DOWN
from autoscaler.core.outcome import FloatArray

IntArray = NDArray[np.int64]
HPA_TOLERANCE = 0.1  # horizontal-pod-autoscaler-tolerance, the cluster's default
HPA_WINDOW_MINUTES = round(DEFAULT_SCALE_DOWN.stabilization_window_seconds / 60.0)


def held(values: FloatArray) -> FloatArray:
    """Return (..., T) with gaps filled by the value before, those at the beginning by the first one."""
    known = np.isfinite(values)
    at = np.where(known, np.arange(values.shape[-1]), -1)
    at = np.maximum.accumulate(at, axis=-1)
    first = np.argmax(known, axis=-1)[..., np.newaxis]
    filled: FloatArray = np.take_along_axis(values, np.where(at < 0, first, at), axis=-1)
    return filled


def ready_of(orders: FloatArray, lead: IntArray) -> FloatArray:
    """Return what is ready of orders (..., S, T)."""
    return _over(np.minimum, orders, lead, -1)


def clairvoyant(needed: FloatArray, lead: IntArray) -> FloatArray:
    """Return the fewest orders whose ready replicas are never fewer than needed."""
    return _over(np.maximum, needed, lead, 1)


def forecast(needed: FloatArray, required: FloatArray, lead: IntArray) -> FloatArray:
    """Return the orders of who follows the forecast: an order stands until its time has come.

    `required` is what the forecast asks for one lead ahead. Were it always right, these would be the
    clairvoyant's. What the load needs now is not given up.
    """
    return np.maximum(needed, _over(np.maximum, required, lead, -1))


def hpa(wanted: FloatArray, begin: FloatArray, least: FloatArray, most: FloatArray) -> FloatArray:
    """Return the orders of an HPA without `behavior`, of which each replica is to hold its target.

    `wanted` are the replicas, not rounded, that would. It begins with `begin` (S,) and keeps within `least`
    and `most` (S,). Source of the arithmetic: `autoscaler.core.hpa`. Its limit, twice the count at each of
    four looks a minute, is left out.
    """
    counts, advice = np.maximum(begin, 1.0), np.empty_like(wanted)
    orders = np.empty_like(wanted)
    for t in range(wanted.shape[1]):
        ratio = wanted[:, t] / counts
        inside = (ratio >= 1.0 - HPA_TOLERANCE) & (ratio <= 1.0 + HPA_TOLERANCE)
        advice[:, t] = np.where(inside, counts, np.ceil(wanted[:, t]))
        calm = advice[:, max(0, t - HPA_WINDOW_MINUTES) : t + 1].max(axis=1)
        counts = np.clip(calm, np.maximum(least, 1.0), np.maximum(most, 1.0))
        orders[:, t] = counts
    return orders


def _over(
    pick: Callable[[FloatArray, FloatArray], FloatArray],
    values: FloatArray,
    lead: IntArray,
    direction: int,
) -> FloatArray:
    """Return the greatest or least value from each minute to `lead` minutes on; held beyond the ends."""
    minutes = np.arange(values.shape[-1])
    out = values
    for step in range(1, int(lead.max(initial=0)) + 1):
        moved = values[..., np.clip(minutes + direction * step, 0, minutes[-1])]
        out = np.where((step <= lead)[:, np.newaxis], pick(out, moved), out)
    return out

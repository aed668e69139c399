"""Histograms as they arrive (explicit bounds or exponential), and what lies between two of them.

Buckets are sparse: index -> count. Explicit: index i is (bounds[i-1], bounds[i]]. Exponential: index i
is (b^i, b^(i+1)] with b = 2^(2^-scale), and `zero_count` values in [0, zero_threshold]. Merging or
comparing exponential ones first brings both to the coarser scale: index >> (difference).

Source: OpenTelemetry metrics data model, sections Histogram and ExponentialHistogram.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Buckets = dict[tuple[float, float], float]  # (lower, upper] -> how many; upper may be infinite

FINEST_SCALE = 5  # b = 2^(1/32): a bucket's width, and so a quantile's error, is 2.2 % of its value
MAX_EXPONENT = 1000.0  # of 2, before floats overflow


@dataclass(frozen=True, slots=True)
class Histogram:
    """One histogram point. Exactly one of `bounds` (increasing, finite) and `scale` is set."""

    count: float
    total: float  # sum of the values; NaN where the sender left it out
    counts: Mapping[int, float]  # only those above zero
    bounds: tuple[float, ...] | None = None
    scale: int | None = None
    zero_count: float = 0.0
    zero_threshold: float = 0.0


def coarser(histogram: Histogram, scale: int) -> Histogram:
    """Return an exponential histogram at `scale`, which must not be finer than its own."""
    own = histogram.scale
    if own is None or scale > own:
        raise ValueError(f"scale {own} cannot become {scale}; allowed: the same or coarser")
    if scale == own:
        return histogram
    counts: dict[int, float] = {}
    for index, count in histogram.counts.items():
        at = index >> (own - scale)
        counts[at] = counts.get(at, 0.0) + count
    return Histogram(
        histogram.count,
        histogram.total,
        counts,
        scale=scale,
        zero_count=histogram.zero_count,
        zero_threshold=histogram.zero_threshold,
    )


def comparable(previous: Histogram, current: Histogram) -> bool:
    """Whether the two can be subtracted: the same bounds, or both exponential."""
    if current.scale is None:
        return previous.bounds == current.bounds and previous.scale is None
    return previous.scale is not None and previous.zero_threshold == current.zero_threshold


def difference(previous: Histogram, current: Histogram) -> Histogram | None:
    """Return what was added since `previous`; None if something fell: a new process.

    Needs `comparable(previous, current)`.
    """
    if current.scale is not None and previous.scale is not None:
        scale = min(previous.scale, current.scale)
        previous, current = coarser(previous, scale), coarser(current, scale)
    counts = dict(current.counts)
    for index, count in previous.counts.items():
        left = counts.get(index, 0.0) - count
        if left < 0:
            return None
        if left:
            counts[index] = left
        else:
            del counts[index]
    zero = current.zero_count - previous.zero_count
    count = current.count - previous.count
    if zero < 0 or count < 0:
        return None
    total = current.total - previous.total
    return Histogram(
        count,
        total,
        counts,
        bounds=current.bounds,
        scale=current.scale,
        zero_count=zero,
        zero_threshold=current.zero_threshold,
    )


def to_buckets(histogram: Histogram) -> Buckets:
    """Return (lower, upper] -> count, values taken as never negative (latencies, lengths)."""
    if histogram.scale is not None:
        return _exponential_buckets(histogram, histogram.scale)
    bounds = histogram.bounds or ()
    out: Buckets = {}
    for index, count in histogram.counts.items():
        lower = max(bounds[index - 1], 0.0) if index else 0.0
        upper = max(bounds[index], 0.0) if index < len(bounds) else np.inf
        out[lower, upper] = out.get((lower, upper), 0.0) + count
    return out


def bucket_of(value: float) -> tuple[float, float]:
    """Return the exponential bucket of FINEST_SCALE that holds one value >= 0."""
    if value <= 0:
        return 0.0, 0.0
    index = int(np.ceil(np.log2(value) * 2.0**FINEST_SCALE)) - 1
    return _edge(index, FINEST_SCALE), _edge(index + 1, FINEST_SCALE)


def _exponential_buckets(histogram: Histogram, scale: int) -> Buckets:
    if scale > FINEST_SCALE:
        histogram, scale = coarser(histogram, FINEST_SCALE), FINEST_SCALE
    out: Buckets = {
        (_edge(i, scale), _edge(i + 1, scale)): count for i, count in histogram.counts.items()
    }
    if histogram.zero_count > 0:
        out[0.0, histogram.zero_threshold] = histogram.zero_count
    return out


def _edge(index: int, scale: int) -> float:
    return float(2.0 ** (index * 2.0**-scale))

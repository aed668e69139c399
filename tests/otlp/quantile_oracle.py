"""Quantiles of one histogram, bucket by bucket and without arrays: what the fast ones must equal."""

import bisect
import itertools
import math

from models.otlp_histogram import Buckets


def quantile_bucket(buckets: Buckets, q: float) -> tuple[float, float, float]:
    """Return (estimate, lower, upper) of the q-quantile; NaN three times without any value."""
    rows = sorted((low, up, n) for (low, up), n in buckets.items() if n > 0)
    if not rows:
        return (math.nan, math.nan, math.nan)
    edges, cumulative = _distribution(rows)
    return _at(q * cumulative[-1], edges, cumulative)


def _distribution(rows: list[tuple[float, float, float]]) -> tuple[list[float], list[float]]:
    """Return increasing edges and the count up to each; what has no finite bound is at infinity."""
    edges = sorted({e for low, up, _ in rows for e in (low, up)} | {0.0})
    at = {e: i for i, e in enumerate(edges)}
    inside = [0.0] * len(edges)  # count between the edge before and this one
    for low, up, n in rows:
        first, last = at[low], at[up]
        if last - first <= 1 or math.isinf(up):
            inside[last] += n
            continue
        for i in range(first + 1, last + 1):
            inside[i] += n * (edges[i] - edges[i - 1]) / (up - low)
    return edges, list(itertools.accumulate(inside))


def _at(rank: float, edges: list[float], cumulative: list[float]) -> tuple[float, float, float]:
    # counts cut at the borders of bins carry rounding: a rank at an edge belongs to that edge
    slack = 1e-9 * cumulative[-1]
    upper = bisect.bisect_left(cumulative, rank - slack)
    if upper == 0:
        return edges[0], edges[0], edges[0]
    low, up = edges[upper - 1], edges[upper]
    if math.isinf(up):
        return low, low, up
    inside = cumulative[upper] - cumulative[upper - 1]
    share = min(max((rank - cumulative[upper - 1]) / inside, 0.0), 1.0)
    return low + share * (up - low), low, up

"""Quantiles and shares of many histograms at once, from sparse buckets.

The value at a rank lies in its bucket (lower, upper]; values are taken as uniform inside. Overlapping
buckets (replicas with other bounds) are cut at all edges and add up. Beyond the last finite bound the
estimate is that bound: too low, never missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_CELLS = 1 << 22  # of the dense table of counts, at a time
RANK_SLACK = (
    1e-9  # counts cut at the borders of bins carry rounding: a rank at an edge is of that edge
)


@dataclass(frozen=True, slots=True)
class Distributions:
    """m entries: `amounts` values of histogram `of` lie in the bucket `bounds[edges]`.

    of (m,) from 0 to `count` - 1; edges (m,); amounts (m,); bounds (k, 2) lower and upper, lower >= 0.
    """

    count: int
    of: IntArray
    edges: IntArray
    amounts: FloatArray
    bounds: FloatArray


def quantiles(histograms: Distributions, asked: Sequence[float]) -> FloatArray:
    """Return the estimate of each asked quantile, shape (count, Q); NaN without any value."""
    out = np.full((histograms.count, len(asked)), np.nan)
    known = _in_use(histograms)
    if not len(known.of):
        return out
    edges = np.unique(np.append(known.bounds.ravel(), 0.0))
    entry, at, weight = _pieces(known, edges)
    highest = np.zeros(known.count)
    finite = np.where(np.isinf(known.bounds[:, 1]), known.bounds[:, 0], known.bounds[:, 1])
    np.maximum.at(highest, known.of, finite[known.edges])
    step = max(1, MAX_CELLS // len(edges))
    for begin in range(0, known.count, step):
        end = min(begin + step, known.count)
        of = known.of[entry]
        mine = slice(None) if step >= known.count else (of >= begin) & (of < end)
        key = (of[mine] - begin) * len(edges) + at[mine]
        inside = np.bincount(key, weights=weight[mine], minlength=(end - begin) * len(edges))
        cumulative = np.cumsum(inside.reshape(-1, len(edges)), axis=1, dtype=np.float64)
        for q, level in enumerate(asked):
            out[begin:end, q] = _at(level, edges, cumulative, highest[begin:end])
    return out


def shares_within(histograms: Distributions, targets: FloatArray) -> FloatArray:
    """Return the share of each histogram at or below its target (count,): least, most, estimated.

    Shape (count, 3). Least and most differ by what the target's own bucket holds, which the estimate
    takes as uniform; NaN without any value or target.
    """
    known = _in_use(histograms)
    low, up = known.bounds[known.edges].T
    asked = targets[known.of]
    under, over = asked * (1.0 - RANK_SLACK), asked * (1.0 + RANK_SLACK)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = np.clip((asked - low) / (up - low), 0.0, 1.0)  # 0 where there is no upper bound
        most = (low < under) | (up <= over)
        parts = (up <= over, most, np.where(up <= over, 1.0, inside))
        total = np.bincount(known.of, weights=known.amounts, minlength=known.count)
        sums = [
            np.bincount(known.of, weights=known.amounts * p, minlength=known.count) for p in parts
        ]
        shares = np.stack(sums, axis=-1) / total[:, None]
    return np.where((total > 0)[:, None] & np.isfinite(targets)[:, None], shares, np.nan)


def _in_use(histograms: Distributions) -> Distributions:
    """Return the same without empty entries and without bounds that nobody uses."""
    full = histograms.amounts > 0
    used = np.zeros(len(histograms.bounds), dtype=bool)
    edges = histograms.edges[full]
    used[edges] = True
    place = np.cumsum(used) - 1
    return Distributions(
        histograms.count,
        histograms.of[full],
        place[edges],
        histograms.amounts[full].astype(np.float64),
        histograms.bounds[used],
    )


def _pieces(known: Distributions, edges: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Cut entries at all edges: (entry, index of the piece's upper edge, count in it), each (p,)."""
    low, up = (np.searchsorted(edges, column) for column in known.bounds.T)
    whole = (up - low <= 1) | np.isinf(known.bounds[:, 1])
    many = np.where(whole, 1, up - low)[known.edges]
    if (many == 1).all():
        return np.arange(len(known.of)), up[known.edges], known.amounts
    entry = np.repeat(np.arange(len(known.of)), many)
    bucket = known.edges[entry]
    nth = np.arange(len(entry)) - np.repeat(np.cumsum(many) - many, many)
    at = np.where(whole[bucket], up[bucket], low[bucket] + 1 + nth)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (edges[at] - edges[np.maximum(at - 1, 0)]) / (
            known.bounds[bucket, 1] - known.bounds[bucket, 0]
        )
    return entry, at, known.amounts[entry] * np.where(whole[bucket], 1.0, share)


def _at(level: float, edges: FloatArray, cumulative: FloatArray, highest: FloatArray) -> FloatArray:
    """Return the value at the rank of `level`; cumulative (c, E) up to each edge, highest (c,)."""
    total = cumulative[:, -1]
    rank = level * total
    upper = (cumulative < (rank - RANK_SLACK * total)[:, None]).sum(axis=1)
    lower = np.maximum(upper - 1, 0)
    below = np.where(upper > 0, _take(cumulative, lower), 0.0)
    inside = _take(cumulative, upper) - below
    share = np.divide(rank - below, inside, out=np.zeros_like(rank), where=inside > 0)
    share = np.clip(share, 0.0, 1.0)
    top = np.where(np.isinf(edges[upper]), edges[lower], edges[upper])
    value = edges[lower] + share * (top - edges[lower])
    value = np.where(np.isinf(edges[upper]), highest, value)
    return np.where(total > 0, value, np.nan)


def _take(table: FloatArray, column: IntArray) -> FloatArray:
    return np.take_along_axis(table, column[:, None], axis=1)[:, 0]

"""Rows of blocks -> sums by service and variant, interval by interval, all at once.

Bins of one source are summed first, since what a replica was observed for is one stretch of each
interval; then the sources of one service and variant. Everything is arrays: the cost of a row is some
ten additions, whoever sent it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.otlp_block import CODED_SIGNALS, SIGNAL_CODES, Block
from models.otlp_names import ENGINE_SIGNALS, QUANTILE_SIGNALS
from models.otlp_quantiles import Distributions

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

MAX_SPAN = 10_000_000  # of a table by value
UNNAMED = -1  # group of a source that no identity names
GATEWAY = "gateway_arrivals"
GATEWAY_QUEUE = "gateway_queue"
_ENGINE_CODES = frozenset(SIGNAL_CODES[name] for name in ENGINE_SIGNALS)
_QUANTILE_NAMES = frozenset(s.name for s in QUANTILE_SIGNALS)


@dataclass(frozen=True, slots=True)
class Amounts:
    """One signal: shape (G, I), groups x intervals; as in otlp_cells.Amount."""

    present: BoolArray
    total: FloatArray
    count: FloatArray
    change: FloatArray
    starts: FloatArray  # seconds since the epoch; infinite where only moments were seen
    ends: FloatArray


@dataclass(frozen=True, slots=True)
class Sums:
    """Everything that G groups did in I intervals."""

    signals: Mapping[str, Amounts]
    histograms: Mapping[str, Distributions]  # of the signals that are asked for quantiles
    replica_seconds: FloatArray  # (G, I) observed time, added up over replicas
    observed_seconds: FloatArray  # (G, I) from the first to the last moment, over replicas
    first_seen: Mapping[int, float]  # source -> when its engine was first observed


def sums(
    block: Block, intervals: IntArray, shape: tuple[int, int], groups: IntArray, bin_seconds: int
) -> Sums:
    """Sum the rows of a block.

    intervals (n,): index of each row's interval; shape: how many groups and intervals there are;
    groups: by source number, UNNAMED for those left out.
    """
    sources, who = compact(block.sources)
    of_source = groups[sources]
    place = who * shape[1] + intervals  # of (source, interval)
    begin = block.bins * float(bin_seconds)
    seen = _Seen((len(sources), shape[1]))
    signals: dict[str, Amounts] = {}
    histograms: dict[str, Distributions] = {}
    first_entry = np.cumsum(block.sizes) - block.sizes
    for code in np.flatnonzero(np.bincount(block.signals)).tolist():
        rows = np.flatnonzero(block.signals == code)
        starts, ends = seen.add(
            place[rows],
            np.asarray(begin[rows] + block.starts[rows], dtype=np.float64),
            np.asarray(begin[rows] + block.ends[rows], dtype=np.float64),
            engine=code in _ENGINE_CODES,
        )
        rows = rows[of_source[who[rows]] != UNNAMED]
        at = of_source[who[rows]] * shape[1] + intervals[rows]
        name = CODED_SIGNALS[code]
        covered = (starts, ends) if name in (GATEWAY, GATEWAY_QUEUE) else None
        signals[name] = _amounts(block, rows, at, shape, _grouped(covered, of_source, shape))
        if name in _QUANTILE_NAMES:
            histograms[name] = _histograms(block, rows, at, first_entry, shape)
    return Sums(
        signals,
        histograms,
        *seen.by_group(of_source, shape),
        {int(sources[i]): float(t) for i, t in seen.first_engine()},
    )


class _Seen:
    """When each source was observed, by interval: (S, I) tables, infinite where it was not."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.replica_seconds = np.zeros(shape)
        self.engine = (np.full(shape, np.inf), np.full(shape, -np.inf))
        self.other = (np.full(shape, np.inf), np.full(shape, -np.inf))

    def add(
        self, place: IntArray, starts: FloatArray, ends: FloatArray, *, engine: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Add one signal's rows; return its own first and last moment by source and interval."""
        first, last = np.full(self.shape, np.inf), np.full(self.shape, -np.inf)
        known = ~np.isnan(starts)
        np.minimum.at(first.ravel(), place[known], starts[known])
        np.maximum.at(last.ravel(), place[known], ends[known])
        covered = last > first
        if engine:
            np.maximum(self.replica_seconds, last - first, out=self.replica_seconds, where=covered)
        table = self.engine if engine else self.other
        np.minimum(table[0], first, out=table[0], where=covered)
        np.maximum(table[1], last, out=table[1], where=covered)
        return first, last

    def by_group(self, groups: IntArray, shape: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
        """Return replica seconds and observed seconds, each (G, I)."""
        served = np.isfinite(self.engine[0])
        # a source that serves is observed by what it says of serving, and not by its clients
        pair = tuple(np.where(served, e, o) for e, o in zip(self.engine, self.other, strict=True))
        first, last = _grouped((pair[0], pair[1]), groups, shape)
        replicas = np.zeros(shape)
        named = groups != UNNAMED
        np.add.at(replicas, groups[named], self.replica_seconds[named])
        with np.errstate(invalid="ignore"):
            return replicas, np.where(last > first, last - first, 0.0)

    def first_engine(self) -> list[tuple[int, float]]:
        """Return (source index, first moment that its engine was observed)."""
        first = self.engine[0].min(axis=1, initial=np.inf)
        return [(int(i), float(first[i])) for i in np.flatnonzero(np.isfinite(first))]


def compact(values: IntArray) -> tuple[IntArray, IntArray]:
    """Return the different values, sorted, and which of them each is: np.unique without sorting."""
    first = int(values.min()) if len(values) else 0
    span = int(values.max()) - first + 1 if len(values) else 0
    if span > MAX_SPAN:
        unique, place = np.unique(values, return_inverse=True)
        return unique, place.astype(np.int64)
    used = np.zeros(span, dtype=bool)
    used[values - first] = True
    return np.flatnonzero(used) + first, (np.cumsum(used) - 1)[values - first]


def _grouped(
    covered: tuple[FloatArray, FloatArray] | None, groups: IntArray, shape: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Return the first and last moment by group (G, I) from those by source (S, I)."""
    first, last = np.full(shape, np.inf), np.full(shape, -np.inf)
    if covered is not None:
        named = groups != UNNAMED
        np.minimum.at(first, groups[named], covered[0][named])
        np.maximum.at(last, groups[named], covered[1][named])
    return first, last


def _amounts(
    block: Block,
    rows: IntArray,
    at: IntArray,
    shape: tuple[int, int],
    covered: tuple[FloatArray, FloatArray],
) -> Amounts:
    cells = shape[0] * shape[1]
    total, count, change = (
        np.bincount(at, weights=column[rows], minlength=cells).astype(np.float64).reshape(shape)
        for column in (block.totals, block.counts, block.changes)
    )
    present = np.zeros(cells, dtype=bool)
    present[at] = True
    return Amounts(present.reshape(shape), total, count, change, *covered)


def _histograms(
    block: Block, rows: IntArray, at: IntArray, first_entry: IntArray, shape: tuple[int, int]
) -> Distributions:
    sizes = block.sizes[rows]
    entry = np.repeat(first_entry[rows] - (np.cumsum(sizes) - sizes), sizes) + np.arange(
        sizes.sum()
    )
    return Distributions(
        shape[0] * shape[1],
        np.repeat(at, sizes),
        block.edges[entry],
        block.amounts[entry].astype(np.float64),
        block.bounds,
    )

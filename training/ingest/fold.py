"""Numbers of engine processes -> one per (namespace, service, variant): what PromQL's sum and or do.

The definitions are those of `models.contract` (`total`, `quantile`, `serving_pods`); a
test holds both against the same server. Input rows may already be added up by the server.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import Labels
from models.contract_api import Row
from models.contract_queries import LEVELS, Fold, Reading
from models.histograms import quantiles, share_within
from training.ingest.plan import Chunk

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Group = tuple[str, ...]  # values of `Labels.group`; an absent label is the empty text, as in PromQL
COLUMN = "__column__"  # label of a folded row: which column it is of


@dataclass(slots=True)
class Line:
    """A number at every evaluation time of a chunk, shape (steps,), and where there is one."""

    values: FloatArray
    seen: BoolArray


@dataclass(frozen=True, slots=True)
class Folding:
    """How the answers of one reading become rows of columns.

    full_scrapes: in every window, of a pod that is there all through. targets: in seconds, for shares.
    """

    reading: Reading
    labels: Labels
    step_seconds: float
    full_scrapes: int
    targets: tuple[float, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that may come out."""
        what = self.reading.name
        if self.reading.fold is Fold.SCRAPES:
            return "samples", "ready_replicas"
        if self.reading.fold is not Fold.BUCKETS:
            return (what,)
        levels = (f"{what}_{suffix}_seconds" for suffix, _ in LEVELS)
        return (*levels, *(f"{what}_within:{t:g}" for t in self.targets))

    def __call__(self, answers: Sequence[Sequence[Row]], chunk: Chunk) -> list[Row]:
        """Return rows of (group, column): of several aliases the first that a group has.

        answers: rows per alias.
        """
        times = _times(chunk, self.step_seconds)
        merged: dict[tuple[Group, str], Line] = {}
        for rows in answers:
            for key, line in self._columns(rows, times).items():
                before = merged.get(key)
                merged[key] = line if before is None else _first_of(before, line)
        names = self.labels.group
        return [
            Row(
                {**{n: v for n, v in zip(names, group, strict=True) if v}, COLUMN: column},
                times[line.seen],
                line.values[line.seen],
            )
            for (group, column), line in merged.items()
        ]

    def _columns(self, rows: Iterable[Row], times: FloatArray) -> dict[tuple[Group, str], Line]:
        reading, group = self.reading, self.labels.group
        if reading.fold is Fold.BUCKETS:
            cells = _added(_lines(rows, (*group, "le"), times, np.add), len(group) + 1, times)
            return _latency(reading.name, cells, self.targets)
        if reading.fold is Fold.SCRAPES:
            keep = (*group, self.labels.pod, "instance")
            lines = _lines(rows, keep, times, np.fmax)
            return _scrapes(lines, len(group), times, self.full_scrapes)
        keep = (*group, self.labels.pod, "instance", *reading.keep)
        lines = _lines(rows, keep, times, np.fmax)
        mean = reading.fold is Fold.MEAN
        found = _added(lines, len(group), times, mean=mean)
        return {(key, reading.name): line for key, line in found.items()}


def _times(chunk: Chunk, step_seconds: float) -> FloatArray:
    steps = round((chunk.end_seconds - chunk.start_seconds) / step_seconds) + 1
    return chunk.start_seconds + step_seconds * np.arange(steps, dtype=np.float64)


def _first_of(one: Line, other: Line) -> Line:
    return Line(np.where(one.seen, one.values, other.values), one.seen | other.seen)


def _lines(
    rows: Iterable[Row], names: Sequence[str], times: FloatArray, combine: np.ufunc
) -> dict[Group, Line]:
    """Return a line per value of `names`; rows that share them are combined where both have one."""
    out: dict[Group, Line] = {}
    step = times[1] - times[0] if len(times) > 1 else 1.0
    for row in rows:
        key = tuple(row.labels.get(n, "") for n in names)
        at = np.rint((row.times - times[0]) / step).astype(np.int64)
        values = row.values
        line = out.get(key)
        if line is None:
            line = out[key] = Line(np.zeros(len(times)), np.zeros(len(times), dtype=np.bool_))
        else:
            values = np.where(line.seen[at], combine(line.values[at], values), values)
        line.values[at] = values
        line.seen[at] = True
    return out


def _added(
    lines: dict[Group, Line], names: int, times: FloatArray, *, mean: bool = False
) -> dict[Group, Line]:
    """Return the sum (or mean) over lines with the same first `names` labels. NaN stays NaN."""
    out: dict[Group, Line] = {}
    counts: dict[Group, FloatArray] = {}
    zero = np.zeros(len(times))
    for key, line in lines.items():
        group = key[:names]
        total = out.setdefault(
            group, Line(np.zeros(len(times)), np.zeros(len(times), dtype=np.bool_))
        )
        total.values += line.values  # zero where there is none
        total.seen |= line.seen
        if mean:
            counts[group] = counts.get(group, zero) + line.seen
    for group, count in counts.items():
        out[group].values /= np.maximum(count, 1.0)
    return out


def _scrapes(
    pods: dict[Group, Line], names: int, times: FloatArray, full: int
) -> dict[tuple[Group, str], Line]:
    """Return scrapes of the most scraped pod, and the number of pods in whole ones.

    A pod with `full` scrapes, or as many as the most scraped has, is a whole one.
    """
    most: dict[Group, Line] = {}
    for key, line in pods.items():
        own = most.setdefault(
            key[:names], Line(np.zeros(len(times)), np.zeros(len(times), dtype=np.bool_))
        )
        np.maximum(own.values, line.values, out=own.values)
        own.seen |= line.seen
    shares = {
        key: Line(
            np.minimum(line.values / np.clip(most[key[:names]].values, 1.0, full), 1.0), line.seen
        )
        for key, line in pods.items()
    }
    ready = _added(shares, names, times)
    return {(g, "samples"): line for g, line in most.items()} | {
        (g, "ready_replicas"): line for g, line in ready.items()
    }


def _latency(
    what: str, cells: dict[Group, Line], targets: tuple[float, ...]
) -> dict[tuple[Group, str], Line]:
    """Return quantiles, and shares within targets that are bounds; groups of equal bounds at once.

    cells: rates by (group, le). A time at which a bound has no rate is worked out without that bound.
    """
    by_group: dict[Group, dict[float, Line]] = {}
    for key, line in cells.items():
        if key[-1]:
            bounds = by_group.setdefault(key[:-1], {})
            bound = float(key[-1])
            same = bounds.get(
                bound
            )  # 1 and 1.0 are two labels and one bound: pods of two exporters
            bounds[bound] = line if same is None else _sum_of(same, line)
    alike: dict[tuple[float, ...], list[Group]] = {}
    for group, bounds in by_group.items():
        alike.setdefault(tuple(sorted(bounds)), []).append(group)
    out: dict[tuple[Group, str], Line] = {}
    for edges, groups in alike.items():
        own = [[by_group[g][b] for b in edges] for g in groups]
        rates = np.moveaxis(np.array([[x.values for x in lines] for lines in own]), 1, 2)
        seen = np.moveaxis(np.array([[x.seen for x in lines] for lines in own]), 1, 2)
        present: BoolArray = np.any(seen, axis=2)
        for name, numbers in _histogram_columns(what, np.array(edges), rates, seen, targets):
            for i, group in enumerate(groups):
                out[group, name] = Line(numbers[i], present[i])
        for target in targets:  # a share that is not known is no row, as in PromQL
            for group in groups:
                line = out[group, f"{what}_within:{target:g}"]
                line.seen = line.seen & ~np.isnan(line.values)
    return out


def _sum_of(one: Line, other: Line) -> Line:
    return Line(one.values + other.values, one.seen | other.seen)


def _histogram_columns(
    what: str, edges: FloatArray, rates: FloatArray, seen: BoolArray, targets: tuple[float, ...]
) -> Iterator[tuple[str, FloatArray]]:
    """Yield columns (groups, steps) from cumulative rates (groups, steps, bounds)."""
    k = len(edges)
    flat, mask = rates.reshape(-1, k), seen.reshape(-1, k)
    parts = list(_by_pattern(edges, mask))

    def work_out(number: Callable[[FloatArray, FloatArray], FloatArray]) -> FloatArray:
        out = np.full(len(flat), np.nan)
        for pattern, at in parts:
            out[at] = number(edges[pattern], flat[at][:, pattern])
        return out.reshape(rates.shape[:2])

    for suffix, level in LEVELS:
        yield f"{what}_{suffix}_seconds", work_out(lambda b, c, q=level: quantiles(b, c, q))  # type: ignore[misc]
    for target in targets:
        yield f"{what}_within:{target:g}", work_out(lambda b, c, t=target: _share(b, c, t))  # type: ignore[misc]


def _by_pattern(edges: FloatArray, mask: BoolArray) -> Iterator[tuple[BoolArray, BoolArray]]:
    """Yield which bounds are there and at which rows (N,); those that are no histogram are left out."""
    count = mask.sum(axis=1)
    every = count == len(edges)
    patterns = [(np.ones(len(edges), dtype=np.bool_), every)] if every.any() else []
    some = ~every & (count > 0)
    patterns += [(p, some & (mask == p).all(axis=1)) for p in np.unique(mask[some], axis=0)]
    for pattern, at in patterns:
        if pattern.sum() >= 2 and pattern[-1] and np.isposinf(edges[-1]):
            yield pattern, at


def _share(bounds: FloatArray, cumulative: FloatArray, target: float) -> FloatArray:
    """Return the share within a target where nothing lies in its bucket, else NaN: exact or not told."""
    least, most = share_within(bounds, cumulative, target)
    return np.where(np.isclose(least, most, rtol=1e-9, atol=0.0), least, np.nan)

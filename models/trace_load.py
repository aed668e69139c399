"""Requests -> the offered load per service and step, in one pass and bounded memory.

What a complete log says nothing about came not: steps inside a log's span without a request are 0.
What lies outside is unknown and absent. A log's span is, file by file, from the step of its first
row to the step of its last; a service's span is the union over the files that it occurs in, so a
missing file in a series of rotated ones is a gap and not an absence of demand. In a log of windows
an absence shows nothing: only windows that it has are known.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.frames import LOAD_NUMBERS
from models.trace_shapes import TraceError
from models.trace_times import FloatArray

IntArray = NDArray[np.int64]
MAX_CELLS = 10_000_000  # rows of load.parquet: 500 services for two weeks of minutes
MAX_SERVICES = 20_000
STEP_BITS = 33  # steps of at least a second up to the year 2100
COMPACT_ROWS = 1_000_000  # pending rows of sums before equal keys are merged


class SparseSums:
    """Sums by key over many chunks; memory goes with the number of different keys.

    `columns` numbers are summed per key; NaN makes its sum NaN.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._keys: list[IntArray] = []
        self._sums: list[FloatArray] = []
        self._pending = 0

    def __len__(self) -> int:
        """Return how many rows are held; merging makes them fewer."""
        return sum(len(keys) for keys in self._keys)

    def add(self, keys: IntArray, values: FloatArray) -> None:
        """Add values of shape (N, columns) at keys of shape (N,)."""
        if len(keys):
            found, sums = _merge(keys, values)
            self._keys.append(found)
            self._sums.append(sums)
            self._pending += len(found)
            if self._pending > max(COMPACT_ROWS, len(self._keys[0])):  # each key merged log times
                self.total()

    def total(self) -> tuple[IntArray, FloatArray]:
        """Return the keys, ascending, and their sums of shape (K, columns)."""
        if not self._keys:
            return np.empty(0, dtype=np.int64), np.empty((0, self._columns))
        if len(self._keys) > 1:
            keys, sums = _merge(np.concatenate(self._keys), np.concatenate(self._sums))
            self._keys, self._sums, self._pending = [keys], [sums], 0
        return self._keys[0], self._sums[0]


def _merge(keys: IntArray, values: FloatArray) -> tuple[IntArray, FloatArray]:
    found, at = np.unique(keys, return_inverse=True)
    sums = [np.bincount(at, weights=column, minlength=len(found)) for column in values.T]
    return found, np.column_stack(sums)


class Codes:
    """Numbers for names, in the order of their first occurrence."""

    def __init__(self, what: str, limit: int = MAX_SERVICES) -> None:
        self.names: list[str] = []
        self._what = what
        self._limit = limit
        self._code: dict[str, int] = {}

    def of(self, names: NDArray[np.object_], where: str) -> IntArray:
        """Return codes of shape (N,). Raises TraceError beyond the limit."""
        at, different = pd.factorize(names)
        lookup = np.empty(len(different), dtype=np.int64)
        for n, name in enumerate(different):
            if name not in self._code:
                if len(self.names) >= self._limit:
                    raise TraceError(
                        f"{where}: more than {self._limit} {self._what}, the last {str(name)[:80]!r}; "
                        f"allowed: {self._limit} (is it a request's id?)"
                    )
                self._code[name] = len(self.names)
                self.names.append(str(name))
            lookup[n] = self._code[name]
        return lookup[at]


@dataclass(frozen=True, slots=True)
class _Span:
    """What one file covers: steps first to last, both included, and whose requests are in it."""

    first: int
    last: int
    services: frozenset[int]


class LoadCounter:
    """Counts the load of a log. Steps are numbered from the epoch.

    whole_steps: leave out the first and last step of a span, which the log covers in part.
    """

    def __init__(self, step_seconds: float, *, whole_steps: bool = False) -> None:
        self.step_seconds = step_seconds
        self._inset = 1 if whole_steps else 0
        self.services = Codes("services")
        self._sums = SparseSums(len(LOAD_NUMBERS))
        self._gaps = SparseSums(1)
        self._spans: dict[int, _Span] = {}

    def steps(self, seconds: FloatArray) -> IntArray:
        """Return the step that each time falls into, shape (N,)."""
        return np.floor(seconds / self.step_seconds).astype(np.int64)

    def add(
        self,
        file: int,
        code: IntArray,
        seconds: FloatArray,
        amounts: FloatArray,
        gap: "NDArray[np.bool_] | None",
    ) -> None:
        """Add rows of a file: service codes and times of shape (N,), amounts (N, 3) as LOAD_NUMBERS."""
        if not len(code):
            return
        step = self.steps(seconds)
        keys = (code << STEP_BITS) | step
        span = _Span(int(step.min()), int(step.max()), frozenset(np.unique(code).tolist()))
        old = self._spans.get(file, span)
        self._spans[file] = _Span(
            min(old.first, span.first), max(old.last, span.last), old.services | span.services
        )
        if gap is not None and gap.any():
            self._gaps.add(keys[gap], np.ones((int(gap.sum()), 1)))
            keys, amounts = keys[~gap], amounts[~gap]
        self._sums.add(keys, amounts)

    def covered(self, service: int) -> list[tuple[int, int]]:
        """Return the spans of steps that the log covers for a service: disjoint, ascending."""
        spans = sorted((s.first, s.last) for s in self._spans.values() if service in s.services)
        out: list[tuple[int, int]] = []
        for first, last in spans:
            if out and first <= out[-1][1] + 1:
                out[-1] = (out[-1][0], max(out[-1][1], last))
            else:
                out.append((first, last))
        return [
            (first + self._inset, last - self._inset)
            for first, last in out
            if last - first >= 2 * self._inset
        ]

    def frame(self, where: str) -> pd.DataFrame:
        """Return the load frame (models.frames), a row per service and covered step.

        Raises TraceError where the log has no row or spans too much.
        """
        spans = {code: self.covered(code) for code in range(len(self.services.names))}
        cells = sum(last - first + 1 for s in spans.values() for first, last in s)
        if not cells:
            raise TraceError(f"{where}: no whole step with requests; at least one is needed")
        if cells > MAX_CELLS:
            raise TraceError(
                f"{where}: {len(spans)} services over {self._described(spans)} are {cells} rows at a "
                f"step of {self.step_seconds:g} s; allowed: {MAX_CELLS} (a larger --step, or is a "
                "timestamp wrong?)"
            )
        keys = np.concatenate([_keys(c, s) for c, s in spans.items()])
        found, sums = self._sums.total()
        inside = np.isin(found, keys) if self._inset else np.ones(len(found), dtype=bool)
        values = np.zeros((cells, len(LOAD_NUMBERS)))
        values[np.searchsorted(keys, found[inside])] = sums[inside]
        return _tidy(keys, values, self.services.names, self.step_seconds)

    def windows(self, step_seconds: float) -> pd.DataFrame:
        """Return the load frame of a log of windows, each of them one step of this counter.

        A row per service and interval of `step_seconds` (a multiple of a window) all of whose windows
        the log has and none of whose is a gap.
        """
        keys, sums = self._sums.total()
        known = ~np.isin(keys, self._gaps.total()[0])
        keys, sums = keys[known], sums[known]
        parts = round(step_seconds / self.step_seconds)
        code, window = keys >> STEP_BITS, keys & ((1 << STEP_BITS) - 1)
        coarse = SparseSums(len(LOAD_NUMBERS) + 1)
        coarse.add(
            (code << STEP_BITS) | (window // parts), np.column_stack((sums, np.ones(len(keys))))
        )
        found, totals = coarse.total()
        whole = totals[:, -1] == parts
        return _tidy(found[whole], totals[whole, :-1], self.services.names, step_seconds)

    def _described(self, spans: dict[int, list[tuple[int, int]]]) -> str:
        ends = [x for s in spans.values() for span in s for x in span]
        first, last = (
            pd.Timestamp(x * self.step_seconds, unit="s", tz="UTC") for x in (min(ends), max(ends))
        )
        return f"{first:%Y-%m-%dT%H:%MZ} to {last:%Y-%m-%dT%H:%MZ}"


def _keys(code: int, spans: Iterable[tuple[int, int]]) -> IntArray:
    return np.concatenate(
        [(code << STEP_BITS) | np.arange(first, last + 1, dtype=np.int64) for first, last in spans]
    )


def _tidy(
    keys: IntArray, values: FloatArray, services: list[str], step_seconds: float
) -> pd.DataFrame:
    frame = pd.DataFrame(values, columns=list(LOAD_NUMBERS))
    frame.insert(0, "ts", step_starts(keys & ((1 << STEP_BITS) - 1), step_seconds))
    frame.insert(1, "service", np.array(services, dtype=object)[keys >> STEP_BITS])
    return frame


def step_starts(steps: IntArray, step_seconds: float) -> pd.DatetimeIndex:
    """Return the starts of steps that are numbered from the epoch."""
    nanoseconds = np.rint(steps * (step_seconds * 1e9)).astype(np.int64)
    return pd.DatetimeIndex(nanoseconds, tz="UTC")

"""The fold: points and requests in, cells out, within fixed bounds.

Holds the last point of each series and the cells not yet written. Everything that a client can make
grow is counted here and refused beyond its limit: series, sources, buckets, cells. What is known goes on
when something new is refused.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from models.otlp_cells import Cell, bucket_count, merge, shares
from models.otlp_histogram import Histogram, bucket_of
from models.otlp_increments import NS, SeriesState, TimeSpan, advance
from models.otlp_names import (
    QUANTILE_SIGNALS,
    SPAN_ARRIVALS,
    SPAN_FINISHED,
    SPAN_INPUT,
    SPAN_OUTPUT,
    SPAN_TPOT,
    SPAN_TTFT,
    Signal,
)
from models.otlp_points import Point, Refusal, Request, Source, Temporality

DEFAULT_BIN_SECONDS = 30


class FoldFullError(RuntimeError):
    """Too much waits to be written: the client may try again after the next flush."""


@dataclass(frozen=True, slots=True)
class FoldLimits:
    """What may grow, and how far. Worst case about 600 MB; 1,000 services x 2 pods need a tenth."""

    points: int = 100_000  # of one export
    series: int = 50_000
    sources: int = 20_000
    state_buckets: int = 1_000_000  # over all series
    cells: int = 50_000  # not yet flushed
    cell_buckets: int = 2_048  # of one cell: replicas do not differ that much
    pending_buckets: int = 1_000_000  # over all cells not yet flushed
    span_ids: int = 100_000  # remembered, so that a retried export counts once
    late_seconds: float = 3_600.0  # older than this before now: refused
    early_seconds: float = 300.0  # a clock ahead by more than this: refused
    idle_seconds: float = 3_600.0  # a series silent for so long is forgotten


@dataclass(slots=True)
class Series:
    """A series: whose it is, its last point, and what it is called."""

    source: int
    state: SeriesState
    signal: str
    metric: str
    temporality: Temporality


class Fold:
    """Cells of (bin, source number), made of points as they come.

    After `restore` from a store, a restart of the receiver neither loses nor doubles anything. `counts`
    says what became of all points and requests.
    """

    def __init__(
        self, *, bin_seconds: int = DEFAULT_BIN_SECONDS, limits: FoldLimits | None = None
    ) -> None:
        self.bin_seconds = bin_seconds
        self.limits = limits if limits is not None else FoldLimits()
        self.sources: dict[Source, int] = {}
        self.series: dict[bytes, Series] = {}
        self.cells: dict[tuple[int, int], Cell] = {}
        self.touched: set[bytes] = set()  # series that changed since the last `taken`
        self.counts: Counter[str] = Counter()
        self._next_source = 1
        self._seen_ns: dict[int, int] = {}  # by source
        self._restarted_ns: dict[int, int] = {}  # by source
        self._state_buckets = 0
        self.pending_buckets = 0
        self._span_ids: OrderedDict[bytes, None] = OrderedDict()

    def restore(
        self, sources: dict[Source, int], series: dict[bytes, Series], next_source: int
    ) -> None:
        """Continue from what the store holds."""
        self.sources, self.series = sources, series
        self._next_source = next_source
        self._state_buckets = sum(_size(s.state.histogram) for s in series.values())
        self._seen_ns = dict.fromkeys(sources.values(), 0)
        for one in series.values():
            self._seen_ns[one.source] = max(self._seen_ns.get(one.source, 0), one.state.time_ns)

    def add_points(self, points: Iterable[Point | Refusal], now_seconds: float) -> list[str]:
        """Fold the points of one export; return the reasons of those refused.

        Raises FoldFullError before anything of the export is used.
        """
        self._check_room()
        refused: list[str] = []
        kept: list[Point] = []
        for point in points:
            if isinstance(point, Refusal):
                refused.append(point.reason)
            elif len(kept) >= self.limits.points:
                refused.append(f"more than {self.limits.points} points in one export")
            else:
                kept.append(point)
        # counters before gauges: a restart that they show is known when the gauge's change is taken
        kept.sort(key=lambda p: (p.time_ns, p.temporality == "instant"))
        for point in kept:
            reason = self._add_point(point, now_seconds)
            if reason:
                refused.append(reason)
        self.counts["points"] += len(kept)
        self.counts["refused_points"] += len(refused)
        return refused

    def add_requests(self, requests: Iterable[Request | Refusal], now_seconds: float) -> list[str]:
        """Fold the requests of one export of trace spans; as `add_points`."""
        self._check_room()
        refused: list[str] = []
        for request in requests:
            if isinstance(request, Refusal):
                refused.append(request.reason)
                continue
            self.counts["requests"] += 1
            reason = self._add_request(request, now_seconds)
            if reason:
                refused.append(reason)
        self.counts["refused_requests"] += len(refused)
        return refused

    def taken(self) -> None:
        """Forget what was written: the cells and which series changed."""
        self.cells = {}
        self.touched = set()
        self.pending_buckets = 0

    def forget_idle(self, now_seconds: float) -> list[bytes]:
        """Drop series and sources silent for long; return the series. Call right after `taken`."""
        before = int((now_seconds - self.limits.idle_seconds) * NS)
        gone = [key for key, one in self.series.items() if one.state.time_ns < before]
        for key in gone:
            self._drop(key)
        idle = {n for n in self.sources.values() if self._seen_ns.get(n, 0) < before}
        self.sources = {s: n for s, n in self.sources.items() if n not in idle}
        for number in idle:
            self._seen_ns.pop(number, None)
            self._restarted_ns.pop(number, None)
        return gone

    def _check_room(self) -> None:
        full = len(self.cells) > 0.8 * self.limits.cells
        if full or self.pending_buckets > 0.8 * self.limits.pending_buckets:
            self.counts["full"] += 1
            raise FoldFullError("too much is waiting to be written; try again in some seconds")

    def _add_point(self, point: Point, now_seconds: float) -> str:
        """Fold one point; return why not, or nothing."""
        known = self.series.get(point.series)
        reason = self._untimely(point.time_ns, now_seconds) or self._no_room_for(
            point.source, new_series=known is None, histogram=point.histogram
        )
        if reason:
            return reason
        number = self._number_of(point.source, point.time_ns)
        state = known.state if known is not None else None
        step = advance(state, point, self._restarted_ns.get(number, 0))
        if step.late:
            self.counts["late_points"] += 1
            return ""
        if step.span is not None:
            reason = self._add_span(number, point.signal, step.span)
            if reason:
                return reason
        if step.restarted:
            self.counts["restarts"] += 1
            self._restarted_ns[number] = point.time_ns
        self._remember(point, number, step.state)
        return ""

    def _remember(self, point: Point, number: int, state: SeriesState | None) -> None:
        key = point.series
        if key in self.series:
            self._drop(key)
        self.touched.add(key)
        if state is not None:
            self.series[key] = Series(
                number, state, point.signal.name, point.metric, point.temporality
            )
            self._state_buckets += _size(state.histogram)

    def _drop(self, key: bytes) -> None:
        self._state_buckets -= _size(self.series.pop(key).state.histogram)

    def _add_request(self, request: Request, now_seconds: float) -> str:
        reason = self._untimely(request.end_ns, now_seconds) or self._no_room_for(request.source)
        if reason:
            return reason
        if request.span_id and request.span_id in self._span_ids:
            self.counts["late_requests"] += 1
            return ""
        if len(self.cells) + 3 > self.limits.cells:
            return "too many cells wait to be written"
        self._span_ids[request.span_id] = None
        if len(self._span_ids) > self.limits.span_ids:
            self._span_ids.popitem(last=False)
        number = self._number_of(request.source, request.end_ns)
        for signal, span in _moments(request):
            self._add_span(number, signal, span)
        return ""

    def _add_span(self, number: int, signal: Signal, span: TimeSpan) -> str:
        """Add the shares of a span to its cells, all or none; return why not, or nothing."""
        if signal not in QUANTILE_SIGNALS and span.buckets:
            span = replace(span, buckets=None)
        parts = shares(span, self.bin_seconds)
        size = len(span.buckets or ()) * len(parts)
        new = sum((b, number) not in self.cells for b, _ in parts)
        if len(self.cells) + new > self.limits.cells:
            return "too many cells wait to be written"
        if self.pending_buckets + size > self.limits.pending_buckets:
            return "too many buckets wait to be written"
        for b, amount in parts:
            cell = self.cells.get((b, number), {})
            if size and bucket_count(cell) + len(amount.buckets) > self.limits.cell_buckets:
                return f"more than {self.limits.cell_buckets} buckets of one source"
        for b, amount in parts:
            cell = self.cells.setdefault((b, number), {})
            before = bucket_count(cell) if size else 0
            merge(cell, {signal.name: amount})
            self.pending_buckets += bucket_count(cell) - before if size else 0
        return ""

    def _untimely(self, time_ns: int, now_seconds: float) -> str:
        age = now_seconds - time_ns / NS
        if age > self.limits.late_seconds:
            return f"{age:.0f} s old; allowed: up to {self.limits.late_seconds:.0f} s"
        if -age > self.limits.early_seconds:
            return f"{-age:.0f} s in the future; allowed: up to {self.limits.early_seconds:.0f} s"
        return ""

    def _no_room_for(
        self, source: Source, *, new_series: bool = False, histogram: Histogram | None = None
    ) -> str:
        limits = self.limits
        if new_series and len(self.series) >= limits.series:
            return f"too many series; allowed: {limits.series}"
        if source not in self.sources and len(self.sources) >= limits.sources:
            return f"too many sources; allowed: {limits.sources}"
        if self._state_buckets + _size(histogram) > limits.state_buckets:
            return f"too many buckets; allowed: {limits.state_buckets} over all series"
        return ""

    def _number_of(self, source: Source, time_ns: int) -> int:
        number = self.sources.get(source)
        if number is None:
            number = self.sources[source] = self._next_source
            self._next_source += 1
        self._seen_ns[number] = max(self._seen_ns.get(number, 0), time_ns)
        return number


def _moments(request: Request) -> Iterator[tuple[Signal, TimeSpan]]:
    """Yield what a request adds: at its arrival, at its first token and at its end."""
    start, end = request.start_ns, request.end_ns
    yield SPAN_ARRIVALS, TimeSpan(start, start, 1.0)
    yield SPAN_FINISHED, TimeSpan(end, end, 1.0)
    for signal, tokens in (
        (SPAN_INPUT, request.input_tokens),
        (SPAN_OUTPUT, request.output_tokens),
    ):
        if not math.isnan(tokens):
            yield signal, TimeSpan(start, start, tokens, 1.0)
    ttft, tpot = request.ttft_seconds, request.tpot_seconds
    if not math.isnan(ttft):
        first = min(start + int(ttft * NS), end)
        yield SPAN_TTFT, TimeSpan(first, first, ttft, 1.0, 0.0, {bucket_of(ttft): 1.0})
    if not math.isnan(tpot):
        yield SPAN_TPOT, TimeSpan(end, end, tpot, 1.0, 0.0, {bucket_of(tpot): 1.0})


def _size(histogram: Histogram | None) -> int:
    return 0 if histogram is None else len(histogram.counts) + len(histogram.bounds or ())

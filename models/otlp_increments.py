"""Points of one series -> spans of time: temporality, restarts and retries end here.

A counter or histogram gives its increase over (previous point, this point]; a gauge the integral of
its value over the same time, and its change. Whatever comes later needs no knowledge of OTLP.

Source: OpenTelemetry metrics data model, sections Temporality, Resets and Gaps.
"""

import math
from dataclasses import dataclass

from models.otlp_histogram import Buckets, Histogram, comparable, difference, to_buckets
from models.otlp_points import Point

NS = 1_000_000_000
MAX_GAP_NS = 300 * NS  # silence beyond it: nobody knows when the increase happened


@dataclass(frozen=True, slots=True)
class SeriesState:
    """The last point of a series: what the next one is compared with."""

    start_ns: int
    time_ns: int
    value: float
    histogram: Histogram | None


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """What happened in (start_ns, end_ns].

    counter: `total` is the increase. gauge: `total` is value x seconds, `count` the seconds, `change`
    the value now less the value then. histogram: `total` is the sum of values, `count` how many.
    """

    start_ns: int
    end_ns: int
    total: float
    count: float = 0.0
    change: float = 0.0
    buckets: Buckets | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What a point leads to. `state` None: the series ended. `late`: dropped, seen before."""

    state: SeriesState | None
    span: TimeSpan | None = None
    restarted: bool = False  # a new process since the previous point
    late: bool = False


def advance(state: SeriesState | None, point: Point, restarted_ns: int = 0) -> Step:
    """Return the next state of the point's series and the span that the point adds, if any.

    `restarted_ns`: when the source last began anew, as its counters showed: a gauge's change then
    counts from zero.
    """
    if state is not None and point.time_ns <= state.time_ns:
        return Step(state, late=True)
    if point.ended:
        return Step(None)
    after = SeriesState(point.start_ns, point.time_ns, point.value, point.histogram)
    if point.temporality == "instant":
        return Step(after, _gauge_span(state, point, restarted_ns))
    if point.temporality == "delta":
        return _delta(state, point)
    return _cumulative(state, point, after)


def _gauge_span(state: SeriesState | None, point: Point, restarted_ns: int) -> TimeSpan | None:
    if state is None or point.time_ns - state.time_ns > MAX_GAP_NS:
        return None
    before = 0.0 if restarted_ns > state.time_ns else state.value
    seconds = (point.time_ns - state.time_ns) / NS
    mean = 0.5 * (state.value + point.value)
    return TimeSpan(state.time_ns, point.time_ns, mean * seconds, seconds, point.value - before)


def _delta(state: SeriesState | None, point: Point) -> Step:
    # a delta stream needs no memory of values, only of how far it has come
    after = SeriesState(point.start_ns, point.time_ns, math.nan, None)
    start = point.start_ns
    if state is not None:
        start = max(start, state.time_ns)  # an overlap would be counted for the same time twice
    if point.start_ns in (0, point.time_ns):  # no start: it can only follow the point before
        start = state.time_ns if state is not None else point.time_ns
    return Step(after, _span(point, start, point.value, point.histogram))


def _cumulative(state: SeriesState | None, point: Point, after: SeriesState) -> Step:
    if state is None:
        known = 0 < point.start_ns < point.time_ns
        return Step(after, _whole(point, point.start_ns) if known else None)
    if point.start_ns > state.start_ns and point.start_ns >= state.time_ns:
        if point.start_ns == point.time_ns:  # the spec's "unknown start": a baseline
            return Step(after, restarted=True)
        return Step(after, _whole(point, point.start_ns), restarted=True)
    if point.histogram is not None and state.histogram is not None:
        if not comparable(state.histogram, point.histogram):
            return Step(after)
        added = difference(state.histogram, point.histogram)
        if added is None:
            return Step(after, _whole(point, state.time_ns), restarted=True)
        return Step(after, _span(point, state.time_ns, math.nan, added))
    if point.value < state.value:
        return Step(after, _whole(point, state.time_ns), restarted=True)
    return Step(after, _span(point, state.time_ns, point.value - state.value, None))


def _whole(point: Point, start_ns: int) -> TimeSpan | None:
    return _span(point, start_ns, point.value, point.histogram)


def _span(
    point: Point, start_ns: int, value: float, histogram: Histogram | None
) -> TimeSpan | None:
    """Return the span, or None where it covers no time or more than can be placed."""
    if not 0 < point.time_ns - start_ns <= MAX_GAP_NS:
        return None
    if histogram is None:
        return TimeSpan(start_ns, point.time_ns, value)
    return TimeSpan(
        start_ns, point.time_ns, histogram.total, histogram.count, 0.0, to_buckets(histogram)
    )

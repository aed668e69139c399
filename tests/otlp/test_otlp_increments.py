import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from otlp_builders import (
    CUMULATIVE,
    DELTA,
    NS,
    POD,
    counter,
    exponential,
    export,
    fold_all,
    frames_of,
    gauge,
    histogram,
    ns,
)

from models.otlp_increments import advance
from models.otlp_names import IDENTITY_ATTRIBUTES
from models.otlp_points import Point, Refusal, metric_points

SUCCESS = "vllm:request_success_total"


def points(*metrics: Metric) -> list[Point]:
    found = list(metric_points(export(*metrics), IDENTITY_ATTRIBUTES))
    kept = [p for p in found if isinstance(p, Point)]
    assert kept == found
    return kept


def walk(*metrics: Metric) -> list[tuple[float, float, float] | None]:
    """(seconds from, seconds to, total) of the span of each point, None without one."""
    state, out = None, []
    for point in points(*metrics):
        step = advance(state, point)
        state = step.state
        span = step.span
        out.append(
            None
            if span is None
            else ((span.start_ns - ns(0)) / NS, (span.end_ns - ns(0)) / NS, span.total)
        )
    return out


@pytest.mark.parametrize(
    ("steps", "spans"),
    [
        pytest.param(
            # (time, start, value): a process that began at 0
            [(60, 0, 5), (120, 0, 8)],
            [(0, 60, 5), (60, 120, 3)],
            id="counts from its start",
        ),
        pytest.param([(60, 60, 500), (120, 60, 503)], [None, (60, 120, 3)], id="start unknown"),
        pytest.param([(60, None, 500), (120, None, 503)], [None, (60, 120, 3)], id="no start"),
        pytest.param(
            [(9000, 0, 500), (9060, 0, 503)], [None, (9000, 9060, 3)], id="began long ago"
        ),
        pytest.param(
            # restarted at 70: 2 requests since then
            [(60, 0, 5), (120, 70, 2)],
            [(0, 60, 5), (70, 120, 2)],
            id="restart told by the start",
        ),
        pytest.param(
            # more than before, but another process: not 4, all 9
            [(60, 0, 5), (120, 70, 9)],
            [(0, 60, 5), (70, 120, 9)],
            id="restart hidden by a higher value",
        ),
        pytest.param(
            [(60, None, 5), (120, None, 2)], [None, (60, 120, 2)], id="restart told by the fall"
        ),
        pytest.param(
            [(60, 0, 5), (120, 120, 7), (180, 120, 8)],
            [(0, 60, 5), None, (120, 180, 1)],
            id="restart with a new baseline",
        ),
        pytest.param(
            [(60, 0, 5), (60, 0, 5), (50, 0, 4), (120, 0, 8)],
            [(0, 60, 5), None, None, (60, 120, 3)],
            id="retried and out of order",
        ),
        pytest.param([(60, 0, 5), (900, 0, 50)], [(0, 60, 5), None], id="silence"),
    ],
)
def test_cumulative(steps: list[Any], spans: list[Any]) -> None:
    assert walk(*(counter(SUCCESS, v, at, start) for at, start, v in steps)) == spans


@pytest.mark.parametrize(
    ("steps", "spans"),
    [
        pytest.param([(60, 0, 5), (120, 60, 3)], [(0, 60, 5), (60, 120, 3)], id="in a row"),
        pytest.param([(60, 0, 5), (60, 0, 5)], [(0, 60, 5), None], id="retried"),
        pytest.param([(60, 0, 5), (240, 180, 3)], [(0, 60, 5), (180, 240, 3)], id="one lost"),
        pytest.param([(60, None, 5), (120, None, 3)], [None, (60, 120, 3)], id="no start"),
    ],
)
def test_delta(steps: list[Any], spans: list[Any]) -> None:
    metrics = (counter(SUCCESS, v, at, start, temporality=DELTA) for at, start, v in steps)
    assert walk(*metrics) == spans


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.integers(1, 100))
def test_delta_and_cumulative_say_the_same(increases: list[int], every_seconds: int) -> None:
    total, delta, cumulative = 0, [], []
    for i, more in enumerate(increases):
        total += more
        start, at = i * every_seconds, (i + 1) * every_seconds
        delta.append(export(counter(SUCCESS, more, at, start, temporality=DELTA)))
        cumulative.append(export(counter(SUCCESS, total, at, 0, temporality=CUMULATIVE)))
    one, other = fold_all(*delta), fold_all(*cumulative)
    assert one.cells == other.cells
    seen = math.fsum(cell["success"].total for cell in one.cells.values())
    assert seen == pytest.approx(total)


def test_delta_and_cumulative_histograms_say_the_same() -> None:
    early, late = [0.05, 0.3, 0.3, 0.7], [0.3, 3.0, 9.0]
    name = "gen_ai.server.time_to_first_token"
    delta = fold_all(
        export(histogram(name, early, 60, 0, temporality=DELTA)),
        export(histogram(name, late, 120, 60, temporality=DELTA)),
    )
    cumulative = fold_all(
        export(histogram(name, early, 60, 0)), export(histogram(name, early + late, 120, 0))
    )
    one, other = frames_of(delta).serving, frames_of(cumulative).serving
    assert len(one) == 2
    columns = ["ttft_p50_seconds", "ttft_p95_seconds", "ready_replicas"]
    assert one[columns].to_numpy() == pytest.approx(other[columns].to_numpy())
    # median of the first minute: rank 2 of 4, the first half of the two in (0.1, 0.5]
    assert one.ttft_p50_seconds.iloc[0] == pytest.approx(0.1 + 0.4 * 0.5)
    assert one.ttft_p95_seconds.iloc[1] == 5.0  # 9 s lies beyond the last bound


def test_a_gauge_gives_its_integral_and_its_change() -> None:
    first, second = points(
        gauge("vllm:num_requests_running", 2.0, 0), gauge("vllm:num_requests_running", 6.0, 30)
    )
    state = advance(None, first).state
    span = advance(state, second).span
    assert span is not None
    # mean of 2 and 6 over 30 s
    assert (span.total, span.count, span.change) == (120.0, 30.0, 4.0)
    restarted = advance(state, second, restarted_ns=ns(10)).span
    assert restarted is not None
    assert restarted.change == 6.0  # the new process began empty


def test_an_ended_series_is_forgotten() -> None:
    (first,), after = (
        points(gauge("vllm:num_requests_running", 2.0, 0)),
        gauge("vllm:num_requests_running", 0.0, 30),
    )
    after.gauge.data_points[0].flags = 1
    (second,) = points(after)
    assert advance(advance(None, first).state, second).state is None


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (gauge("vllm:num_requests_running", math.nan, 0), "finite number"),
        (gauge("vllm:num_requests_running", math.inf, 0), "finite number"),
        (gauge("vllm:kv_cache_usage_perc", 45.0, 0), "ratio from 0 to 1"),
        (gauge(SUCCESS, 5, 0), "allowed: sum"),
        (counter(SUCCESS, 1, 60, 0, temporality=0), "temporality"),
        (counter(SUCCESS, -1, 60, 0), ">= 0"),
        (histogram("vllm:time_to_first_token_seconds", [1], 60, 0, bounds=[2, 1]), "increasing"),
        (histogram("vllm:time_to_first_token_seconds", [1], 60, 0, unit="furlongs"), "furlongs"),
        (exponential("gen_ai.server.time_to_first_token", [1], 60, 0, scale=40, offset=0), "scale"),
        (
            exponential("gen_ai.server.time_to_first_token", [1], 9, 0, scale=0, offset=4000),
            "2^1000",
        ),
        (
            exponential("gen_ai.server.time_to_first_token", [1] * 999, 9, 0, scale=9, offset=0),
            "512",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(metric: Metric, says: str) -> None:
    (found,) = metric_points(export(metric), IDENTITY_ATTRIBUTES)
    assert isinstance(found, Refusal)
    assert says in found.reason


def test_milliseconds_become_seconds() -> None:
    (point,) = points(
        histogram("gen_ai.server.time_to_first_token", [250], 60, 0, bounds=[100, 500], unit="ms")
    )
    assert point.histogram is not None
    assert point.histogram.bounds == (0.1, 0.5)
    assert point.histogram.total == 0.25


def test_metrics_that_no_column_needs_are_passed_over() -> None:
    assert points(gauge("python_gc_objects", 1.0, 0)) == []


def test_the_series_differ_by_every_attribute_the_source_only_by_identity() -> None:
    one, other = points(
        counter(SUCCESS, 1, 60, 0, labels={"finished_reason": "stop", "engine": "0"}),
        counter(SUCCESS, 1, 60, 0, labels={"finished_reason": "length", "engine": "0"}),
    )
    assert one.series != other.series
    assert one.source == other.source == tuple(sorted(POD.items()))

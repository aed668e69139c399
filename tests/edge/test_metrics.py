import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Event, Thread
from typing import Any

import pytest
from builders import NOW, SERVICE, policies, policy, seen, variant
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from autoscaler.core.accounts import Account
from autoscaler.core.outcome import Decisions, ServiceDecision
from autoscaler.core.types import Observation, Policies, Reason, ServiceObservation
from autoscaler.edge.decisions import decisions_to_dict
from autoscaler.edge.forecast_memory import MOST_REMEMBERED, ForecastMemory, PastForecast
from autoscaler.edge.metrics import OperatorMetrics

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
INTERVAL = 15.0


@dataclass(frozen=True)
class FakeStep:
    observation: Observation
    decisions: Decisions
    accounts: Mapping[str, Account] = field(default_factory=dict)


def decision(**changes: Any) -> ServiceDecision:
    made = ServiceDecision(
        variants={"h100": 4},
        reason=Reason.FORECAST,
        detail="",
        horizon_seconds=30.0,
        quantile=0.9,
        forecast_arrival_rate_rps=12.0,
        forecast_median_rps=10.0,
        forecast_upper_rps=13.0,
        required_replicas=4,
        needed_replicas=3.0,
        attainment_target_ratio=0.99,
        predicted_attainment_ratio=0.995,
        predicted_ttft_p95_seconds=0.5,
        predicted_tpot_p95_seconds=math.nan,
        error_budget_left_ratio=0.75,
        shortfall_ratio=0.0,
        cost_usd_per_hour=16.0,
        trusted=True,
    )
    return replace(made, **changes)


def step(
    tick: int = 0,
    rate_rps: float = 9.0,
    decided: ServiceDecision | None = None,
    service: str = SERVICE,
    **variant_changes: Any,
) -> FakeStep:
    now = NOW + tick * INTERVAL
    observed = ServiceObservation(rate_rps, 1000.0, 100.0, {"h100": seen(3, **variant_changes)})
    observation = Observation(now, INTERVAL, {service: observed}, {})
    chosen = decision() if decided is None else decided
    return FakeStep(observation, Decisions(now, {service: chosen}, "optimal"))


@pytest.mark.parametrize(
    ("status", "gap_ratio", "told"),
    [
        ("separable", 0.0, {}),
        ("optimal", 2e-5, {}),
        ("incumbent", 0.0123, {"plan_gap_ratio": 0.0123}),
        ("greedy", math.nan, {"plan_gap_ratio": None}),
    ],
)
def test_a_plan_that_is_not_proven_tells_its_gap(
    status: str, gap_ratio: float, told: dict[str, float | None]
) -> None:
    made = replace(step(), decisions=Decisions(NOW, {}, status, gap_ratio))
    shown = decisions_to_dict(made.decisions)
    assert {k: v for k, v in shown.items() if k == "plan_gap_ratio"} == told
    metrics = OperatorMetrics("1")
    metrics.observe_step(made, policies(policy()))
    assert value(metrics, "plans_total", status=status) == 1
    assert value(metrics, "plan_gap_ratio") == pytest.approx(gap_ratio, nan_ok=True)
    others = {"separable", "optimal", "incumbent", "greedy"} - {status}
    assert {value(metrics, "plans_total", status=s) for s in others} == {0}


def samples(metrics: OperatorMetrics) -> Samples:
    text = metrics.render()[0].decode()
    return {
        (s.name, frozenset(s.labels.items())): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def value(metrics: OperatorMetrics, name: str, **labels: str) -> float:
    """The value of a series; NaN if it does not exist."""
    return samples(metrics).get((f"foreserve_{name}", frozenset(labels.items())), math.nan)


def fed(*steps: FakeStep, of: Policies | None = None) -> OperatorMetrics:
    metrics = OperatorMetrics("9.9")
    for each in steps:
        metrics.observe_step(each, policies(policy()) if of is None else of)
    return metrics


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("desired_replicas", {"variant": "h100"}, 4),
        ("ready_replicas", {"variant": "h100"}, 3),
        ("starting_replicas", {"variant": "h100"}, 0),
        ("scale_replicas", {"variant": "h100"}, 3),
        ("required_replicas", {}, 4),
        ("horizon_seconds", {}, 30),
        ("forecast_arrival_rate_rps", {"quantile": "0.5"}, 10),
        ("forecast_arrival_rate_rps", {"quantile": "0.95"}, 13),
        ("arrival_rate_rps", {}, 9),
        ("cost_usd_per_hour", {}, 16),
        ("error_budget_left_ratio", {}, 0.75),
        ("predicted_attainment_ratio", {}, 0.995),
        ("shortfall_ratio", {}, 0),
        ("model_trusted", {}, 1),
        ("telemetry_staleness_seconds", {}, 0),
        ("decisions_total", {"reason": "forecast"}, 1),
    ],
)
def test_a_step_is_shown(name: str, labels: dict[str, str], expected: float) -> None:
    assert value(fed(step()), name, service=SERVICE, **labels) == expected


def test_what_is_unknown_has_no_series() -> None:
    metrics = fed(step(rate_rps=math.nan, decided=decision(forecast_median_rps=math.nan)))
    assert math.isnan(value(metrics, "predicted_tpot_p95_seconds", service=SERVICE))
    assert math.isnan(value(metrics, "arrival_rate_rps", service=SERVICE))
    assert math.isnan(value(metrics, "forecast_arrival_rate_rps", service=SERVICE, quantile="0.5"))
    assert "NaN" not in metrics.render()[0].decode()


def test_the_series_of_a_deleted_policy_end() -> None:
    metrics = fed(step(0), step(1))
    metrics.observe_step(step(2), Policies({}, ()))
    left = [labels for _, labels in samples(metrics) if "service" in dict(labels)]
    assert left == []


def test_a_variant_that_was_taken_out_ends_too() -> None:
    two = decision(variants={"h100": 4, "l40s": 2})
    metrics = fed(step(0, decided=two))
    assert value(metrics, "desired_replicas", service=SERVICE, variant="l40s") == 2
    metrics.observe_step(step(1), policies(policy()))
    assert math.isnan(value(metrics, "desired_replicas", service=SERVICE, variant="l40s"))


def test_decisions_are_counted_by_reason() -> None:
    metrics = fed(step(0), step(1), step(2, decided=decision(reason=Reason.STALE_TELEMETRY)))
    assert value(metrics, "decisions_total", service=SERVICE, reason="forecast") == 2
    assert value(metrics, "decisions_total", service=SERVICE, reason="stale-telemetry") == 1


def test_staleness_grows_while_nothing_is_measured() -> None:
    metrics = fed(step(0), step(1, rate_rps=math.nan), step(2, rate_rps=math.nan))
    assert value(metrics, "telemetry_staleness_seconds", service=SERVICE) == 30.0
    assert value(metrics, "last_tick_timestamp_seconds") == NOW + 30.0


def test_never_measured_is_infinitely_stale() -> None:
    metrics = fed(step(rate_rps=math.nan))
    assert value(metrics, "telemetry_staleness_seconds", service=SERVICE) == math.inf


def test_the_forecast_that_comes_due_stands_beside_the_actual() -> None:
    # Two ticks of 15 s ahead, 10 rps was the median and 13 the upper edge.
    metrics = fed(step(0), step(1), step(2, rate_rps=9.0))
    due = {q: value(metrics, "forecast_due_arrival_rate_rps", service=SERVICE, quantile=q)
           for q in ("0.5", "0.95")}  # fmt: skip
    assert due == {"0.5": 10.0, "0.95": 13.0}
    assert value(metrics, "forecast_error_rps", service=SERVICE) == -1.0
    assert value(metrics, "forecasts_checked_total", service=SERVICE) == 1
    assert value(metrics, "forecasts_exceeded_total", service=SERVICE) == 0
    metrics.observe_step(step(3, rate_rps=13.5), policies(policy()))
    assert value(metrics, "forecast_error_rps", service=SERVICE) == 3.5
    assert value(metrics, "forecasts_checked_total", service=SERVICE) == 2
    assert value(metrics, "forecasts_exceeded_total", service=SERVICE) == 1


def test_a_forecast_that_nothing_was_measured_against_is_not_checked() -> None:
    metrics = fed(step(0), step(1), step(2, rate_rps=math.nan))
    assert value(metrics, "forecasts_checked_total", service=SERVICE) == 0
    assert math.isnan(value(metrics, "forecast_error_rps", service=SERVICE))


def test_requests_within_the_slo() -> None:
    # 200 requests of which 95 % met the SLO, then 100 of which all did: 10 of 300 missed.
    metrics = fed(
        step(0, finished_requests=200.0, slo_attainment_ratio=0.95),
        step(1, finished_requests=100.0, slo_attainment_ratio=1.0),
    )
    assert value(metrics, "finished_requests_total", service=SERVICE) == 300
    assert value(metrics, "missed_requests_total", service=SERVICE) == pytest.approx(10)
    assert value(metrics, "slo_attainment_ratio", service=SERVICE) == 1.0


def test_the_process_itself() -> None:
    metrics = OperatorMetrics("9.9")
    assert value(metrics, "leader") == 0
    metrics.set_leader(held=True)
    metrics.set_model("g1")
    metrics.set_model("g2")
    metrics.count_write("scale", "ok")
    metrics.count_write("scale", "conflict")
    metrics.count_write("scale", "ok")
    metrics.count_api_error("update", "deployments/scale", "403")
    metrics.observe_phase("decide", 0.2)
    assert value(metrics, "leader") == 1
    assert math.isnan(value(metrics, "model_info", generation="g1"))
    assert value(metrics, "model_info", generation="g2") == 1
    assert value(metrics, "writes_total", what="scale", result="ok") == 2
    assert value(metrics, "writes_total", what="scale", result="conflict") == 1
    labels = {"verb": "update", "resource": "deployments/scale", "code": "403"}
    assert value(metrics, "api_errors_total", **labels) == 1
    assert value(metrics, "tick_duration_seconds_count", phase="decide") == 1
    assert value(metrics, "tick_duration_seconds_bucket", phase="decide", le="0.1") == 0
    assert value(metrics, "tick_duration_seconds_bucket", phase="decide", le="0.25") == 1
    assert value(metrics, "tick_duration_seconds_count", phase="collect") == 0
    assert value(metrics, "build_info", version="9.9") == 1


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: collect, decide, actuate"):
        OperatorMetrics("1").observe_phase("think", 1.0)


def test_two_operators_share_nothing() -> None:
    one, other = OperatorMetrics("1"), OperatorMetrics("2")
    one.set_leader(held=True)
    assert value(other, "leader") == 0


def test_openmetrics_where_it_is_asked_for() -> None:
    body, kind = fed(step()).render("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    names = {family.name for family in openmetrics(body.decode())}
    assert "foreserve_decisions" in names


def test_200_policies_and_a_scraper_that_never_stops() -> None:
    """A tick's share stays small, and every scrape is of one moment: all services or none."""
    many = policies(
        *(policy(service=f"prod/s{i}", variants=(variant(), variant("l40s"))) for i in range(200))
    )
    seen_by_name = {
        name: ServiceObservation(9.0, 1.0, 1.0, {"h100": seen(3), "l40s": seen(1)})
        for name in many.services
    }
    decided = {name: decision(variants={"h100": 4, "l40s": 1}) for name in many.services}
    metrics = OperatorMetrics("1")
    stop, counts = Event(), set[int]()

    def scrape() -> None:
        while not stop.is_set():
            body = metrics.render()[0].decode()
            counts.add(body.count("\nforeserve_required_replicas{"))

    scraper = Thread(target=scrape)
    scraper.start()
    begin = time.thread_time()
    for tick in range(20):
        now = NOW + tick * INTERVAL
        observation = Observation(now, INTERVAL, seen_by_name, {})
        metrics.observe_step(FakeStep(observation, Decisions(now, decided, "")), many)
    spent = (time.thread_time() - begin) / 20
    stop.set()
    scraper.join()
    counts.add(metrics.render()[0].decode().count("\nforeserve_required_replicas{"))
    assert counts <= {0, 200}
    assert 200 in counts
    assert spent < 0.1  # processor seconds a tick; 0.002 measured


def test_memory_takes_the_forecast_of_this_interval_made_last() -> None:
    memory = ForecastMemory()
    memory.remember(PastForecast(100.0, 1.0, 2.0))
    memory.remember(PastForecast(95.0, 3.0, 4.0))  # the horizon became shorter: made later
    assert memory.due(90.0, 15.0) is None
    assert memory.due(105.0, 15.0) == PastForecast(95.0, 3.0, 4.0)
    assert memory.due(105.0, 15.0) is None


def test_memory_keeps_nothing_of_a_gap() -> None:
    memory = ForecastMemory()
    memory.remember(PastForecast(100.0, 1.0, 2.0))
    assert memory.due(1000.0, 15.0) is None
    assert memory.due(100.0, 15.0) is None


@given(
    st.lists(st.tuples(st.floats(1, 900), st.floats(0, 100)), min_size=1, max_size=80),
    st.floats(1, 60),
)
def test_memory_answers_only_with_forecasts_for_the_interval(
    made: list[tuple[float, float]], interval: float
) -> None:
    memory, now = ForecastMemory(), 0.0
    for horizon, rate in made:
        now += interval
        due = memory.due(now, interval)
        assert due is None or now - interval < due.for_seconds <= now
        memory.remember(PastForecast(now + horizon, rate, rate))


def test_memory_is_bounded() -> None:
    memory = ForecastMemory()
    for i in range(MOST_REMEMBERED + 10):
        memory.remember(PastForecast(1e6 + i, float(i), float(i)))
    assert memory.due(1e6 + 5, 1e6) is None  # the oldest ten went
    assert memory.due(1e6 + 20, 15.0) == PastForecast(1e6 + 20, 20.0, 20.0)

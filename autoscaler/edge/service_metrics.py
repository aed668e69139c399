"""What is shown of services: their last tick, and totals since they were first seen.

Gauges and counters are made when Prometheus asks, so a series ends when its policy does. What is unknown
has no series; it is never shown as zero.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from autoscaler.core import budget
from autoscaler.core.accounts import Account
from autoscaler.core.assess import UPPER
from autoscaler.core.outcome import Decisions, ServiceDecision
from autoscaler.core.types import Observation, Policies, Policy, ServiceObservation
from autoscaler.edge.account_metrics import account_families
from autoscaler.edge.fleet_metrics import LastTick, fleet_families
from autoscaler.edge.forecast_memory import ForecastMemory, PastForecast

MEDIAN = 0.5
QUANTILE_NAMES = {MEDIAN: f"{MEDIAN:g}", UPPER: f"{UPPER:g}"}

PER_SERVICE: dict[str, str] = {
    "horizon_seconds": "How far ahead the last decision looked.",
    "required_replicas": "Replicas that the forecast asks for, before limits, of the mix chosen.",
    "needed_replicas": "Replicas that the load measured now needs within the SLO, of the mix chosen.",
    "attainment_target_ratio": "Share of requests within the SLO that the last plan aimed at.",
    "predicted_attainment_ratio": "Share of requests within the SLO that the last plan expects.",
    "predicted_ttft_p95_seconds": "Time to first token (p95) that the last plan expects.",
    "predicted_tpot_p95_seconds": "Time per output token (p95) that the last plan expects.",
    "error_budget_left_ratio": "Share of the SLO window's error budget left; negative: overspent.",
    "shortfall_ratio": "Share of the requirement that fits no accelerator, quota or budget.",
    "cost_usd_per_hour": "Price of the desired replicas.",
}  # fields of ServiceDecision, exported under their own names


@dataclass(slots=True)
class _Service:
    """What is shown of one service: the last tick's values, and totals since it was first seen."""

    decision: ServiceDecision | None = None
    observed: ServiceObservation | None = None
    attained_ratio: float = math.nan  # of the last interval
    last_telemetry_seconds: float = -math.inf
    decisions: dict[str, int] = field(default_factory=dict)  # by reason
    finished_requests: float = 0.0
    missed_requests: float = 0.0
    account: Account | None = None  # of the last closed hour
    forecasts: ForecastMemory = field(default_factory=ForecastMemory)
    past: PastForecast | None = None  # what was forecast for the last interval
    forecasts_checked: int = 0
    forecasts_exceeded: int = 0


class ServiceMetrics(Collector):
    """The series of services, made when asked for."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._now = math.nan
        self._known: dict[str, _Service] = {}
        self._last: LastTick | None = None

    def observe(
        self,
        observation: Observation,
        decisions: Decisions,
        policies: Policies,
        accounts: Mapping[str, Account],
    ) -> None:
        """Take in a tick. `policies`: all that exist; a service that is not among them disappears.

        `accounts`: those of the hour that it closed.
        """
        with self._lock:
            self._now = observation.now_seconds
            known = {name: self._known.get(name, _Service()) for name in policies.services}
            for name, policy in policies.services.items():
                _take_in(known[name], policy, observation, decisions.services.get(name))
                known[name].account = accounts.get(name, known[name].account)
            self._known = known
            self._last = LastTick(policies, observation, decisions)

    def collect(self) -> list[Metric]:
        """Return all families, of one moment: a tick cannot fall in between, nor wait for a scraper."""
        with self._lock:
            return [
                _last_tick(self._now),
                *_replica_families(self._known),
                *_decision_families(self._known),
                *_telemetry_families(self._known, self._now),
                *_forecast_families(self._known),
                *account_families(_accounts(self._known)),
                *fleet_families(self._last),
            ]


def _last_tick(now: float) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "foreserve_last_tick_timestamp_seconds", "Time (epoch) that the last tick decided for."
    )
    if not math.isnan(now):
        family.add_metric([], now)
    return family


def _take_in(
    service: _Service, policy: Policy, observation: Observation, decision: ServiceDecision | None
) -> None:
    now, seen = observation.now_seconds, observation.services.get(policy.service)
    service.observed, service.decision = seen, decision
    service.attained_ratio = math.nan
    service.past = service.forecasts.due(now, observation.interval_seconds)
    if seen is not None and math.isfinite(seen.arrival_rate_rps):
        service.last_telemetry_seconds = now
        _check_forecast(service, seen.arrival_rate_rps)
        _count_requests(service, policy, seen)
    if decision is None:
        return
    reason = decision.reason.value
    service.decisions[reason] = service.decisions.get(reason, 0) + 1
    if math.isfinite(decision.forecast_median_rps) and math.isfinite(decision.horizon_seconds):
        service.forecasts.remember(
            PastForecast(
                now + decision.horizon_seconds,
                decision.forecast_median_rps,
                decision.forecast_upper_rps,
            )
        )


def _check_forecast(service: _Service, arrival_rate_rps: float) -> None:
    if service.past is not None:
        service.forecasts_checked += 1
        service.forecasts_exceeded += arrival_rate_rps > service.past.upper_rps


def _count_requests(service: _Service, policy: Policy, seen: ServiceObservation) -> None:
    finished, attained = budget.observed_attainment(seen, policy.targets)
    if math.isfinite(finished) and math.isfinite(attained):
        service.attained_ratio = attained
        service.finished_requests += finished
        service.missed_requests += finished * (1.0 - attained)


def _replica_families(known: Mapping[str, _Service]) -> Iterator[Metric]:
    labels = ["service", "variant"]
    desired = GaugeMetricFamily(
        "foreserve_desired_replicas", "Replicas that the last decision wants.", labels=labels
    )
    for name, s in known.items():
        for variant, n in ({} if s.decision is None else s.decision.variants).items():
            desired.add_metric([name, variant], n)
    yield desired
    for key, attribute, text in (
        ("scale_replicas", "desired", "Replicas that the workload is set to."),
        ("ready_replicas", "ready", "Replicas that are ready."),
        ("starting_replicas", "starting", "Replicas that exist and are not ready yet."),
        ("draining_replicas", "draining", "Replicas that end and may still serve."),
    ):
        family = GaugeMetricFamily(f"foreserve_{key}", text, labels=labels)
        for name, s in known.items():
            for variant, seen in ({} if s.observed is None else s.observed.variants).items():
                family.add_metric([name, variant], getattr(seen, attribute))
        yield family


def _decision_families(known: Mapping[str, _Service]) -> Iterator[Metric]:
    decided = {n: s.decision for n, s in known.items() if s.decision is not None}
    for key, text in PER_SERVICE.items():
        yield _by_service(
            f"foreserve_{key}", text, {n: getattr(d, key) for n, d in decided.items()}
        )
    yield _by_service(
        "foreserve_model_trusted",
        "1 if the load model proved better than simple rules for this service.",
        {n: float(d.trusted) for n, d in decided.items()},
    )
    counts = CounterMetricFamily(
        "foreserve_decisions", "Decisions by their reason.", labels=["service", "reason"]
    )
    for name, s in known.items():
        for reason, n in s.decisions.items():
            counts.add_metric([name, reason], n)
    yield counts


def _telemetry_families(known: Mapping[str, _Service], now: float) -> Iterator[Metric]:
    yield _by_service(
        "foreserve_telemetry_staleness_seconds",
        "Seconds, at the last tick, since load was last measured; +Inf: never.",
        {n: now - s.last_telemetry_seconds for n, s in known.items()},
    )
    seen = {n: s.observed for n, s in known.items() if s.observed is not None}
    rates = {n: o.arrival_rate_rps for n, o in seen.items()}
    yield _by_service("foreserve_arrival_rate_rps", "Measured load.", rates)
    yield _by_service(
        "foreserve_slo_attainment_ratio",
        "Share of the last interval's requests that met every objective.",
        {n: s.attained_ratio for n, s in known.items()},
    )
    for key, attribute, text in (
        ("finished_requests", "finished_requests", "Requests that ended and could be judged."),
        ("missed_requests", "missed_requests", "Those of them that missed an objective."),
    ):
        family = CounterMetricFamily(f"foreserve_{key}", text, labels=["service"])
        for name, s in known.items():
            family.add_metric([name], getattr(s, attribute))
        yield family


def _forecast_families(known: Mapping[str, _Service]) -> Iterator[Metric]:
    labels = ["service", "quantile"]
    ahead = GaugeMetricFamily(
        "foreserve_forecast_arrival_rate_rps",
        "Load forecast for foreserve_horizon_seconds from now.",
        labels=labels,
    )
    due = GaugeMetricFamily(
        "foreserve_forecast_due_arrival_rate_rps",
        "Load that was forecast, one horizon ago, for now: beside foreserve_arrival_rate_rps.",
        labels=labels,
    )
    errors = {}
    for name, s in known.items():
        if s.decision is not None:
            d = s.decision
            _add_quantiles(ahead, name, d.forecast_median_rps, d.forecast_upper_rps)
        if s.past is not None:
            _add_quantiles(due, name, s.past.median_rps, s.past.upper_rps)
            actual = math.nan if s.observed is None else s.observed.arrival_rate_rps
            errors[name] = actual - s.past.median_rps
    yield ahead
    yield due
    yield _by_service(
        "foreserve_forecast_error_rps", "Measured load less the median forecast for now.", errors
    )
    for key, attribute, text in (
        ("forecasts_checked", "forecasts_checked", "Forecasts that came due and were measured."),
        ("forecasts_exceeded", "forecasts_exceeded", f"Those of them exceeded at {UPPER:g}."),
    ):
        family = CounterMetricFamily(f"foreserve_{key}", text, labels=["service"])
        for name, s in known.items():
            family.add_metric([name], getattr(s, attribute))
        yield family


def _accounts(known: Mapping[str, _Service]) -> dict[str, Account]:
    return {name: s.account for name, s in known.items() if s.account is not None}


def _add_quantiles(family: GaugeMetricFamily, name: str, median: float, upper: float) -> None:
    for quantile, value in ((MEDIAN, median), (UPPER, upper)):
        if math.isfinite(value):
            family.add_metric([name, QUANTILE_NAMES[quantile]], value)


def _by_service(metric: str, text: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """Return a gauge by service, without those whose value is unknown (NaN)."""
    family = GaugeMetricFamily(metric, text, labels=["service"])
    for name, value in values.items():
        if not math.isnan(value):
            family.add_metric([name], value)
    return family

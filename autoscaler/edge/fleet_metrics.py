"""What is shown of the last tick beside decisions: what policies ask, what engines did, what pools have.

Dashboards and alerts put a decision beside its limits, and must not need another exporter's labels for it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from autoscaler.core.outcome import Decisions
from autoscaler.core.prices import Prices
from autoscaler.core.types import Observation, Policies, Policy, Pool, Variant

PER_VARIANT: dict[str, tuple[str, str]] = {
    "observed_ttft_p95_seconds": (
        "ttft_p95_seconds",
        "Time to first token (p95) of the last interval.",
    ),
    "observed_tpot_p95_seconds": (
        "tpot_p95_seconds",
        "Time per output token (p95) of the last interval.",
    ),
    "running_requests": ("running", "Requests that engines work on."),
    "waiting_requests": ("waiting", "Requests that wait, the gateway's queue included."),
    "kv_cache_usage_ratio": ("kv_cache_usage_ratio", "Share of the KV cache in use."),
}  # metric -> field of VariantObservation, and what it is


@dataclass(frozen=True, slots=True)
class LastTick:
    """One tick's input and outcome."""

    policies: Policies
    observation: Observation
    decisions: Decisions


def fleet_families(tick: LastTick | None) -> Iterator[Metric]:
    """Return all families; without samples until something was decided."""
    policies = {} if tick is None else tick.policies.services
    yield from _asked(policies)
    yield from _observed(tick)
    yield from _accelerators(tick)
    yield from _pool_money(tick)
    yield _plan_gap(tick)


def _plan_gap(tick: LastTick | None) -> Metric:
    family = GaugeMetricFamily(
        "foreserve_plan_gap_ratio",
        "Of the last plan's cost, the share that a cheaper plan could save at most.",
    )
    gap = math.nan if tick is None else tick.decisions.plan_gap_ratio
    if math.isfinite(gap):
        family.add_metric([], gap)
    return family


def _asked(policies: Mapping[str, Policy]) -> Iterator[Metric]:
    objective = GaugeMetricFamily(
        "foreserve_slo_objective_ratio",
        "Share of requests that the policy wants within the SLO (slo.attainment).",
        labels=["service"],
    )
    target = GaugeMetricFamily(
        "foreserve_slo_target_seconds",
        "Latency that a request may have (slo.objectives).",
        labels=["service", "metric"],
    )
    budget = GaugeMetricFamily(
        "foreserve_budget_usd_per_hour", "The policy's budget.", labels=["service"]
    )
    for name, policy in policies.items():
        objective.add_metric([name], policy.attainment)
        for metric in ("ttft", "tpot", "e2e"):
            _add(target, [name, metric], getattr(policy.targets, f"{metric}_seconds"))
        _add(budget, [name], policy.budget_usd_per_hour)
    yield from (objective, target, budget)


def _observed(tick: LastTick | None) -> Iterator[Metric]:
    for key, (attribute, text) in PER_VARIANT.items():
        family = GaugeMetricFamily(f"foreserve_{key}", text, labels=["service", "variant"])
        if tick is not None:
            for name, seen in tick.observation.services.items():
                if name in tick.policies.services:
                    for variant, values in seen.variants.items():
                        _add(family, [name, variant], getattr(values, attribute))
        yield family


def _accelerators(tick: LastTick | None) -> Iterator[Metric]:
    labels = ["accelerator_class"]
    usable = GaugeMetricFamily(
        "foreserve_accelerators_usable",
        "Accelerators of a class that may be used: what is there, within its quota.",
        labels=labels,
    )
    desired = GaugeMetricFamily(
        "foreserve_accelerators_desired", "Accelerators of the desired replicas.", labels=labels
    )
    if tick is not None:
        for name, count in _usable(tick.policies.pools, tick.observation.pools).items():
            usable.add_metric([name], count)
        used: dict[str, int] = {}
        for variant, replicas in _wanted(tick):
            name = variant.accelerator_class
            used[name] = used.get(name, 0) + replicas * variant.accelerators_per_replica
        for name, count in used.items():
            desired.add_metric([name], count)
    yield from (usable, desired)


def _usable(pools: Sequence[Pool], observed: Mapping[str, int]) -> dict[str, int]:
    """Return the smaller of quota and count by class; a class that has neither is without limit."""
    usable = dict(observed)
    for each in (c for pool in pools for c in pool.classes if c.quota_count is not None):
        assert each.quota_count is not None  # noqa: S101 - narrowing
        usable[each.name] = min(each.quota_count, usable.get(each.name, each.quota_count))
    return usable


def _pool_money(tick: LastTick | None) -> Iterator[Metric]:
    cost = GaugeMetricFamily(
        "foreserve_pool_cost_usd_per_hour",
        "Price of the desired replicas on a pool's accelerators.",
        labels=["pool"],
    )
    budget = GaugeMetricFamily(
        "foreserve_pool_budget_usd_per_hour", "The pool's budget.", labels=["pool"]
    )
    if tick is not None:
        prices = Prices(tick.policies.pools)
        for pool in tick.policies.pools:
            classes = {c.name for c in pool.classes}
            paid = (
                prices.cost_usd_per_hour([variant], {variant.name: replicas})
                for variant, replicas in _wanted(tick)
                if variant.accelerator_class in classes
            )
            _add(cost, [pool.name], math.fsum(paid))
            _add(budget, [pool.name], pool.budget_usd_per_hour)
    yield from (cost, budget)


def _wanted(tick: LastTick) -> Iterator[tuple[Variant, int]]:
    """Yield every variant that something was decided of, and its desired replicas."""
    for name, decision in tick.decisions.services.items():
        if name in tick.policies.services:
            for variant in tick.policies.services[name].variants:
                if variant.name in decision.variants:
                    yield variant, decision.variants[variant.name]


def _add(family: GaugeMetricFamily, labels: list[str], value: float) -> None:
    if math.isfinite(value):  # unknown, or without limit: no series
        family.add_metric(labels, value)

"""What policies ask, what engines did and what pools have, as the operator exports it."""

import math

import pytest
from builders import NOW, SERVICE, policies, policy, seen, variant
from prometheus_client.parser import text_string_to_metric_families
from test_metrics import FakeStep, decision

from autoscaler.core.outcome import Decisions
from autoscaler.core.types import AcceleratorClass, Observation, Policies, Pool, ServiceObservation
from autoscaler.edge.metrics import OperatorMetrics
from models.slo import SloTargets

POOLS = (
    Pool("gpus", (AcceleratorClass("h100", 4.0, 20), AcceleratorClass("l40s", 1.0, None)), 500.0),
    Pool("spare", (AcceleratorClass("a100", 2.0, None),)),
)


def shown(world: Policies, counts: dict[str, int], **engine: float) -> dict[tuple[str, ...], float]:
    """Samples of one tick: (name without prefix, label values in order of their names) -> value."""
    observed = ServiceObservation(9.0, 1.0, 1.0, {"h100": seen(3, **engine)})
    observation = Observation(NOW, 15.0, {SERVICE: observed}, {"h100": 16, "a100": 7})
    metrics = OperatorMetrics("1")
    decided = Decisions(NOW, {SERVICE: decision(variants=counts)}, "optimal")
    metrics.observe_step(FakeStep(observation, decided), world)
    return {
        (s.name.removeprefix("foreserve_"), *(v for _, v in sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        for s in family.samples
    }


TWO = policies(
    policy(
        variants=(variant(accelerators_per_replica=4), variant("l40s")), budget_usd_per_hour=30.0
    ),
    pools=POOLS,
)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (("slo_objective_ratio", SERVICE), 0.99),
        (("slo_target_seconds", "ttft", SERVICE), 1.0),
        (("slo_target_seconds", "tpot", SERVICE), 0.08),
        (("budget_usd_per_hour", SERVICE), 30.0),
        (("observed_ttft_p95_seconds", SERVICE, "h100"), 0.4),
        (("observed_tpot_p95_seconds", SERVICE, "h100"), 0.04),
        (("running_requests", SERVICE, "h100"), 2.0),
        (("waiting_requests", SERVICE, "h100"), 0.0),
        (("kv_cache_usage_ratio", SERVICE, "h100"), 0.25),
        (("accelerators_usable", "h100"), 16.0),  # counted 16, quota 20
        (("accelerators_usable", "a100"), 7.0),  # no quota
        (("accelerators_desired", "h100"), 12.0),  # three replicas of four
        (("accelerators_desired", "l40s"), 5.0),
        (("pool_cost_usd_per_hour", "gpus"), 12 * 4.0 + 5 * 1.0),
        (("pool_cost_usd_per_hour", "spare"), 0.0),
        (("pool_budget_usd_per_hour", "gpus"), 500.0),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_a_tick_is_shown(series: tuple[str, ...], expected: float) -> None:
    assert shown(TWO, {"h100": 3, "l40s": 5}, kv_cache_usage_ratio=0.25)[series] == expected


def test_what_is_unknown_or_without_limit_has_no_series() -> None:
    found = shown(
        policies(policy(targets=SloTargets(ttft_seconds=1.0)), pools=POOLS),
        {"h100": 3},
        ttft_p95_seconds=math.nan,
    )
    for absent in (
        ("slo_target_seconds", "tpot", SERVICE),
        ("budget_usd_per_hour", SERVICE),
        ("observed_ttft_p95_seconds", SERVICE, "h100"),
        ("accelerators_usable", "l40s"),
        ("pool_budget_usd_per_hour", "spare"),
    ):
        assert absent not in found


def test_a_service_without_a_policy_is_not_shown() -> None:
    found = shown(Policies({}, POOLS), {"h100": 3})
    assert not [key for key in found if SERVICE in key]
    assert ("accelerators_desired", "h100") not in found

"""Warm capacity: how much the plan may still need, and the pods that keep it."""

import json
import math
from typing import Any

import pytest
from cluster_objects import GPU, from_nodes, pod, pool
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.outcome import Decisions, ServiceDecision
from autoscaler.core.types import (
    Behavior,
    Fallback,
    Mode,
    Policies,
    Policy,
    Reason,
    ScalingRules,
    TargetRef,
    Variant,
)
from autoscaler.edge.kube.warm import (
    PLACEHOLDER,
    History,
    deployment_name,
    is_placeholder,
    placeholder_deployment,
    placeholders,
    settled,
)
from models.slo import SloTargets

WARM = {"warmCapacity": {"maxAccelerators": 16}}


def decision(desired: dict[str, int], carried: float, upper: float) -> ServiceDecision:
    nan = math.nan
    return ServiceDecision(
        variants=desired,
        reason=Reason.FORECAST,
        detail="",
        horizon_seconds=300.0,
        quantile=0.8,
        forecast_arrival_rate_rps=carried,
        forecast_median_rps=nan,
        forecast_upper_rps=upper,
        required_replicas=0,
        needed_replicas=3.0,
        attainment_target_ratio=nan,
        predicted_attainment_ratio=nan,
        predicted_ttft_p95_seconds=nan,
        predicted_tpot_p95_seconds=nan,
        error_budget_left_ratio=nan,
        shortfall_ratio=nan,
        cost_usd_per_hour=nan,
        trusted=True,
    )


def variant(cls: str, accelerators: int, most: int = 100) -> Variant:
    return Variant(cls, cls, accelerators, 0, most, TargetRef("apps/v1", "Deployment", cls))


def policy(service: str, *variants: Variant) -> Policy:
    rules = ScalingRules(0.0)
    return Policy(
        service=service,
        model="m",
        targets=SloTargets(),
        attainment=0.99,
        window_hours=24.0,
        priority=0,
        variants=variants,
        behavior=Behavior(Mode.SCALE, rules, rules),
        fallback=Fallback(600.0, None),
    )


def warm(
    services: dict[str, tuple[ServiceDecision, Policy]],
    *classes: dict[str, Any],
    usable: dict[str, int] | None = None,
) -> dict[str, int]:
    decisions = Decisions(0.0, {name: d for name, (d, _) in services.items()}, "optimal")
    policies = Policies({name: p for name, (_, p) in services.items()}, ())
    return placeholders(decisions, policies, [pool(*classes)], usable or {})


def one(carried: float, upper: float, *, desired: int = 10, most: int = 100) -> dict[str, Any]:
    of = policy("prod/chat", variant("h100", 2, most))
    return {"prod/chat": (decision({"h100": desired}, carried, upper), of)}


@pytest.mark.parametrize(
    ("carried", "upper", "expected"),
    [
        (50.0, 60.0, 4),  # 10 * (1.2 - 1) = 2 replicas of 2
        (50.0, 55.0, 2),  # 10 * 0.1 = 1 replica, and float noise is no replica
        (50.0, 51.0, 2),  # 10 * 0.02 = 0.2: a whole replica
        (50.0, 50.0, 0),
        (50.0, 40.0, 0),
        (50.0, 500.0, 16),  # maxAccelerators
        (0.0, 5.0, 0),  # nothing is carried: no ratio
        (math.nan, 60.0, 0),
        (50.0, math.nan, 0),
    ],
)
def test_what_the_upper_forecast_needs_beyond_desired(
    carried: float, upper: float, expected: int
) -> None:
    assert warm(one(carried, upper), from_nodes(**WARM)) == {"h100": expected}


def test_only_classes_that_ask_for_it() -> None:
    assert warm(one(50.0, 60.0), from_nodes()) == {}
    assert warm({}, from_nodes(**WARM)) == {"h100": 0}  # none, not unknown: nothing is planned


def test_never_beyond_the_variants_maximum() -> None:
    assert warm(one(50.0, 500.0, most=11), from_nodes(**WARM)) == {"h100": 2}
    assert warm(one(50.0, 500.0, most=8), from_nodes(**WARM)) == {"h100": 0}


def test_never_beyond_the_quota() -> None:
    counted = {"name": "h100", "quota": {"count": 23}, **WARM}
    assert warm(one(50.0, 100.0), counted) == {"h100": 3}  # 23 less 10 desired replicas of 2
    queued = {"name": "h100", "quota": {"kueueClusterQueue": "q"}, **WARM}
    assert warm(one(50.0, 100.0), queued, usable={"h100": 25}) == {"h100": 5}
    assert warm(one(50.0, 100.0), queued) == {"h100": 0}  # a quota that is not known
    # nodes that are to come are not there yet: what nodes hold now is no limit
    assert warm(one(50.0, 100.0), from_nodes(**WARM), usable={"h100": 20}) == {"h100": 16}


def test_services_and_variants_add_up() -> None:
    two = policy("prod/a", variant("h100", 1), variant("l40s", 1))
    services = {
        "prod/a": (decision({"h100": 4, "l40s": 10}, 10.0, 15.0), two),  # 2 and 5
        "prod/b": (decision({"h100": 1}, 10.0, 11.0), policy("prod/b", variant("h100", 4))),  # 4
    }
    classes = from_nodes(**WARM), from_nodes("l40s", **WARM)
    assert warm(services, *classes) == {"h100": 6, "l40s": 5}


@given(st.integers(0, 50), st.floats(0, 1e6), st.floats(0, 1e6), st.integers(0, 200))
def test_never_negative_never_beyond_limits(
    desired: int, carried: float, upper: float, quota: int
) -> None:
    counted = {"name": "h100", "quota": {"count": quota}, **WARM}
    found = warm(one(carried, upper, desired=desired), counted)["h100"]
    assert 0 <= found <= 16
    assert found == 0 or found + 2 * desired <= quota
    assert warm(one(carried, 2 * upper, desired=desired), counted)["h100"] >= found


def test_placeholders_come_at_once_and_go_late() -> None:
    walk = [
        (0.0, {"h100": 2}, {"h100": 2}),
        (15.0, {"h100": 6}, {"h100": 6}),  # at once
        (30.0, {"h100": 0}, {"h100": 6}),  # a tick without a forecast
        (614.0, {"h100": 1}, {"h100": 6}),  # 6 were wanted 599 s ago
        (615.0, {"h100": 1}, {"h100": 1}),
        (630.0, {}, {}),  # the class no longer asks for it
    ]
    history: History = ()
    for now, wanted, expected in walk:
        found, history = settled(history, now, wanted)
        assert found == expected


def manifest(accelerators: int = 3, **more: Any) -> dict[str, Any]:
    (cls,) = pool(from_nodes(**WARM)).spec.classes
    return placeholder_deployment(cls, accelerators, "foreserve", **more)


def test_the_placeholders_are_of_the_class_and_make_way() -> None:
    found = manifest()
    assert json.loads(json.dumps(found)) == found
    assert found["metadata"]["name"] == "foreserve-placeholder-h100"
    assert found["spec"]["replicas"] == 3
    template = found["spec"]["template"]
    assert (
        found["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    )
    spec = template["spec"]
    assert spec["priorityClassName"] == "foreserve-placeholder"
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["tolerations"] == [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    assert spec["terminationGracePeriodSeconds"] == 0
    assert spec["containers"][0]["resources"]["limits"][GPU] == "1"
    assert is_placeholder(pod("p", labels={PLACEHOLDER: "h100"}))
    assert not is_placeholder(pod("p", labels={"app": "chat"}))


def test_the_placeholders_may_do_nothing() -> None:
    spec = manifest()["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    own = spec["containers"][0]["securityContext"]
    assert own["readOnlyRootFilesystem"]
    assert not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}


def test_a_placeholder_may_be_as_large_as_a_replica() -> None:
    found = manifest(6, accelerators_each=4)
    assert found["spec"]["replicas"] == 2  # 6 of 4 each, rounded up
    assert found["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"][GPU] == "4"


def test_names_are_dns_names_and_differ() -> None:
    classes = [from_nodes(n) for n in ("h100", "H100", "h100_x", "h100-x")]
    names = [deployment_name(c) for c in pool(*classes).spec.classes]
    assert names[0] == "foreserve-placeholder-h100"
    assert len(set(names)) == 4
    assert all(n == n.lower() and "_" not in n for n in names)


def test_what_cannot_be_kept_warm_is_refused() -> None:
    plain, dra = pool(from_nodes(), from_nodes("d", resourceName="gpu.x", **WARM)).spec.classes
    with pytest.raises(ValueError, match="class h100: warmCapacity is missing"):
        placeholder_deployment(plain, 1, "foreserve")
    with pytest.raises(ValueError, match=r"resourceName gpu\.x is a DRA device class"):
        placeholder_deployment(dra, 1, "foreserve")

"""Who asks for which count, with which HPA: what the operator says of it."""

from typing import Any

import pytest
from hpa_world import TARGET, Hpa, Rules, hpa_object, scaled_object

from autoscaler.core.hpa import HpaPolicy, HpaRules, SelectPolicy, TargetType
from autoscaler.core.types import Mode, TargetRef
from autoscaler.edge.keda.hpa_facts import HpaFacts, assumed, facts_of
from autoscaler.edge.kube.deliveries import Asks, Planned, asks_of, deliveries
from autoscaler.edge.kube.quantities import KubeObjectError

Json = dict[str, Any]
HPA = Hpa(spec=10, target=1.0, minimum=2, maximum=50)
PLANNED = {"h100": Planned(TARGET, 11, 10, 10, 10)}


def said(asks: Asks, mode: Mode = Mode.KEDA, **variants: Planned) -> tuple[str, str, str]:
    """Return the condition Delivered."""
    planned = variants or PLANNED
    _, verdict = deliveries("prod/chat", mode, planned, asks, single=len(planned) == 1)
    assert verdict is not None
    return verdict.status, verdict.reason.value, verdict.message


def test_all_that_matters_of_the_hpa_is_told() -> None:
    out, verdict = deliveries(
        "prod/chat", Mode.KEDA, PLANNED, asks_of([scaled_object()], [hpa_object(HPA)]), single=True
    )
    assert out["h100"].manifest() == {
        "hpa": "keda-hpa-chat",
        "metricType": "AverageValue",
        "target": 1.0,
        "minReplicas": 2,
        "maxReplicas": 50,
        "toleranceUp": 0.1,
        "toleranceDown": 0.1,
        "existing": 10,
        "metric": 12.0,
        "landsOn": 12,
        "reason": "ToleranceLimited",
        "advice": 'Set behavior.scaleUp.tolerance: "0" (Kubernetes >= 1.35, KEDA >= 2.18) or lower'
        " kube-controller-manager's --horizontal-pod-autoscaler-tolerance.",
    }
    assert verdict is not None
    assert verdict.message.startswith(
        "h100: 11 decided, 10 asked for now; the HPA sets 12 at its next look. Set behavior."
    )


def test_nobody_asks() -> None:
    status, reason, message = said(asks_of([], []))
    assert (status, reason) == ("False", "NotAsked")
    assert "policy: chat" in message


@pytest.mark.parametrize(
    "other",
    [
        scaled_object({"policy": "code"}),
        scaled_object({"policy": "lm/chat"}),
        scaled_object({"variant": "b200"}),
        scaled_object(type="prometheus"),
        scaled_object({"polcy": "chat"}),  # refused when it asks, so it counts for nothing
        scaled_object() | {"spec": scaled_object()["spec"] | {"scaleTargetRef": {"name": "code"}}},
    ],
    ids=["policy", "namespace", "variant", "type", "metadata", "workload"],
)
def test_one_that_asks_for_something_else(other: Json) -> None:
    assert said(asks_of([other], [hpa_object(HPA)]))[1] == "NotAsked"


@pytest.mark.parametrize("mode", [Mode.RECOMMEND, Mode.SCALE])
def test_one_that_asks_for_a_policy_in_another_mode_is_told_of(mode: Mode) -> None:
    status, reason, message = said(asks_of([scaled_object()], []), mode)
    assert (status, reason) == ("False", "NotServed")
    assert message == (
        f"ScaledObject prod/chat asks, and gets no number: behavior.mode is {mode.value}, not Keda"
    )
    assert deliveries("prod/chat", mode, PLANNED, asks_of([], []), single=True) == ({}, None)


def test_no_hpa_yet_and_paused_by_keda() -> None:
    status, reason, message = said(asks_of([scaled_object()], []))
    assert (status, reason) == ("Unknown", "NoHPA")
    assert "KEDA has made none" in message
    paused = scaled_object()
    paused["metadata"]["annotations"] = {"autoscaling.keda.sh/paused": "true"}
    assert "KEDA pauses it" in said(asks_of([paused], []))[2]


def test_without_rights_nobody_knows() -> None:
    status, reason, _ = said(asks_of(None, []))
    assert (status, reason) == ("Unknown", "NothingKnown")
    out, _ = deliveries(
        "prod/chat", Mode.KEDA, PLANNED, asks_of([scaled_object()], None), single=True
    )
    assert out["h100"].hpa is None  # and the defaults are told, and served
    assert out["h100"].tolerance_up == 0.1


def test_an_hpa_that_keda_made_without_us_is_told() -> None:
    """Seen with KEDA 2.20: while it could not reach the scaler it made the HPA of the other trigger alone."""
    floor = hpa_object(HPA, "s1-prometheus")
    status, reason, message = said(asks_of([scaled_object()], [floor]))
    assert (status, reason) == ("False", "NotAsked")
    assert "KEDA could not ask the scaler when it made the HPA" in message
    both = hpa_object(HPA)
    both["spec"]["metrics"] += floor["spec"]["metrics"]
    assert "the HPA sets 12 by this one of 2 metrics" in said(asks_of([scaled_object()], [both]))[2]


def test_of_several_variants_each_trigger_names_one_and_the_worst_is_told() -> None:
    variants = {
        "h100": Planned(TARGET, 20, 10, 10, 10),
        "l40s": Planned(TargetRef("apps/v1", "Deployment", "small"), 10, 10, 10, 10),
    }
    small = scaled_object({"variant": "l40s"})
    small["metadata"]["name"] = small["spec"]["scaleTargetRef"]["name"] = "small"
    asks = asks_of(
        [scaled_object({"variant": "h100"}), small], [hpa_object(HPA, "s0-foreserve-chat-h100")]
    )
    status, reason, message = said(asks, **variants)
    assert (status, reason, message.partition(":")[0]) == ("Unknown", "NoHPA", "l40s")
    out, _ = deliveries("prod/chat", Mode.KEDA, variants, asks, single=False)
    assert (out["h100"].hpa, out["l40s"].hpa) == ("keda-hpa-chat", None)
    unnamed = asks_of([scaled_object()], [])
    assert said(unnamed, **variants)[1] == "NotAsked"


def test_the_triggers_overrides_hold_where_the_hpa_says_nothing() -> None:
    asks = asks_of([scaled_object({"tolerance": "0"})], [hpa_object(HPA)])
    assert said(asks)[1] == "Exact"


def test_behaviour_and_formula_are_read() -> None:
    free = Rules([("Percent", 50, 30.0)], 20.0, "Min")
    h = Hpa(spec=1, target=2.0, average=False, up_tolerance=0.05, scale_up=free, scale_down=free)
    rules = HpaRules((HpaPolicy(True, 50, 30.0),), 20.0, SelectPolicy.MIN)
    expected = HpaFacts(TargetType.VALUE, 2.0, 1, 100_000, 0.05, 0.1, (rules, rules))
    for name in ("s0-foreserve-chat", "s1-foreserve-chat", "s0-composite-metric"):
        assert facts_of(hpa_object(h, name), "foreserve-chat", assumed(None, None)) == expected
    other = facts_of(hpa_object(h, "s0-prometheus"), "foreserve-chat", assumed(None, None))
    assert (other.target_type, other.target, other.asks) == (TargetType.AVERAGE_VALUE, 1.0, False)
    half = hpa_object(h)
    half["spec"]["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    made = facts_of(half, "foreserve-chat", assumed(None, None))
    assert made.behavior is not None
    assert [r.stabilization_window_seconds for r in made.behavior] == [0.0, 0.0]
    assert made.tolerance_down == 0.1


@pytest.mark.parametrize("quantity", ["", "1x", "--1", "1.2.3"])
def test_a_quantity_that_is_none_is_said(quantity: str) -> None:
    odd = hpa_object(Hpa(spec=1, target=1.0, scale_up=Rules([], 0.0), scale_down=Rules([], 0.0)))
    odd["spec"]["behavior"]["scaleUp"]["tolerance"] = quantity
    with pytest.raises(KubeObjectError, match="is not a quantity"):
        facts_of(odd, "foreserve-chat", assumed(None, None))
    out, _ = deliveries(
        "prod/chat", Mode.KEDA, PLANNED, asks_of([scaled_object()], [odd]), single=True
    )
    assert (out["h100"].hpa, out["h100"].tolerance_up) == (None, 0.1)

"""A maximum far below what runs is honoured as a scale-down; who may not be scaled is advised."""

from dataclasses import replace

import pytest
from operate_objects import policy_object, standing

from autoscaler.core.outcome import ServiceState, State
from autoscaler.core.types import Mode, Policies
from autoscaler.operate.collect import Replicas
from autoscaler.operate.restraints import SLOWLY, Lowering, as_acted
from autoscaler.policy.convert import to_policy
from autoscaler.policy.errors import Place
from autoscaler.policy.parse import parse_document

SERVICE = "prod/chat"


def policies(max_replicas: int, **scale_down: object) -> Policies:
    spec = policy_object(behavior={"mode": "Scale", "scaleDown": scale_down})
    spec["spec"]["variants"][0]["maxReplicas"] = max_replicas
    parsed = parse_document(Place("test", 1), spec)
    return Policies({SERVICE: to_policy(parsed.body)}, ())  # type: ignore[union-attr, arg-type]


def runs(count: int) -> dict[tuple[str, str], Replicas]:
    return {(SERVICE, "default"): Replicas(count, count, 0, 0)}


def maximum(found: Policies) -> int:
    return found.services[SERVICE].variants[0].max_replicas


def test_a_maximum_above_what_runs_is_as_declared() -> None:
    declared = policies(50)
    found = Lowering().gently(declared, {SERVICE: standing()}, runs(40), State(), 0.0)
    assert found == (declared, {})


def test_a_typo_costs_nothing_in_the_window_and_then_what_the_limits_allow() -> None:
    declared = policies(
        4,
        stabilizationWindowSeconds=120,
        policies=[{"type": "Pods", "value": 5, "periodSeconds": 60}],
    )
    lowering, held = Lowering(), State()
    seen = []
    for second in (0, 60, 119):
        found, told = lowering.gently(declared, {SERVICE: standing()}, runs(40), held, second)
        seen.append(maximum(found))
    assert seen == [40, 40, 40]
    assert told == {SERVICE: f"default: 40 run, maxReplicas is 4: {SLOWLY}"}
    found, _ = lowering.gently(declared, {SERVICE: standing()}, runs(40), held, 120)
    assert maximum(found) == 35  # 5 a minute
    # within the same minute no more: what was desired a minute ago was 40
    after = ServiceState(changes=((-1e9, {"default": 40}), (120.0, {"default": 35})))
    found, _ = lowering.gently(
        declared, {SERVICE: standing()}, runs(35), State({SERVICE: after}), 150
    )
    assert maximum(found) == 35
    found, _ = lowering.gently(
        declared, {SERVICE: standing()}, runs(35), State({SERVICE: after}), 181
    )
    assert maximum(found) == 30
    found, told = lowering.gently(declared, {SERVICE: standing()}, runs(4), held, 900)
    assert (maximum(found), told) == (4, {})


def test_without_limits_it_is_one_step_after_the_window() -> None:
    declared, lowering = policies(4, stabilizationWindowSeconds=60), Lowering()
    for second, expected in ((0, 40), (59, 40), (60, 4)):
        found, _ = lowering.gently(declared, {SERVICE: standing()}, runs(40), State(), second)
        assert maximum(found) == expected


def test_a_typo_that_is_put_right_leaves_no_trace() -> None:
    lowering = Lowering()
    window = {"stabilizationWindowSeconds": 60}
    lowering.gently(policies(4, **window), {SERVICE: standing()}, runs(40), State(), 0)
    lowering.gently(policies(50, **window), {SERVICE: standing()}, runs(40), State(), 30)
    found, _ = lowering.gently(policies(4, **window), {SERVICE: standing()}, runs(40), State(), 70)
    assert maximum(found) == 40  # its window has just begun


@pytest.mark.parametrize("mode", [Mode.RECOMMEND, Mode.KEDA])
def test_advice_says_the_maximum_at_once(mode: Mode) -> None:
    found, told = Lowering().gently(
        policies(4), {SERVICE: standing(mode=mode)}, runs(40), State(), 0.0
    )
    assert (maximum(found), told) == (4, {})


def test_who_may_not_be_scaled_is_planned_like_advice() -> None:
    declared = policies(9)
    free = {SERVICE: standing()}
    assert as_acted(declared, free, ()) == declared
    for standings, forbidden in (
        (free, {SERVICE}),
        ({SERVICE: standing(paused_by="an operator")}, set()),
    ):
        behavior = as_acted(declared, standings, forbidden).services[SERVICE].behavior
        assert behavior == replace(declared.services[SERVICE].behavior, mode=Mode.RECOMMEND)

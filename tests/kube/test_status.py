"""Status: what it says, what keeps still, when it is written; and that the API server takes it."""

import copy
import itertools
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import urllib3
from apiserver import ApiServer
from crd_setup import GROUP, install
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.outcome import ServiceDecision
from autoscaler.core.types import Mode, Reason, ServiceObservation, VariantObservation
from autoscaler.edge.kube.conditions import condition_of, duration
from autoscaler.edge.kube.status import (
    ClassFacts,
    Obstacle,
    PoolInputs,
    StatusInputs,
    merge_patch,
    policy_status,
    pool_status,
    worth_writing,
)
from autoscaler.policy.status import ConditionReason, ConditionType

NAN = math.nan
NOW = 1_767_571_200.0  # 2026-01-05T00:00:00Z
DECISION = ServiceDecision(
    variants={"h100": 3, "l40s": 1},
    reason=Reason.FORECAST,
    detail="0.95 quantile of 12.3456 requests/s in 310 s",
    horizon_seconds=310.0,
    quantile=0.95,
    forecast_arrival_rate_rps=16.04,
    forecast_median_rps=12.3456,
    forecast_upper_rps=15.87,
    required_replicas=4,
    needed_replicas=3.0,
    attainment_target_ratio=0.99,
    predicted_attainment_ratio=0.9951,
    predicted_ttft_p95_seconds=0.4321,
    predicted_tpot_p95_seconds=0.03456,
    error_budget_left_ratio=0.834,
    shortfall_ratio=0.0,
    cost_usd_per_hour=32.804,
    trusted=True,
)
OBSERVATION = ServiceObservation(
    arrival_rate_rps=10.01,
    isl_tokens=1000.0,
    osl_tokens=200.0,
    variants={
        "h100": VariantObservation(
            ready=2, starting=1, draining=0, desired=3, ttft_p95_seconds=0.5, tpot_p95_seconds=0.04
        ),
        "l40s": VariantObservation(
            ready=1, starting=0, draining=0, desired=1, ttft_p95_seconds=0.7, tpot_p95_seconds=NAN
        ),
    },
)
INPUTS = StatusInputs(
    mode=Mode.SCALE,
    decision=DECISION,
    observation=OBSERVATION,
    telemetry_age_seconds=12.0,
    lead_seconds=250.4,
    model_version="v7",
)
KEDA = replace(INPUTS, mode=Mode.KEDA)


def status(inputs: StatusInputs = INPUTS, previous: dict[str, Any] | None = None) -> dict[str, Any]:
    return policy_status(previous or {}, 4, inputs, NOW)


def decided(**changes: Any) -> StatusInputs:
    return replace(INPUTS, decision=replace(DECISION, **changes))


def verdict(made: dict[str, Any], kind: ConditionType) -> tuple[str, str]:
    condition = condition_of(made, kind)
    return condition["status"], condition["reason"]


def test_a_whole_status() -> None:
    made = status()
    conditions = made.pop("conditions")
    assert made == {
        "observedGeneration": 4,
        "mode": "Scale",
        "desiredReplicas": 4,
        "readyReplicas": 3,
        "variants": [
            {"name": "h100", "desired": 3, "current": 3, "ready": 2, "starting": 1},
            {"name": "l40s", "desired": 1, "current": 1, "ready": 1, "starting": 0},
        ],
        "reason": "forecast",
        "detail": "0.95 quantile of 12.3456 requests/s in 310 s",
        "forecast": {
            "arrivalRateRps": 10.0,  # 10.01: three digits
            "atHorizonRps": 12.3,
            "upperRps": 15.9,
            "plannedRps": 16.0,
            "horizonSeconds": 310.0,
        },
        "leadTimeSeconds": 250.0,
        "latency": {
            "predictedTtftP95Seconds": 0.432,
            "predictedTpotP95Seconds": 0.0346,
            "observedTtftP95Seconds": 0.7,  # of the slowest variant
            "observedTpotP95Seconds": 0.04,  # the other one is not known
        },
        "predictedAttainmentRatio": 0.995,
        "errorBudgetLeftRatio": 0.83,
        "costUsdPerHour": 32.8,
        "modelVersion": "v7",
        "lastDecisionTime": "2026-01-05T00:00:00Z",
        "display": {
            "reason": "forecast",
            "errorBudgetLeft": "83%",
            "costPerHour": "$32.80",
            "forecast": "12.3 (up to 15.9)",
            "leadTime": "4m10s",
        },
    }
    assert {c["type"]: (c["status"], c["reason"]) for c in conditions} == {
        "Ready": ("True", "Scaling"),
        "TelemetryFresh": ("True", "Measured"),
        "ModelTrusted": ("True", "ForecastBetterThanNaive"),
        "SLOAtRisk": ("False", "OnTarget"),
        "Constrained": ("False", "Unconstrained"),
    }
    assert [c["message"] for c in conditions] == [
        "4 replicas wanted (as the workloads have it), 3 ready, 1 starting",
        "measured within the last 30s",
        "the load model was better than the last value on held-out history (models v7)",
        "83% of the error budget is left; 99.51% of requests should meet the SLO, "
        "planned for 99.00%",
        "4 replicas required, all of it fits",
    ]
    for c in conditions:
        assert (c["observedGeneration"], c["lastTransitionTime"]) == (4, "2026-01-05T00:00:00Z")


def test_nothing_known_is_left_out() -> None:
    made = status(StatusInputs(mode=Mode.RECOMMEND))
    assert set(made) == {"observedGeneration", "mode", "variants", "display", "conditions"}
    assert verdict(made, ConditionType.READY) == ("Unknown", "NoDecision")
    assert verdict(made, ConditionType.TELEMETRY_FRESH) == ("False", "NeverMeasured")
    blank = {
        name: NAN
        for name, value in vars_of(DECISION).items()
        if isinstance(value, float) and name != "shortfall_ratio"
    }
    made = status(replace(decided(**blank), lead_seconds=NAN, model_version=""))
    assert made["forecast"] == {"arrivalRateRps": 10.0}
    assert "leadTimeSeconds" not in made
    assert "costUsdPerHour" not in made
    assert made["display"] == {"reason": "forecast"}
    assert verdict(made, ConditionType.SLO_AT_RISK) == ("Unknown", "NothingKnown")


def vars_of(decision: ServiceDecision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in decision.__dataclass_fields__}


@pytest.mark.parametrize("obstacle", list(Obstacle))
def test_every_obstacle_has_its_reason(obstacle: Obstacle) -> None:
    made = status(replace(INPUTS, problems={obstacle: "why\nnot"}))
    on = ConditionType.READY
    if obstacle is Obstacle.ACCELERATORS_LACKING:
        on = ConditionType.CONSTRAINED
        assert verdict(made, ConditionType.READY) == ("True", "Scaling")
    condition = condition_of(made, on)
    assert condition["status"] == ("True" if on is ConditionType.CONSTRAINED else "False")
    assert condition["reason"] == obstacle.value
    assert condition["message"] == "why not"  # one line
    assert condition["reason"] in {r.value for r in ConditionReason}


def test_of_several_obstacles_the_first_is_told() -> None:
    problems = {Obstacle.PAUSED: "by x", Obstacle.WRITE_FAILED: "409", Obstacle.CONFLICT: "an HPA"}
    made = status(replace(INPUTS, problems=problems))
    assert condition_of(made, ConditionType.READY)["message"] == "an HPA"
    assert made["mode"] == "Paused"
    # the column says what matters more: why nothing happens
    assert (made["reason"], made["display"]["reason"]) == ("forecast", "Conflict")


def test_a_pause_takes_nothing_from_a_recommendation() -> None:
    paused = {Obstacle.PAUSED: "annotation on the policy"}
    made = status(replace(INPUTS, mode=Mode.RECOMMEND, problems=paused))
    assert verdict(made, ConditionType.READY) == ("True", "Recommending")
    assert made["mode"] == "Paused"
    made = status(replace(INPUTS, mode=Mode.KEDA, problems=paused))
    assert verdict(made, ConditionType.READY) == ("False", "Paused")


TRUST = [
    ({"trusted": True}, ("True", "ForecastBetterThanNaive")),
    ({"trusted": False}, ("False", "ForecastNotBetterThanNaive")),
    ({"trusted": False, "forecast_median_rps": NAN}, ("False", "NoModelYet")),
]


@pytest.mark.parametrize(("changes", "expected"), TRUST)
def test_trust(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    assert verdict(status(decided(**changes)), ConditionType.MODEL_TRUSTED) == expected


def test_stale_telemetry() -> None:
    made = status(replace(INPUTS, telemetry_age_seconds=181.0))
    assert verdict(made, ConditionType.TELEMETRY_FRESH) == ("False", "Stale")
    text = condition_of(made, ConditionType.TELEMETRY_FRESH)["message"]
    assert text == "last measured about 3m30s ago; allowed: 3m"  # in steps of 30 s
    made = status(replace(INPUTS, telemetry_age_seconds=180.0))
    assert verdict(made, ConditionType.TELEMETRY_FRESH) == ("True", "Measured")


RISK = [
    ({"error_budget_left_ratio": -0.2}, ("True", "ErrorBudgetSpent")),
    ({"shortfall_ratio": 0.22}, ("True", "CapacityShort")),
    # planned for 0.99: one in a hundred may miss; a quarter more misses is too many
    ({"predicted_attainment_ratio": 0.9874}, ("True", "MissPredicted")),
    ({"predicted_attainment_ratio": 0.9876}, ("False", "OnTarget")),
    # a lean plan (a whole budget) is no risk: what counts is what was planned for
    (
        {"attainment_target_ratio": 0.975, "predicted_attainment_ratio": 0.976},
        ("False", "OnTarget"),
    ),
]


@pytest.mark.parametrize(("changes", "expected"), RISK)
def test_risk(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    assert verdict(status(decided(**changes)), ConditionType.SLO_AT_RISK) == expected


def test_risk_does_not_flap_about_its_bound() -> None:
    made: dict[str, Any] = {}
    seen = []
    for predicted in (0.9880, 0.9874, 0.9876, 0.9880, 0.9899, 0.9901, 0.9880):
        made = status(decided(predicted_attainment_ratio=predicted), made)
        seen.append(verdict(made, ConditionType.SLO_AT_RISK)[0])
    # at risk below 0.9875; over only at 0.99 itself
    assert seen == ["False", "True", "True", "True", "True", "False", "False"]


LIMITS = [
    ({"reason": Reason.QUOTA, "shortfall_ratio": 0.25}, ("True", "Quota")),
    ({"reason": Reason.BUDGET, "shortfall_ratio": 0.25}, ("True", "Budget")),
    ({"reason": Reason.MAX}, ("True", "MaxReplicas")),
    ({"reason": Reason.FORECAST, "shortfall_ratio": 0.25}, ("True", "CapacityShort")),
    ({"reason": Reason.HOLD}, ("False", "Unconstrained")),
]


@pytest.mark.parametrize(("changes", "expected"), LIMITS)
def test_limits(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    made = status(decided(**changes))
    assert verdict(made, ConditionType.CONSTRAINED) == expected
    message = condition_of(made, ConditionType.CONSTRAINED)["message"]
    if expected == ("True", "CapacityShort"):
        assert message == "4 replicas required, 25% of it did not fit"
    elif expected[0] == "True":  # the decision's own words say what does not fit, once
        assert message == f"4 replicas required: {DECISION.detail}"


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = policy_status({}, 1, INPUTS, NOW)
    later = policy_status(first, 2, decided(trusted=False), NOW + 90)
    ready, trust = (
        condition_of(later, kind) for kind in (ConditionType.READY, ConditionType.MODEL_TRUSTED)
    )
    assert (ready["lastTransitionTime"], ready["observedGeneration"]) == ("2026-01-05T00:00:00Z", 2)
    assert trust["lastTransitionTime"] == "2026-01-05T00:01:30Z"
    # another reason for the same status is no transition
    again = policy_status(later, 2, decided(trusted=False, forecast_median_rps=NAN), NOW + 180)
    trust = condition_of(again, ConditionType.MODEL_TRUSTED)
    assert (trust["reason"], trust["lastTransitionTime"]) == ("NoModelYet", "2026-01-05T00:01:30Z")


def test_a_previous_status_of_any_shape_is_survived() -> None:
    for previous in (
        {"conditions": None},
        {"conditions": [1, {}, {"type": "Ready"}], "forecast": 3, "leadTimeSeconds": "x"},
        {"variants": 3},
        {"variants": [7, {}, {"name": "h100", "replicaConcurrency": "many"}]},
    ):
        assert status(INPUTS, previous) == status()
        assert status(KEDA, previous) == status(KEDA)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.floats(0.96, 1.04), min_size=1, max_size=30))
def test_jitter_writes_nothing(factors: list[float]) -> None:
    """Any number within 5 % of what is shown leaves the status as it is, texts aside."""
    shown = status()
    made = shown
    for i, factor in enumerate(factors):
        inputs = replace(
            decided(
                forecast_median_rps=12.3 * factor,
                forecast_upper_rps=15.9 * factor,
                forecast_arrival_rate_rps=16.0 * factor,
                predicted_ttft_p95_seconds=0.432 * factor,
                predicted_tpot_p95_seconds=0.0346 * factor,
                predicted_attainment_ratio=0.995 + 0.01 * (factor - 1.0),
                error_budget_left_ratio=0.83 + 0.2 * (factor - 1.0),
                detail=f"another text {factor}",
            ),
            observation=replace(OBSERVATION, arrival_rate_rps=10.0 * factor),
            lead_seconds=250.0 * factor,
        )
        made = policy_status(made, 4, inputs, NOW + 15.0 * i)
        assert not worth_writing(shown, made, NOW, NOW + 299.0)
    assert made["forecast"] == shown["forecast"]
    assert worth_writing(shown, made, NOW, NOW + 300.0)  # the texts, now and then


def test_a_real_change_is_shown_with_three_digits() -> None:
    made = status(decided(forecast_median_rps=13.0456), status())
    assert made["forecast"]["atHorizonRps"] == 13.0  # 13.0456 / 12.3 = 1.06
    made = status(decided(forecast_median_rps=0.0), made)
    assert made["forecast"]["atHorizonRps"] == 0.0


AT_ONCE = [
    decided(variants={"h100": 4, "l40s": 1}),
    decided(variants={"h100": 2, "l40s": 2}),  # the same total
    decided(reason=Reason.SCHEDULE),
    decided(trusted=False),
    replace(INPUTS, mode=Mode.RECOMMEND),
    replace(INPUTS, model_version="v8"),
    replace(INPUTS, problems={Obstacle.CONFLICT: "an HPA"}),
    replace(
        INPUTS,
        observation=replace(
            OBSERVATION,
            variants={
                **OBSERVATION.variants,
                "h100": replace(OBSERVATION.variants["h100"], ready=3, starting=0),
            },
        ),
    ),
]


@pytest.mark.parametrize("inputs", AT_ONCE, ids=range(len(AT_ONCE)))
def test_news_is_written_at_once(inputs: StatusInputs) -> None:
    before = status()
    assert worth_writing(before, policy_status(before, 4, inputs, NOW + 1), NOW, NOW + 1)


def test_numbers_wait_a_minute_and_nothing_new_for_ever() -> None:
    before = status()
    after = policy_status(before, 4, decided(forecast_median_rps=30.0), NOW + 15)
    assert not worth_writing(before, after, NOW, NOW + 59)
    assert worth_writing(before, after, NOW, NOW + 60)
    assert not worth_writing(before, copy.deepcopy(before), NOW, NOW + 1e6)
    assert worth_writing({}, before, -math.inf, NOW)  # never written
    # a new generation is news even if all else is the same
    assert worth_writing(before, policy_status(before, 5, INPUTS, NOW + 1), NOW, NOW + 1)


def test_in_mode_keda_the_time_of_the_decision_is_renewed_every_minute() -> None:
    inputs = replace(INPUTS, mode=Mode.KEDA)
    before = policy_status({}, 4, inputs, NOW)
    after = policy_status(before, 4, inputs, NOW + 60)
    assert before["lastDecisionTime"] != after["lastDecisionTime"]
    assert not worth_writing(before, after, NOW, NOW + 59)
    assert worth_writing(before, after, NOW, NOW + 60)  # the scaler takes 180 s for too old


def held(made: dict[str, Any]) -> list[float | None]:
    return [v.get("replicaConcurrency") for v in made["variants"]]


def test_in_mode_keda_it_tells_what_a_replica_holds_and_keeps_it() -> None:
    """The scaler counts replicas by it when nobody decides."""
    known = replace(KEDA, decision=replace(DECISION, replica_concurrency={"h100": 12.3456}))
    made = status(known)
    assert held(made) == [12.3, None]
    assert held(status(replace(known, mode=Mode.SCALE))) == [None, None]
    assert held(status(KEDA, made)) == [12.3, None]  # of this turn it is not known
    near = replace(KEDA, decision=replace(DECISION, replica_concurrency={"h100": 12.8}))
    assert held(status(near, made)) == [12.3, None]
    far = replace(KEDA, decision=replace(DECISION, replica_concurrency={"h100": 20.0}))
    after = status(far, made)
    assert held(after) == [20.0, None]
    assert not worth_writing(made, after, NOW, NOW + 59)  # no news that cannot wait a minute
    assert worth_writing(made, after, NOW, NOW + 60)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_what_a_replica_holds_is_within_what_the_server_takes(requests: float) -> None:
    odd = replace(KEDA, decision=replace(DECISION, replica_concurrency={"h100": requests}))
    (shown, _) = held(status(odd))
    assert (shown is None) == (not math.isfinite(requests))
    assert shown is None or 1.0 <= shown <= 1e6


def test_long_texts_are_cut() -> None:
    made = status(decided(detail="x" * 5000))
    assert len(made["detail"]) == 1024
    made = status(replace(INPUTS, problems={Obstacle.WRITE_FAILED: "y" * 5000}))
    assert len(condition_of(made, ConditionType.READY)["message"]) == 1024


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (60, "1m"), (250, "4m10s"), (3600, "1h"), (7500, "2h5m")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


CLASSES = (
    ClassFacts("h100", 4.1, usable=32, in_use=24),
    ClassFacts("l40s", 1.05, usable=None, in_use=3),
)


def test_a_pool() -> None:
    made = pool_status({}, 2, PoolInputs(CLASSES), NOW)
    conditions = {c["type"]: (c["status"], c["reason"]) for c in made.pop("conditions")}
    assert made == {
        "observedGeneration": 2,
        "classes": [
            {"name": "h100", "usable": 32, "inUse": 24, "usdPerHour": 4.1},
            {"name": "l40s", "inUse": 3, "usdPerHour": 1.05},
        ],
        "costUsdPerHour": 101.55,  # 24 x 4.10 + 3 x 1.05
        "display": {"inUse": "h100 24/32, l40s 3", "costPerHour": "$101.55"},
    }
    assert conditions == {
        "Ready": ("True", "InventoryKnown"),
        "Exhausted": ("False", "Available"),
    }


def test_nodes_that_a_pool_leaves_out_are_named_up_to_ten() -> None:
    excluded = {f"gpu-{i:02d}": "cordoned" for i in range(12)} | {
        "gpu-03": "a device reported XID 79"
    }
    made = pool_status({}, 2, PoolInputs(CLASSES, excluded=excluded), NOW)
    assert made["excludedNodeCount"] == 12
    assert [n["name"] for n in made["excludedNodes"]] == [f"gpu-{i:02d}" for i in range(10)]
    assert made["excludedNodes"][3]["reason"] == "a device reported XID 79"
    ready = condition_of(made, ConditionType.READY)
    assert "12 nodes are left out" in ready["message"]


def test_what_was_not_written_is_not_called_written() -> None:
    as_is = replace(INPUTS, mode=Mode.SCALE, problems={})
    message = condition_of(status(as_is), ConditionType.READY)["message"]
    assert "4 replicas wanted (as the workloads have it)" in message
    scale = replace(decided(variants={"h100": 6, "l40s": 1}), mode=Mode.SCALE, problems={})
    message = condition_of(status(scale), ConditionType.READY)["message"]
    assert "7 replicas wanted (written to the workloads)" in message
    later = replace(scale, withheld="once its load history was read")
    message = condition_of(status(later), ConditionType.READY)["message"]
    assert "written once its load history was read" in message
    assert "written to the workloads" not in message


def test_what_runs_beyond_the_maximum_is_told() -> None:
    over = replace(
        INPUTS, mode=Mode.SCALE, lowering="h100: 40 run, maxReplicas is 4: they go slowly"
    )
    assert "40 run, maxReplicas is 4" in condition_of(status(over), ConditionType.READY)["message"]


def test_a_part_that_is_measured_is_told() -> None:
    partly = replace(INPUTS, partly="3 of 5 ready replicas are scraped: their load stands for all")
    fresh = condition_of(status(partly), ConditionType.TELEMETRY_FRESH)
    assert (fresh["status"], fresh["reason"]) == ("True", "PartlyMeasured")
    assert fresh["message"].startswith("3 of 5")
    old = condition_of(
        status(replace(partly, telemetry_age_seconds=1000.0)), ConditionType.TELEMETRY_FRESH
    )
    assert (old["status"], old["reason"]) == ("False", "Stale")
    assert "3 of 5" in old["message"]


@pytest.mark.parametrize(
    ("attained", "finished", "expected"),
    [
        (0.95, 400.0, ("True", "MissMeasured")),
        (0.9925, 400.0, ("False", "OnTarget")),
        (0.95, 19.0, ("Unknown", "NothingKnown")),  # 19 requests tell nothing of a share
        (math.nan, 0.0, ("Unknown", "NothingKnown")),
    ],
)
def test_without_a_prediction_what_was_measured_tells_the_risk(
    attained: float, finished: float, expected: tuple[str, str]
) -> None:
    inputs = replace(
        decided(
            predicted_attainment_ratio=math.nan, error_budget_left_ratio=0.4, shortfall_ratio=0.0
        ),
        attainment=0.99,
        attained_ratio=attained,
        finished_requests=finished,
    )
    assert verdict(status(inputs), ConditionType.SLO_AT_RISK) == expected


def test_measured_risk_does_not_flap_about_its_bound() -> None:
    inputs = replace(
        decided(
            predicted_attainment_ratio=math.nan, error_budget_left_ratio=0.4, shortfall_ratio=0.0
        ),
        attainment=0.99,
        attained_ratio=0.987,  # the bound is 0.99 - 0.25 * 0.01 = 0.9875
        finished_requests=1000.0,
    )
    risky = status(inputs)
    assert verdict(risky, ConditionType.SLO_AT_RISK)[0] == "True"
    better = replace(inputs, attained_ratio=0.989)  # above the bound, below what is asked for
    assert verdict(status(better, risky), ConditionType.SLO_AT_RISK)[0] == "True"
    assert verdict(status(better), ConditionType.SLO_AT_RISK)[0] == "False"


def test_a_pool_that_is_used_up_unknown_or_invalid() -> None:
    full = replace(CLASSES[0], in_use=32)
    made = pool_status({}, 2, PoolInputs((full, CLASSES[1])), NOW)
    assert verdict(made, ConditionType.EXHAUSTED) == ("True", "AllInUse")
    assert condition_of(made, ConditionType.EXHAUSTED)["message"] == "h100: 32 of 32 in use"
    dark = ClassFacts("h100", 4.1, None, 2, problem="no node has the label gpu=h100")
    made = pool_status({}, 2, PoolInputs((dark,)), NOW)
    assert verdict(made, ConditionType.READY) == ("False", "InventoryUnknown")
    message = condition_of(made, ConditionType.READY)["message"]
    assert message == "h100: no node has the label gpu=h100"
    assert made["display"]["inUse"] == "h100 2/?"
    made = pool_status(made, 3, PoolInputs((), invalid="spec.classes: missing"), NOW)
    assert verdict(made, ConditionType.READY) == ("False", "InvalidSpec")


def test_a_class_of_which_nobody_knows_how_many_there_are_is_not_used_up() -> None:
    inputs = PoolInputs([ClassFacts("mi300x", 2.4, 0, 0, "no node has the label")])
    made = pool_status({}, 1, inputs, NOW)
    assert verdict(made, ConditionType.READY) == ("False", "InventoryUnknown")
    assert verdict(made, ConditionType.EXHAUSTED) == ("False", "Available")
    message = condition_of(made, ConditionType.EXHAUSTED)["message"]
    assert message == "accelerators of every class that is known are left"


JSON = st.recursive(
    st.integers() | st.text(max_size=3) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), JSON)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, as written there."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        else:
            out[name] = merged(out.get(name), value)
    return out


@settings(deadline=None)  # a busy machine is no failure
@given(OBJECTS, OBJECTS)
def test_a_merge_patch_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    patch = merge_patch(before, after)
    assert merged(before, patch) == after
    assert (patch == {}) == (before == after)


# -- on an API server -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(kube: ApiServer) -> ApiServer:
    install(kube)
    return kube


def test_the_server_takes_what_is_made(served: ApiServer, namespace: str) -> None:
    path = f"{GROUP}/namespaces/{namespace}/scalingpolicies"
    document = {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": "ScalingPolicy",
        "metadata": {"name": "chat"},
        "spec": {
            "model": "llama",
            "slo": {"objectives": [{"metric": "ttft", "targetSeconds": 1.0}]},
            "variants": [
                {
                    "name": "h100", "acceleratorClass": "h100", "maxReplicas": 8,
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"},
                }
            ],
        },
    }  # fmt: skip
    assert served.request("POST", path, document)[0] == 201
    many = [
        INPUTS,
        StatusInputs(mode=Mode.RECOMMEND),
        decided(error_budget_left_ratio=-3.456, cost_usd_per_hour=NAN, trusted=False),
        *(replace(INPUTS, problems={o: "why"}) for o in Obstacle),
        replace(KEDA, decision=replace(DECISION, replica_concurrency={"h100": 12.3456, "l40s": 1})),
        decided(detail="ä\x00\n" * 900),
    ]
    stored: dict[str, Any] = {}
    for i, inputs in enumerate(many):
        made = policy_status(stored, 1, inputs, NOW + i)
        code, answer = served.request(
            "PATCH",
            f"{path}/chat/status",
            {"status": merge_patch(stored, made)},
            params={"fieldValidation": "Strict"},
            content_type="application/merge-patch+json",
        )
        assert code == 200, answer
        stored = answer["status"]
        assert stored == made  # nothing pruned, nothing left over from before
        assert answer["metadata"]["generation"] == 1


def test_the_server_takes_a_pool_s_status(served: ApiServer) -> None:
    path = f"{GROUP}/acceleratorpools"
    document = {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": "AcceleratorPool",
        "metadata": {"name": "status-test"},
        "spec": {"classes": [{"name": "h100", "usdPerHour": 4.1}]},
    }
    assert served.request("POST", path, document)[0] == 201
    dark = ClassFacts("h100", 4.1, problem="no node")
    stored: dict[str, Any] = {}
    try:
        for i, inputs in enumerate(
            itertools.chain([PoolInputs(CLASSES)], [PoolInputs((dark,)), PoolInputs((), "bad")])
        ):
            made = pool_status(stored, 1, inputs, NOW + i)
            code, answer = served.request(
                "PATCH",
                f"{path}/status-test/status",
                {"status": merge_patch(stored, made)},
                params={"fieldValidation": "Strict"},
                content_type="application/merge-patch+json",
            )
            assert code == 200, answer
            stored = answer["status"]
            assert stored == made
    finally:
        served.request("DELETE", f"{path}/status-test")


def test_get_shows_a_dashboard(served: ApiServer, namespace: str) -> None:
    """What `kubectl get sp` prints: the server's own table."""
    test_the_server_takes_what_is_made(served, namespace)
    path = f"{GROUP}/namespaces/{namespace}/scalingpolicies/chat"
    code, answer = served.request(
        "PATCH", f"{path}/status", {"status": status()}, content_type="application/merge-patch+json"
    )
    assert code == 200, answer
    if served.kind != "real":
        pytest.skip("the double makes no tables")
    table = _table(served, path)
    names = [c["name"] for c in table["columnDefinitions"]]
    cells = dict(zip(names, table["rows"][0]["cells"], strict=True))
    cells.pop("Age")
    assert cells == {
        "Name": "chat",
        "Mode": "Scale",
        "Ready": "True",
        "Desired": 4,
        "Serving": 3,
        "Reason": "forecast",
        "Budget Left": "83%",
        "Cost/h": "$32.80",
        "Model": "llama",
        "Forecast rps": "12.3 (up to 15.9)",
        "Lead Time": "4m10s",
        "Model Version": "v7",
    }


def _table(served: ApiServer, path: str) -> dict[str, Any]:

    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    headers = {"Authorization": f"Bearer {served.token}", "Accept": accept}
    with urllib3.PoolManager(ca_certs=str(served.ca_file)) as pool:
        answer = pool.request("GET", served.url + path, headers=headers)
    table = json.loads(answer.data)
    assert isinstance(table, dict)
    return table

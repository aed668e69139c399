"""How old a decision is, on the clock of whoever asks: no comparing of two machines' clocks but once."""

import contextlib
import math
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scaler_rig import Hands, Served, policy, ref, stamp

from autoscaler.edge.keda.answers import answer_now
from autoscaler.edge.keda.errors import NoAnswerError
from autoscaler.edge.keda.metric import metric_of
from autoscaler.edge.keda.metrics import ScalerMetrics
from autoscaler.edge.keda.plan import PlanError, plan_of
from autoscaler.edge.keda.plans import MAX_AGE_SECONDS, Plans
from autoscaler.edge.keda.reactive import Load, needed


class Known:
    def __init__(self, wall_ahead: float = 0.0) -> None:
        self.hands = Hands(wall_ahead=wall_ahead)
        self.plans = Plans(self.hands.clock())

    def age(self) -> float:
        dated = self.plans.get("prod/chat")
        assert dated is not None
        return self.plans.age_seconds(dated)


def test_at_the_start_the_text_says_how_old() -> None:
    it = Known()
    it.plans.replace([policy(decided=-3600.0)])
    assert it.age() == 3600.0
    it.hands.elapsed = 10.0
    assert it.age() == 3610.0


@pytest.mark.parametrize("wall_ahead", [-7200.0, 0.0, 7200.0])
def test_what_is_watched_counts_from_when_it_was_seen(wall_ahead: float) -> None:
    it = Known(wall_ahead)
    it.plans.replace([policy(decided=0.0)])
    it.hands.elapsed = 60.0
    it.plans.apply("MODIFIED", policy(decided=60.0))
    assert it.age() == 0.0
    it.hands.elapsed = 100.0
    assert it.age() == 40.0


def test_other_news_of_the_policy_make_the_decision_no_younger() -> None:
    it = Known()
    it.plans.replace([policy(decided=0.0)])
    it.hands.elapsed = 90.0
    it.plans.apply("MODIFIED", policy(decided=0.0, current=5))
    it.plans.replace([policy(decided=0.0, current=6)])
    assert it.age() == 90.0


def test_after_a_gap_a_new_decision_is_at_most_as_old_as_the_gap() -> None:
    it = Known(wall_ahead=5000.0)
    it.plans.replace([policy(decided=0.0)])
    it.hands.elapsed = 300.0
    it.plans.replace([policy(decided=280.0)])
    assert it.age() == 300.0  # by the texts 5,020 s
    it.hands.elapsed = 330.0
    it.plans.heard()
    it.hands.elapsed = 331.0
    it.plans.replace([policy(decided=330.0)])
    assert it.age() == 1.0


def test_what_was_never_decided_has_no_age_and_no_series() -> None:
    it = Known()
    it.plans.replace([policy(desired=None, decided=None)])
    assert it.age() == math.inf


def test_a_list_forgets_what_it_does_not_name_and_rings_for_what_changed() -> None:
    it = Known()
    rung: list[str] = []
    it.plans.listen(rung.append)
    it.plans.replace([policy("a"), policy("b"), policy("c")])
    rung.clear()
    it.plans.replace([policy("a"), policy("b", desired=9)])
    assert sorted(rung) == ["prod/b", "prod/c"]
    assert it.plans.get("prod/c") is None


junk = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.none())
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["metricType", "target", "minReplicas", "maxReplicas", "toleranceUp", "toleranceDown"]
        ),
        junk | st.sampled_from(["AverageValue", "Value", 1, 0.1]),
    )
    | junk
)
def test_an_hpa_that_nobody_of_us_wrote_is_none_or_one_that_can_be(delivery: object) -> None:
    document = policy()
    document["status"]["variants"][0]["delivery"] = delivery
    (variant,) = plan_of(document).variants
    assert variant.hpa is None or variant.hpa.view(4, 4, 4).target_milli > 0


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "Keda", "Paused", "h100", "Both", "Value", stamp(0.0), "0001-01-01"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
PLACES = [
    ("metadata", "namespace"),
    ("spec",),
    ("spec", "model"),
    ("spec", "behavior"),
    ("spec", "behavior", "mode"),
    ("spec", "fallback", "afterSeconds"),
    ("spec", "fallback", "replicas"),
    ("spec", "variants"),
    ("spec", "variants", 0, "name"),
    ("spec", "variants", 0, "role"),
    ("spec", "variants", 0, "minReplicas"),
    ("spec", "variants", 0, "maxReplicas"),
    ("status",),
    ("status", "mode"),
    ("status", "lastDecisionTime"),
    ("status", "variants"),
    ("status", "variants", 0),
    ("status", "variants", 0, "desired"),
    ("status", "variants", 0, "current"),
    ("status", "variants", 0, "ready"),
    ("status", "variants", 0, "replicaConcurrency"),
    ("status", "variants", 0, "delivery", "existing"),
]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(PLACES), values, min_size=1, max_size=3), st.booleans())
def test_a_policy_that_nobody_of_us_wrote_is_answered_for_or_refused_and_harms_no_other(
    changes: dict[tuple[str | int, ...], Any], old: bool
) -> None:
    """Of another version of the CRD, or of somebody who can write statuses."""
    it, odd = Known(), policy("odd", concurrency=5.0)
    odd["status"]["variants"][0]["delivery"] = {
        "metricType": "AverageValue", "target": 1.0, "minReplicas": 1, "maxReplicas": 100,
        "toleranceUp": 0.1, "toleranceDown": 0.1, "existing": 4,
    }  # fmt: skip
    for place, value in changes.items():
        put(odd, place, value)
    it.plans.replace([odd, policy()])
    it.plans.apply("MODIFIED", odd)
    it.hands.elapsed = 1e4 if old else 0.0
    dated = it.plans.get("prod/chat")
    assert dated is not None
    for each in it.plans.all():
        for v in each.plan.variants:
            trigger = it.plans.trigger_of(each.plan, v.name)
            try:
                answer = answer_now(it.plans, each, trigger)
            except NoAnswerError:
                continue
            assert answer.replicas >= 0
            number = metric_of(answer, trigger)
            assert math.isfinite(number.value)
            assert number.value >= 0
            assert (number.value > 0) == (answer.replicas > 0)
        needed(each.plan, Load({"h100": 12.0}, queued=3.0))
    it.plans.aged()
    render(ScalerMetrics("test", it.plans))


def put(document: Any, place: tuple[str | int, ...], value: Any) -> None:
    *path, last = place
    with contextlib.suppress(KeyError, IndexError, TypeError):  # what stood there is gone already
        for key in path:
            document = document[key]
        document[last] = value


def render(metrics: ScalerMetrics) -> bytes:
    return metrics.render("")[0]


def test_what_makes_no_sense_any_more_keeps_what_was_known(served: Served) -> None:
    """A role that only a newer version knows: an older replica of the scaler serves what it had."""
    newer = policy(desired=9)
    newer["spec"]["variants"][0]["role"] = "Draft"
    with pytest.raises(PlanError, match="prod/chat: the policy cannot be understood: 'Draft'"):
        plan_of(newer)
    served.plans.replace([newer, policy("code", desired=2)])
    keda = served.keda()
    assert keda.count(ref("code")) == 2.0
    with pytest.raises(grpc.RpcError, match="cannot be understood") as error:
        keda.count()
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    served.plans.apply("MODIFIED", policy(desired=7))
    assert keda.count() == 7.0
    served.plans.apply("MODIFIED", newer)
    served.plans.replace([newer])
    assert keda.count() == 7.0  # as long as it is not too old
    served.plans.apply("DELETED", newer)
    with pytest.raises(grpc.RpcError) as error:
        keda.count()
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("wall_ahead", "age"),
    [
        (0.0, 30.0),
        (3600.0, 3630.0),  # the operator's clock is behind: too old, until it speaks again
        (-3600.0, 0.0),  # ahead: fresh for as long as a decision may be
    ],
)
def test_clocks_that_differ_matter_once_at_the_start(wall_ahead: float, age: float) -> None:
    it = Known(wall_ahead)
    it.hands.elapsed = 30.0
    it.plans.replace([policy(decided=0.0)])
    assert it.age() == age
    it.hands.elapsed = 60.0
    it.plans.apply("MODIFIED", policy(decided=60.0))
    assert it.age() == 0.0
    it.hands.elapsed = 60.0 + MAX_AGE_SECONDS + 1.0
    assert [p.service for p in it.plans.aged()] == ["prod/chat"]

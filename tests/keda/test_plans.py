"""How old a decision is, on the clock of whoever asks: no comparing of two machines' clocks but once."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scaler_rig import Hands, policy

from autoscaler.edge.keda.plans import Plans, plan_of


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

"""What is told as a decision ages: the plan, then what runs, then the fallback; never a zero made up."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scaler_rig import policy

from autoscaler.edge.keda.answers import Answer, answer_of
from autoscaler.edge.keda.errors import NoAnswerError
from autoscaler.edge.keda.plan import plan_of
from autoscaler.edge.keda.trigger import Trigger

CHAT = Trigger("prod", "chat", None)
MAX_AGE = 180.0


def told(age: float, trigger: Trigger = CHAT, *, needs: int = 0, **status: Any) -> Answer:
    floors = {"h100": needs} if needs else {}
    return answer_of(plan_of(policy(**status)), trigger, age, MAX_AGE, floors=floors)


@pytest.mark.parametrize(
    ("age", "replicas", "source"),
    [
        (0.0, 4, "plan"),
        (180.0, 4, "plan"),
        (180.1, 6, "running"),  # decided 4 while 6 ran: whether 4 came about is not known
        (780.0, 6, "running"),
        (780.1, 9, "fallback"),  # 180 s, and fallback.afterSeconds 600
        (float("inf"), 9, "fallback"),
    ],
)
def test_the_steps_of_age(age: float, replicas: int, source: str) -> None:
    answer = told(age, desired=4, current=6, fallback={"replicas": 9})
    assert (answer.replicas, answer.source) == (replicas, source)


@pytest.mark.parametrize(
    ("status", "replicas", "source"),
    [
        ({"desired": 9, "current": 4}, 9, "running"),  # no fallback named: what runs is kept
        ({"desired": 9, "current": None}, 9, "running"),
        ({"desired": 9, "current": 4, "fallback": {"replicas": 2}}, 9, "fallback"),  # a floor
        (
            {"desired": 0, "current": 0, "fallback": {"replicas": 200}},
            100,
            "fallback",
        ),  # the maximum
        ({"desired": 0, "current": 0}, 0, "running"),  # zero was decided: it is not missing
        ({"desired": 2, "current": 5, "paused": True}, 5, "paused"),
        ({"desired": 2, "current": 5, "paused": True, "fallback": {"replicas": 9}}, 5, "paused"),
    ],
)
def test_a_decision_of_an_hour_ago(status: dict[str, Any], replicas: int, source: str) -> None:
    answer = told(3600.0, **status)
    assert (answer.replicas, answer.source) == (replicas, source)


@pytest.mark.parametrize(
    ("age", "needs", "replicas", "source"),
    [
        (180.0, 50, 4, "plan"),  # while it is fresh, the operator has seen the load as well
        (180.1, 5, 6, "running"),  # it only raises
        (180.1, 8, 8, "reactive"),
        (180.1, 500, 100, "reactive"),  # the policy's maximum
        (780.1, 8, 9, "fallback"),
        (780.1, 12, 12, "fallback"),  # the more of the two
    ],
)
def test_what_the_load_needs_raises_what_runs(
    age: float, needs: int, replicas: int, source: str
) -> None:
    answer = told(age, desired=4, current=6, needs=needs, fallback={"replicas": 9})
    assert (answer.replicas, answer.source) == (replicas, source)


def test_beyond_the_limit_the_policys_bounds_of_today_hold() -> None:
    """Somebody edits the policy while nobody decides."""
    document = policy(desired=4, current=6)
    variant = document["spec"]["variants"][0]
    for least, most, replicas in ((8, 20, 8), (0, 5, 5), (0, 100, 6)):
        variant |= {"minReplicas": least, "maxReplicas": most}
        plan = plan_of(document)
        assert answer_of(plan, CHAT, 1e3, MAX_AGE).replicas == replicas
        assert answer_of(plan, CHAT, 0.0, MAX_AGE).replicas == 4


def test_a_triggers_own_limits_count_before_the_policys() -> None:
    own = Trigger("prod", "chat", None, max_age_seconds=30.0, fallback_replicas=12)
    assert told(29.0, own, desired=2, current=2).source == "plan"
    assert told(31.0, own, desired=2, current=3).replicas == 3
    assert told(631.0, own, desired=2, current=2, fallback={"replicas": 5}).replicas == 12


@pytest.mark.parametrize("age", [0.0, 1e4, float("inf")])
def test_what_was_never_decided_is_no_number(age: float) -> None:
    with pytest.raises(NoAnswerError, match="nothing was decided yet for variant h100") as error:
        told(age, desired=None, current=None, fallback={"replicas": 3})
    assert error.value.kind == "nothing_known"


def two_variants(roles: tuple[str, str], counts: tuple[int, int]) -> dict[str, Any]:
    it = policy(fallback={"replicas": 10})
    it["spec"]["variants"] = [
        {"name": name, "role": role, "maxReplicas": most}
        for name, role, most in zip(("a", "b"), roles, (4, 20), strict=True)
    ]
    it["status"]["variants"] = [
        {"name": name, "desired": n, "current": n} for name, n in zip("ab", counts, strict=True)
    ]
    return it


@pytest.mark.parametrize(
    ("roles", "counts", "expected"),
    [
        (("Both", "Both"), (1, 2), (4, 6)),  # 10 together, the first variant first, up to its 4
        (("Both", "Both"), (4, 9), (4, 9)),  # 13 already: nothing is lowered
        (("Prefill", "Decode"), (1, 2), (4, 10)),  # 10 for each phase, as far as the maxima go
    ],
)
def test_a_fallback_of_several_variants_is_shared_out_as_the_core_does(
    roles: tuple[str, str], counts: tuple[int, int], expected: tuple[int, int]
) -> None:
    plan = plan_of(two_variants(roles, counts))
    got = tuple(
        answer_of(plan, Trigger("prod", "chat", name), 1e6, MAX_AGE).replicas for name in "ab"
    )
    assert got == expected


def test_of_several_variants_one_must_be_named() -> None:
    plan = plan_of(two_variants(("Both", "Both"), (1, 1)))
    with pytest.raises(NoAnswerError, match="variant: missing; allowed for prod/chat: a, b"):
        answer_of(plan, CHAT, 0.0, MAX_AGE)


counts = st.none() | st.integers(0, 50)


@given(counts, counts, counts, st.integers(0, 150), st.floats(0, 1e5), st.booleans())
def test_never_below_what_runs_and_zero_only_where_decided(
    desired: int | None,
    current: int | None,
    fallback: int | None,
    needs: int,
    age: float,
    paused: bool,
) -> None:
    try:
        answer = told(
            age,
            needs=needs,
            desired=desired,
            current=current,
            paused=paused,
            fallback=None if fallback is None else {"replicas": fallback},
        )
    except NoAnswerError:
        assert desired is None
        return
    known = [n for n in (desired, current) if n is not None]
    if answer.source in {"running", "reactive", "fallback"}:
        assert max(known) <= answer.replicas <= 100
        assert answer.replicas >= min(needs, 100)
    if answer.replicas == 0:
        assert 0 in known

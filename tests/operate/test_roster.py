"""Which policies are in force: valid ones, the last valid one of broken ones, the older of two."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operate_objects import Json, policy_object, pool_object

from autoscaler.operate.roster import PAUSED, Roll, Roster, is_paused, see

LATER = "2026-11-27T07:00:00Z"


def call(roster: Roster, *objects: Json) -> Roll:
    seen = [see(o) for o in objects]
    kinds = [o["kind"] for o in objects]
    pairs = list(zip(kinds, seen, strict=True))
    return roster.call(
        [s for k, s in pairs if k == "ScalingPolicy"], [s for k, s in pairs if k != "ScalingPolicy"]
    )


def test_a_valid_policy_is_decided() -> None:
    roll = call(Roster(), policy_object(), pool_object())
    assert list(roll.policies.services) == ["prod/chat"]
    assert roll.members["prod/chat"].decided
    assert [p.name for p in roll.policies.pools] == ["fleet"]
    assert roll.pool_problems == {}


def test_the_last_valid_generation_stays_in_force_and_no_longer_than_its_object() -> None:
    roster = Roster()
    call(roster, policy_object(priority=7))
    broken = policy_object(generation=2, variants=[])
    roll = call(roster, broken)
    member = roll.members["prod/chat"]
    assert (member.generation, member.seen.generation) == (1, 2)
    assert roll.policies.services["prod/chat"].priority == 7
    assert "spec.variants" in member.invalid
    assert "generation 1 stays in force" in member.invalid
    again = call(roster, policy_object(uid="another", variants=[]))  # deleted and made anew
    assert again.policies.services == {}
    assert again.members["prod/chat"].policy is None
    healed = call(roster, policy_object(generation=3, priority=8))
    assert healed.policies.services["prod/chat"].priority == 8
    assert healed.members["prod/chat"].invalid == ""


def test_what_never_was_valid_is_not_decided() -> None:
    roll = call(Roster(), policy_object(slo={"objectives": []}))
    assert roll.policies.services == {}
    assert "spec.slo.objectives" in roll.members["prod/chat"].invalid


def test_a_broken_pool_keeps_its_last_classes() -> None:
    roster = Roster()
    call(roster, policy_object(), pool_object())
    broken = pool_object(generation=2)
    broken["spec"]["classes"][0]["usdPerHour"] = "cheap"
    roll = call(roster, policy_object(), broken)
    assert roll.members["prod/chat"].decided
    assert [p.name for p in roll.policies.pools] == ["fleet"]
    assert "usdPerHour" in roll.pool_problems["fleet"]


def test_of_two_policies_on_one_workload_the_older_one_has_it() -> None:
    older, younger = (
        policy_object("old", target="x"),
        policy_object("new", target="x", created=LATER),
    )
    for order in ((older, younger), (younger, older)):
        roll = call(Roster(), *order)
        assert list(roll.policies.services) == ["prod/old"]
        assert "scaled by the older ScalingPolicy prod/old" in roll.members["prod/new"].conflict
    # another version of the API names the same object
    other = policy_object("new", target="x", created=LATER, api_version="apps/v2")
    assert call(Roster(), older, other).members["prod/new"].conflict
    # created in the same second: the uid decides, always alike
    twins = policy_object("a", uid="2", target="x"), policy_object("b", uid="1", target="x")
    assert list(call(Roster(), *twins).policies.services) == ["prod/b"]


def test_a_class_that_no_pool_has_is_not_decided_once_there_were_pools() -> None:
    roster = Roster()
    assert call(roster, policy_object()).members["prod/chat"].decided  # nobody uses pools here
    roll = call(roster, policy_object(accelerator_class="h10"), pool_object())
    assert "did you mean h100?" in roll.members["prod/chat"].invalid
    assert not roll.members["prod/chat"].decided
    gone = call(roster, policy_object())
    assert not gone.members["prod/chat"].decided  # the pool is gone: that lifts no limit


def test_of_two_pools_with_one_class_the_older_one_has_it() -> None:
    roll = call(Roster(), pool_object("new", "h100", created=LATER), pool_object("old", "h100"))
    assert [b.metadata.name for b in roll.pool_bodies] == ["old"]
    assert "older AcceleratorPool old" in roll.pool_problems["new"]


@pytest.mark.parametrize(
    ("annotations", "paused"),
    [
        (None, False), ({}, False), ({PAUSED: "true"}, True), ({PAUSED: ""}, True),
        ({PAUSED: "False"}, False), ({PAUSED: "yes"}, True), ({"other": "true"}, False),
    ],
)  # fmt: skip
def test_any_value_but_false_pauses(annotations: Json | None, *, paused: bool) -> None:
    assert is_paused({"annotations": annotations}) == paused


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def _replaced(value: Any, path: list[Any], new: Any) -> Any:
    if not path:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], new)
    return copy


def _paths(value: Any) -> list[list[Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    out: list[list[Any]] = []
    for key, item in items:
        out.append([key])
        if isinstance(item, dict | list):
            out += [[key, *rest] for rest in _paths(item)]
    return out


@settings(max_examples=300, deadline=None)
@given(data=st.data(), what=st.sampled_from(["policy", "pool"]), new=NONSENSE)
def test_no_nonsense_is_more_than_one_invalid_object(
    data: st.DataObject, what: str, new: object
) -> None:
    whole = policy_object(
        schedule=[{"name": "n", "days": ["Mon"], "start": "20:00", "end": "22:00",
                   "timeZone": "Europe/Berlin", "minReplicas": 2}],
        fallback={"afterSeconds": 60, "replicas": 2},
    ) if what == "policy" else pool_object()  # fmt: skip
    path = data.draw(st.sampled_from([["spec"], *(["spec", *p] for p in _paths(whole["spec"]))]))
    seen = see(_replaced(whole, path, new))
    assert (seen.body is None) == bool(seen.invalid)
    good = see(policy_object("good", created=LATER))
    roll = Roster().call([seen, good] if what == "policy" else [good], [seen] * (what == "pool"))
    assert "prod/good" in roll.members

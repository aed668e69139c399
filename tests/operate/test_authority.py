"""Who may set replicas, and what counts as a change of that."""

import pytest
from operate_objects import CHAT, policy_object, standing, view

from autoscaler.core.types import Mode
from autoscaler.edge.kube.errors import KubeForbidden
from autoscaler.operate.authority import Standing, changed, remembered, standing_of
from autoscaler.operate.roster import Roster, see


@pytest.mark.parametrize(
    ("now", "writes"),
    [
        (standing(), True),
        (standing(mode=Mode.RECOMMEND), False),
        (standing(mode=Mode.KEDA), False),
        (standing(paused_by="somebody"), False),
        (standing(conflict="an HPA"), False),
    ],
)
def test_only_an_undisturbed_scale_mode_writes(now: Standing, *, writes: bool) -> None:
    assert now.writes == writes


@pytest.mark.parametrize(
    ("before", "now", "is_change"),
    [
        (None, standing(), False),  # a fresh process: the core remembers what runs
        (standing(), standing(), False),
        (standing(mode=Mode.RECOMMEND), standing(), True),
        (standing(), standing(mode=Mode.KEDA), True),
        (standing(paused_by="x"), standing(), True),
        (standing(), standing(conflict="x"), True),
        (standing(conflict="an HPA"), standing(conflict="another"), False),
        (standing("u1"), standing("u2"), True),  # made anew
        (standing("u1"), standing(""), False),  # cannot be read just now
        (Standing(Mode.SCALE, "", "", {}, ("",)), standing("u1"), True),  # seen for the first time
        (standing("u1"), standing("u1", "u2"), True),  # a variant more
        (standing("u1", "u2"), standing("u1", ""), False),
    ],
)
def test_what_is_a_change(before: Standing | None, now: Standing, *, is_change: bool) -> None:
    text = None if before is None else before.authority
    assert changed(text, now) == is_change


def test_a_workload_that_is_away_is_known_when_it_comes_back() -> None:
    text = remembered(None, standing("u1", "u2"))
    text = remembered(text, standing("", "u2"))
    assert text == "Scale|free|u1|u2"
    assert not changed(text, standing("u1", "u2"))
    assert changed(text, standing("u9", "u2"))


def test_what_cannot_be_read_is_named() -> None:
    member = Roster().call([see(policy_object())], []).members["prod/chat"]
    error = KubeForbidden("no", 403, "Forbidden")
    refused = standing_of(member, {("prod", CHAT): error}, "", "")
    assert (refused.unreadable, refused.uids) == ({"default": error}, ("",))
    seen = standing_of(member, {("prod", CHAT): view(3)}, "the namespace", "")
    assert (seen.unreadable, seen.uids, seen.writes) == ({}, ("u1",), False)

"""Start-up times by the node that a new replica will land on."""

from dataclasses import replace

import numpy as np
import pytest
from builders import NOW, SERVICE, observation, outlook, policies, policy, seen, variant

from autoscaler.core.leads import StartLeads, leads_now
from autoscaler.core.outcome import Outlook, StartLead
from autoscaler.core.types import Observation

MIX, THERE, NEW = StartLead(120.0, 300.0), StartLead(60.0, 90.0), StartLead(400.0, 700.0)
ALL = StartLeads(MIX, THERE, NEW)
KEY = (SERVICE, "h100")


def world(free: tuple[int, ...] | None, count: int = 4) -> Observation:
    """Four replicas of two accelerators each; `free` accelerators by node."""
    own = observation(h100=seen(count))
    return replace(own, free_on_nodes={} if free is None else {"h100": free})


def rising(times: float, after_seconds: float) -> Outlook:
    """A load that is `times` as high from a lead on."""
    flat = outlook(10.0)
    up = np.where(flat.leads_seconds >= after_seconds, times, 1.0)[:, np.newaxis]
    return replace(flat, arrival_rate_rps=flat.arrival_rate_rps * up)


def lead(
    free: tuple[int, ...] | None, ahead: Outlook | None, leads: StartLeads = ALL, count: int = 4
) -> StartLead:
    declared = policies(policy(variants=(replace(variant("h100"), accelerators_per_replica=2),)))
    outlooks = {} if ahead is None else {SERVICE: ahead}
    return leads_now(declared, {KEY: leads}, outlooks, world(free, count))[KEY]


@pytest.mark.parametrize(
    ("free", "ahead", "expected"),
    [
        (None, outlook(10.0), MIX),  # no nodes known
        ((8,), outlook(10.0), THERE),  # a flat load may ask for one replica: it fits
        ((2,), outlook(10.0), THERE),
        ((1, 1), outlook(10.0), MIX),  # two accelerators, on two nodes: nobody knows
        ((1,), outlook(10.0), NEW),  # not one fits
        ((), outlook(10.0), NEW),
        # half as much again within 700 s: two replicas more, four accelerators
        ((4,), rising(1.5, 600.0), THERE),
        ((2,), rising(1.5, 600.0), MIX),
        ((3, 3), rising(1.5, 600.0), THERE),  # a replica on each
        ((2,), rising(1.5, 900.0), THERE),  # later than a new node: not asked for yet
        ((8,), None, THERE),  # no forecast: it may double, four replicas
        ((6,), None, MIX),
    ],
)
def test_the_node_is_known_where_all_that_may_be_added_fits(
    free: tuple[int, ...] | None, ahead: Outlook | None, expected: StartLead
) -> None:
    assert lead(free, ahead) == expected


def test_without_starts_that_tell_the_nodes_apart_the_mix_counts() -> None:
    untold = StartLeads(MIX)
    assert [lead(free, outlook(10.0), untold) for free in ((8,), (), (1, 1))] == [MIX] * 3
    assert lead((8,), outlook(10.0), StartLeads(MIX, new=NEW)) == MIX
    assert lead((), outlook(10.0), StartLeads(MIX, there=THERE)) == MIX


def test_a_service_that_has_nothing_yet_needs_room_for_one() -> None:
    assert lead((2,), rising(3.0, 120.0), count=0) == THERE
    assert lead((1,), rising(3.0, 120.0), count=0) == NEW


def test_what_others_of_the_class_may_add_comes_first() -> None:
    # both of four replicas, both double: four replicas each of one accelerator
    second = "prod/other"
    mine = policy(variants=(variant("h100"),))
    declared = policies(mine, replace(mine, service=second))
    leads = {KEY: ALL, (second, "h100"): ALL}
    own = observation(h100=seen(4)).services[SERVICE]
    ahead = {SERVICE: rising(2.0, 120.0), second: rising(2.0, 120.0)}

    def of(free: tuple[int, ...]) -> set[StartLead]:
        shown = replace(
            observation(h100=seen(4)),
            services={SERVICE: own, second: own},
            free_on_nodes={"h100": free},
        )
        return set(leads_now(declared, leads, ahead, shown).values())

    assert of((8,)) == {THERE}
    assert of((7,)) == {MIX}


def test_a_class_that_is_not_observed_keeps_the_mix() -> None:
    declared = policies(policy(variants=(variant("h100"), variant("a100"))))
    leads = {KEY: ALL, (SERVICE, "a100"): ALL}
    shown = replace(observation(h100=seen(1), a100=seen(1)), free_on_nodes={"h100": (8,)})
    got = leads_now(declared, leads, {SERVICE: outlook(10.0)}, shown)
    assert got == {KEY: THERE, (SERVICE, "a100"): MIX}
    assert shown.now_seconds == NOW

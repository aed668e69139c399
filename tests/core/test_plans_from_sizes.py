"""From the forecast through sizing to the plan: phases, moves between GPU types, groups of pods."""

from dataclasses import replace

import numpy as np
import pytest
from builders import (
    NOW,
    SERVICE,
    forecasts,
    latency_model,
    observation,
    outlook,
    policies,
    policy,
    seen,
    variant,
)

from autoscaler.core.outcome import Outlook, StartLead, State
from autoscaler.core.tick import tick
from autoscaler.core.types import AcceleratorClass, Pool, Reason, Role, ScalingRules

LEAD = StartLead(120.0, 240.0)


def with_mix_ahead(isl_tokens: float, osl_tokens: float) -> Outlook:
    """40 req/s of 1,000 tokens in and 100 out now, of other lengths at every lead."""
    base = outlook(40.0)
    lengths = np.tile([isl_tokens, osl_tokens], (base.leads_seconds.size, 1))
    return replace(base, ahead_tokens=lengths)


def split_roles(isl_tokens: float, osl_tokens: float) -> dict[str, int]:
    """Counts of prefill and decode for the mix ahead, of an engine whose contexts cost next to nothing."""
    roles = (variant("p", role=Role.PREFILL), variant("d", role=Role.DECODE))
    latency = latency_model((SERVICE, "p"), (SERVICE, "d"), per_context_token_seconds=1e-10)
    known = forecasts({SERVICE: with_mix_ahead(isl_tokens, osl_tokens)}, latency, p=LEAD, d=LEAD)
    world = policies(policy(variants=roles))
    _, decisions = tick(world, known, State(), observation(rate=40.0, p=seen(1), d=seen(1)))
    return dict(decisions.services[SERVICE].variants)


def test_prefill_follows_the_prompts_ahead_and_decode_the_answers() -> None:
    now = split_roles(1000.0, 100.0)
    longer_prompts = split_roles(2000.0, 100.0)
    assert longer_prompts["p"] == pytest.approx(2 * now["p"], rel=0.3)
    assert longer_prompts["d"] == now["d"]
    longer_answers = split_roles(1000.0, 300.0)
    assert longer_answers["d"] > now["d"]
    assert longer_answers["p"] == now["p"]


def test_a_move_to_another_gpu_type_makes_before_it_breaks() -> None:
    """A cheaper type becomes available; the walk orders it, waits for it, and only then gives up the old."""
    pool = Pool("p", (AcceleratorClass("old", 4.0, None), AcceleratorClass("new", 1.0, None)))
    both = (variant("old", min_replicas=0), variant("new", min_replicas=0))
    mine = policy(variants=both, behavior=replace(policy().behavior, scale_down=ScalingRules(0.0)))
    world = policies(mine, pools=(pool,))
    latency = latency_model((SERVICE, "old"), (SERVICE, "new"))
    known = forecasts({SERVICE: outlook(20.0)}, latency, old=LEAD, new=LEAD)
    alone = replace(mine, variants=both[:1])
    _, decisions = tick(
        policies(alone, pools=(pool,)), known, State(), observation(rate=20.0, old=seen(4))
    )
    need = decisions.services[SERVICE].variants["old"]

    state, walk = State(), []
    fleet = {"old": (need, 0), "new": (0, 0)}  # ready, starting
    for minute in range(5):
        shown = {
            name: seen(ready, starting=starting, desired=ready + starting)
            for name, (ready, starting) in fleet.items()
        }
        state, decisions = tick(
            world, known, state, observation(NOW + 60 * minute, rate=20.0, **shown)
        )
        wanted = decisions.services[SERVICE].variants
        walk.append((wanted["old"], wanted["new"]))
        # what was ordered two minutes ago is ready; what was given up is gone
        new_ready = walk[-3][1] if minute >= 2 else 0
        fleet = {"old": (wanted["old"], 0), "new": (new_ready, wanted["new"] - new_ready)}
    assert walk == [(need, need), (need, need), (need, need), (0, need), (0, need)]


@pytest.mark.parametrize(("accelerators", "groups"), [(64, 4), (63, 3), (16, 1), (15, 0)])
def test_groups_are_counted_whole(accelerators: int, groups: int) -> None:
    """A LeaderWorkerSet of two nodes with eight accelerators each: a replica is 16 or none."""
    group = variant("h100", accelerators_per_replica=16, min_replicas=0)
    pool = Pool("p", (AcceleratorClass("h100", 4.0, accelerators),))
    world = policies(policy(variants=(group,)), pools=(pool,))
    known = forecasts({SERVICE: outlook(20.0)})
    _, decisions = tick(world, known, State(), observation(rate=20.0, h100=seen(0)))
    decided = decisions.services[SERVICE]
    assert decided.variants == {"h100": groups}
    assert decided.cost_usd_per_hour == pytest.approx(groups * 16 * 4.0)
    assert decided.reason is Reason.QUOTA

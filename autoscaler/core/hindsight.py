"""What the latency model expects of the load that was measured, on the replicas that were ready.

Beside what came true it shows whether the model is too dark or too bright, whatever the forecast was: the
error budget keeps both (autoscaler.core.budget).
"""

import math
from collections.abc import Mapping

import numpy as np

from autoscaler.core.assess import Situation
from autoscaler.core.sizing import IDLE_RPS, Sizes


def expected_now(situations: Mapping[str, Situation], sizes: Sizes) -> dict[str, float]:
    """Return each service's expected share of requests within the SLO; absent where it is not known.

    The load divides over variants in proportion to what those that are ready carry.
    """
    lanes: dict[str, list[dict[int, float]]] = {}
    rate, ready = [IDLE_RPS] * len(sizes.known), [1] * len(sizes.known)
    for name, situation in situations.items():
        shares = _shares(situation, sizes)
        measured = math.nan if situation.demand is None else situation.demand.measured_rps
        if not shares or not measured > 0 or situation.observed is None:
            continue
        lanes[name] = shares
        for v in situation.policy.variants:
            lane, seen = sizes.lanes.get((name, v.name)), situation.observed.variants.get(v.name)
            if lane is not None and seen is not None:
                ready[lane] = max(1, seen.ready)
        for part in shares:
            for lane, share in part.items():
                rate[lane] = max(rate[lane], measured * share)
    if not lanes:
        return {}
    rates, replicas = np.array(rate), np.array(ready, dtype=np.float64)
    got = np.full(len(rate), np.nan)
    for b in sizes.batches:
        got[b.index] = b.attainment(rates[b.index, np.newaxis], replicas[b.index])[:, 0]
    attained = got.tolist()
    return {
        name: math.prod([sum([share * attained[i] for i, share in p.items()]) for p in parts])
        for name, parts in lanes.items()
    }


def _shares(situation: Situation, sizes: Sizes) -> list[dict[int, float]]:
    """Return the part of each phase's load that each ready lane takes; empty if a speed is unknown."""
    policy, observed = situation.policy, situation.observed
    if observed is None:
        return []
    parts = []
    for phase in policy.phases:
        weights: dict[int, float] = {}
        for i in phase:
            name = policy.variants[i].name
            seen, lane = observed.variants.get(name), sizes.lanes.get((policy.service, name))
            if seen is None or seen.ready < 1:
                continue
            if lane is None:
                return []
            weights[lane] = seen.ready / max(1, sizes.future[lane])
        total = sum(weights.values())
        if total <= 0:
            return []
        parts.append({lane: w / total for lane, w in weights.items()})
    return parts

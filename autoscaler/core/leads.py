"""Which start-up times to plan with: those of the node on which a new replica will land, where that is known.

A replica that finds a free accelerator on a node that is there starts in a minute; one that waits for a node,
in ten. Of each variant whose starts told the two apart, a plan counts on

    there   if all that may be added until a new node could be there fits onto nodes that are there,
    new     if not even one replica fits,
    mix     else: fragments, an unknown cluster, starts without phases.

What may be added: a variant's replicas times the growth of the predicted load's upper quantile within the
longest lead, at least one; and what the others of its accelerator class may add, which come first. A service
without a forecast may double.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autoscaler.core.demand import fans_of
from autoscaler.core.outcome import Outlook, StartLead
from autoscaler.core.types import Observation, Policies, Variant

UPPER = 0.95  # the quantile whose growth counts
UNKNOWN_GROWTH = 2.0
Key = tuple[str, str]  # (service, variant)


@dataclass(frozen=True, slots=True)
class StartLeads:
    """A variant's start-up times by the node; None where no starts told of such nodes."""

    mix: StartLead
    there: StartLead | None = None
    new: StartLead | None = None

    @property
    def longest_seconds(self) -> float:
        """The upper start-up time, whatever the node."""
        return max(self.mix.upper_seconds, 0.0 if self.new is None else self.new.upper_seconds)


def leads_now(
    policies: Policies,
    leads: Mapping[Key, StartLeads],
    outlooks: Mapping[str, Outlook],
    observation: Observation,
) -> dict[Key, StartLead]:
    """Return the start-up times of every variant of `leads` for the nodes as observed now."""
    mix = {key: of.mix for key, of in leads.items()}
    free = observation.free_on_nodes
    told = any(of.there is not None or of.new is not None for of in leads.values())
    if not free or not told:
        return mix
    added = _added(policies, _growth(leads, outlooks, observation), observation)
    wanted: dict[str, int] = {}  # accelerators that may be added to each class
    variants = {(s, v.name): v for s, policy in policies.services.items() for v in policy.variants}
    for key, v in variants.items():
        more = added[key] * v.accelerators_per_replica
        wanted[v.accelerator_class] = wanted.get(v.accelerator_class, 0) + more
    rooms = {
        (name, size): _Room(sum(counts), sum(n // size for n in counts))
        for name, size in {
            (v.accelerator_class, v.accelerators_per_replica) for v in variants.values()
        }
        if (counts := free.get(name)) is not None
    }
    for key, of in leads.items():
        v = variants[key]
        room = rooms.get((v.accelerator_class, v.accelerators_per_replica))
        if room is not None:
            mix[key] = _lead(of, v, room, added[key], wanted[v.accelerator_class])
    return mix


class _Room(NamedTuple):
    """What is free of a class: accelerators, and whole replicas of a size."""

    accelerators: int
    replicas: int


def _lead(of: StartLeads, variant: Variant, room: _Room, added: int, wanted: int) -> StartLead:
    size = variant.accelerators_per_replica
    if room.accelerators < size:
        return of.mix if of.new is None else of.new
    others = wanted - added * size
    need = max(1, added) + math.ceil(others / size)
    return of.there if room.replicas >= need and of.there is not None else of.mix


def _added(
    policies: Policies, growth: Mapping[str, float], observation: Observation
) -> dict[Key, int]:
    """Return how many replicas each variant may add while a new node would be on its way."""
    added = {}
    for service, policy in policies.services.items():
        seen = observation.services.get(service)
        more = growth.get(service, UNKNOWN_GROWTH) - 1.0
        for v in policy.variants:
            now = None if seen is None else seen.variants.get(v.name)
            added[service, v.name] = 0 if now is None else math.ceil(now.desired * more)
    return added


def _growth(
    leads: Mapping[Key, StartLeads], outlooks: Mapping[str, Outlook], observation: Observation
) -> dict[str, float]:
    """Return by how much, >= 1, each service's predicted load may grow within its longest lead."""
    longest: dict[str, float] = {}
    for (service, _), of in leads.items():
        longest[service] = max(longest.get(service, 0.0), of.longest_seconds)
    known = {name: outlook for name, outlook in outlooks.items() if name in longest}
    growth: dict[str, float] = {}
    for fans in fans_of(known, observation.now_seconds):
        ends = np.array([longest[n] for n in fans.services]) + observation.interval_seconds
        none = np.zeros(len(ends))
        upper = int(np.argmin(np.abs(fans.quantiles - UPPER)))
        highest, now = (rates[:, upper] for rates in (fans.highest(none, ends), fans.at(none)))
        with np.errstate(divide="ignore", invalid="ignore"):
            times = np.where(now > 0, highest / now, np.where(highest > 0, UNKNOWN_GROWTH, 1.0))
        growth.update(zip(fans.services, times.tolist(), strict=True))
    return growth

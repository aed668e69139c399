"""Replicas that are ready and not scraped: what is measured of the others stands for them. Pure.

A pod without metrics (a label that is missing, a NetworkPolicy, a target that does not answer) would read as
less load, and be scaled down for it. The cluster knows how many pods are ready, telemetry of how many it
tells: sums over pods are scaled up by the quotient. Rates that a gateway counted are whole as they are. With
less than half of the pods scraped nobody knows what the others do: then the load is unknown, and is held.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoscaler.core.types import Observation, Policies, Policy, ServiceObservation
from autoscaler.edge.reading import Reading
from autoscaler.operate.collect import Replicas, VariantKey

SETTLED_SECONDS = 120.0  # the least time to be ready before a replica must have been scraped
MOST_FACTOR = 2.0  # of which sums are scaled up: half of the replicas are scraped
SLACK_REPLICAS = 0.5  # a scrape that failed is no missing replica
SLACK_RATIO = 0.05


@dataclass(frozen=True, slots=True)
class _Cover:
    """One variant: replicas that are ready for long enough, and those of them that are scraped."""

    settled: int
    scraped: float

    @property
    def factor(self) -> float:
        """By how much sums over the scraped replicas fall short; inf where none is."""
        if self.settled - self.scraped < max(SLACK_REPLICAS, SLACK_RATIO * self.settled):
            return 1.0
        return self.settled / self.scraped if self.scraped > 0 else math.inf


def settled_seconds(window_seconds: float) -> float:
    """Return how long a replica must be ready to have been scraped all through a window of rates."""
    return max(SETTLED_SECONDS, 1.5 * window_seconds)


def whole(
    reading: Reading, policies: Policies, replicas: Mapping[VariantKey, Replicas]
) -> tuple[Observation, dict[str, str]]:
    """Return the observation for all ready replicas, and a sentence for each service partly scraped."""
    services = dict(reading.observation.services)
    told: dict[str, str] = {}
    for name, seen in reading.observation.services.items():
        policy = policies.services.get(name)
        covers = {} if policy is None else _covers(policy, reading.scraped, replicas)
        if policy is None or all(c.factor == 1.0 for c in covers.values()):
            continue
        factor = _factor(policy, covers)
        services[name] = _scaled(seen, covers, factor if name in reading.rebuilt else 1.0)
        settled = sum(c.settled for c in covers.values())
        scraped = sum(min(c.scraped, c.settled) for c in covers.values())
        known = factor <= MOST_FACTOR
        then = "their load stands for all" if known else "what the others serve is not known"
        told[name] = f"{scraped:.0f} of {settled} ready replicas are scraped: {then}"
    return replace(reading.observation, services=services), told


def _covers(
    policy: Policy, scraped: Mapping[VariantKey, float], replicas: Mapping[VariantKey, Replicas]
) -> dict[str, _Cover]:
    """Return every variant's cover; none where no replica of the service is scraped.

    Then there is no telemetry of replicas at all, which is another matter.
    """
    keys = {v.name: (policy.service, v.name) for v in policy.variants}
    if not any(key in scraped for key in keys.values()):
        return {}
    return {
        name: _Cover(replicas[key].settled if key in replicas else 0, scraped.get(key, 0.0))
        for name, key in keys.items()
    }


def _factor(policy: Policy, covers: Mapping[str, _Cover]) -> float:
    """Return the factor of the whole service: that of the phase of a request that is scraped best."""
    out = []
    for phase in policy.phases:
        of = [covers[policy.variants[i].name] for i in phase]
        told = sum(c.settled / c.factor for c in of)
        settled = sum(c.settled for c in of)
        out.append(1.0 if settled == 0 else settled / told if told > 0 else math.inf)
    return min(out)


def _scaled(
    seen: ServiceObservation, covers: Mapping[str, _Cover], factor: float
) -> ServiceObservation:
    variants = {}
    for name, v in seen.variants.items():
        own = _known(covers[name].factor)
        variants[name] = replace(v, running=v.running * own, waiting=v.waiting * own)
    return replace(seen, arrival_rate_rps=seen.arrival_rate_rps * _known(factor), variants=variants)


def _known(factor: float) -> float:
    return factor if factor <= MOST_FACTOR else math.nan

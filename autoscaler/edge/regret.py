"""What ran beyond, and what lacked below, the load as it was measured: in hindsight, tick by tick.

Every tick stands for its interval. With N the replicas that the measured load needed within the SLO, of
the variants as planned, and M the policy's least count:

    regret     max(0, price of what runs - price of max(N, M)) * interval
    shortfall  max(0, N - ready) * interval

Hindsight knows the load at once and starts replicas in no time: not even a perfect forecast reaches zero.
An interval in which one of these numbers is unknown counts in neither total; it is not zero.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.core.outcome import ServiceDecision
from autoscaler.core.prices import Prices
from autoscaler.core.types import Policy, Pool, ServiceObservation

SECONDS_PER_HOUR = 3600.0


@dataclass(slots=True)
class Regret:
    """One service's totals; NaN until something could be counted."""

    usd: float = math.nan
    shortfall_replica_seconds: float = math.nan

    def take_in(
        self,
        policy: Policy,
        pools: Sequence[Pool],
        seen: ServiceObservation,
        decision: ServiceDecision,
        interval_seconds: float,
    ) -> None:
        """Add one interval."""
        needed = decision.needed_replicas
        if any(v.name not in seen.variants for v in policy.variants) or math.isnan(needed):
            return
        ready = sum(seen.variants[v.name].ready for v in policy.variants)
        lacking = max(0.0, needed - ready) * interval_seconds
        self.shortfall_replica_seconds = _plus(self.shortfall_replica_seconds, lacking)
        least = max(needed, sum(v.min_replicas for v in policy.variants))
        beyond = _paid_usd_per_hour(policy, pools, seen) - _price_usd_per_hour(decision, least)
        if math.isfinite(beyond):
            self.usd = _plus(self.usd, max(0.0, beyond) * interval_seconds / SECONDS_PER_HOUR)


def _paid_usd_per_hour(policy: Policy, pools: Sequence[Pool], seen: ServiceObservation) -> float:
    """Return the price of all replicas that are there, also while they start or end."""
    there = {n: v.ready + v.starting + v.draining for n, v in seen.variants.items()}
    return Prices(pools).cost_usd_per_hour(policy.variants, there)


def _price_usd_per_hour(decision: ServiceDecision, replicas: float) -> float:
    """Return the price of that many replicas of the planned mix; NaN where nothing is planned."""
    if replicas == 0:
        return 0.0
    planned = sum(decision.variants.values())
    return replicas * decision.cost_usd_per_hour / planned if planned else math.nan


def _plus(total: float, amount: float) -> float:
    return amount if math.isnan(total) else total + amount

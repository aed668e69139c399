"""What accelerators cost and how many there are."""

import math
from collections.abc import Mapping, Sequence

from autoscaler.core.assess import Situation
from autoscaler.core.needs import COVER_SLACK, Limits
from autoscaler.core.types import CapacityType, Pool, Variant

UNPRICED_USD_PER_HOUR = 1.0  # without a pool there is no price: plans then count accelerators,
# and a budget in $/h cannot be held against them
UNKNOWN = (UNPRICED_USD_PER_HOUR, False, 0.0)


class Prices:
    """Dollars per hour of one replica, by accelerator class, and how surely it stays."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        classes = {c.name: c for pool in pools for c in pool.classes}
        self._usd = {name: c.usd_per_hour for name, c in classes.items()}
        self._each = {
            name: (c.usd_per_hour, c.capacity_type is CapacityType.SPOT, c.interruptions_per_hour)
            for name, c in classes.items()
        }

    def replica_usd_per_hour(self, variant: Variant) -> float:
        """Return the price to plan with; every accelerator costs the same where none is known."""
        usd = self._usd.get(variant.accelerator_class, UNPRICED_USD_PER_HOUR)
        return usd * variant.accelerators_per_replica

    def of_replica(self, variant: Variant) -> tuple[float, bool, float]:
        """Return its price to plan with, whether all may be taken back at once, and how often one is.

        Of an unknown class: as `replica_usd_per_hour` says, and never taken back.
        """
        usd, spot, interruptions = self._each.get(variant.accelerator_class, UNKNOWN)
        return usd * variant.accelerators_per_replica, spot, interruptions

    def known(self, variants: Sequence[Variant]) -> bool:
        """Return whether every one of these variants has a price."""
        return all(v.accelerator_class in self._usd for v in variants)

    def cost_usd_per_hour(self, variants: Sequence[Variant], counts: Mapping[str, int]) -> float:
        """Return the price of these replicas; NaN if any accelerator in use has no price."""
        total = 0.0
        for v in variants:
            n = counts.get(v.name, 0)
            if n:
                usd = self._usd.get(v.accelerator_class, math.nan)
                total += n * v.accelerators_per_replica * usd
        return total


class Spare:
    """What no fleet holds and pinned services may still take; mutable, local to one tick."""

    def __init__(self, left: Limits, prices: Prices) -> None:
        """Begin with what is left beside everything that is known to be wanted."""
        self._left, self._prices = left, prices
        self._classes = dict(left.class_accelerators)
        self._namespaces = dict(left.namespace_accelerators)
        self._budgets = dict(left.pool_budget_usd_per_hour)

    def take(self, variant: Variant, namespace: str, wanted: int) -> int:
        """Return how many of `wanted` more replicas fit, and count them as taken."""
        each, usd = variant.accelerators_per_replica, self._prices.replica_usd_per_hour(variant)
        name = variant.accelerator_class
        pool = self._left.class_pool.get(name, "")
        key = (pool, namespace)
        taken = max(0, wanted)
        if name in self._classes:
            taken = min(taken, self._classes[name] // each)
        if key in self._namespaces:
            taken = min(taken, self._namespaces[key] // each)
        if pool in self._budgets:
            taken = min(taken, int(self._budgets[pool] / usd + COVER_SLACK))
        if name in self._classes:
            self._classes[name] -= taken * each
        if key in self._namespaces:
            self._namespaces[key] -= taken * each
        if pool in self._budgets:
            self._budgets[pool] -= taken * usd
        return taken


def limits_left(
    pools: Sequence[Pool],
    observed: Mapping[str, int],
    in_use: Sequence[tuple[Situation, Mapping[str, int]]],
) -> Limits:
    """Return what may be planned with, after what pinned services go on using.

    An observed count caps a class beside its quota; a class that neither names is unlimited.
    """
    classes: dict[str, int] = dict(observed)
    class_pool: dict[str, str] = {}
    for pool in pools:
        for c in pool.classes:
            class_pool[c.name] = pool.name
            if c.quota_count is not None:
                classes[c.name] = min(c.quota_count, classes.get(c.name, c.quota_count))
    budgets = {p.name: p.budget_usd_per_hour for p in pools if math.isfinite(p.budget_usd_per_hour)}
    namespaces = {
        (p.name, namespace): count for p in pools for namespace, count in p.namespace_quotas.items()
    }
    prices = Prices(pools)
    for situation, counts in in_use:
        for v in situation.policy.variants:
            n = counts.get(v.name, 0)
            used = n * v.accelerators_per_replica
            name = v.accelerator_class
            if name in classes:
                classes[name] = max(0, classes[name] - used)
            pool_name = class_pool.get(name)
            if pool_name is None:
                continue
            key = (pool_name, situation.policy.namespace)
            if key in namespaces:
                namespaces[key] = max(0, namespaces[key] - used)
            if pool_name in budgets:
                spent = n * prices.replica_usd_per_hour(v)
                budgets[pool_name] = max(0.0, budgets[pool_name] - spent)
    return Limits(classes, class_pool, budgets, namespaces)

"""What accelerators cost and how many there are."""

import math
from collections.abc import Mapping, Sequence

from autoscaler.core.assess import Situation
from autoscaler.core.needs import Limits
from autoscaler.core.types import Pool, Variant

UNPRICED_USD_PER_HOUR = 1.0  # without a pool there is no price: plans then count accelerators,
# and a budget in $/h cannot be held against them


class Prices:
    """Dollars per hour of one replica, by accelerator class."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._usd = {c.name: c.usd_per_hour for pool in pools for c in pool.classes}

    def replica_usd_per_hour(self, variant: Variant) -> float:
        """Return the price to plan with; every accelerator costs the same where none is known."""
        usd = self._usd.get(variant.accelerator_class, UNPRICED_USD_PER_HOUR)
        return usd * variant.accelerators_per_replica

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

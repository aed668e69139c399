"""The cheapest plan of one service by itself: exact, by enumeration.

Services meet only in accelerator limits and pool budgets. If every service's own cheapest plan fits
within those together, the whole is optimal: no plan of the coupled problem can be cheaper than the
sum of the uncoupled optima. Most ticks end here, without a solver.
"""

import math

from autoscaler.core.needs import ServiceNeed, VariantNeed

MAX_COMBINATIONS = 50_000  # beyond it, the MILP is faster than enumeration


def cheapest(need: ServiceNeed) -> tuple[int, ...] | None:
    """Return the least-cost replicas per variant that satisfy the need.

    None if its own bounds or budget forbid every plan that does, or if there are too many to try.
    Ties go to fewer starts, then to the earlier variant: the answer is deterministic.
    """
    if len(need.variants) == 1:
        return _single(need)
    spans = [_useful_upper(v) - v.lower + 1 for v in need.variants]
    if min(spans) < 1 or math.prod(spans[:-1]) > MAX_COMBINATIONS:
        return None
    best: tuple[float, int, tuple[int, ...]] | None = None
    for head in _product(need.variants[:-1]):
        tail = _least_last(need, head)
        if tail is None:
            continue
        replicas = (*head, tail)
        starts = sum(max(0, n - v.current) for n, v in zip(replicas, need.variants, strict=True))
        candidate = (round(need.objective_usd(replicas), 9), starts, tuple(-n for n in replicas))
        if need.usd_per_hour(replicas) > need.budget_usd_per_hour:
            continue
        if best is None or candidate < best:
            best = candidate
    return None if best is None else tuple(-n for n in best[2])


def _single(need: ServiceNeed) -> tuple[int, ...] | None:
    v = need.variants[0]
    if need.idle:
        return (v.lower,)
    wanted = max(v.lower, v.future, min(v.current, v.hold), min(v.ready, v.present))
    if wanted > v.upper or wanted * v.usd_per_hour > need.budget_usd_per_hour:
        return None
    return (wanted,)


def _useful_upper(v: VariantNeed) -> int:
    """More than what serves everything alone, or than what must be kept, is never cheapest."""
    return min(v.upper, max(v.lower, v.future, v.hold if v.current else 0))


def _product(variants: tuple[VariantNeed, ...]) -> list[tuple[int, ...]]:
    heads: list[tuple[int, ...]] = [()]
    for v in variants:
        counts = range(v.lower, _useful_upper(v) + 1)
        heads = [(*h, n) for h in heads for n in counts]
    return heads


def _least_last(need: ServiceNeed, head: tuple[int, ...]) -> int | None:
    """Return the least count of the last variant that satisfies the need, by bisection.

    `satisfied` is monotone in the count: more replicas never uncover anything.
    """
    v = need.variants[-1]
    low, high = v.lower, _useful_upper(v)
    if high < low or not need.satisfied((*head, high)):
        return None
    while low < high:
        middle = (low + high) // 2
        if need.satisfied((*head, middle)):
            high = middle
        else:
            low = middle + 1
    return low

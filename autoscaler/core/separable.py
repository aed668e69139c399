"""The cheapest plan of one service by itself: exact, by enumeration.

Services meet only in accelerator limits and pool budgets. If every service's own cheapest plan fits
within those together, the whole is optimal: no plan of the coupled problem can be cheaper than the
sum of the uncoupled optima. Most ticks end here, without a solver.

A plan has two parts: what lasts covers the future at least cost; what exists is kept beside it for as
long as the replacement takes to serve. That is how a service moves to a cheaper accelerator: the move
pays off over the hour, although for some minutes both are paid for.
"""

import functools
import itertools
import math
from collections.abc import Iterator

import numpy as np

from autoscaler.core.needs import COVER_SLACK, ServiceNeed, VariantNeed

MAX_COMBINATIONS = 50_000  # beyond it, the MILP is faster than enumeration

Counts = tuple[int, ...]


@functools.lru_cache(maxsize=8192)  # most needs are those of the tick before
def cheapest(need: ServiceNeed) -> Counts | None:
    """Return the least-cost replicas per variant that satisfy the need.

    None if its own bounds or budget forbid every plan that does, or if there are too many to try.
    Ties go to fewer starts, then to the earlier variant: the answer is deterministic.
    """
    if len(need.variants) == 1:
        return _single(need)
    ranges = [range(v.lower, _useful_upper(v) + 1) for v in need.variants[:-1]]
    if math.prod(len(r) for r in ranges) * (_most_for_the_cap(need) + 1) > MAX_COMBINATIONS:
        return None
    best_cost, best = math.inf, None
    capped = need.highest_stay_floor() > 0
    plans = _plans_under_the_cap(need, ranges) if capped else _lasting_plans(need, ranges)
    for cost, lasting in plans:
        if cost >= best_cost:
            break  # what is kept beside a plan only adds to its cost
        replicas = _with_kept(need, lasting)
        if replicas is None or need.usd_per_hour(replicas) > need.budget_usd_per_hour:
            continue
        total = round(need.objective_usd(lasting, replicas), 9)
        if total < best_cost:
            best_cost, best = total, replicas
    return best


def _single(need: ServiceNeed) -> Counts | None:
    v = need.variants[0]
    if need.idle:
        return (v.lower,)
    wanted = max(v.lower, v.future, min(v.current, v.hold), min(v.ready, v.present))
    if wanted > v.upper or wanted * v.usd_per_hour > need.budget_usd_per_hour:
        return None
    return (wanted,)


def _useful_upper(v: VariantNeed) -> int:
    """More than what serves everything alone never lasts in the cheapest plan."""
    return min(v.upper, max(v.lower, v.future))


def _lasting_plans(need: ServiceNeed, ranges: list[range]) -> Iterator[tuple[float, Counts]]:
    """Yield (cost, counts) of every plan that covers the future, the cheapest first.

    The tie goes to fewer starts, then to the earlier variant.
    """
    heads = np.array(list(itertools.product(*ranges)), dtype=np.int64)
    last = need.variants[-1]
    tail = np.full(len(heads), last.lower)
    possible = np.full(len(heads), True)
    for phase in need.phases():
        missing = np.ones(len(heads))
        for i in phase:
            if i < len(ranges):
                missing -= heads[:, i] / need.variants[i].future
        if len(ranges) in phase:
            tail = np.maximum(tail, np.ceil(missing * last.future - COVER_SLACK).astype(np.int64))
        else:
            possible &= missing <= COVER_SLACK
    counts = np.column_stack([heads, tail])[possible & (tail <= last.upper)]
    started = np.maximum(counts - [v.current for v in need.variants], 0)
    each = [v.usd_per_hour + v.restart_usd_per_hour for v in need.variants]
    cost = np.round(counts @ each + started @ [v.start_usd for v in need.variants], 9)
    keys = (*(-counts.T[::-1]), started.sum(axis=1), cost)
    for at in np.lexsort(keys):
        yield float(cost[at]), tuple(counts[at].tolist())


def _plans_under_the_cap(need: ServiceNeed, ranges: list[range]) -> Iterator[tuple[float, Counts]]:
    """Yield the same, where more than the least of the last variant may pay: a cap on spot asks for it."""
    plans = []
    for head in itertools.product(*ranges):
        least = _least_last(need, head)
        if least is None:
            continue
        for tail in range(least, max(least, _most_for_the_cap(need)) + 1):
            counts = (*head, tail)
            starts = sum(max(0, n - v.current) for n, v in zip(counts, need.variants, strict=True))
            cost = round(need.objective_usd(counts, counts), 9)
            plans.append((cost, starts, tuple(-n for n in counts), counts))
            if need.spot_excess(counts) == 0:
                break  # more would only cost more
    for cost, _, _, counts in sorted(plans):
        yield cost, counts


def _most_for_the_cap(need: ServiceNeed) -> int:
    """Return the most replicas of the last variant that the cap on spot may ask for; 0: none."""
    v = need.variants[-1]
    floor = 0.0 if v.spot else need.highest_stay_floor()
    return min(v.upper, math.ceil(floor * v.future - COVER_SLACK))


def _least_last(need: ServiceNeed, head: Counts) -> int | None:
    """Return the least count of the last variant that covers the future beside `head`."""
    at, v = len(head), need.variants[-1]
    least = v.lower
    for phase in need.phases():
        missing = 1.0 - sum(head[i] / need.variants[i].future for i in phase if i < at)
        if missing <= COVER_SLACK:
            continue
        if at not in phase:
            return None
        least = max(least, math.ceil(missing * v.future - COVER_SLACK))
    return least if least <= v.upper else None


def _with_kept(need: ServiceNeed, lasting: Counts) -> Counts | None:
    """Return the lasting plan with the cheapest of what exists kept beside it; None if none does."""
    if need.keeps(lasting):
        return lasting
    spans = [
        range(m, max(m, min(v.current, v.upper)) + 1)
        for m, v in zip(lasting, need.variants, strict=True)
    ]
    if math.prod(len(s) for s in spans) > MAX_COMBINATIONS:
        return None
    kept = [n for n in itertools.product(*spans) if need.keeps(n)]
    return min(kept, key=lambda n: (need.objective_usd(lasting, n), n), default=None)

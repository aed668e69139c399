"""A feasible plan without a solver: priorities first, then the cheapest cover for the money.

The fallback when the MILP stops without a plan, and what bounds are checked against in the tests.
Never exceeds a limit, except that it never takes a replica away to satisfy a minimum.
"""

import math
from collections.abc import Mapping

from autoscaler.core.needs import COVER_SLACK, Limits, ServiceNeed, Usage, VariantNeed


def greedy_plan(needs: tuple[ServiceNeed, ...], limits: Limits) -> Mapping[str, tuple[int, ...]]:
    """Return replicas per service and variant: minimums in order of priority, then needs."""
    usage = Usage(limits)
    counts = {need.service: [0] * len(need.variants) for need in needs}
    ordered = sorted(needs, key=lambda need: (-need.priority, need.service))
    for need in ordered:
        for i, variant in enumerate(need.variants):
            while counts[need.service][i] < variant.lower and _may_add(
                need, variant, counts, usage
            ):
                _add(need, i, counts, usage)
    for need in ordered:
        while not need.satisfied(tuple(counts[need.service])):
            best = _best(need, counts, usage)
            if best is None:
                break
            _add(need, best, counts, usage)
    for need in ordered:  # what a minimum put on spot; after everybody's cover
        while (best := _staying(need, counts, usage)) is not None:
            _add(need, best, counts, usage)
    return {service: tuple(n) for service, n in counts.items()}


def _may_add(
    need: ServiceNeed, variant: VariantNeed, counts: dict[str, list[int]], usage: Usage
) -> bool:
    spent = need.usd_per_hour(tuple(counts[need.service])) + variant.usd_per_hour
    within = spent <= need.budget_usd_per_hour * (1 + COVER_SLACK)
    return within and usage.blocked(need, variant) is None


def _add(need: ServiceNeed, i: int, counts: dict[str, list[int]], usage: Usage) -> None:
    counts[need.service][i] += 1
    usage.add(need, need.variants[i], 1)


def _best(need: ServiceNeed, counts: dict[str, list[int]], usage: Usage) -> int | None:
    """Return the variant whose next replica covers most per dollar, a running one before a start."""
    have = counts[need.service]
    uncovered = [p for p in need.phases() if _share(need, have, p) < 1 - COVER_SLACK]
    if uncovered:
        staying = _staying(need, counts, usage)
        useful = {i for p in uncovered for i in p}
        return _cheapest(need, useful, counts, usage) if staying is None else staying
    running = {i for i, v in enumerate(need.variants) if have[i] < v.current}
    useful = {i for p in need.phases() for i in p}
    return _cheapest(need, useful & running, counts, usage)  # only what runs can help to hold


def _staying(need: ServiceNeed, counts: dict[str, list[int]], usage: Usage) -> int | None:
    """Return what stays and can be added to a phase of which too much would rest on spot, if any."""
    have = counts[need.service]
    lacking: set[int] = set()
    for phase in need.phases():
        stays, _ = need.kinds(phase)
        if _share(need, have, stays) < need.stay_floor(phase) - COVER_SLACK:
            lacking.update(stays)
    return _cheapest(need, lacking, counts, usage)


def _cheapest(
    need: ServiceNeed, useful: set[int], counts: dict[str, list[int]], usage: Usage
) -> int | None:
    """Return which of the useful variants' next replicas covers most per dollar; None if none may come."""
    have = counts[need.service]
    best, best_price = None, math.inf
    for i, variant in enumerate(need.variants):
        if i not in useful or have[i] >= variant.upper:
            continue
        if not _may_add(need, variant, counts, usage):
            continue
        start = variant.start_usd if have[i] >= variant.current else 0.0
        price = (variant.usd_per_hour + variant.restart_usd_per_hour + start) * variant.future
        if price < best_price:
            best, best_price = i, price
    return best


def _share(need: ServiceNeed, have: list[int], phase: tuple[int, ...]) -> float:
    return sum(have[i] / need.variants[i].future for i in phase)

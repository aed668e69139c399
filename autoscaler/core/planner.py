"""Integer replicas for all services at the least cost, within accelerators, quotas and budgets.

One answer, in the first of these ways that gives it: each service alone (exact when nothing shared binds);
the MILP over all, or, for more services than it solves in a tick's time, prices for what they share; and
priorities in turn.
"""

import functools
import itertools
import math
from collections.abc import Mapping

import numpy as np

from autoscaler.core.greedy import greedy_plan
from autoscaler.core.milp import solve
from autoscaler.core.needs import Limits, Plan, Planned, ServiceNeed, usage_of, why_short
from autoscaler.core.priced import plan_by_price
from autoscaler.core.separable import cheapest

FEW = (
    60  # services up to which the MILP ends in a second or so; prices are better the more there are
)
WEIGHTS = (1.0, 0.7, 0.5, 0.35, 0.25)  # of a class, beside the others
MOST_WEIGHED = 3  # classes
NOTHING_SHARED = Limits({}, {}, {}, {})


def plan_replicas(needs: tuple[ServiceNeed, ...], limits: Limits) -> Plan:
    """Return the plan; `status` says by which way it was found. Deterministic."""
    if len(needs) <= FEW or not _too_much(needs, limits):
        alone = _alone(needs)
        if len(alone) == len(needs) and usage_of(needs, alone, limits).fits():
            return _explained(needs, alone, limits, "separable", 0.0)
    if len(needs) <= FEW:
        if (solved := solve(needs, limits)) is not None:
            return _explained(needs, solved[0], limits, *solved[1:])
    elif (priced := plan_by_price(needs, limits, cheapest)) is not None:
        return _explained(needs, priced[0], limits, "priced", priced[1])
    return _explained(needs, greedy_plan(needs, limits), limits, "greedy", math.nan)


def _too_much(needs: tuple[ServiceNeed, ...], limits: Limits) -> bool:
    """Whether even the least covers of the services exceed all accelerators: no plan alone need be tried.

    A mix of variants weighs no less than the lightest of them that covers a phase alone, however the
    classes are weighed; and if all of it fits, it weighs no more than the limits, by any of WEIGHTS.
    """
    names = sorted({v.accelerator_class for need in needs for v in need.variants})
    if len(names) > MOST_WEIGHED or not limits.class_accelerators.keys() >= set(names):
        return False
    number = {name: i for i, name in enumerate(names)}
    covers = [own for need in needs if (own := _alone_by_class(need, number))]
    weights = np.array(list(itertools.product(WEIGHTS, repeat=len(names))))
    lightest = (weights[:, np.newaxis] * np.array(covers).reshape(-1, len(names))).min(axis=2)
    most = weights @ [limits.class_accelerators[name] for name in names]
    return bool((lightest.sum(axis=1) > most).any())


def _alone_by_class(need: ServiceNeed, number: Mapping[str, int]) -> list[float]:
    """Return the accelerators of each class that cover a service's first phase alone; infinite: none do.

    Empty where its own maximum keeps it short: it may use as little as it likes.
    """
    out = [math.inf] * len(number)
    share = 0.0
    for i in next(iter(need.phases()), ()):
        v = need.variants[i]
        share += v.upper / v.future
        at = number[v.accelerator_class]
        out[at] = min(out[at], v.future * v.accelerators)
    return out if share >= 1 else []


def _alone(needs: tuple[ServiceNeed, ...]) -> dict[str, tuple[int, ...]]:
    """Return every service's best plan as if it had everything to itself; without those that have none.

    One that its maximum keeps short takes nothing from the others, and must not cost all a solver's run.
    """
    plans = {need.service: cheapest(need) for need in needs}
    alone = {service: plan for service, plan in plans.items() if plan is not None}
    short = tuple(need for need in needs if need.service not in alone)
    if len(needs) <= FEW:
        return alone | {n.service: p for n in short if (p := _least_short(n)) is not None}
    priced = plan_by_price(short, NOTHING_SHARED, cheapest) if short else None
    return alone if priced is None else {**alone, **priced[0]}


@functools.lru_cache(maxsize=1024)  # most needs are those of the tick before
def _least_short(need: ServiceNeed) -> tuple[int, ...] | None:
    """Return the exact plan of a service that its own bounds keep short, or whose variants are many."""
    solved = solve((need,), NOTHING_SHARED)
    return None if solved is None else solved[0][need.service]


def _explained(
    needs: tuple[ServiceNeed, ...],
    replicas: Mapping[str, tuple[int, ...]],
    limits: Limits,
    status: str,
    gap_ratio: float,
) -> Plan:
    usage = usage_of(needs, replicas, limits)
    services = {}
    for need in needs:
        n = replicas[need.service]
        services[need.service] = Planned(n, 1.0 - need.covered(n), why_short(need, n, usage))
    return Plan(services, status, gap_ratio)

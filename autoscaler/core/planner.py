"""Integer replicas for all services at the least cost, within accelerators, quotas and budgets.

Three ways, one answer: each service alone (exact when nothing shared binds), the MILP over all, and
a greedy plan if the solver ends without one.
"""

import functools
import math
from collections.abc import Mapping

from autoscaler.core.greedy import greedy_plan
from autoscaler.core.milp import solve
from autoscaler.core.needs import Limits, Plan, Planned, ServiceNeed, usage_of, why_short
from autoscaler.core.separable import cheapest

NOTHING_SHARED = Limits({}, {}, {}, {})


def plan_replicas(needs: tuple[ServiceNeed, ...], limits: Limits) -> Plan:
    """Return the plan; `status` says by which way it was found. Deterministic."""
    alone = {need.service: _alone(need) for need in needs}
    fitting = {service: n for service, n in alone.items() if n is not None}
    if len(fitting) == len(needs) and usage_of(needs, fitting, limits).fits():
        return _explained(needs, fitting, limits, "separable", 0.0)
    solved = solve(needs, limits)
    if solved is None:
        return _explained(needs, greedy_plan(needs, limits), limits, "greedy", math.nan)
    replicas, status, gap = solved
    return _explained(needs, replicas, limits, status, gap)


def _alone(need: ServiceNeed) -> tuple[int, ...] | None:
    """Return a service's best plan as if it had everything to itself; None if it has none."""
    plan = cheapest(need)
    return _least_short(need) if plan is None else plan


@functools.lru_cache(maxsize=8192)  # most needs are those of the tick before
def _least_short(need: ServiceNeed) -> tuple[int, ...] | None:
    """Return the plan of a service that its own bounds keep short, or whose variants are many.

    One that is at its maximum takes nothing from the others, and must not cost all of them a solver's run.
    """
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

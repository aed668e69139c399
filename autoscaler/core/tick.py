"""The heart: one pure function from what is known to what should run. Start reading here.

assess      each service: what was measured, what is coming, how much error budget is left
size        replicas that each variant alone would need (newsvendor over the whole distribution)
guard       stabilization, rate limits, minimum and maximum, schedule: bounds for the plan
plan        least cost over all services, variants, accelerators, quotas and budgets
report      decisions with their numbers and a reason
"""

import math
from collections.abc import Mapping

from autoscaler.core import guard
from autoscaler.core.assess import Situation, assess, look_ahead
from autoscaler.core.choose import Choice, choose_pinned, choose_planned
from autoscaler.core.drift import follow_drift
from autoscaler.core.hindsight import expected_now
from autoscaler.core.needs import Plan
from autoscaler.core.outcome import (
    Decisions,
    Forecasts,
    ServiceDecision,
    ServiceState,
    State,
    Told,
)
from autoscaler.core.planner import plan_replicas
from autoscaler.core.prices import Prices, Spare, limits_left
from autoscaler.core.report import report
from autoscaler.core.requirements import Requirements, need_of
from autoscaler.core.sizing import Sizes, size_all
from autoscaler.core.spot import worth_ratios
from autoscaler.core.types import Mode, Observation, Policies, Reason


def tick(
    policies: Policies, forecasts: Forecasts, state: State, observation: Observation
) -> tuple[State, Decisions]:
    """Return the next state and one decision for every policy. Same input, same output."""
    now = observation.now_seconds
    prices = Prices(policies.pools)
    ahead = look_ahead(policies, forecasts, observation)
    drifts = follow_drift(policies, forecasts, state, observation)
    situations = {
        name: assess(
            policy,
            forecasts,
            ahead.get(name),
            state.services.get(name, ServiceState()),
            drifts.get(name),
            observation,
        )
        for name, policy in sorted(policies.services.items())
    }
    worth = worth_ratios(policies, forecasts, prices, observation.interval_seconds)
    sizes = size_all([s for s in situations.values() if s.demand is not None], forecasts, worth)
    choices = _pinned(policies, situations, sizes, prices, observation)
    required = {
        name: need_of(situation, sizes, forecasts, prices, now)
        for name, situation in situations.items()
        if name not in choices
    }
    in_use = [(situations[name], choice.counts) for name, choice in choices.items()]
    plan = _planned(policies, situations, required, in_use, observation)
    for name, requirements in required.items():
        choices[name] = choose_planned(situations[name], requirements, plan.services[name])
    decisions = report(situations, choices, sizes, prices)
    expected = expected_now(situations, sizes)
    states = {
        name: _after(
            situation, sizes, required.get(name), decisions[name], expected.get(name, math.nan), now
        )
        for name, situation in situations.items()
    }
    return State(states), Decisions(now, decisions, plan.status, plan.gap_ratio)


def _planned(
    policies: Policies,
    situations: Mapping[str, Situation],
    required: Mapping[str, Requirements],
    in_use: list[tuple[Situation, Mapping[str, int]]],
    observation: Observation,
) -> Plan:
    """Plan all services together; advice neither takes from those that are scaled nor gives to them.

    Replicas that are only recommended will not come, and those that could go will stay. So the services
    that are acted on are planned once more, beside what the others have now.
    """
    needs = {name: r.need for name, r in required.items()}
    limits = limits_left(policies.pools, observation.pools, in_use)
    plan = plan_replicas(tuple(needs.values()), limits)
    shown = [n for n in needs if policies.services[n].behavior.mode is Mode.RECOMMEND]
    if len(shown) in (0, len(needs)):
        return plan
    stay = [(situations[n], situations[n].current) for n in shown]
    limits = limits_left(policies.pools, observation.pools, [*in_use, *stay])
    acted = plan_replicas(tuple(need for n, need in needs.items() if n not in shown), limits)
    return Plan({**plan.services, **acted.services}, acted.status, acted.gap_ratio)


def _pinned(
    policies: Policies,
    situations: Mapping[str, Situation],
    sizes: Sizes,
    prices: Prices,
    observation: Observation,
) -> dict[str, Choice]:
    """Choose for the services that are not planned; what they add is what nobody else holds."""
    pinned = [name for name, s in situations.items() if s.pinned is not None]
    if not pinned:
        return {}
    held = [(s, s.current) for s in situations.values()]
    spare = Spare(limits_left(policies.pools, observation.pools, held), prices)
    pinned.sort(key=lambda name: (-situations[name].policy.priority, name))
    return {name: choose_pinned(situations[name], sizes, observation, spare) for name in pinned}


def _after(
    situation: Situation,
    sizes: Sizes,
    required: Requirements | None,
    decision: ServiceDecision,
    expected: float,
    now: float,
) -> ServiceState:
    state = situation.state
    desired = dict(decision.variants)
    changes = guard.remember_change(state.changes, now, situation.current, desired)
    if required is not None:
        holds = required.holds
    elif situation.pinned is Reason.FROZEN:  # the window begins with what runs when it thaws
        holds = {name: ((now, n),) for name, n in desired.items()}
    else:  # a lost observation or two: what the window remembers still counts
        holds = state.holds
    rises = {} if required is None else required.rises
    return ServiceState(
        desired=desired,
        last_telemetry_seconds=state.last_telemetry_seconds,
        samples=state.samples,
        changes=changes,
        holds=holds,
        rises=rises,
        budget=state.budget,
        told=Told(expected, decision.attainment_target_ratio, decision.predicted_attainment_ratio),
        drifts=state.drifts,
        sized=sizes.alone(situation.policy),
    )

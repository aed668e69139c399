"""From sizes to what the planner is asked: needs per variant, within what the guard allows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autoscaler.core import guard
from autoscaler.core.assess import UNKNOWN_START, Situation
from autoscaler.core.needs import ServiceNeed, VariantNeed, phases_of
from autoscaler.core.outcome import Forecasts
from autoscaler.core.prices import Prices
from autoscaler.core.sizing import Sizes
from autoscaler.core.types import Variant

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Requirements:
    """A service's need, and what raised it above the forecast: for the reason and the report."""

    need: ServiceNeed
    holds: Mapping[str, guard.Holds]
    rises: Mapping[str, guard.Holds]
    forecast_future: Mapping[str, int]  # per variant alone, from the forecast only
    forecast_hold: Mapping[str, int]
    reactive: int  # of the first variant alone; 0: no reason to overrule
    schedule: int
    modelled: bool


def need_of(
    situation: Situation, sizes: Sizes, forecasts: Forecasts, prices: Prices, now_seconds: float
) -> Requirements:
    """Return what the planner must cover for one service that may be scaled."""
    policy = situation.policy
    floor = guard.schedule_floor(situation.windows)
    holds: dict[str, guard.Holds] = {}
    rises: dict[str, guard.Holds] = {}
    variants, futures, hold_now, reactive, modelled = [], {}, {}, 0, True
    for v in policy.variants:
        lane = sizes.lane(policy.service, v.name)
        urgent = 0
        if lane is None:
            modelled = False
            future = hold = present = _unmodelled(situation, v)
        else:
            future, hold, present = (
                int(counts[lane]) for counts in (sizes.future, sizes.hold, sizes.present)
            )
            urgent = int(sizes.reactive[lane]) if _reactive(situation) else 0
            reactive = reactive or urgent
        futures[v.name], hold_now[v.name] = future, hold
        window = policy.behavior.scale_up.stabilization_window_seconds
        past = situation.state.rises.get(v.name, ())
        rises[v.name], future = guard.lasting(past, now_seconds, future, window)
        future, hold, present = max(future, urgent), max(hold, urgent), max(present, urgent)
        future, hold = max(future, floor), max(hold, floor, future)
        window = policy.behavior.scale_down.stabilization_window_seconds
        asked = 0 if situation.idle and not floor else hold
        past = situation.state.holds.get(v.name, ())
        current = situation.current[v.name]
        holds[v.name], steady = guard.stabilized(past, now_seconds, asked, window, current)
        start = forecasts.starts.get((policy.service, v.name), UNKNOWN_START)
        usd = prices.replica_usd_per_hour(v)
        lower, upper = guard.bounds(policy, v, current, situation.state.changes, now_seconds)
        if lane is None and not _reactive(situation) and _others_measured(situation, v, sizes):
            upper = min(upper, max(lower, current))  # a guess displaces nothing that is known
        variants.append(
            VariantNeed(
                name=v.name,
                role=v.role,
                accelerator_class=v.accelerator_class,
                accelerators=v.accelerators_per_replica,
                usd_per_hour=usd,
                start_usd=usd * start.typical_seconds / SECONDS_PER_HOUR,
                current=min(current, upper),  # what is beyond the maximum goes anyway
                ready=min(_ready(situation, v), upper),
                lower=lower,
                upper=upper,
                future=max(1, future),
                hold=max(1, steady),
                present=max(1, present),
            )
        )
    idle = situation.idle and all(h == 0 for past in holds.values() for _, h in past)
    need = ServiceNeed(
        policy.service,
        policy.namespace,
        policy.priority,
        policy.budget_usd_per_hour if prices.known(policy.variants) else math.inf,
        tuple(variants),
        idle,
    )
    return Requirements(need, holds, rises, futures, hold_now, reactive, floor, modelled)


def _reactive(situation: Situation) -> bool:
    return situation.demand is not None and situation.demand.reactive_rps > 0


def _ready(situation: Situation, variant: Variant) -> int:
    observed = situation.observed
    if observed is None or variant.name not in observed.variants:
        return 0
    return min(observed.variants[variant.name].ready, situation.current[variant.name])


def _others_measured(situation: Situation, variant: Variant, sizes: Sizes) -> bool:
    """Whether every phase that a variant serves is served by one whose speed is known, too."""
    variants, service = situation.policy.variants, situation.policy.service
    phases = phases_of([v.role for v in variants])
    mine = [[variants[i] for i in p] for p in phases if variant in (variants[i] for i in p)]
    return all(any(sizes.lane(service, v.name) is not None for v in p) for p in mine)


def _unmodelled(situation: Situation, variant: Variant) -> int:
    """Size a variant whose speed is unknown by measured concurrency and latency."""
    if situation.observed is None:
        return situation.current[variant.name]
    current = sum(situation.current.values())
    wanted = guard.unmodelled_replicas(situation.policy, situation.observed, current)
    return wanted if math.isfinite(wanted) else current

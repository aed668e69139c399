"""From sizes to what the planner is asked: needs per variant, within what the guard allows."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autoscaler.core import guard
from autoscaler.core.assess import UNKNOWN_START, Situation
from autoscaler.core.needs import ServiceNeed, VariantNeed
from autoscaler.core.outcome import Forecasts
from autoscaler.core.prices import Prices
from autoscaler.core.sizing import Sizes
from autoscaler.core.types import Policy, Variant
from models.phases import phases_of

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


@dataclass(frozen=True, slots=True)
class _Raw:
    """What one variant alone would need, before anything damps or raises it."""

    future: int
    hold: int
    present: int
    reactive: int  # 0: no reason to overrule the forecast
    modelled: bool


@dataclass(frozen=True, slots=True)
class _Damped:
    """The same after stabilization, the reactive floor and the schedule; windows brought up to date."""

    future: int
    hold: int
    present: int
    holds: guard.Holds
    rises: guard.Holds
    turned: int  # how often of late


def need_of(
    situation: Situation, sizes: Sizes, forecasts: Forecasts, prices: Prices, now_seconds: float
) -> Requirements:
    """Return what the planner must cover for one service that may be scaled."""
    policy = situation.policy
    floor = guard.schedule_floor(situation.windows)
    raw = {v.name: _raw(situation, v, sizes) for v in policy.variants}
    damped = {name: _damped(situation, name, r, floor, now_seconds) for name, r in raw.items()}
    variants = tuple(
        _variant_need(
            situation, v, raw[v.name], damped[v.name], sizes, forecasts, prices, now_seconds
        )
        for v in policy.variants
    )
    least_usd = sum(v.lower * v.usd_per_hour for v in variants)
    remembered = [h for d in damped.values() for _, h in d.holds]
    need = ServiceNeed(
        policy.service,
        policy.namespace,
        policy.priority,
        # a budget keeps a service small; its least count is another's wish, and a typo no reason to stop
        max(policy.budget_usd_per_hour, least_usd) if prices.known(policy.variants) else math.inf,
        variants,
        idle=situation.idle and not any(remembered),
        max_spot_ratio=policy.max_spot_ratio if any(v.spot for v in variants) else 1.0,
    )
    return Requirements(
        need=need,
        holds={name: d.holds for name, d in damped.items()},
        rises={name: d.rises for name, d in damped.items()},
        forecast_future={name: r.future for name, r in raw.items()},
        forecast_hold={name: r.hold for name, r in raw.items()},
        reactive=next((r.reactive for r in raw.values() if r.reactive), 0),
        schedule=floor,
        modelled=all(r.modelled for r in raw.values()),
    )


def _raw(situation: Situation, variant: Variant, sizes: Sizes) -> _Raw:
    lane = sizes.lane(situation.policy.service, variant.name)
    if lane is None:
        wanted = _unmodelled(situation, variant)
        return _Raw(wanted, wanted, wanted, 0, modelled=False)
    reactive = sizes.reactive[lane] if _reactive(situation) else 0
    return _Raw(sizes.future[lane], sizes.hold[lane], sizes.present[lane], reactive, modelled=True)


def _damped(situation: Situation, name: str, raw: _Raw, floor: int, now_seconds: float) -> _Damped:
    behavior, state = situation.policy.behavior, situation.state
    up = behavior.scale_up.stabilization_window_seconds
    past, current = state.rises.get(name, ()), situation.current[name]
    rises, future = guard.lasting(past, now_seconds, raw.future, up, current)
    future = max(future, raw.reactive, floor)
    hold = max(raw.hold, raw.reactive, floor, future)
    asked = 0 if situation.idle and not floor else hold
    turned = guard.turns(state.changes, name, now_seconds)
    down = guard.calmed(behavior.scale_down.stabilization_window_seconds, turned)
    past = state.holds.get(name, ())
    holds, steady = guard.stabilized(past, now_seconds, asked, down, current)
    return _Damped(future, steady, max(raw.present, raw.reactive), holds, rises, turned)


def _variant_need(
    situation: Situation,
    v: Variant,
    raw: _Raw,
    damped: _Damped,
    sizes: Sizes,
    forecasts: Forecasts,
    prices: Prices,
    now_seconds: float,
) -> VariantNeed:
    current = situation.current[v.name]
    changes = situation.state.changes
    lower, upper = guard.bounds(situation.policy, v, current, changes, now_seconds)
    if not raw.modelled and not _reactive(situation) and _others_measured(situation, v, sizes):
        upper = min(upper, max(lower, current))  # a guess displaces nothing that is known
    if _lame(situation, v, sizes):
        # its share of the load would miss the SLO on the idlest fleet: it covers nothing that others can
        upper = min(upper, max(lower, current))
    start = forecasts.starts.get((situation.policy.service, v.name), UNKNOWN_START)
    usd = prices.replica_usd_per_hour(v)
    start_usd = usd * start.typical_seconds / SECONDS_PER_HOUR
    return VariantNeed(
        name=v.name,
        role=v.role,
        accelerator_class=v.accelerator_class,
        accelerators=v.accelerators_per_replica,
        usd_per_hour=usd,
        start_usd=guard.dearer_start_usd(start_usd, usd, damped.turned),
        current=min(current, upper),  # what is beyond the maximum goes anyway
        ready=min(_ready(situation, v), upper),
        lower=lower,
        upper=upper,
        future=max(1, damped.future),
        hold=max(1, damped.hold),
        present=max(1, damped.present),
        spot=prices.is_spot(v),
        restart_usd_per_hour=prices.interruptions_per_hour(v) * start_usd,
    )


def _reactive(situation: Situation) -> bool:
    return situation.demand is not None and situation.demand.reactive_rps > 0


def _ready(situation: Situation, variant: Variant) -> int:
    observed = situation.observed
    if observed is None or variant.name not in observed.variants:
        return 0
    return min(observed.variants[variant.name].ready, situation.current[variant.name])


def _others_measured(situation: Situation, variant: Variant, sizes: Sizes) -> bool:
    """Whether every phase that a variant serves is served by one whose speed is known, too."""
    service = situation.policy.service
    return _in_every_phase(
        situation.policy, variant, lambda v: sizes.lane(service, v.name) is not None
    )


def _lame(situation: Situation, variant: Variant, sizes: Sizes) -> bool:
    """Whether a variant misses the SLO even idle, and others that meet it serve all of its phases."""
    if len(situation.policy.variants) == 1:
        return False

    def able(v: Variant) -> bool:
        lane = sizes.lane(situation.policy.service, v.name)
        return lane is not None and sizes.able[lane]

    known = sizes.lane(situation.policy.service, variant.name) is not None
    return known and not able(variant) and _in_every_phase(situation.policy, variant, able)


def _in_every_phase(policy: Policy, variant: Variant, holds: Callable[[Variant], bool]) -> bool:
    """Whether something holds for a variant of every phase that this one serves."""
    variants = policy.variants
    phases = phases_of([v.role for v in variants])
    mine = [[variants[i] for i in p] for p in phases if variant in (variants[i] for i in p)]
    return all(any(holds(v) for v in p) for p in mine)


def _unmodelled(situation: Situation, variant: Variant) -> int:
    """Size a variant whose speed is unknown by measured concurrency and latency."""
    if situation.observed is None:
        return situation.current[variant.name]
    current = sum(situation.current.values())
    wanted = guard.unmodelled_replicas(situation.policy, situation.observed, current)
    return wanted if math.isfinite(wanted) else current

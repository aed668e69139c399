"""From sizes to what the planner is asked: needs per variant, within what the guard allows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from autoscaler.core import guard
from autoscaler.core.assess import UNKNOWN_START, Situation
from autoscaler.core.needs import ServiceNeed, VariantNeed
from autoscaler.core.outcome import Forecasts
from autoscaler.core.prices import Prices
from autoscaler.core.sizing import Sizes
from autoscaler.core.types import Policy, Variant

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


class _Raw(NamedTuple):
    """What one variant alone would need, before anything damps or raises it."""

    lane: int | None  # None: its speed is not known
    future: int
    hold: int
    present: int
    reactive: int  # 0: no reason to overrule the forecast


class _Damped(NamedTuple):
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
    variants: list[VariantNeed] = []
    holds, rises = {}, {}
    future, hold = {}, {}
    steady: list[int] = []
    reactive, modelled = 0, True
    raws = _raws(situation, sizes)
    has = [situation.current[v.name] for v in policy.variants]
    runs = guard.runs_alone(policy.phases, has, [raw.future for raw in raws])
    for v, raw, current in zip(policy.variants, raws, runs, strict=True):
        damped = _damped(situation, v.name, raw, floor, current, now_seconds)
        variants.append(
            _variant_need(situation, v, raw, damped, sizes, forecasts, prices, now_seconds)
        )
        holds[v.name], rises[v.name] = damped.holds, damped.rises
        steady.append(damped.hold)
        future[v.name], hold[v.name] = raw.future, raw.hold
        reactive = reactive or raw.reactive
        modelled = modelled and raw.lane is not None
    need = ServiceNeed(
        policy.service,
        policy.namespace,
        policy.priority,
        _budget_usd_per_hour(policy, variants, prices),
        tuple(variants),
        idle=situation.idle and not any(steady),
        max_spot_ratio=policy.max_spot_ratio if True in [v.spot for v in variants] else 1.0,
        unsettled=guard.unsettled(situation.state.changes, now_seconds),
    )
    return Requirements(need, holds, rises, future, hold, reactive, floor, modelled)


def _budget_usd_per_hour(policy: Policy, variants: Sequence[VariantNeed], prices: Prices) -> float:
    """Return what the service may cost: its budget keeps it small, and no price can be held against one.

    Its least count is another's wish, and a typo no reason to stop.
    """
    budget = policy.budget_usd_per_hour
    if budget == math.inf or not prices.known(policy.variants):
        return math.inf
    return max(budget, sum([v.lower * v.usd_per_hour for v in variants]))


def _raws(situation: Situation, sizes: Sizes) -> list[_Raw]:
    """Return what each variant alone would need; those of unknown speed by what is measured of all."""
    service, raws = situation.policy.service, []
    urgent, measured = _reactive(situation), None
    for v in situation.policy.variants:
        lane = sizes.lanes.get((service, v.name))
        if lane is not None:
            reactive = sizes.reactive[lane] if urgent else 0
            raws.append(
                _Raw(lane, sizes.future[lane], sizes.hold[lane], sizes.present[lane], reactive)
            )
            continue
        if measured is None:
            measured = _unmodelled(situation)
        wanted = situation.current[v.name] if measured is None else measured
        raws.append(_Raw(None, wanted, wanted, wanted, 0))
    return raws


def _damped(
    situation: Situation, name: str, raw: _Raw, floor: int, current: int, now_seconds: float
) -> _Damped:
    """Damp one variant's needs; `current` is what runs, in replicas of it alone."""
    behavior, state = situation.policy.behavior, situation.state
    up = behavior.scale_up.stabilization_window_seconds
    # without a model counts go one by one, by what is measured now: not the noise of forecasts
    settle, ease = (
        (guard.SETTLE_SECONDS, guard.EASE_SECONDS) if raw.lane is not None else (0.0, 0.0)
    )
    past = state.rises.get(name, ())
    rises, future = guard.lasting(past, now_seconds, raw.future, up, current, settle)
    future = max(future, raw.reactive, floor)
    hold = max(raw.hold, raw.reactive, floor, future)
    asked = 0 if situation.idle and not floor else hold
    turned = guard.turns(state.changes, name, now_seconds)
    down = guard.calmed(behavior.scale_down.stabilization_window_seconds, turned)
    past = state.holds.get(name, ())
    holds, steady = guard.stabilized(past, now_seconds, asked, down, current, ease)
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
    if raw.lane is None:
        if not _reactive(situation) and _others_measured(situation, v, sizes):
            upper = min(upper, max(lower, current))  # a guess displaces nothing that is known
    elif not sizes.able[raw.lane] and _others_able(situation, v, sizes):
        # its share of the load would miss the SLO on the idlest fleet: it covers nothing that others can
        upper = min(upper, max(lower, current))
    start = forecasts.starts.get((situation.policy.service, v.name), UNKNOWN_START)
    usd, spot, interruptions = prices.of_replica(v)
    start_usd = usd * start.typical_seconds / SECONDS_PER_HOUR
    return VariantNeed(
        name=v.name,
        role=v.role,
        accelerator_class=v.accelerator_class,
        accelerators=v.accelerators_per_replica,
        usd_per_hour=usd,
        start_usd=guard.dearer_start_usd(
            start_usd, usd, max(damped.turned, guard.unsettled(changes, now_seconds))
        ),
        current=min(current, upper),  # what is beyond the maximum goes anyway
        ready=min(_ready(situation, v.name), upper),
        lower=lower,
        upper=upper,
        future=max(1, damped.future),
        hold=max(1, damped.hold),
        present=max(1, damped.present),
        spot=spot,
        restart_usd_per_hour=interruptions * start_usd,
    )


def _reactive(situation: Situation) -> bool:
    return situation.demand is not None and situation.demand.reactive_rps > 0


def _ready(situation: Situation, variant: str) -> int:
    seen = None if situation.observed is None else situation.observed.variants.get(variant)
    return 0 if seen is None else min(seen.ready, situation.current[variant])


def _others_measured(situation: Situation, variant: Variant, sizes: Sizes) -> bool:
    """Whether every phase that a variant serves is served by one whose speed is known, too."""
    service = situation.policy.service
    return _in_every_phase(
        situation.policy, variant, lambda v: sizes.lane(service, v.name) is not None
    )


def _others_able(situation: Situation, variant: Variant, sizes: Sizes) -> bool:
    """Whether others that meet the SLO, at least idle, serve all phases of a variant that misses it."""

    def able(v: Variant) -> bool:
        lane = sizes.lane(situation.policy.service, v.name)
        return lane is not None and sizes.able[lane]

    return _in_every_phase(situation.policy, variant, able)


def _in_every_phase(policy: Policy, variant: Variant, holds: Callable[[Variant], bool]) -> bool:
    """Whether something holds for a variant of every phase that this one serves."""
    phases = [[policy.variants[i] for i in phase] for phase in policy.phases]
    return all(any(holds(v) for v in phase) for phase in phases if variant in phase)


def _unmodelled(situation: Situation) -> int | None:
    """Size a service of unknown speed by measured concurrency and latency; None: nothing is measured."""
    if situation.observed is None:
        return None
    current = sum(situation.current.values())
    wanted = guard.unmodelled_replicas(situation.policy, situation.observed, current)
    return wanted if math.isfinite(wanted) else current

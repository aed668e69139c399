"""One service at one moment: what is known, what is coming, and whether anything may be decided."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoscaler.core import budget, guard
from autoscaler.core.demand import (
    CAREFUL,
    PROBABILITIES,
    fans_of,
    measured_rate_rps,
    rates_at,
    unmodelled_points,
)
from autoscaler.core.outcome import (
    FloatArray,
    Forecasts,
    Outlook,
    PaceDrift,
    Sample,
    ServiceState,
    StartLead,
)
from autoscaler.core.types import (
    Observation,
    Policies,
    Policy,
    Reason,
    ScheduleWindow,
    ServiceObservation,
    VariantObservation,
)

BACKLOG_SECONDS = 180.0  # in which a backlog is to be served: what is ordered sooner comes after it
RECENT_SECONDS = 60.0  # over which the measured rate is a rate and not an accident
DRAIN_SECONDS = (
    30.0  # a replica that drains still serves; given up too early it is missed this long
)
IDLE_REQUESTS = 0.5  # fewer expected until a restart would be ready: nothing to serve
UPPER = 0.95  # the quantile reported as the forecast's upper edge
UNKNOWN_START = StartLead(typical_seconds=150.0, upper_seconds=300.0)  # data/README: cold caches


@dataclass(frozen=True, slots=True)
class Demand:
    """Demand points, shape (K,) each, in requests per second, and the mixes they come in.

    `measured_rps` is the last minute's mean; NaN if nothing was measured in it. The mix ahead is that at the
    horizon; the same as now's where it is not forecast.
    """

    future: FloatArray
    hold: FloatArray
    present: FloatArray
    measured_rps: float
    reactive_rps: float  # 0: no reason to overrule the forecast
    isl_tokens: float
    osl_tokens: float
    ahead_isl_tokens: float
    ahead_osl_tokens: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """What is predicted for one service: demand points, shape (K,), and quantiles (Q,) at the horizon."""

    future: FloatArray
    hold: FloatArray
    present: FloatArray
    horizon: FloatArray
    median_rps: float  # at the horizon, and its upper edge
    upper_rps: float
    horizon_seconds: float
    isl_tokens: float  # mean lengths forecast for the horizon; NaN where the mix is not forecast
    osl_tokens: float


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything the tick knows of one service before it plans."""

    policy: Policy
    state: ServiceState
    observed: ServiceObservation | None
    current: Mapping[str, int]
    pinned: Reason | None  # this service is left as it is, or falls back
    outlook: Outlook | None
    ahead: Ahead | None  # None: no outlook
    horizon_seconds: float
    demand: Demand | None  # None: nothing to size from
    budget_left_ratio: float
    attainment_target: float
    windows: tuple[ScheduleWindow, ...]
    idle: bool


def look_ahead(
    policies: Policies, forecasts: Forecasts, observation: Observation
) -> dict[str, Ahead]:
    """Return what is predicted for every service that has an outlook, over the spans that sizing asks for.

    future: from a typical start to the longest, plus one interval; hold: until a restart would be ready
    and an old replica drained; present: until anything ordered now can be ready.
    """
    interval = observation.interval_seconds
    known = {n: o for n, o in forecasts.outlooks.items() if n in policies.services}
    ahead: dict[str, Ahead] = {}
    for fans in fans_of(known, observation.now_seconds):
        leads = [_leads(policies.services[name], forecasts) for name in fans.services]
        typical = np.array([lead.typical_seconds for lead in leads])
        horizon = np.array([lead.upper_seconds for lead in leads]) + interval
        none = np.zeros(len(leads))
        spans = ((typical, horizon), (none, horizon + typical + DRAIN_SECONDS), (none, typical))
        points = [
            rates_at(PROBABILITIES, fans.highest(start, end), fans.quantiles)
            for start, end in spans
        ]
        ends = fans.at(horizon)
        edges = rates_at(np.array([0.5, UPPER]), ends, fans.quantiles).T.tolist()
        at = observation.now_seconds + horizon
        mixes = _mixes_at(at, [known[name] for name in fans.services]).T.tolist()
        rows = zip(*points, ends, *edges, horizon.tolist(), *mixes, strict=True)
        ahead.update(zip(fans.services, itertools.starmap(Ahead, rows), strict=True))
    return ahead


def _leads(policy: Policy, forecasts: Forecasts) -> StartLead:
    """Return the service's start-up times: the fastest variant's typical one, the slowest's upper one."""
    each = [forecasts.starts.get((policy.service, v.name), UNKNOWN_START) for v in policy.variants]
    return StartLead(min(s.typical_seconds for s in each), max(s.upper_seconds for s in each))


def assess(
    policy: Policy,
    forecasts: Forecasts,
    ahead: Ahead | None,
    state: ServiceState,
    drifts: Mapping[str, PaceDrift] | None,
    observation: Observation,
) -> Situation:
    """Return the service's situation with its state, and the pace that was seen, brought up to date."""
    now = observation.now_seconds
    observed = observation.services.get(policy.service)
    silent = observed is None or not math.isfinite(observed.arrival_rate_rps)
    current, missing = _current(policy, observed, state)
    if math.isinf(state.last_telemetry_seconds):  # seen for the first time: silence begins now
        state = replace(state, last_telemetry_seconds=now)
    if not silent and not missing:
        assert observed is not None  # noqa: S101 - narrowing: silent covers None
        state = _after_a_gap(policy, state, current, observation)
        state = _remember(policy, state, observed, drifts, observation)
    elif drifts is not None:
        state = replace(state, drifts=drifts)
    if ahead is not None:
        horizon = ahead.horizon_seconds
    else:
        horizon = _leads(policy, forecasts).upper_seconds + observation.interval_seconds
    outlook = forecasts.outlooks.get(policy.service)
    windows = tuple(guard.active_windows(policy, now)) if policy.schedule else ()
    rate = measured_rate_rps(state.samples, now, RECENT_SECONDS)
    window, asked = budget.spent(state.budget), policy.attainment
    demand = _demand(observed, _mix(observed, outlook), ahead, windows, rate, policy)
    return Situation(
        policy=policy,
        state=state,
        observed=observed,
        current=current,
        pinned=_pinned(policy, state, now, stale=silent or missing),
        outlook=outlook,
        ahead=ahead,
        horizon_seconds=horizon,
        demand=demand,
        budget_left_ratio=budget.left_ratio(window, asked, policy.window_hours, rate),
        attainment_target=budget.attainment_target(
            budget.attained_ratio(window, asked, rate),
            asked,
            budget.miss_bias(window, asked, rate),
            budget.plan_slack(window, asked, rate),
        ),
        windows=windows,
        idle=_idle(policy, observed, current, demand, rate, horizon),
    )


def _current(
    policy: Policy, observed: ServiceObservation | None, state: ServiceState
) -> tuple[dict[str, int], bool]:
    """Return desired counts as observed, else as last decided, and whether a variant is silent."""
    seen = {} if observed is None else observed.variants
    current, missing = {}, False
    for v in policy.variants:
        if v.name in seen:
            current[v.name] = seen[v.name].desired
        else:
            missing = True
            if v.name in state.desired:
                current[v.name] = state.desired[v.name]
    return current, missing


def _after_a_gap(
    policy: Policy, state: ServiceState, current: Mapping[str, int], observation: Observation
) -> ServiceState:
    """Return the state with a stabilization window that begins now, if nothing was seen for as long.

    Telemetry was lost, the controller slept or the clock jumped: what the window held has expired
    without anything having been measured, and that is no reason to scale down.
    """
    now = observation.now_seconds
    window = policy.behavior.scale_down.stabilization_window_seconds
    unseen = now - observation.interval_seconds - state.last_telemetry_seconds
    if window <= 0 or unseen <= window:
        return state
    return replace(state, holds={name: ((now, n),) for name, n in current.items()})


def _remember(
    policy: Policy,
    state: ServiceState,
    observed: ServiceObservation,
    drifts: Mapping[str, PaceDrift] | None,
    observation: Observation,
) -> ServiceState:
    now = observation.now_seconds
    waiting = sum([v.waiting for v in observed.variants.values() if math.isfinite(v.waiting)])
    sample = Sample(now, observation.interval_seconds, observed.arrival_rate_rps, waiting)
    since = now - RECENT_SECONDS
    samples = [s for s in state.samples if s.end_seconds > since]
    finished, attained = budget.observed_attainment(observed, policy.targets)
    return ServiceState(  # not `replace`, which reads all fields by their names: once a service and tick
        desired=state.desired,
        last_telemetry_seconds=now,
        samples=(*samples, sample),
        changes=state.changes,
        holds=state.holds,
        rises=state.rises,
        budget=budget.record(
            state.budget, now, policy.window_hours, finished, attained, state.told
        ),
        told=state.told,
        drifts=state.drifts if drifts is None else drifts,
        sized=state.sized,
    )


def _pinned(policy: Policy, state: ServiceState, now: float, *, stale: bool) -> Reason | None:
    if policy.behavior.freeze:
        return Reason.FROZEN
    if not stale:
        return None
    silent_seconds = now - state.last_telemetry_seconds
    if silent_seconds > policy.fallback.after_seconds and policy.fallback.replicas is not None:
        return Reason.FALLBACK
    return Reason.STALE_TELEMETRY


def _demand(
    observed: ServiceObservation | None,
    mix: tuple[float, float],
    ahead: Ahead | None,
    windows: tuple[ScheduleWindow, ...],
    rate: float,
    policy: Policy,
) -> Demand | None:
    isl, osl = ahead_isl, ahead_osl = mix
    if ahead is not None and not math.isnan(ahead.isl_tokens + ahead.osl_tokens):
        ahead_isl, ahead_osl = ahead.isl_tokens, ahead.osl_tokens
    if not (math.isfinite(isl) and math.isfinite(osl)):
        return None
    reactive = 0.0
    if observed is not None and math.isfinite(rate) and guard.in_trouble(policy, observed):
        reactive = rate + guard.backlog_requests(observed) / BACKLOG_SECONDS
    if ahead is None:
        if not math.isfinite(rate):
            return None
        points = unmodelled_points(rate)
        return Demand(points, points, points, rate, reactive, isl, osl, ahead_isl, ahead_osl)
    future, hold, present = ahead.future, ahead.hold, ahead.present
    factor = max([w.load_multiplier for w in windows]) if windows else 1.0
    if factor != 1.0:
        future, hold, present = factor * future, factor * hold, factor * present
    return Demand(future, hold, present, rate, reactive, isl, osl, ahead_isl, ahead_osl)


def _mix(observed: ServiceObservation | None, outlook: Outlook | None) -> tuple[float, float]:
    """Return mean input and output tokens a request: of the recent traffic, else as just measured."""
    isl = outlook.isl_tokens if outlook is not None else math.nan
    osl = outlook.osl_tokens if outlook is not None else math.nan
    if observed is not None:
        isl = isl if math.isfinite(isl) else observed.isl_tokens
        osl = osl if math.isfinite(osl) else observed.osl_tokens
    return isl, osl


def _mixes_at(at_seconds: FloatArray, outlooks: Sequence[Outlook]) -> FloatArray:
    """Return the mean lengths (S, 2) forecast for times (S,), of outlooks with the same leads.

    Linear between leads, held beyond them; NaN where the mix is not forecast.
    """
    mixes = np.full((len(outlooks), 2), np.nan)
    told = [(i, o.ahead_tokens) for i, o in enumerate(outlooks) if o.ahead_tokens is not None]
    if not told:
        return mixes
    rows = np.array([i for i, _ in told])
    tokens, leads = np.stack([each for _, each in told]), outlooks[0].leads_seconds
    lead = at_seconds[rows] - np.array([outlooks[i].cutoff_seconds for i in rows])
    last = leads.size - 1
    low = np.minimum(np.maximum(leads.searchsorted(lead, "right") - 1, 0), max(0, last - 1))
    high, each = np.minimum(low + 1, last), np.arange(rows.size)
    span = np.where(high > low, leads[high] - leads[low], 1.0)[:, np.newaxis]
    slope = (tokens[each, high] - tokens[each, low]) / span
    between = slope * (lead - leads[low])[:, np.newaxis] + tokens[each, low]
    early, late = (lead <= leads[0])[:, np.newaxis], (lead >= leads[-1])[:, np.newaxis]
    mixes[rows] = np.where(early, tokens[:, 0], np.where(late, tokens[:, -1], between))
    return mixes


def _idle(
    policy: Policy,
    observed: ServiceObservation | None,
    current: Mapping[str, int],
    demand: Demand | None,
    rate: float,
    horizon: float,
) -> bool:
    """Whether a service that may scale to zero has nothing to serve, now or until a restart.

    Where requests were never seen, what is at zero stays there; what runs is not given up.
    """
    if not policy.behavior.scale_to_zero or observed is None or rate > 0:
        return False
    if any(_may_be_busy(v) for v in observed.variants.values()):
        return False
    if demand is None:
        return not any(current.values())
    return float(demand.hold[CAREFUL]) * horizon < IDLE_REQUESTS


def _may_be_busy(variant: VariantObservation) -> bool:
    """Whether requests run or wait, or replicas are ready and nobody knows what they run."""
    unknown = variant.ready > 0 and math.isnan(variant.running)
    return unknown or variant.running > 0 or variant.waiting > 0

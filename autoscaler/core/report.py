"""The numbers of a decision: what the chosen replicas carry, attain and cost. One batch a tick."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from autoscaler.core.assess import Situation
from autoscaler.core.choose import Choice
from autoscaler.core.concurrency import concurrency_within_slo
from autoscaler.core.drift import in_words
from autoscaler.core.needs import COVER_SLACK, in_mix
from autoscaler.core.outcome import FloatArray, ServiceDecision
from autoscaler.core.prices import Prices
from autoscaler.core.sizing import Evaluation, Sizes, evaluate
from autoscaler.core.types import Mode, Policy


class _Shares(NamedTuple):
    """How a service's load divides over its lanes: in proportion to what each count carries.

    Every phase of a request takes the whole load: prefill lanes share it, and so do decode lanes.
    """

    counts: Mapping[int, int]  # by lane, of lanes with replicas whose speed is known
    shares: Mapping[int, float]
    phases: tuple[tuple[int, ...], ...]  # the lanes that serve each phase
    known: tuple[tuple[tuple[int, int], ...], ...]  # (lane, count) of each phase's known speeds


def report(
    situations: Mapping[str, Situation],
    choices: Mapping[str, Choice],
    sizes: Sizes,
    prices: Prices,
) -> dict[str, ServiceDecision]:
    """Return every service's decision, in the order of `situations`."""
    divided = {name: _divide(s, choices[name], sizes) for name, s in situations.items()}
    counts = np.zeros(len(sizes.known))
    share = np.zeros(len(sizes.known))
    for parts in divided.values():
        for lane, n in parts.counts.items():
            counts[lane], share[lane] = n, parts.shares[lane]
    evaluation = evaluate(sizes, counts, share)
    held = _held(situations, sizes, counts)
    carried = [_carried_rps(divided[name], evaluation) for name in situations]
    quantiles = _quantiles(list(situations.values()), carried)
    return {
        name: _decision(
            situation,
            choices[name],
            divided[name],
            sizes,
            evaluation,
            prices,
            held.get(name, {}),
            (rate, quantile),
        )
        for (name, situation), rate, quantile in zip(
            situations.items(), carried, quantiles, strict=True
        )
    }


def _carried_rps(parts: _Shares, evaluation: Evaluation) -> float:
    """Return what a service's counts carry within the SLO; NaN where a speed is not known."""
    if not all(parts.phases):
        return math.nan
    return min([sum([evaluation.carried_rps[lane] for lane in p]) for p in parts.phases])


def _quantiles(situations: Sequence[Situation], carried: Sequence[float]) -> list[float]:
    """Return at which quantile of each predicted load the carried rate lies, between those predicted.

    0 below the lowest, the highest above it; NaN where either is not known.
    """
    out = [math.nan] * len(situations)
    alike: dict[bytes, list[tuple[int, FloatArray]]] = {}  # most predict the same quantiles
    for i, (s, rate) in enumerate(zip(situations, carried, strict=True)):
        if s.ahead is not None and s.outlook is not None and not math.isnan(rate):
            key = s.outlook.quantiles.tobytes()
            alike.setdefault(key, []).append((i, s.ahead.horizon))
    for key, group in alike.items():
        levels = np.frombuffer(key)
        rows, rates = [i for i, _ in group], np.array([horizon for _, horizon in group])
        x = np.array([carried[i] for i in rows])
        met = (rates <= x[:, np.newaxis]).sum(axis=1)
        low, each = np.minimum(np.maximum(met - 1, 0), levels.size - 2), np.arange(len(rows))
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (levels[low + 1] - levels[low]) / (rates[each, low + 1] - rates[each, low])
            between = slope * (x - rates[each, low]) + levels[low]
        at = np.where(met == 0, 0.0, np.where(met == levels.size, levels[-1], between))
        known = np.where(np.isfinite(rates[:, -1]), at, np.nan).tolist()
        for i, level in zip(rows, known, strict=True):
            out[i] = level
    return out


def _held(
    situations: Mapping[str, Situation], sizes: Sizes, counts: FloatArray
) -> dict[str, dict[str, float]]:
    """Return what a replica of each variant holds within the SLO, of the services that KEDA scales."""
    asked = {
        sizes.lanes[name, v.name]: (name, v.name)
        for name, s in situations.items()
        if s.policy.behavior.mode is Mode.KEDA
        for v in s.policy.variants
        if (name, v.name) in sizes.lanes
    }
    out: dict[str, dict[str, float]] = {}
    for lane, requests in concurrency_within_slo(sizes, counts, asked).items():
        service, variant = asked[lane]
        out.setdefault(service, {})[variant] = requests
    return out


def _divide(situation: Situation, choice: Choice, sizes: Sizes) -> _Shares:
    policy = situation.policy
    counts: dict[int, int] = {}
    shares: dict[int, float] = {}
    phases, known = [], []
    for phase in policy.phases:
        weights, lanes = {}, []
        for i in phase:
            name = policy.variants[i].name
            lane, n = sizes.lanes.get((policy.service, name)), choice.counts.get(name, 0)
            if lane is None:
                continue
            lanes.append((lane, n))
            if n > 0:
                counts[lane] = n
                weights[lane] = n / max(1, sizes.future[lane])
        total = sum(weights.values())
        for lane, weight in weights.items():
            shares[lane] = max(shares.get(lane, 0.0), weight / total)
        phases.append(tuple(weights))
        known.append(tuple(lanes))
    return _Shares(counts, shares, tuple(phases), tuple(known))


def _decision(
    situation: Situation,
    choice: Choice,
    parts: _Shares,
    sizes: Sizes,
    evaluation: Evaluation,
    prices: Prices,
    held: Mapping[str, float],
    carried: tuple[float, float],
) -> ServiceDecision:
    """Return a decision; `carried` is the rate within the SLO, and its quantile of the predicted load."""
    policy = situation.policy
    ahead, outlook = situation.ahead, situation.outlook
    attained, carried_forecast = math.nan, math.nan
    rate, quantile = carried
    if all(parts.phases):  # each by a lane whose speed is known
        attained = math.prod([_mean(evaluation.attainment, parts, p) for p in parts.phases])
        if ahead is not None and not math.isnan(quantile):
            carried_forecast = min(rate, float(ahead.horizon[-1]))
    return ServiceDecision(
        variants=dict(choice.counts),
        reason=choice.reason,
        detail=_in_words(choice, attained, policy)
        + in_words(situation.state.drifts)
        + _mix_drift(situation),
        horizon_seconds=situation.horizon_seconds,
        quantile=quantile,
        forecast_arrival_rate_rps=carried_forecast,
        forecast_median_rps=math.nan if ahead is None else ahead.median_rps,
        forecast_upper_rps=math.nan if ahead is None else ahead.upper_rps,
        required_replicas=_required(choice, parts, sizes),
        needed_replicas=_needed(situation, parts, sizes),
        attainment_target_ratio=situation.attainment_target,
        predicted_attainment_ratio=attained,
        predicted_ttft_p95_seconds=_worst(evaluation.ttft_p95_seconds, parts.phases[0]),
        predicted_tpot_p95_seconds=_worst(evaluation.tpot_p95_seconds, parts.phases[-1]),
        error_budget_left_ratio=situation.budget_left_ratio,
        shortfall_ratio=choice.shortfall_ratio,
        cost_usd_per_hour=prices.cost_usd_per_hour(policy.variants, choice.counts),
        trusted=outlook is not None and outlook.trusted,
        replica_concurrency=held,
        guarded_replicas=choice.guarded,
    )


def _in_words(choice: Choice, attained: float, policy: Policy) -> str:
    """Return the reason's sentence; of a service that gets less than it needs, with what that does to it."""
    if choice.shortfall_ratio <= COVER_SLACK or math.isnan(attained):
        return choice.detail
    return (
        f"{choice.detail}: {attained:.1%} of requests predicted within the SLO, "
        f"{policy.attainment:.1%} asked"
    )


def _mix_drift(situation: Situation) -> str:
    """Return a sentence where a class of the service's traffic is not as it was, else an empty text."""
    said = "" if situation.outlook is None else situation.outlook.mix_drift
    return f"; {said}" if said else ""


def _mean(values: Sequence[float], parts: _Shares, phase: tuple[int, ...]) -> float:
    total = sum([parts.shares[lane] for lane in phase])
    return sum([parts.shares[lane] * values[lane] for lane in phase]) / total


def _worst(values: Sequence[float], phase: tuple[int, ...]) -> float:
    return max([values[lane] for lane in phase], default=math.nan)


def _required(choice: Choice, parts: _Shares, sizes: Sizes) -> int:
    """Return the forecast's requirement, in replicas of the mix that was chosen, phase by phase."""
    known = [in_mix(lanes, sizes.future) for lanes in parts.known if lanes]
    return sum(known) if known else sum(choice.counts.values())


def _needed(situation: Situation, parts: _Shares, sizes: Sizes) -> float:
    """Return what the load measured now needs, in the same mix; NaN where it or a speed is unknown."""
    demand = situation.demand
    if demand is None or not math.isfinite(demand.measured_rps):
        return math.nan
    if demand.measured_rps <= 0:
        return 0.0
    if not all(parts.known):
        return math.nan
    return float(sum([in_mix(lanes, sizes.measured) for lanes in parts.known]))

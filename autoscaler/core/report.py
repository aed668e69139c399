"""The numbers of a decision: what the chosen replicas carry, attain and cost. One batch a tick."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoscaler.core import budget
from autoscaler.core.assess import Situation
from autoscaler.core.choose import Choice
from autoscaler.core.demand import at_leads
from autoscaler.core.outcome import FloatArray, ServiceDecision
from autoscaler.core.prices import Prices
from autoscaler.core.sizing import Evaluation, Sizes, evaluate

UPPER = 0.95  # the quantile reported as the forecast's upper edge


@dataclass(frozen=True, slots=True)
class _Shares:
    """How a service's load divides over its lanes: in proportion to what each count carries."""

    lanes: tuple[int, ...]
    counts: tuple[int, ...]
    shares: tuple[float, ...]


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
        for lane, n, fraction in zip(parts.lanes, parts.counts, parts.shares, strict=True):
            counts[lane], share[lane] = n, fraction
    evaluation = evaluate(sizes, counts, share)
    return {
        name: _decision(situation, choices[name], divided[name], sizes, evaluation, prices)
        for name, situation in situations.items()
    }


def _divide(situation: Situation, choice: Choice, sizes: Sizes) -> _Shares:
    lanes, counts, weights = [], [], []
    for v in situation.policy.variants:
        lane, n = sizes.lane(situation.policy.service, v.name), choice.counts.get(v.name, 0)
        if lane is not None and n > 0:
            lanes.append(lane)
            counts.append(n)
            weights.append(n / max(1, int(sizes.future[lane])))
    total = sum(weights)
    return _Shares(tuple(lanes), tuple(counts), tuple(w / total for w in weights))


def _decision(
    situation: Situation,
    choice: Choice,
    parts: _Shares,
    sizes: Sizes,
    evaluation: Evaluation,
    prices: Prices,
) -> ServiceDecision:
    policy, lanes = situation.policy, list(parts.lanes)
    values, quantiles = _horizon_quantiles(situation)
    carried = float(evaluation.carried_rps[lanes].sum()) if lanes else math.nan
    known = bool(lanes) and math.isfinite(float(values[-1]))
    attained = float(np.dot(parts.shares, evaluation.attainment[lanes])) if lanes else math.nan
    return ServiceDecision(
        variants=dict(choice.counts),
        reason=choice.reason,
        detail=choice.detail,
        horizon_seconds=situation.horizon_seconds,
        quantile=float(np.interp(carried, values, quantiles, left=0.0)) if known else math.nan,
        forecast_arrival_rate_rps=min(carried, float(values[-1])) if known else math.nan,
        forecast_median_rps=float(np.interp(0.5, quantiles, values)),
        forecast_upper_rps=float(np.interp(UPPER, quantiles, values)),
        required_replicas=_required(situation, choice, sizes),
        attainment_target_ratio=situation.attainment_target,
        predicted_attainment_ratio=attained,
        predicted_ttft_p95_seconds=_worst(evaluation.ttft_p95_seconds, lanes),
        predicted_tpot_p95_seconds=_worst(evaluation.tpot_p95_seconds, lanes),
        error_budget_left_ratio=budget.left_ratio(situation.attained_ratio, policy.attainment),
        shortfall_ratio=choice.shortfall_ratio,
        cost_usd_per_hour=prices.cost_usd_per_hour(policy.variants, choice.counts),
        trusted=situation.outlook is not None and situation.outlook.trusted,
    )


def _worst(values: FloatArray, lanes: list[int]) -> float:
    return float(values[lanes].max()) if lanes else math.nan


def _horizon_quantiles(situation: Situation) -> tuple[FloatArray, FloatArray]:
    if situation.outlook is None:
        return np.full(2, math.nan), np.array([0.0, 1.0])
    lead = np.array([situation.horizon_seconds])
    return at_leads(situation.outlook, lead)[0], situation.outlook.quantiles


def _required(situation: Situation, choice: Choice, sizes: Sizes) -> int:
    """Return the forecast's requirement, in replicas of the mix that was chosen."""
    service = situation.policy.service
    lanes = {v.name: sizes.lane(service, v.name) for v in situation.policy.variants}
    needs = {name: int(sizes.future[lane]) for name, lane in lanes.items() if lane is not None}
    if not needs:
        return sum(choice.counts.values())
    total = sum(choice.counts.get(name, 0) for name in needs)
    covered = sum(choice.counts.get(name, 0) / max(1, n) for name, n in needs.items())
    return math.ceil(total / covered - 1e-9) if covered > 0 else min(needs.values())

"""The `status` of policies and pools: what was decided, in numbers that keep still. Pure.

Load and latency differ a little at every tick. A number is shown with three digits and stays while
the new one is within 5 % of it (ratios: within a hundredth), so jitter writes nothing; texts that
carry unrounded numbers are no reason to write, they ride along.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from autoscaler.core.outcome import ServiceDecision
from autoscaler.core.types import Mode, ServiceObservation, VariantObservation
from autoscaler.edge.kube.conditions import (
    ClassFacts,
    Obstacle,
    PoolInputs,
    StatusInputs,
    clipped,
    duration,
    policy_verdicts,
    pool_verdicts,
    with_history,
)
from autoscaler.policy.status import (
    MAX_EXCLUDED_NODES,
    MAX_REPLICA_CONCURRENCY,
    AcceleratorPoolStatus,
    ClassStatus,
    Condition,
    ExcludedNode,
    ForecastStatus,
    LatencyStatus,
    PolicyDisplay,
    PoolDisplay,
    ScalingPolicyStatus,
    VariantStatus,
)

__all__ = [
    "ClassFacts",
    "Obstacle",
    "PoolInputs",
    "StatusInputs",
    "merge_patch",
    "policy_status",
    "pool_status",
    "worth_writing",
]

Status = dict[str, Any]
STEADY_RATIO = 0.05  # a number is kept while the new one is this close
WRITE_SECONDS = 60.0  # at most one write a minute for numbers
REFRESH_SECONDS = 300.0  # texts and lastDecisionTime: so that one sees that it is alive
KEDA_REFRESH_SECONDS = 60.0  # in mode Keda: the scaler tells by it how old a decision is
TEXTS = ("detail", "lastDecisionTime", "message")
CONCURRENCY = "replicaConcurrency"


def policy_status(
    previous: Mapping[str, Any], generation: int, inputs: StatusInputs, now_seconds: float
) -> Status:
    """Return the status of a policy as plain data.

    `previous` is the status so far (as read from the API, or empty), `generation` the generation of
    the policy that was looked at, `now_seconds` epoch seconds. What is not known is left out.
    """
    now = _time(now_seconds)
    decision, observation = inputs.decision, inputs.observation
    conditions = with_history(policy_verdicts(inputs, previous), previous, generation, now)
    fields: Status = {
        "observed_generation": generation,
        "mode": "Paused" if Obstacle.PAUSED in inputs.problems else inputs.mode.value,
        "variants": _variants(previous, inputs),
        "lead_time_seconds": _steady(previous, "leadTimeSeconds", inputs.lead_seconds, 5.0),
        "model_version": inputs.model_version or None,
        "conditions": conditions,
    }
    if observation is not None:
        fields["ready_replicas"] = sum(v.ready for v in observation.variants.values())
    if decision is not None:
        fields |= _decided(previous, decision) | {"last_decision_time": now}
    forecast = _forecast(_part(previous, "forecast"), decision, observation)
    fields["forecast"] = forecast
    fields["latency"] = _latency(_part(previous, "latency"), decision, observation)
    fields["display"] = _display(fields, forecast, conditions[0])
    return ScalingPolicyStatus(**fields).manifest()


def _decided(previous: Mapping[str, Any], decision: ServiceDecision) -> Status:
    return {
        "desired_replicas": sum(decision.variants.values()),
        "reason": decision.reason.value,
        "detail": clipped(decision.detail),
        "predicted_attainment_ratio": _steady_ratio(
            previous, "predictedAttainmentRatio", decision.predicted_attainment_ratio, 3
        ),
        "error_budget_left_ratio": _steady_ratio(
            previous, "errorBudgetLeftRatio", decision.error_budget_left_ratio, 2
        ),
        "cost_usd_per_hour": _rounded(decision.cost_usd_per_hour, 2),
    }


def _variants(previous: Mapping[str, Any], inputs: StatusInputs) -> list[VariantStatus]:
    decided = {} if inputs.decision is None else inputs.decision.variants
    observed = {} if inputs.observation is None else inputs.observation.variants
    before = {v.get("name"): v for v in _variants_in(previous)}
    return [
        VariantStatus(
            name=name,
            desired=decided.get(name),
            replica_concurrency=_concurrency(before.get(name, {}), name, inputs),
            delivery=inputs.deliveries.get(name),
            **_counts(observed.get(name)),
        )
        for name in dict.fromkeys((*decided, *observed))
    ]


def _concurrency(before: Mapping[str, Any], name: str, inputs: StatusInputs) -> float | None:
    """Return what a replica holds within the SLO; while it is not known, what was known of it."""
    if inputs.mode is not Mode.KEDA:
        return None
    held = {} if inputs.decision is None else inputs.decision.replica_concurrency
    shown = before.get(CONCURRENCY)
    known = held.get(name, shown if isinstance(shown, int | float) else math.nan)
    steady = _steady(before, CONCURRENCY, known, 0.05)
    return None if steady is None else min(max(steady, 1.0), float(MAX_REPLICA_CONCURRENCY))


def _variants_in(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = status.get("variants")
    return [v for v in listed if isinstance(v, Mapping)] if isinstance(listed, list) else []


def _counts(seen: VariantObservation | None) -> dict[str, Any]:
    if seen is None:
        return {}
    return {"current": seen.desired, "ready": seen.ready, "starting": seen.starting}


def _forecast(
    before: Mapping[str, Any],
    decision: ServiceDecision | None,
    observation: ServiceObservation | None,
) -> ForecastStatus | None:
    now = math.nan if observation is None else observation.arrival_rate_rps
    values = {"arrival_rate_rps": _steady(before, "arrivalRateRps", now, 0.05)}
    if decision is not None:
        values |= {
            "at_horizon_rps": _steady(before, "atHorizonRps", decision.forecast_median_rps, 0.05),
            "upper_rps": _steady(before, "upperRps", decision.forecast_upper_rps, 0.05),
            "planned_rps": _steady(before, "plannedRps", decision.forecast_arrival_rate_rps, 0.05),
            "horizon_seconds": _steady(before, "horizonSeconds", decision.horizon_seconds, 5.0),
        }
    known = any(v is not None for v in values.values())
    return ForecastStatus(**values) if known else None


def _latency(
    before: Mapping[str, Any],
    decision: ServiceDecision | None,
    observation: ServiceObservation | None,
) -> LatencyStatus | None:
    seen = () if observation is None else tuple(observation.variants.values())
    numbers = {
        "predicted_ttft_p95_seconds": math.nan
        if decision is None
        else decision.predicted_ttft_p95_seconds,
        "predicted_tpot_p95_seconds": math.nan
        if decision is None
        else decision.predicted_tpot_p95_seconds,
        "observed_ttft_p95_seconds": _slowest(v.ttft_p95_seconds for v in seen),
        "observed_tpot_p95_seconds": _slowest(v.tpot_p95_seconds for v in seen),
    }
    aliases = {name: field.alias or name for name, field in LatencyStatus.model_fields.items()}
    values = {name: _steady(before, aliases[name], v, 0.001) for name, v in numbers.items()}
    return LatencyStatus(**values) if any(v is not None for v in values.values()) else None


def _display(
    fields: Mapping[str, Any], forecast: ForecastStatus | None, ready: Condition
) -> PolicyDisplay:
    left, cost = fields.get("error_budget_left_ratio"), fields.get("cost_usd_per_hour")
    lead = fields.get("lead_time_seconds")
    median = None if forecast is None else forecast.at_horizon_rps
    upper = None if forecast is None else forecast.upper_rps
    ahead = None if median is None else f"{median:g}"
    return PolicyDisplay(
        reason=fields.get("reason") if ready.status == "True" else ready.reason,
        error_budget_left=None if left is None else f"{left:.0%}",
        cost_per_hour=None if cost is None else f"${cost:,.2f}",
        forecast=f"{ahead} (up to {upper:g})" if ahead and upper is not None else ahead,
        lead_time=None if lead is None else duration(lead),
    )


def pool_status(
    previous: Mapping[str, Any], generation: int, inputs: PoolInputs, now_seconds: float
) -> Status:
    """Return the status of a pool as plain data; the arguments are those of `policy_status`."""
    verdicts = pool_verdicts(inputs)
    known = [c for c in inputs.classes if c.in_use is not None]
    cost = math.fsum((c.in_use or 0) * c.usd_per_hour for c in known) if known else math.nan
    total = _rounded(cost, 2)
    return AcceleratorPoolStatus(
        observed_generation=generation,
        classes=[
            ClassStatus(name=c.name, usable=c.usable, in_use=c.in_use, usd_per_hour=c.usd_per_hour)
            for c in inputs.classes
        ],
        excluded_nodes=[
            ExcludedNode(name=name, reason=reason)
            for name, reason in sorted(inputs.excluded.items())[:MAX_EXCLUDED_NODES]
        ]
        or None,
        excluded_node_count=len(inputs.excluded) or None,
        cost_usd_per_hour=total,
        display=PoolDisplay(
            in_use=", ".join(_in_use(c) for c in inputs.classes) or None,
            cost_per_hour=None if total is None else f"${total:,.2f}",
        ),
        conditions=with_history(verdicts, previous, generation, _time(now_seconds)),
    ).manifest()


def _in_use(c: ClassFacts) -> str:
    used = "?" if c.in_use is None else str(c.in_use)
    if c.usable is None:
        return f"{c.name} {used}/?" if c.problem else f"{c.name} {used}"
    return f"{c.name} {used}/{c.usable}"


def worth_writing(
    previous: Mapping[str, Any],
    new: Mapping[str, Any],
    last_write_seconds: float,
    now_seconds: float,
) -> bool:
    """Whether `new` says something that `previous` does not, and it is time to say it.

    At once: conditions (status, reason), counts, reason, mode, generation, model version. Other
    numbers once a minute, texts and the time of the decision once in five (in mode Keda with the
    numbers: edge.keda lets a decision go as it ages). -inf: never written.
    """
    if _essence(previous) != _essence(new):
        return True
    age = now_seconds - last_write_seconds
    if age >= WRITE_SECONDS and _without_texts(previous) != _without_texts(new):
        return True
    refresh = KEDA_REFRESH_SECONDS if new.get("mode") == Mode.KEDA.value else REFRESH_SECONDS
    return age >= refresh and previous != new


def _essence(status: Mapping[str, Any]) -> tuple[Any, ...]:
    conditions = status.get("conditions") or ()
    plain = ("observedGeneration", "mode", "desiredReplicas", "readyReplicas", "reason")
    counts = [{k: v for k, v in own.items() if k != CONCURRENCY} for own in _variants_in(status)]
    return (
        *(status.get(key) for key in (*plain, "modelVersion", "classes")),
        counts,
        [(c.get("type"), c.get("status"), c.get("reason")) for c in conditions],
    )


def _without_texts(value: Any) -> Any:  # noqa: ANN401 - plain data
    if isinstance(value, Mapping):
        return {k: _without_texts(v) for k, v in value.items() if k not in TEXTS}
    return [_without_texts(v) for v in value] if isinstance(value, list) else value


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> Status:
    """Return the JSON merge patch (RFC 7396) that makes `after` of `before`; gone keys are null."""
    out: Status = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            if inner := merge_patch(old, value):
                out[key] = inner
        elif old != value:
            out[key] = value
    return out


def _steady(before: Mapping[str, Any], key: str, value: float, floor: float) -> float | None:
    """Return the number to show: the one shown before while it is close (or within `floor`)."""
    if not math.isfinite(value):
        return None
    shown = before.get(key)
    if isinstance(shown, int | float) and math.isclose(
        value, shown, rel_tol=STEADY_RATIO, abs_tol=floor
    ):
        return float(shown)
    return max(0.0, float(f"{value:.3g}"))


def _steady_ratio(before: Mapping[str, Any], key: str, value: float, decimals: int) -> float | None:
    """Return a ratio rounded to `decimals`, kept while the new one is less than one step away."""
    if not math.isfinite(value):
        return None
    shown = before.get(key)
    if isinstance(shown, int | float) and abs(value - shown) < 10.0**-decimals:
        return float(shown)
    return round(value, decimals)


def _rounded(value: float, decimals: int) -> float | None:
    return round(value, decimals) if math.isfinite(value) else None


def _slowest(seconds: Iterable[float]) -> float:
    return max((s for s in seconds if math.isfinite(s)), default=math.nan)


def _part(status: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = status.get(key)
    return part if isinstance(part, Mapping) else {}


def _time(now_seconds: float) -> str:
    return datetime.fromtimestamp(now_seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

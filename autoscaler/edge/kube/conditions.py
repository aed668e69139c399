"""What is true or not of a policy or a pool, with a reason of a closed set and one sentence. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from autoscaler.core.outcome import ServiceDecision
from autoscaler.core.types import Mode, Reason, ServiceObservation
from autoscaler.policy.errors import one_line
from autoscaler.policy.status import (
    MAX_MESSAGE_CHARACTERS,
    Condition,
    ConditionReason,
    ConditionType,
    DeliveryStatus,
)

MARGIN = 0.25  # of the allowed misses: predicted beyond it, the SLO is at risk
SHORT = 0.01  # share of the requirement that may lack before it is worth a word
LEAST_REQUESTS = 20.0  # fewer tell nothing of a share
AGE_STEP_SECONDS = 30.0  # the age of telemetry is told in steps: it is another every tick
NO_DECISION = "no decision has been made yet"


class Obstacle(StrEnum):
    """What keeps a policy from having its way; the value is the reason of the condition."""

    INVALID_SPEC = ConditionReason.INVALID_SPEC.value
    CONFLICT = ConditionReason.CONFLICT.value  # somebody else scales the target
    NO_SCALED_OBJECT = ConditionReason.NO_SCALED_OBJECT.value  # in mode Keda: nobody asks
    TARGET_NOT_FOUND = ConditionReason.TARGET_NOT_FOUND.value
    FORBIDDEN = ConditionReason.FORBIDDEN.value
    WRITE_FAILED = ConditionReason.WRITE_FAILED.value
    PAUSED = ConditionReason.PAUSED.value  # no obstacle in Recommend mode
    NOTHING_KNOWN = ConditionReason.NOTHING_KNOWN.value
    ACCELERATORS_LACKING = ConditionReason.ACCELERATORS_LACKING.value  # of Constrained, not Ready


@dataclass(frozen=True, slots=True)
class StatusInputs:
    """What a policy's status is made of. NaN: not known.

    `problems` has a sentence for each obstacle; of several that stop a policy, Ready names the one
    that comes first in `Obstacle`.
    """

    mode: Mode
    decision: ServiceDecision | None = None
    observation: ServiceObservation | None = None
    telemetry_age_seconds: float = math.nan  # NaN: never measured
    stale_after_seconds: float = 180.0
    lead_seconds: float = math.nan
    model_version: str = ""
    partly: str = ""  # which part of the service is measured, where it is not the whole
    withheld: str = ""  # when a decision that may be written will be, where it was not now
    lowering: str = ""  # what runs beyond the maximum
    attainment: float = math.nan  # the share of requests that the policy asks for
    attained_ratio: float = math.nan  # that of the last hour's requests
    finished_requests: float = 0.0  # of which that is
    problems: Mapping[Obstacle, str] = field(default_factory=dict)
    deliveries: Mapping[str, DeliveryStatus] = field(default_factory=dict)  # by variant
    delivered: "Verdict | None" = None  # None: KEDA has no part in it


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition as it is now, without its history."""

    status: Literal["True", "False", "Unknown"]
    reason: ConditionReason
    message: str


DONE_WITH_DECISIONS = {
    Mode.RECOMMEND: (ConditionReason.RECOMMENDING, "shown only"),
    Mode.SCALE: (ConditionReason.SCALING, "written to the workloads"),
    Mode.KEDA: (ConditionReason.SERVING_KEDA, "served to KEDA"),
}
LIMITED_BY = {
    Reason.QUOTA: ConditionReason.QUOTA,
    Reason.BUDGET: ConditionReason.BUDGET,
    Reason.MAX: ConditionReason.MAX_REPLICAS,
}


def policy_verdicts(
    inputs: StatusInputs, previous: Mapping[str, Any]
) -> dict[ConditionType, Verdict]:
    """Return all conditions of a policy; `previous` is its status so far (for hysteresis)."""
    verdicts = {
        ConditionType.READY: _ready(inputs),
        ConditionType.TELEMETRY_FRESH: _telemetry_fresh(inputs),
        ConditionType.MODEL_TRUSTED: _model_trusted(inputs),
        ConditionType.SLO_AT_RISK: _slo_at_risk(
            inputs, status_of(previous, ConditionType.SLO_AT_RISK) == "True"
        ),
        ConditionType.CONSTRAINED: _constrained(inputs),
    }
    if inputs.delivered is not None:
        verdicts[ConditionType.DELIVERED] = inputs.delivered
    return verdicts


def _ready(inputs: StatusInputs) -> Verdict:
    for obstacle in Obstacle:
        if obstacle is Obstacle.ACCELERATORS_LACKING or obstacle not in inputs.problems:
            continue
        if obstacle is Obstacle.PAUSED and inputs.mode is Mode.RECOMMEND:
            continue  # nothing would be written anyway
        return Verdict("False", ConditionReason(obstacle.value), inputs.problems[obstacle])
    if inputs.decision is None:
        return Verdict("Unknown", ConditionReason.NO_DECISION, NO_DECISION)
    reason, done = DONE_WITH_DECISIONS[inputs.mode]
    if inputs.withheld:
        done = f"written {inputs.withheld}"
    desired = sum(inputs.decision.variants.values())
    if inputs.observation is None:
        return Verdict("True", reason, f"{replicas(desired)} wanted, {done}")
    ready = sum(v.ready for v in inputs.observation.variants.values())
    starting = sum(v.starting for v in inputs.observation.variants.values())
    if inputs.mode is Mode.SCALE and not _differs(inputs.decision, inputs.observation):
        done = "as the workloads have it"
    text = f"{replicas(desired)} wanted ({done}), {ready} ready, {starting} starting"
    if inputs.lowering:
        text = f"{text}; {inputs.lowering}"
    return Verdict("True", reason, text)


def _differs(decision: ServiceDecision, observation: ServiceObservation) -> bool:
    """Whether what was decided is another count than the workloads had."""
    had = observation.variants
    return any(n in had and had[n].desired != count for n, count in decision.variants.items())


def _telemetry_fresh(inputs: StatusInputs) -> Verdict:
    age = inputs.telemetry_age_seconds
    if not math.isfinite(age):
        text = "nothing has been measured of this service yet"
        return Verdict("False", ConditionReason.NEVER_MEASURED, text)
    shown = AGE_STEP_SECONDS * max(1, math.ceil(age / AGE_STEP_SECONDS))
    if age > inputs.stale_after_seconds:
        text = f"last measured about {duration(shown)} ago; allowed: {duration(inputs.stale_after_seconds)}"
        if inputs.partly:
            text = f"{text}; {inputs.partly}"
        return Verdict("False", ConditionReason.STALE, text)
    if inputs.partly:
        return Verdict("True", ConditionReason.PARTLY_MEASURED, inputs.partly)
    return Verdict("True", ConditionReason.MEASURED, f"measured within the last {duration(shown)}")


def _model_trusted(inputs: StatusInputs) -> Verdict:
    decision = inputs.decision
    if decision is None:
        return Verdict("Unknown", ConditionReason.NO_DECISION, NO_DECISION)
    version = f" (models {inputs.model_version})" if inputs.model_version else ""
    if decision.trusted:
        text = f"the load model was better than the last value on held-out history{version}"
        return Verdict("True", ConditionReason.FORECAST_BETTER_THAN_NAIVE, text)
    if math.isnan(decision.forecast_median_rps):
        text = "no load model yet: replicas follow the measured load"
        return Verdict("False", ConditionReason.NO_MODEL_YET, text)
    text = (
        f"no forecast was better than the last value on held-out history{version}: "
        "replicas lean on the measured load"
    )
    return Verdict("False", ConditionReason.FORECAST_NOT_BETTER_THAN_NAIVE, text)


def _slo_at_risk(inputs: StatusInputs, was_at_risk: bool) -> Verdict:
    decision = inputs.decision
    if decision is None:
        return Verdict("Unknown", ConditionReason.NO_DECISION, NO_DECISION)
    left, predicted = decision.error_budget_left_ratio, decision.predicted_attainment_ratio
    target = decision.attainment_target_ratio
    if left <= 0:
        text = f"the error budget of the window is spent: {left:.0%} is left"
        return Verdict("True", ConditionReason.ERROR_BUDGET_SPENT, text)
    if decision.shortfall_ratio > SHORT:
        text = f"{decision.shortfall_ratio:.0%} of the required capacity did not fit"
        return Verdict("True", ConditionReason.CAPACITY_SHORT, text)
    if not math.isfinite(predicted):
        return _measured_risk(inputs, was_at_risk)
    bound = _bound(target, was_at_risk)
    shares = f"{predicted:.2%} of requests should meet the SLO, planned for {target:.2%}"
    if predicted < bound:
        return Verdict("True", ConditionReason.MISS_PREDICTED, shares)
    text = f"{left:.0%} of the error budget is left; {shares}"
    return Verdict("False", ConditionReason.ON_TARGET, text)


def _bound(target: float, was_at_risk: bool) -> float:
    """Return what must be reached: once at risk the target itself, so that nothing flaps about one bound."""
    return target if was_at_risk else target - MARGIN * (1.0 - target)


def _measured_risk(inputs: StatusInputs, was_at_risk: bool) -> Verdict:
    """Return whether the SLO is missed now, where nobody can tell what will be."""
    if not math.isfinite(inputs.attained_ratio) or inputs.finished_requests < LEAST_REQUESTS:
        text = "no prediction: the speed of no variant in use is known, and too little was measured"
        return Verdict("Unknown", ConditionReason.NOTHING_KNOWN, text)
    text = (
        f"{inputs.attained_ratio:.2%} of the last hour's requests met the SLO, wanted are "
        f"{inputs.attainment:.2%}; no prediction: the speed of no variant in use is known"
    )
    if inputs.attained_ratio < _bound(inputs.attainment, was_at_risk):
        return Verdict("True", ConditionReason.MISS_MEASURED, text)
    return Verdict("False", ConditionReason.ON_TARGET, text)


def _constrained(inputs: StatusInputs) -> Verdict:
    lacking = inputs.problems.get(Obstacle.ACCELERATORS_LACKING)
    if lacking:
        return Verdict("True", ConditionReason.ACCELERATORS_LACKING, lacking)
    decision = inputs.decision
    if decision is None:
        return Verdict("Unknown", ConditionReason.NO_DECISION, NO_DECISION)
    wanted = f"{replicas(decision.required_replicas)} required"
    if decision.reason in LIMITED_BY:
        text = f"{wanted}: {decision.detail}"
        return Verdict("True", LIMITED_BY[decision.reason], text)
    if decision.shortfall_ratio > SHORT:
        text = f"{wanted}, {decision.shortfall_ratio:.0%} of it did not fit"
        return Verdict("True", ConditionReason.CAPACITY_SHORT, text)
    return Verdict("False", ConditionReason.UNCONSTRAINED, f"{wanted}, all of it fits")


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """One accelerator class now. None: not known, or (usable) no limit."""

    name: str
    usd_per_hour: float
    usable: int | None = None
    in_use: int | None = None
    problem: str = ""  # why `usable` is not known though it should be


@dataclass(frozen=True, slots=True)
class PoolInputs:
    """What a pool's status is made of; `invalid` says why its spec is not in force.

    `excluded`: node -> why nothing new is counted on it.
    """

    classes: Sequence[ClassFacts]
    invalid: str = ""
    excluded: Mapping[str, str] = field(default_factory=dict)


def pool_verdicts(inputs: PoolInputs) -> dict[ConditionType, Verdict]:
    """Return all conditions of a pool."""
    unknown = [c for c in inputs.classes if c.problem]
    if inputs.invalid:
        ready = Verdict("False", ConditionReason.INVALID_SPEC, inputs.invalid)
    elif unknown:
        text = "; ".join(f"{c.name}: {c.problem}" for c in unknown)
        ready = Verdict("False", ConditionReason.INVENTORY_UNKNOWN, text)
    else:
        limited = sum(c.usable is not None for c in inputs.classes)
        text = f"{len(inputs.classes)} classes, {limited} of them with a limit"
        if inputs.excluded:
            text = f"{text}; {len(inputs.excluded)} nodes are left out, see excludedNodes"
        ready = Verdict("True", ConditionReason.INVENTORY_KNOWN, text)
    return {ConditionType.READY: ready, ConditionType.EXHAUSTED: _exhausted(inputs.classes)}


def _exhausted(classes: Iterable[ClassFacts]) -> Verdict:
    every = list(classes)
    known = [c for c in every if not c.problem]
    full = [c for c in known if c.usable is not None and (c.in_use or 0) >= c.usable]
    if full:
        text = "; ".join(f"{c.name}: {c.in_use or 0} of {c.usable} in use" for c in full)
        return Verdict("True", ConditionReason.ALL_IN_USE, text)
    which = "every class" if len(known) == len(every) else "every class that is known"
    return Verdict("False", ConditionReason.AVAILABLE, f"accelerators of {which} are left")


def with_history(
    verdicts: Mapping[ConditionType, Verdict],
    previous: Mapping[str, Any],
    generation: int,
    now: str,
) -> list[Condition]:
    """Return the conditions; one whose status is what it was keeps its lastTransitionTime.

    `previous` is the status so far, `now` a time of RFC 3339.
    """
    return [
        Condition(
            type=kind.value,
            status=verdict.status,
            observed_generation=generation,
            last_transition_time=_since(previous, kind, verdict.status) or now,
            reason=verdict.reason.value,
            message=clipped(verdict.message),
        )
        for kind, verdict in verdicts.items()
    ]


def condition_of(status: Mapping[str, Any], kind: ConditionType) -> Mapping[str, Any]:
    """Return the condition of a status (plain data from the API), or an empty mapping."""
    conditions = status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if isinstance(condition, Mapping) and condition.get("type") == kind.value:
            return condition
    return {}


def status_of(status: Mapping[str, Any], kind: ConditionType) -> str:
    """Return True, False or Unknown as a text; empty where the condition is not there yet."""
    return str(condition_of(status, kind).get("status", ""))


def _since(previous: Mapping[str, Any], kind: ConditionType, status: str) -> str | None:
    before = condition_of(previous, kind)
    since = before.get("lastTransitionTime")
    return since if before.get("status") == status and isinstance(since, str) else None


def clipped(text: str) -> str:
    """Return `text` in one line that fits into a message."""
    line = one_line(" ".join(text.split()))
    return (
        line if len(line) <= MAX_MESSAGE_CHARACTERS else f"{line[: MAX_MESSAGE_CHARACTERS - 3]}..."
    )


def replicas(count: int) -> str:
    """Return a count with its noun."""
    return f"{count} replica" if count == 1 else f"{count} replicas"


def duration(seconds: float) -> str:
    """Return seconds as kubectl shows ages: 45s, 4m10s, 2h5m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = (f"{hours}h", f"{minutes}m") if hours else (f"{minutes}m", f"{rest}s")
    return "".join(p for p in parts if not p.startswith("0"))

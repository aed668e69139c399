"""Which counts a service gets and which step had the last word, in one sentence."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autoscaler.core.assess import Situation
from autoscaler.core.needs import COVER_SLACK, Planned, VariantNeed, in_mix
from autoscaler.core.prices import Spare
from autoscaler.core.requirements import Requirements
from autoscaler.core.sizing import Sizes
from autoscaler.core.spot import spot_in_words
from autoscaler.core.types import Observation, Policy, Reason, Variant


@dataclass(frozen=True, slots=True)
class Choice:
    """Counts per variant (ready + starting wanted) and why."""

    counts: Mapping[str, int]
    reason: Reason
    detail: str
    shortfall_ratio: float = 0.0
    guarded: int = 0  # replicas of this mix that would have been chosen without quota and budget


def choose_pinned(
    situation: Situation, sizes: Sizes, observation: Observation, spare: Spare
) -> Choice:
    """Return the choice for a service that is not planned: frozen, or without telemetry.

    What runs is never lowered. A variant whose count nobody knows gets the fallback's count, else
    what the forecast needs, else its maximum: too many for a while is better than too few, as long
    as nobody else's replicas have to go for them.
    """
    policy, reason = situation.policy, situation.pinned
    assert reason is not None  # noqa: S101 - only pinned services come here
    fallback = policy.fallback.replicas
    counts, guessed = {}, []
    for v in policy.variants:
        lane = sizes.lane(policy.service, v.name)
        if v.name in situation.current:
            counts[v.name] = situation.current[v.name]
        else:
            guess = fallback
            if guess is None:
                guess = sizes.future[lane] if lane is not None else v.max_replicas
            guess = min(max(guess, v.min_replicas), v.max_replicas)
            counts[v.name] = spare.take(v, policy.namespace, guess)
            guessed.append(v.name)
    if reason is Reason.FALLBACK and fallback is not None:
        _raise_to(fallback, policy, counts, spare)
    if guessed and reason is Reason.STALE_TELEMETRY:
        reason = Reason.FALLBACK
    silent = observation.now_seconds - situation.state.last_telemetry_seconds
    never = not situation.state.samples and not situation.state.budget
    silence = "no telemetry yet" if never else f"no telemetry for {_span(silent)}"
    details = {
        Reason.FROZEN: "behavior.freeze is set",
        Reason.STALE_TELEMETRY: f"{silence}: holding",
        Reason.FALLBACK: f"{silence}: fallback",
    }
    return Choice(counts, reason, details[reason], guarded=sum(counts.values()))


def _raise_to(replicas: int, policy: Policy, counts: dict[str, int], spare: Spare) -> None:
    """Raise the service to `replicas` for each phase of a request, the first variants first."""
    for phase in policy.phases:
        missing = replicas - sum(counts[policy.variants[i].name] for i in phase)
        for v in (policy.variants[i] for i in phase):
            more = spare.take(v, policy.namespace, min(missing, v.max_replicas - counts[v.name]))
            counts[v.name] += more
            missing -= more


def choose_planned(situation: Situation, requirements: Requirements, planned: Planned) -> Choice:
    """Return the choice for a planned service."""
    names = [v.name for v in requirements.need.variants]
    counts = dict(zip(names, planned.replicas, strict=True))
    reason, detail = _why(situation, requirements, planned)
    if said := spot_in_words(requirements.need, planned.replicas):
        detail = f"{detail}; {said}"
    short = max(0.0, planned.shortfall_ratio)
    return Choice(counts, reason, detail, short, _guarded(requirements, planned, reason))


def _guarded(requirements: Requirements, planned: Planned, reason: Reason) -> int:
    """Return the count of this mix that the guard let through, before accelerators or money ran out."""
    chosen = sum(planned.replicas)
    if reason not in (Reason.QUOTA, Reason.BUDGET):
        return chosen
    need = requirements.need
    alone = [v.future for v in need.variants]
    wanted = sum([in_mix([(i, planned.replicas[i]) for i in p], alone) for p in need.phases()])
    return max(chosen, wanted)


def _why(situation: Situation, requirements: Requirements, planned: Planned) -> tuple[Reason, str]:
    """Return which step had the last word, and say so with its numbers."""
    need, n = requirements.need, planned.replicas
    if planned.limited_by is not None:
        return _limited(situation, requirements, planned), _short(planned)
    if need.idle:
        return Reason.FORECAST, "nothing to serve now or until a restart: scaled to zero"
    total, current = sum(n), sum([v.current for v in need.variants])
    least = sum([v.lower for v in need.variants])
    if total == least and _covered_by_less(requirements, planned):
        if any(v.lower > p.min_replicas for v, p in _with_policy(situation, requirements)):
            return Reason.RATE_LIMIT, "behavior.scaleDown.policies allow no more at once"
        if total > 1 or current > total:
            return Reason.MIN, f"the forecast needs fewer than minReplicas {least}"
    if requirements.schedule and _future(requirements) < requirements.schedule >= total:
        names = ", ".join(w.name for w in situation.windows)
        return Reason.SCHEDULE, f"schedule {names} asks for at least {requirements.schedule}"
    if requirements.reactive > _future(requirements):
        rate = 0.0 if situation.demand is None else situation.demand.reactive_rps
        return Reason.REACTIVE, f"requests wait and miss the SLO: sized for {rate:.2f} req/s"
    if total < _future(requirements):
        return Reason.STABILIZING, "a scale-up waits until the demand has lasted"
    if total > _hold(requirements) and total <= current:
        return Reason.STABILIZING, "a scale-down waits for its stabilization window"
    if not requirements.modelled:
        return Reason.NO_MODEL, "no latency model yet: sized by measured latency, or concurrency"
    if total == current and _future(requirements) < total:
        return Reason.HOLD, f"less would not cover the next {_span(situation.horizon_seconds)}"
    return Reason.FORECAST, f"for the load predicted {_span(situation.horizon_seconds)} ahead"


def _limited(situation: Situation, requirements: Requirements, planned: Planned) -> Reason:
    """Return MAX as RATE_LIMIT where the bound was the rate limit and not the policy's maximum."""
    reason = planned.limited_by
    assert reason is not None  # noqa: S101 - the caller checked
    if reason is Reason.MAX and any(
        v.upper < p.max_replicas for v, p in _with_policy(situation, requirements)
    ):
        return Reason.RATE_LIMIT
    return reason


def _short(planned: Planned) -> str:
    if planned.shortfall_ratio <= COVER_SLACK:
        return "minReplicas, or what scaleDown.policies keep, does not fit"
    return f"{planned.shortfall_ratio:.0%} of the requirement does not fit"


def _with_policy(
    situation: Situation, requirements: Requirements
) -> Iterator[tuple[VariantNeed, Variant]]:
    return zip(requirements.need.variants, situation.policy.variants, strict=True)


def _future(requirements: Requirements) -> int:
    return min(requirements.forecast_future.values())


def _hold(requirements: Requirements) -> int:
    hold = min(requirements.forecast_hold.values())
    return max(hold, requirements.reactive, requirements.schedule, _future(requirements))


def _covered_by_less(requirements: Requirements, planned: Planned) -> bool:
    shares = (
        n / requirements.forecast_hold[v.name]
        for n, v in zip(planned.replicas, requirements.need.variants, strict=True)
        if requirements.forecast_hold[v.name] > 0
    )
    return sum(shares) > 1 + COVER_SLACK


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"

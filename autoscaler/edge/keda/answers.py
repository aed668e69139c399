"""From a plan and its age to the replicas that KEDA is told. Pure.

    age   0 ---- max age ------------------ max age + fallback.afterSeconds ---->
          plan   | what runs, or what the   | the more of that and fallback.replicas
                 | load needs if more       |

What runs is taken as the larger of what was decided and what the workload asked for when that was
written: whichever of the two came about meanwhile, nothing that serves is taken away. What the load
needs (`reactive`) only raises it. Beyond the age limit the policy's minimum and maximum as they are now
hold. Zero is told only where it was decided, and not while requests wait at the gateway: then the
service's first variant (of each phase) is told one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from autoscaler.edge.keda.errors import NoAnswerError
from autoscaler.edge.keda.plan import SERVED_MODE, Plan, VariantPlan
from autoscaler.edge.keda.plans import NO_FLOORS, Dated, Plans
from autoscaler.edge.keda.trigger import Trigger
from models.phases import phases_of

Source = Literal["plan", "paused", "running", "reactive", "fallback", "gateway"]
SOURCES: tuple[Source, ...] = get_args(Source)


@dataclass(frozen=True, slots=True)
class Answer:
    """The replicas to bring about, and where the number is from."""

    replicas: int
    source: Source
    variant: VariantPlan


def answer_now(plans: Plans, dated: Dated, trigger: Trigger) -> Answer:
    """Return what to tell a trigger of one of `plans` now; NoAnswerError."""
    service = dated.plan.service
    return answer_of(
        dated.plan,
        trigger,
        plans.age_seconds(dated),
        plans.max_age_seconds,
        called=plans.is_called(service),
        floors=plans.floors(service),
    )


def answer_of(
    plan: Plan,
    trigger: Trigger,
    age_seconds: float,
    max_age_seconds: float,
    *,
    called: bool = False,
    floors: Mapping[str, int] = NO_FLOORS,
) -> Answer:
    """Return what to tell of a trigger whose plan is `age_seconds` old; NoAnswerError.

    Older than `max_age_seconds`, or than the trigger allows, it gives way. `called`: requests wait at the
    gateway for this service; `floors`: replicas of each variant that the load which is there needs.
    """
    answer = _planned(plan, trigger, age_seconds, max_age_seconds, floors)
    if called and plan.at_zero and answer.replicas == 0 and answer.variant in _first_ones(plan):
        return Answer(1, "gateway", answer.variant)
    return answer


def _first_ones(plan: Plan) -> list[VariantPlan]:
    """Return the variants that serve a service's first request: of each phase the first that may run."""
    phases = phases_of([v.role for v in plan.variants])
    able = [[plan.variants[i] for i in phase if plan.variants[i].max_replicas] for phase in phases]
    return [variants[0] for variants in able if variants]


def _planned(
    plan: Plan,
    trigger: Trigger,
    age_seconds: float,
    max_age_seconds: float,
    floors: Mapping[str, int],
) -> Answer:
    """Return what the plan says, or what stands in for one that is too old."""
    variant = _asked_for(plan, trigger)
    if plan.mode != SERVED_MODE:
        raise NoAnswerError(
            "not_served",
            f"{plan.service}: behavior.mode is {plan.mode}; allowed: {SERVED_MODE}, or no trigger",
        )
    if plan.is_paused:  # what was decided is not brought about
        current = variant.desired if variant.current is None else variant.current
        return Answer(_known(current, plan, variant), "paused", variant)
    limit = trigger.limit_seconds(max_age_seconds)
    if age_seconds <= limit:
        return Answer(_known(variant.desired, plan, variant), "plan", variant)
    running = _within(_known(variant.standing, plan, variant), variant)
    fallback = trigger.fallback_replicas
    fallback = plan.fallback_replicas if fallback is None else fallback
    if fallback is not None and age_seconds > limit + plan.fallback_after_seconds:
        return Answer(_raised(plan, variant, fallback, floors), "fallback", variant)
    wanted = _within(max(running, floors.get(variant.name, 0)), variant)
    return Answer(wanted, "reactive" if wanted > running else "running", variant)


def _asked_for(plan: Plan, trigger: Trigger) -> VariantPlan:
    if trigger.variant is None and len(plan.variants) == 1:
        return plan.variants[0]
    for v in plan.variants:
        if v.name == trigger.variant:
            return v
    said = "missing" if trigger.variant is None else repr(trigger.variant)
    names = ", ".join(v.name for v in plan.variants)
    raise NoAnswerError(
        "bad_metadata", f"trigger metadata variant: {said}; allowed for {plan.service}: {names}"
    )


def _known(replicas: int | None, plan: Plan, variant: VariantPlan) -> int:
    if replicas is None:
        raise NoAnswerError(
            "nothing_known", f"{plan.service}: nothing was decided yet for variant {variant.name}"
        )
    return replicas


def _within(replicas: int, variant: VariantPlan) -> int:
    return min(max(replicas, variant.min_replicas), variant.max_replicas)


def _raised(plan: Plan, asked_for: VariantPlan, replicas: int, floors: Mapping[str, int]) -> int:
    """Return the variant's part when the service is raised to `replicas`: as the core's fallback does.

    Each phase of a request gets as many, the first variants first; nothing is lowered.
    """
    counts = {
        v.name: _within(max(v.standing or 0, floors.get(v.name, 0)), v) for v in plan.variants
    }
    for phase in phases_of([v.role for v in plan.variants]):
        variants = [plan.variants[i] for i in phase]
        missing = replicas - sum(counts[v.name] for v in variants)
        for v in variants:
            more = max(0, min(missing, v.max_replicas - counts[v.name]))
            counts[v.name] += more
            missing -= more
    return counts[asked_for.name]

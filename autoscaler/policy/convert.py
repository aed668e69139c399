"""Validated resources -> the core's values: units, defaults that depend on others, enums."""

import math

from autoscaler.core.types import (
    SPOT_INTERRUPTIONS_PER_HOUR,
    AcceleratorClass,
    Behavior,
    CapacityType,
    Fallback,
    Mode,
    Policy,
    Pool,
    Role,
    ScalingLimit,
    ScalingRules,
    ScheduleWindow,
    TargetRef,
    Variant,
)
from autoscaler.policy.checks import epoch_seconds
from autoscaler.policy.schema import (
    AcceleratorClassSpec,
    AcceleratorPool,
    BehaviorSpec,
    Budget,
    ScaleDownSpec,
    ScaleUpSpec,
    ScalingPolicy,
    ScheduleWindowSpec,
    Slo,
    VariantSpec,
)
from models.slo import SloTargets

WEEKDAYS = (
    "Mon",
    "Tue",
    "Wed",
    "Thu",
    "Fri",
    "Sat",
    "Sun",
)  # position = the core's day, 0 = Monday


def to_policy(policy: ScalingPolicy) -> Policy:
    """Return the core's view of one service."""
    spec = policy.spec
    return Policy(
        service=policy.service,
        model=spec.model,
        targets=_targets(spec.slo),
        attainment=spec.slo.attainment,
        window_hours=spec.slo.window_hours,
        priority=spec.priority,
        variants=tuple(_variant(v) for v in spec.variants),
        behavior=_behavior(spec.behavior),
        fallback=Fallback(spec.fallback.after_seconds, spec.fallback.replicas),
        schedule=tuple(_window(w) for w in spec.schedule),
        budget_usd_per_hour=_budget(spec.budget),
        max_spot_ratio=spec.max_spot_ratio,
    )


def to_pool(pool: AcceleratorPool) -> Pool:
    """Return the core's view of a pool; inventory from nodes or Kueue arrives with observations."""
    return Pool(
        name=pool.metadata.name,
        classes=tuple(
            AcceleratorClass(
                name=c.name,
                usd_per_hour=c.usd_per_hour,
                quota_count=c.quota.count if c.quota is not None else None,
                capacity_type=CapacityType(c.capacity_type),
                resource_name=c.resource_name,
                interruptions_per_hour=_interruptions_per_hour(c),
            )
            for c in pool.spec.classes
        ),
        budget_usd_per_hour=_budget(pool.spec.budget),
        namespace_quotas=dict(pool.spec.namespace_quotas),
    )


def _interruptions_per_hour(c: AcceleratorClassSpec) -> float:
    if c.interruptions_per_hour is not None:
        return c.interruptions_per_hour
    return SPOT_INTERRUPTIONS_PER_HOUR if c.capacity_type == "Spot" else 0.0


def _targets(slo: Slo) -> SloTargets:
    seconds = {o.metric: o.target_seconds for o in slo.objectives}
    return SloTargets(
        ttft_seconds=seconds.get("ttft", math.inf),
        tpot_seconds=seconds.get("tpot", math.inf),
        e2e_seconds=seconds.get("e2e", math.inf),
    )


def _variant(variant: VariantSpec) -> Variant:
    ref = variant.target_ref
    return Variant(
        name=variant.name,
        accelerator_class=variant.accelerator_class,
        accelerators_per_replica=variant.accelerators_per_replica,
        min_replicas=variant.min_replicas,
        max_replicas=variant.max_replicas,
        target_ref=TargetRef(ref.api_version, ref.kind, ref.name),
        role=Role(variant.role),
        profile_ref=variant.profile_ref,
    )


def _behavior(behavior: BehaviorSpec) -> Behavior:
    return Behavior(
        mode=Mode(behavior.mode),
        scale_up=_rules(behavior.scale_up),
        scale_down=_rules(behavior.scale_down),
        scale_to_zero=behavior.scale_to_zero,
        freeze=behavior.freeze,
    )


def _rules(rules: ScaleUpSpec | ScaleDownSpec) -> ScalingRules:
    limits = tuple(
        ScalingLimit(p.type == "Percent", p.value, float(p.period_seconds)) for p in rules.policies
    )
    return ScalingRules(rules.stabilization_window_seconds, limits)


def _window(window: ScheduleWindowSpec) -> ScheduleWindow:
    """Return the window; a weekly one without days is daily, one without times lasts the whole day."""
    weekly = window.from_ is None
    days = tuple(sorted(WEEKDAYS.index(d) for d in window.days or WEEKDAYS)) if weekly else ()
    return ScheduleWindow(
        name=window.name,
        time_zone=window.time_zone,
        min_replicas=window.min_replicas,
        load_multiplier=1.0 if window.load_multiplier is None else window.load_multiplier,
        days=days,
        start_second=_second_of_day(window.start or "00:00"),
        end_second=_second_of_day(window.end or "24:00"),
        from_seconds=None if window.from_ is None else epoch_seconds(window.from_),
        until_seconds=None if window.until is None else epoch_seconds(window.until),
    )


def _second_of_day(time: str) -> int:
    hours, minutes = time.split(":")
    return int(hours) * 3600 + int(minutes) * 60


def _budget(budget: Budget | None) -> float:
    return math.inf if budget is None else budget.usd_per_hour

"""Policies of the services in samples.fleet."""

from autoscaler.core.types import (
    Behavior,
    Fallback,
    Mode,
    Policies,
    Policy,
    ScalingRules,
    TargetRef,
    Variant,
)
from models.slo import SloTargets


def policy(service: str, *variants: str, model: str = "", ttft: float = 0.5) -> Policy:
    name = service.split("/")[1]
    return Policy(
        service=service,
        model=model or f"{name}-model",
        targets=SloTargets(ttft_seconds=ttft, tpot_seconds=0.25),
        attainment=0.99,
        window_hours=1.0,
        priority=0,
        variants=tuple(
            Variant(v, v, 1, 0, 10, TargetRef("apps/v1", "Deployment", f"{name}-{v}"))
            for v in variants or ("h100",)
        ),
        behavior=Behavior(Mode.RECOMMEND, ScalingRules(0.0), ScalingRules(300.0)),
        fallback=Fallback(600.0, None),
    )


def fleet_policies() -> Policies:
    own = (
        policy("prod/chat"),
        policy("prod/mail", "h100", "l4"),
        policy("prod/idle"),
        policy("prod/absent"),
    )
    return Policies({p.service: p for p in own}, ())

"""Small worlds for the core's tests: one service, known speeds, forecasts by hand."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from autoscaler.core.outcome import Forecasts, Outlook, StartLead
from autoscaler.core.types import (
    AcceleratorClass,
    Behavior,
    Fallback,
    Mode,
    Observation,
    Policies,
    Policy,
    Pool,
    ScalingRules,
    ServiceObservation,
    TargetRef,
    Variant,
    VariantObservation,
)
from models.latency import LatencyModel
from models.latency_parameters import default_columns
from models.quantiles import QUANTILES
from models.slo import SloTargets
from models.step_time import Coefficients

NOW = 1_767_571_200.0  # 2026-01-05 00:00:00 UTC, a Monday
SERVICE = "prod/chat"
SPEED = {
    "base_seconds": 0.02,
    "per_sequence_seconds": 1e-4,
    "per_context_token_seconds": 1e-7,
    "per_prompt_token_seconds": 1e-4,
    "prompt_growth_per_token": 0.0,
    "steps_per_token": 1 / 2048,
    "overhead_seconds": 0.0,
    "max_sequences": 256.0,
    "kv_tokens": 400_000.0,
    "isl_sigma": 0.5,
    "wait_scale": 1.0,
    "tpot_spread": 1.0,
    "routing_ratio": 1.0,
    "burst_ratio": 1.0,
    "prefix_cache_hit_ratio": 0.0,
    "seen_load_ratio": 1.0,
    "seen_isl_tokens": 1e7,
    "seen_osl_tokens": 1e7,
}


def latency_model(*keys: tuple[str, str], **changes: float) -> LatencyModel:
    fields = list(Coefficients.__dataclass_fields__)
    speed = {**dict(zip(fields, default_columns(), strict=True)), **SPEED, **changes}
    columns = np.array([[speed[f]] * len(keys) for f in fields])
    return LatencyModel(list(keys), columns, {})


def variant(name: str = "h100", **changes: Any) -> Variant:
    made = Variant(
        name=name,
        accelerator_class=name,
        accelerators_per_replica=1,
        min_replicas=1,
        max_replicas=40,
        target_ref=TargetRef("apps/v1", "Deployment", f"chat-{name}"),
    )
    return replace(made, **changes)


def policy(**changes: Any) -> Policy:
    made = Policy(
        service=SERVICE,
        model="m",
        targets=SloTargets(ttft_seconds=1.0, tpot_seconds=0.08),
        attainment=0.99,
        window_hours=24.0,
        priority=0,
        variants=(variant(),),
        behavior=Behavior(Mode.RECOMMEND, ScalingRules(0.0), ScalingRules(300.0)),
        fallback=Fallback(after_seconds=600.0, replicas=None),
    )
    return replace(made, **changes)


def policies(*each: Policy, pools: tuple[Pool, ...] | None = None) -> Policies:
    classes = sorted({v.accelerator_class for p in each for v in p.variants})
    made = Pool("pool", tuple(AcceleratorClass(c, 4.0, None) for c in classes))
    return Policies({p.service: p for p in each}, (made,) if pools is None else pools)


def outlook(
    median_rps: float, *, spread: float = 0.2, cutoff: float = NOW, **changes: Any
) -> Outlook:
    """The same distribution at every lead: quantile q is median * (1 + spread * z(q))."""
    z = np.array([-1.282, 0.0, 0.842, 1.282, 1.645, 2.326])
    row = np.maximum(median_rps * (1 + spread * z), 0.0)
    leads = np.arange(1, 61) * 60.0
    made = Outlook(
        cutoff_seconds=cutoff,
        leads_seconds=leads,
        quantiles=np.array(QUANTILES),
        arrival_rate_rps=np.tile(row, (leads.size, 1)),
        isl_tokens=1000.0,
        osl_tokens=100.0,
        trusted=True,
    )
    return replace(made, **changes)


def forecasts(
    outlooks: Mapping[str, Outlook], latency: LatencyModel | None = None, **starts: StartLead
) -> Forecasts:
    model = latency_model((SERVICE, "h100")) if latency is None else latency
    leads = {(SERVICE, name): lead for name, lead in starts.items()}
    return Forecasts(dict(outlooks), model, leads or {(SERVICE, "h100"): StartLead(120.0, 240.0)})


def seen(count: int, **changes: Any) -> VariantObservation:
    made = VariantObservation(
        ready=count,
        starting=0,
        draining=0,
        desired=count,
        running=2.0,
        waiting=0.0,
        ttft_p50_seconds=0.2,
        ttft_p95_seconds=0.4,
        ttft_p99_seconds=0.5,
        tpot_p50_seconds=0.0205,  # as the engine of `latency_model` has it
        tpot_p95_seconds=0.04,
        tpot_p99_seconds=0.05,
        finished_requests=30.0,
        slo_attainment_ratio=1.0,
    )
    return replace(made, **changes)


def observation(
    now: float = NOW,
    *,
    rate: float = 2.0,
    pools: Mapping[str, int] | None = None,
    service: str = SERVICE,
    **variants: VariantObservation,
) -> Observation:
    shown = ServiceObservation(rate, 1000.0, 100.0, variants)
    return Observation(now, 15.0, {service: shown}, dict(pools or {}))


def silence(now: float = NOW) -> Observation:
    return Observation(now, 15.0, {}, {})

"""What a rival is shown, and its answer: for walks of time worked out by hand."""

import math

from autoscaler.core.types import Observation, ServiceObservation, VariantObservation
from autoscaler.whatif.baselines import OneVariant


def seen(
    now: float,
    running: float,
    *,
    ready: int,
    waiting: float = 0.0,
    starting: int = 0,
    desired: int | None = None,
    rate: float = 1.0,
    kv: float | None = None,
    isl: float = 100.0,
    osl: float = 100.0,
) -> Observation:
    variant = VariantObservation(
        ready=ready,
        starting=starting,
        draining=0,
        desired=ready + starting if desired is None else desired,
        running=running,
        waiting=math.nan if math.isnan(running) else waiting,
        kv_cache_usage_ratio=running / 1000 if kv is None else kv,
    )
    service = ServiceObservation(rate, isl, osl, {"gpu": variant})
    return Observation(now, 15.0, {"prod/chat": service}, {})


def ask(rival: OneVariant, observation: Observation) -> int:
    return rival.decide(observation)["prod/chat"]["gpu"]

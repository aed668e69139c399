"""Small fleets for tests: round numbers, so that expected times can be worked out by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.fleet import Fleet, FleetVariant
from autoscaler.sim.workload import Requests
from models.slo import SloTargets

# 100 ms a step, 1 ms a sequence, 0.01 ms a context token, 0.1 ms a prompt token
PROFILE = EngineProfile("test", 0.1, 0.001, 0.00001, 0.0001)


def requests(*rows: tuple[float, int, int]) -> Requests:
    arrive, inputs, outputs = zip(*rows, strict=True) if rows else ((), (), ())
    return Requests(
        np.array(arrive, dtype=np.float64),
        np.array(inputs, dtype=np.int64),
        np.array(outputs, dtype=np.int64),
    )


def after(seconds: float) -> Any:
    return lambda _rng: seconds


def variant(profile: EngineProfile = PROFILE, **changes: Any) -> FleetVariant:
    fields: dict[str, Any] = {
        "name": "gpu",
        "profile": profile,
        "accelerators_per_replica": 4,
        "initial_replicas": 1,
        "max_replicas": 10,
        "startup": after(60.0),
    }
    return FleetVariant(**(fields | changes))


def fleet(
    load: Requests,
    *variants: FleetVariant,
    targets: SloTargets = SloTargets(),  # noqa: B008 (frozen)
    start_seconds: float = 0.0,
    **options: Any,
) -> Fleet:
    chosen: Sequence[FleetVariant] = variants or (variant(),)
    return Fleet(load, chosen, targets, start_seconds=start_seconds, **({"seed": 1} | options))

"""A service on simulated engines under a load that moves: the windows that telemetry would show of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.fleet import Fleet, FleetVariant
from autoscaler.sim.profiles import measured_profile
from autoscaler.sim.workload import draw_requests
from autoscaler.whatif.history import serving_rows
from models.frames import validate_serving
from models.slo import SloTargets

WINDOW_SECONDS = 60.0
SCALED_SECONDS = 1800.0  # each count of replicas holds this long
COUNTS = (3, 5, 4, 2, 3, 6, 4, 3)  # replicas, in turn: from light loads to near saturation


def engine_profile(**changes: Any) -> EngineProfile:
    return replace(measured_profile("llama2-70b-h100-80gb-tp4"), **changes)


def simulated(
    hours: float,
    *,
    profile: EngineProfile | None = None,
    rate_rps: float = 6.0,
    seed: int = 1,
    counts: Sequence[int] = COUNTS,
    swing: float = 0.35,
    burst_cv: float = 0.15,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a validated serving frame and the requests behind it (Fleet.outcomes).

    Load and lengths move over hours by `swing`, with bursts within minutes; replicas go through `counts`.
    """
    rng = np.random.default_rng(seed)
    at = np.arange(int(hours * 60))
    requests = draw_requests(
        rate_rps * np.exp(swing * np.sin(at / 47.0)),
        900.0 * np.exp(0.9 * swing * np.sin(at / 61.0)),
        130.0 * np.exp(0.6 * swing * np.cos(at / 37.0)),
        start_seconds=0.0,
        step_seconds=60.0,
        rng=rng,
        burst_cv=burst_cv,
    )
    variant = FleetVariant("h100", profile or engine_profile(), 4, counts[0], 64, lambda _: 30.0)
    fleet = Fleet(requests, [variant], SloTargets(), start_seconds=0.0, seed=seed)
    rows: list[dict[str, Any]] = []
    while fleet.now_seconds < hours * 3600.0 - 1e-6:
        seen = fleet.advance(WINDOW_SECONDS)
        rows += serving_rows("prod/chat", fleet.now_seconds - WINDOW_SECONDS, seen)
        fleet.scale("h100", counts[int(fleet.now_seconds // SCALED_SECONDS) % len(counts)])
    return validate_serving(pd.DataFrame(rows), "simulated"), fleet.outcomes()

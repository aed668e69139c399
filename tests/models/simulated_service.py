"""A service on simulated engines under a load that moves: the windows that telemetry would show of it."""

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


def simulated_windows(
    hours: float,
    *,
    profile: EngineProfile | None = None,
    rate_rps: float = 6.0,
    seed: int = 1,
    wander: bool = True,
) -> pd.DataFrame:
    """Return a validated serving frame: a load and lengths that move over hours, bursts within minutes."""
    rng = np.random.default_rng(seed)
    minutes = int(hours * 60)
    at = np.arange(minutes)
    swing = 0.35 if wander else 0.0
    requests = draw_requests(
        rate_rps * np.exp(swing * np.sin(at / 47.0)),
        900.0 * np.exp(0.3 * np.sin(at / 61.0)),
        130.0 * np.exp(0.2 * np.cos(at / 37.0)),
        start_seconds=0.0,
        step_seconds=60.0,
        rng=rng,
        burst_cv=0.15,
    )
    variant = FleetVariant("h100", profile or engine_profile(), 4, COUNTS[0], 64, lambda _: 30.0)
    fleet = Fleet(requests, [variant], SloTargets(), start_seconds=0.0, seed=seed)
    rows: list[dict[str, Any]] = []
    while fleet.now_seconds < hours * 3600.0 - 1e-6:
        seen = fleet.advance(WINDOW_SECONDS)
        rows += serving_rows("prod/chat", fleet.now_seconds - WINDOW_SECONDS, seen)
        if wander:
            fleet.scale("h100", COUNTS[int(fleet.now_seconds // SCALED_SECONDS) % len(COUNTS)])
    return validate_serving(pd.DataFrame(rows), "simulated")

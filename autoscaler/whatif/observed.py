"""What telemetry tells of replicas: how long their starts took, and how many ran when."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from autoscaler.sim.startup import typical_startup
from autoscaler.whatif.scenario import Scenario, StartupSpec
from models.frames import validate_serving, validate_startups

Startup = Callable[[np.random.Generator], float]
Counts = tuple[NDArray[np.float64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class LognormalStartup:
    """Start-up times with this median; `sigma` is of log seconds."""

    median_seconds: float
    sigma: float

    def __call__(self, rng: np.random.Generator) -> float:
        """Draw one."""
        return self.median_seconds * math.exp(self.sigma * rng.standard_normal())


@dataclass(frozen=True, slots=True)
class ObservedStartup:
    """One of the start-up times that telemetry holds, each as likely."""

    seconds: NDArray[np.float64]

    def __call__(self, rng: np.random.Generator) -> float:
        """Draw one."""
        return float(rng.choice(self.seconds))


def startup_of(scenario: Scenario, service: str, variant: str) -> Startup:
    """Return where a variant's start-up times come from (docs/whatif.md)."""
    if isinstance(scenario.startup, StartupSpec):
        return LognormalStartup(scenario.startup.median_seconds, scenario.startup.sigma)
    if scenario.startup is None and scenario.telemetry is not None:
        observed = _observed_starts(scenario.telemetry / "startups.parquet", service, variant)
        if len(observed):
            return ObservedStartup(observed)
    return typical_startup()


def _observed_starts(path: Path, service: str, variant: str) -> NDArray[np.float64]:
    """Return the seconds of the finished starts of a variant; none where there is no such file."""
    if not path.exists():
        return np.empty(0)
    frame = validate_startups(pd.read_parquet(path), str(path))
    mine = frame[(frame.service == service) & (frame.variant == variant) & frame.ready_ts.notna()]
    seconds = (mine.ready_ts - mine.created_ts).dt.total_seconds()
    return np.asarray(seconds, dtype=np.float64)


def recorded_fleet(
    telemetry: Path, since_seconds: float, until_seconds: float
) -> dict[str, dict[str, Counts]]:
    """Return what telemetry says that ran: service -> variant -> counts; nothing where it is silent.

    A replica is counted from the moment it is asked for, as it is paid for.
    """
    path = telemetry / "serving.parquet"
    if not path.exists():
        return {}
    frame = validate_serving(pd.read_parquet(path), str(path))
    at = frame.ts.astype("datetime64[ns, UTC]").astype("int64") / 1e9
    count = frame.ready_replicas + frame.starting_replicas.fillna(0.0)
    known = count.notna() & (at >= since_seconds) & (at < until_seconds)
    out: dict[str, dict[str, Counts]] = {}
    rows = frame[known].assign(at=at[known], count=count[known]).sort_values("at", kind="stable")
    for (service, variant), mine in rows.groupby(["service", "variant"]):
        counts = np.rint(mine["count"].to_numpy(dtype=np.float64)).astype(np.int64)
        out.setdefault(str(service), {})[str(variant)] = (
            mine["at"].to_numpy(dtype=np.float64),
            counts,
        )
    return out

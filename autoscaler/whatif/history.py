"""The telemetry that precedes the judged hours: cut from a user's folder, or simulated for a trace.

A trace holds requests only. What replicas did with them is simulated under an HPA whose target wanders,
so that light and heavy load are both seen, as the months before a tuned setting would show.
"""

import math
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from autoscaler.core.types import Observation, ServiceObservation, VariantObservation
from autoscaler.sim.fleet import Fleet, FleetVariant
from autoscaler.sim.workload import Requests
from autoscaler.whatif.arrivals import Arrivals
from autoscaler.whatif.baselines import Autoscaler
from autoscaler.whatif.capacity import replica_capacity
from autoscaler.whatif.case import Case, ServiceCase
from autoscaler.whatif.rivals import Setting, make_rival
from models.frames import validate_load, validate_serving, validate_startups

LOAD_STEP_SECONDS = 60.0
SERVING_STEP_SECONDS = 30.0
SERVING_SECONDS = 2 * 86_400.0  # how much of the history has serving telemetry
WANDER_SECONDS = 5400.0  # each target of the HPA holds this long
WANDER = (0.3, 0.6, 0.9, 1.3)  # times a full replica's concurrency, in turn
FILES = ("load.parquet", "serving.parquet", "startups.parquet")
NAMED = (
    *("kv_cache_usage_ratio", "running", "waiting"),
    *(
        f.name
        for f in fields(VariantObservation)
        if f.name.startswith(("ttft", "tpot", "finished", "slo"))
    ),
)


def simulate_history(case: Case, arrivals: Arrivals, folder: Path) -> None:
    """Write load, serving and startups (PROTOCOL.md section 1) of all that precedes the case."""
    write_load(case, arrivals, folder)
    until = case.since_seconds
    since = max(arrivals.start_seconds, until - SERVING_SECONDS)
    rows: list[dict[str, Any]] = []
    starts = []
    for name, service in case.services.items():
        seen, begun = _serve(case, name, service, arrivals.services[name], since)
        rows += seen
        starts.append(begun.assign(service=name))
    pd.DataFrame(rows).to_parquet(folder / FILES[1])
    startup_frame(pd.concat(starts, ignore_index=True)).to_parquet(folder / FILES[2])


def write_load(case: Case, arrivals: Arrivals, folder: Path) -> None:
    """Write load.parquet: what arrived before the case, per minute."""
    folder.mkdir(parents=True, exist_ok=True)
    loads = [
        load_frame(name, arrivals.services[name], arrivals.start_seconds, case.since_seconds)
        for name in case.services
    ]
    pd.concat(loads, ignore_index=True).to_parquet(folder / FILES[0])


def cut_history(telemetry: Path, until_seconds: float, folder: Path) -> None:
    """Copy what a telemetry folder held at a time: nothing of the judged hours may be learned from."""
    folder.mkdir(parents=True, exist_ok=True)
    until = pd.Timestamp(until_seconds, unit="s", tz="UTC")
    path = telemetry / FILES[0]
    load = validate_load(pd.read_parquet(path), str(path))
    load[load.ts < until].to_parquet(folder / FILES[0])
    path = telemetry / FILES[1]
    if path.exists():
        serving = validate_serving(pd.read_parquet(path), str(path))
        serving[serving.ts < until].to_parquet(folder / FILES[1])
    path = telemetry / FILES[2]
    if path.exists():
        starts = validate_startups(pd.read_parquet(path), str(path))
        starts = starts[starts.created_ts < until].copy()
        for column in ("ready_ts", "ended_ts"):  # not known yet at that time
            starts[column] = starts[column].where(starts[column] < until)
        starts.to_parquet(folder / FILES[2])


def load_frame(service: str, requests: Requests, since: float, until: float) -> pd.DataFrame:
    """Count arrivals and tokens per minute."""
    steps = int((until - since) // LOAD_STEP_SECONDS)
    mine = requests.between(since, since + steps * LOAD_STEP_SECONDS)
    at = ((mine.arrive_seconds - since) // LOAD_STEP_SECONDS).astype(np.int64)
    columns = {
        "requests": None,
        "input_tokens": mine.input_tokens,
        "output_tokens": mine.output_tokens,
    }
    counted = {
        name: np.bincount(at, weights=weights, minlength=steps).astype(np.float64)
        for name, weights in columns.items()
    }
    stamps = pd.to_datetime(since + LOAD_STEP_SECONDS * np.arange(steps), unit="s", utc=True)
    return pd.DataFrame({"ts": stamps, "service": service, **counted})


def startup_frame(starts: pd.DataFrame) -> pd.DataFrame:
    """Return startups.parquet from Fleet.starts() of services."""
    out = starts[["service", "variant"]].copy()
    for name in ("created", "ready", "ended"):
        out[f"{name}_ts"] = pd.to_datetime(starts[f"{name}_seconds"], unit="s", utc=True)
    return out


def _serve(
    case: Case, name: str, service: ServiceCase, requests: Requests, since: float
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Simulate one service until the case begins; return serving rows and the fleets' starts.

    Several variants take turns, each with the whole load for its part of the time: all have been seen.
    """
    edges = np.linspace(since, case.since_seconds, len(service.variants) + 1)
    rows, starts = [], []
    for variant, (begin, end) in zip(service.variants, pairwise(edges.tolist()), strict=True):
        only = _alone(case, service, variant)
        seen, begun = _serve_with(case, name, only, requests.between(begin, end), begin, end)
        rows += seen
        starts.append(begun)
    return rows, pd.concat(starts, ignore_index=True)


def _alone(case: Case, service: ServiceCase, variant: FleetVariant) -> ServiceCase:
    """Return the service with one variant only, and a fleet to begin with that is as strong."""
    first = service.variants[0]
    if variant is first:
        return replace(service, variants=(first,))
    capacity = replica_capacity(
        variant.profile, service.requests, service.targets, service.attainment, seed=case.seed
    )
    opening = math.ceil(first.initial_replicas * service.capacity.rate_rps / capacity.rate_rps)
    opening = min(max(opening, 1), variant.max_replicas)
    only = replace(variant, initial_replicas=opening)
    return replace(service, variants=(only,), capacity=capacity)


def _serve_with(
    case: Case, name: str, service: ServiceCase, requests: Requests, since: float, until: float
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    alone = replace(case, services={name: service})
    fleet = Fleet(
        requests, service.variants, service.targets, start_seconds=since, seed=case.seed + 1
    )
    rivals = [_wandering(alone, share) for share in WANDER]
    rows = []
    while fleet.now_seconds < until - 1e-6:
        seen = fleet.advance(SERVING_STEP_SECONDS)
        rows += serving_rows(name, fleet.now_seconds - SERVING_STEP_SECONDS, seen)
        rival = rivals[int(fleet.now_seconds // WANDER_SECONDS) % len(rivals)]
        observation = Observation(fleet.now_seconds, SERVING_STEP_SECONDS, {name: seen}, {})
        for variant, replicas in rival.decide(observation)[name].items():
            fleet.scale(variant, replicas)
    return rows, fleet.starts()


def _wandering(case: Case, share: float) -> Autoscaler:
    return make_rival(case, Setting("hpa", share, relative=True, window_seconds=60.0))


def serving_rows(
    service: str, start_seconds: float, seen: ServiceObservation
) -> list[dict[str, Any]]:
    """Return the rows of serving.parquet for one interval, one per variant.

    A fleet counts arrivals before they are routed: each variant gets its share of what finished.
    """
    finished = {name: v.finished_requests for name, v in seen.variants.items()}
    total = sum(finished.values())
    rows = []
    for name, v in seen.variants.items():
        share = finished[name] / total if total else 1.0 / len(finished)
        rows.append(
            {
                "ts": pd.Timestamp(start_seconds, unit="s", tz="UTC"),
                "service": service,
                "variant": name,
                "ready_replicas": float(v.ready),
                "starting_replicas": float(v.starting),
                "arrival_rate_rps": seen.arrival_rate_rps * share,
                "isl_tokens": seen.isl_tokens,
                "osl_tokens": seen.osl_tokens,
                "prefix_cache_hit_ratio": np.nan,
                **{column: getattr(v, column) for column in NAMED},
            }
        )
    return rows

"""One simulated run: an autoscaler drives the fleets of a case, tick by tick, and is measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from autoscaler.core.types import Observation, ServiceObservation
from autoscaler.loop import Controller, Step
from autoscaler.sim.fleet import Fleet
from autoscaler.sim.fluid import FluidFleet
from autoscaler.whatif.baselines import Autoscaler
from autoscaler.whatif.case import Case, ServiceCase
from autoscaler.whatif.results import FORESERVE, Measures

DRAIN_SECONDS = 900.0  # after the judged hours: what arrived in them may end, uncharged
SECONDS_PER_HOUR = 3600.0
Wanted = Mapping[str, Mapping[str, int]]  # service -> variant -> replicas
Row = dict[str, Any]
BAND = {"forecast_p10_rps": 0.1, "forecast_p50_rps": 0.5, "forecast_p95_rps": 0.95}


@dataclass(frozen=True, slots=True)
class Driven:
    """What one run measured: numbers by service, and a row per service and tick (results.RunResult)."""

    services: Mapping[str, Measures]
    max_replicas: int  # at one time, all services together
    series: pd.DataFrame


class Foreserve:
    """The product's own controller, in the place of a rival. `explain` tells of the last decision."""

    name = FORESERVE

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._last: Step | None = None

    def decide(self, observation: Observation) -> Wanted:
        """Let the controller take one observation and return its replica counts."""
        self._last = self._controller.step(observation)
        return {name: d.variants for name, d in self._last.decisions.services.items()}

    def explain(self, service: str) -> Row:
        """Return reason, requirement, horizon and the forecast band there, of the last decision."""
        if self._last is None or service not in self._last.decisions.services:
            return {}
        decision = self._last.decisions.services[service]
        row: Row = {
            "reason": str(decision.reason),
            "required_replicas": float(decision.required_replicas),
            "horizon_seconds": decision.horizon_seconds,
        }
        outlook = self._last.forecasts.outlooks.get(service)
        if outlook is not None and math.isfinite(decision.horizon_seconds):
            at = self._last.decisions.now_seconds + decision.horizon_seconds
            lead = at - outlook.cutoff_seconds
            for column, quantile in BAND.items():
                nearest = int(np.abs(outlook.quantiles - quantile).argmin())
                rates = outlook.arrival_rate_rps[:, nearest]
                row[column] = float(np.interp(lead, outlook.leads_seconds, rates))
        return row


def drive(case: Case, autoscaler: Autoscaler) -> Driven:
    """Run the judged hours under an autoscaler. Every run of a case sees the same world."""
    fleets = {name: open_fleet(case, name) for name in case.services}
    used = {name: _usage(fleet, case.services[name]) for name, fleet in fleets.items()}
    rows: list[Row] = []
    now = case.since_seconds
    while now < case.until_seconds - 1e-6:
        tick = min(case.tick_seconds, case.until_seconds - now)
        seen = {name: fleet.advance(tick) for name, fleet in fleets.items()}
        now += tick
        wanted = autoscaler.decide(Observation(now, tick, seen, case.pools))
        for name, fleet in fleets.items():
            before, used[name] = used[name], _usage(fleet, case.services[name])
            counts = wanted.get(name, {})
            for variant, replicas in counts.items():
                fleet.scale(variant, replicas)
            rows.append(
                {
                    **_row(name, now, seen[name]),
                    "desired_replicas": sum(counts.values()),
                    "accelerators": (used[name][0] - before[0]) * SECONDS_PER_HOUR / tick,
                    "cost_usd": used[name][1] - before[1],
                    **_explained(autoscaler, name),
                }
            )
    return _measured(case, fleets, used, pd.DataFrame(rows))


def open_fleet(case: Case, service: str) -> Fleet | FluidFleet:
    """Return the fleet of a service as it stands when the judged hours begin."""
    mine = case.services[service]
    start, seed = case.since_seconds, case.seed
    if case.fluid:
        return FluidFleet(
            mine.requests,
            mine.variants,
            mine.targets,
            start_seconds=start,
            seed=seed,
            responses=mine.responses,
        )
    return Fleet(mine.requests, mine.variants, mine.targets, start_seconds=start, seed=seed)


def _explained(autoscaler: Autoscaler, service: str) -> Row:
    """Return what Foreserve says of its decision; a rival says nothing."""
    return autoscaler.explain(service) if isinstance(autoscaler, Foreserve) else {}


def _usage(fleet: Fleet | FluidFleet, service: ServiceCase) -> tuple[float, float]:
    """Return (accelerator-hours, USD) spent so far."""
    prices = service.usd_per_accelerator_hour
    hours, usd = [], []
    for variant, seconds in fleet.accelerator_seconds().items():
        hours.append(seconds / SECONDS_PER_HOUR)
        usd.append(hours[-1] * prices[variant])
    return sum(hours), sum(usd)


def _row(service: str, now_seconds: float, seen: ServiceObservation) -> Row:
    variants = list(seen.variants.values())
    finished = sum([v.finished_requests for v in variants])
    met = [
        v.slo_attainment_ratio * v.finished_requests for v in variants if v.finished_requests > 0
    ]
    slow = [v.ttft_p95_seconds for v in variants if math.isfinite(v.ttft_p95_seconds)]
    return {
        "ts_seconds": now_seconds,
        "service": service,
        "arrival_rate_rps": seen.arrival_rate_rps,
        "ready_replicas": float(sum([v.ready for v in variants])),
        "starting_replicas": float(sum([v.starting for v in variants])),
        "required_replicas": math.nan,
        "finished_requests": finished,
        "slo_attainment_ratio": sum(met) / finished if finished > 0 else math.nan,
        "ttft_p95_seconds": max(slow, default=math.nan),
    }


def _measured(
    case: Case,
    fleets: Mapping[str, Fleet | FluidFleet],
    used: Mapping[str, tuple[float, float]],
    series: pd.DataFrame,
) -> Driven:
    """Let what arrived in time end, and judge it."""
    moves = {name: (fleet.scale_ups, fleet.scale_downs) for name, fleet in fleets.items()}
    replicas = series["ready_replicas"] + series["starting_replicas"]
    services = {}
    for name, fleet in fleets.items():
        fleet.advance(DRAIN_SECONDS)
        mine = int(replicas[series["service"] == name].max())
        services[name] = _measures(case, fleet, used[name], moves[name], mine)
    peak = int(replicas.groupby(series["ts_seconds"]).sum().max())
    return Driven(services, peak, series)


def _measures(
    case: Case,
    fleet: Fleet | FluidFleet,
    used: tuple[float, float],
    moves: tuple[int, int],
    max_replicas: int,
) -> Measures:
    verdict = fleet.verdict(case.since_seconds + case.warm_up_seconds, case.until_seconds)
    return Measures(
        gpu_hours=used[0],
        cost_usd=used[1],
        slo_attainment_ratio=float(verdict.slo_attainment_ratio),
        ttft_p50_seconds=float(verdict.ttft_p50_seconds),
        ttft_p95_seconds=float(verdict.ttft_p95_seconds),
        ttft_p99_seconds=float(verdict.ttft_p99_seconds),
        tpot_p95_seconds=float(verdict.tpot_p95_seconds),
        scale_ups=moves[0],
        scale_downs=moves[1],
        max_replicas=max_replicas,
        requests=verdict.requests,
        unserved_requests=verdict.unserved_requests,
    )

"""A fleet as a fluid: for months, where single requests need not be followed. Errors: docs/simulator.md.

Replicas start, drain and cost as in `Fleet` (it is one, without requests). Requests are a fluid with two
levels. In flight are F requests, at most as many as saturated replicas run; they end at the rate at which a
steady load with F in flight would (`response.Response`: F -> utilization -> rate). The others wait, in
order of arrival. Who is admitted in an interval waited since his arrival, if he had to; the rest of his
latency is that of the steady load with F in flight.

Left out: requests in flight when a replica drains or is lost, the gateway's unevenness, prefix caches
and roles. Latencies between two loads of the table are read on a straight line.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from autoscaler.core.types import ServiceObservation, VariantObservation
from autoscaler.sim.engine import SimulationError
from autoscaler.sim.fleet import Fleet
from autoscaler.sim.flow import answered, flow
from autoscaler.sim.response import (
    KV_USAGE,
    LEVELS,
    RUNNING,
    SMOOTH,
    TPOT,
    TTFT,
    UTILIZATIONS,
    FloatArray,
    Response,
    measure,
)
from autoscaler.sim.telemetry import NAN, Verdict
from autoscaler.sim.variants import Counts, FleetVariant
from autoscaler.sim.workload import Requests
from models.slo import SloTargets

NOBODY = Requests(np.empty(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
SHARES = np.diff(np.concatenate(([0.0], (np.array(LEVELS[1:]) + LEVELS[:-1]) / 2, [1.0])))
PART_OF_STAY = 0.25  # a step of the fluid, over the time that a request stays
MOST_STEPS = 64  # an interval
CALM = 0.8  # utilization whose TTFT is added to a wait that is counted already
ROUNDING = 1e-3  # of a request
_EVERY = np.concatenate(([0.0], LEVELS, [1.0]))
_SCALE = np.concatenate(([0.0], UTILIZATIONS, [1.0]))
P50, P95, P99 = 0.5, 0.95, 0.99
NO_LATENCIES = (NAN, NAN, NAN)


@dataclass(slots=True)
class _Served:
    """Requests first .. last of one variant's part of an interval."""

    first: float
    last: float
    share: float  # of them
    wait_seconds: float
    row: FloatArray
    met_ratio: float  # of them, within both targets


class FluidFleet:
    """Takes the arguments of Fleet, and does what an autoscaler and a what-if ask of one.

    responses: the variants' tables (`measure` with these requests, targets and this seed), where they
    are at hand; measured here otherwise. Raises SimulationError for roles and prefix groups, which a
    fluid does not know.
    """

    def __init__(
        self,
        requests: Requests,
        variants: Sequence[FleetVariant],
        targets: SloTargets,
        *,
        start_seconds: float,
        seed: int,
        responses: Sequence[Response] = (),
    ) -> None:
        if any(v.role != "both" for v in variants) or requests.prefix_group is not None:
            raise SimulationError(
                "fluid: roles and prefix groups need the event engine; allowed: neither"
            )
        self._pods = Fleet(NOBODY, variants, targets, start_seconds=start_seconds, seed=seed)
        self._variants, self._targets = tuple(variants), targets
        offered = requests.between(start_seconds, np.inf)
        self._arrive = offered.arrive_seconds
        self._tokens = [
            np.concatenate(([0], np.cumsum(t)))
            for t in (offered.input_tokens, offered.output_tokens)
        ]
        self._responses = list(responses) or [
            measure(v.profile, requests, targets, seed) for v in variants
        ]
        self._arrived, self._admitted, self._ended = 0, 0.0, 0.0
        self._ready = [float(v.initial_replicas) for v in variants]
        self._curves: dict[tuple[float, ...], FloatArray] = {}  # by ready replicas
        self._log: list[_Served] = []

    @property
    def now_seconds(self) -> float:
        """The time, on the clock of the requests."""
        return self._pods.now_seconds

    @property
    def scale_ups(self) -> int:
        """Times that more replicas were asked for."""
        return self._pods.scale_ups

    @property
    def scale_downs(self) -> int:
        """Times that fewer were."""
        return self._pods.scale_downs

    def scale(self, variant: str, replicas: int) -> None:
        """As Fleet.scale; what drains ends at once."""
        self._pods.scale(variant, replicas)

    def accelerator_seconds(self) -> dict[str, float]:
        """Accelerator-seconds used so far by each variant, starting replicas included."""
        return self._pods.accelerator_seconds()

    def starts(self) -> pd.DataFrame:
        """Return a row per start, as Fleet.starts."""
        return self._pods.starts()

    def advance(self, seconds: float) -> ServiceObservation:
        """Let `seconds` go by and return what telemetry would show of them."""
        if not (math.isfinite(seconds) and seconds > 0):
            raise SimulationError(f"advance by {seconds} s; more than 0 is allowed")
        pods = self._pods.pass_idle(seconds)
        now_ready = [float(counts.ready) for counts in pods]
        ready = [(a + b) / 2 for a, b in zip(self._ready, now_ready, strict=True)]
        self._ready = now_ready
        before = self._arrived
        self._arrived = int(self._arrive.searchsorted(self.now_seconds))
        arrivals = self._arrived - before
        isl, osl = self._mean_lengths(before)
        can = [
            n * (r.capacity_rps(isl, osl) if arrivals else r.saturated_rps)
            for n, r in zip(ready, self._responses, strict=True)
        ]
        replicas, can_rps = sum(ready), sum(can)
        part = [c / can_rps if can_rps else float(n == 0) for n, c in enumerate(can)]
        late = self._admitted < before - 0.5  # some who came earlier still wait
        admitted, ended = self._admitted, self._ended
        utilization = self._flow(seconds, arrivals, can_rps, ready)
        late = late or self._arrived - self._admitted > 0.5
        wait = self._wait(seconds, admitted) if late else 0.0
        finished, queue = self._ended - ended, self._arrived - self._admitted
        seen = {}
        for n, (v, response) in enumerate(zip(self._variants, self._responses, strict=True)):
            row = response.at(utilization, replicas)
            if late:  # the queue in the row's TTFT is the one that is counted
                row[TTFT] = response.at(min(utilization, CALM), replicas)[TTFT]
            ttft, tpot, quick = answered(row, _EVERY, wait, self._targets.ttft_seconds)
            met = quick * float(row[SMOOTH])  # as if the targets were missed independently
            if part[n] > 0 and self._admitted > admitted:
                self._log.append(_Served(admitted, self._admitted, part[n], wait, row, met))
            flight = (self._admitted - self._ended) * part[n]
            now = _Now(row, ready[n], finished * part[n], flight, queue * part[n], ttft, tpot, met)
            seen[v.name] = _show(pods[n], now)
        return ServiceObservation(arrivals / seconds, isl, osl if finished else NAN, seen)

    def _mean_lengths(self, before: int) -> tuple[float, float]:
        """Return the mean input and output tokens of those who arrived after the first `before`."""
        arrivals = self._arrived - before
        if not arrivals:
            return NAN, NAN
        isl, osl = (int(t[self._arrived] - t[before]) / arrivals for t in self._tokens)
        return isl, osl

    def _flow(self, seconds: float, arrivals: int, can_rps: float, ready: list[float]) -> float:
        """Let the fluid flow for an interval; returns the utilization that it had on average."""
        curve = self._curves.get(tuple(ready))
        if curve is None:
            curve = self._curves[tuple(ready)] = self._in_flight(ready)
        if can_rps <= 0 or curve[-1] <= 0:
            return 0.0
        stay = float(curve[1]) / (
            float(UTILIZATIONS[0]) * can_rps
        )  # of an idle fleet: the shortest
        steps = min(MOST_STEPS, math.ceil(seconds / (PART_OF_STAY * stay)))
        waiting = self._arrived - arrivals - self._admitted
        levels = (waiting, self._admitted, self._ended)
        self._admitted, self._ended, utilization = flow(
            curve, _SCALE, levels, float(arrivals), can_rps, seconds, steps
        )
        return utilization

    def _in_flight(self, ready: list[float]) -> FloatArray:
        """Return the requests that run at each utilization of _SCALE."""
        curve = np.zeros(len(_SCALE))
        for n, r in zip(ready, self._responses, strict=True):
            steady = [r.at(u, sum(ready))[RUNNING] for u in UTILIZATIONS]
            curve[1:] += n * np.array([*steady, max(r.saturated_running, steady[-1])])
        return np.maximum.accumulate(curve)

    def _wait(self, seconds: float, admitted: float) -> float:
        """Return how long those waited who were admitted in the last `seconds`: the middle one of them."""
        middle = int((admitted + self._admitted) / 2)
        since = float(self._arrive[min(middle, len(self._arrive) - 1)])
        return max(0.0, self.now_seconds - seconds / 2 - since)

    def verdict(self, since_seconds: float, until_seconds: float) -> Verdict:
        """Judge the requests that arrived in [since, until), as Fleet.verdict."""
        low, high = np.searchsorted(self._arrive, [since_seconds, until_seconds])
        high = min(int(high), self._arrived)
        count = int(high - low)
        if count <= 0:
            return Verdict(0, NAN, NAN, NAN, NAN, NAN, 0)
        served, weights, met = [], [], 0.0
        for s in self._log:
            requests = (min(s.last, high) - max(s.first, low)) * s.share
            if requests > 0:
                served.append(s)
                weights.append(requests)
                met += requests * s.met_ratio
        if not weights:
            return Verdict(count, 0.0, NAN, NAN, NAN, NAN, count)
        rows, waits = np.array([s.row for s in served]), np.array([s.wait_seconds for s in served])
        every = np.outer(weights, SHARES).ravel()
        ttft = (waits[:, np.newaxis] + rows[:, TTFT]).ravel()
        ttft_p50, ttft_p95, ttft_p99 = _weighted(ttft, every, (P50, P95, P99))
        (tpot_p95,) = _weighted(rows[:, TPOT].ravel(), every, (P95,))
        return Verdict(
            requests=count,
            slo_attainment_ratio=met / count,
            ttft_p50_seconds=ttft_p50,
            ttft_p95_seconds=ttft_p95,
            ttft_p99_seconds=ttft_p99,
            tpot_p95_seconds=tpot_p95,
            unserved_requests=max(0, math.ceil(high - max(self._ended + ROUNDING, low))),
        )


def _weighted(values: FloatArray, weights: FloatArray, at: tuple[float, ...]) -> list[float]:
    """Return the quantiles `at` of weighted values."""
    order = np.argsort(values)
    sorted_weights = weights[order]
    levels = (np.cumsum(sorted_weights) - sorted_weights / 2) / weights.sum()
    return [float(x) for x in np.interp(at, levels, values[order])]


class _Now(NamedTuple):
    """One variant in one interval."""

    row: FloatArray  # of its response
    ready: float  # replicas
    finished: float  # requests
    flight: float
    queue: float
    ttft_seconds: tuple[float, float, float]  # p50, p95, p99
    tpot_seconds: tuple[float, float, float]
    met_ratio: float  # of those who end, within both targets


def _show(pods: Counts, now: _Now) -> VariantObservation:
    """Return the pods' counts with the latencies of the fluid."""
    row, finished = now.row, now.finished
    if finished <= 0:
        ttft = tpot = NO_LATENCIES
        quick = smooth = met = NAN
    else:
        ttft, tpot, met, smooth = (
            now.ttft_seconds,
            now.tpot_seconds,
            now.met_ratio,
            float(row[SMOOTH]),
        )
        quick = met / smooth if smooth > 0 else NAN
    return VariantObservation(
        ready=pods.ready,
        starting=pods.starting,
        draining=0,  # what drains ends at once
        desired=pods.desired,
        running=now.flight,
        waiting=now.queue,
        kv_cache_usage_ratio=float(row[KV_USAGE]) if now.ready > 0 else NAN,
        ttft_p50_seconds=ttft[0],
        ttft_p95_seconds=ttft[1],
        ttft_p99_seconds=ttft[2],
        tpot_p50_seconds=tpot[0],
        tpot_p95_seconds=tpot[1],
        tpot_p99_seconds=tpot[2],
        finished_requests=finished,
        ttft_within_slo_ratio=quick,
        tpot_within_slo_ratio=smooth,
        slo_attainment_ratio=met,
    )

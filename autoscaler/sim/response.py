"""How one replica of an engine answers a steady load, measured on the event engine: the fluid's table.

For each of UTILIZATIONS (load over what a replica completes when requests always wait), on a fleet of one
and on one of MANY replicas, requests with the lengths at hand arrive as a Poisson process; kept are the
quantiles of TTFT and TPOT, the share within the TPOT target, and running, waiting and KV usage.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.sim.engine import EngineProfile, SimulationError
from autoscaler.sim.fleet import Fleet
from autoscaler.sim.flow import row_at
from autoscaler.sim.telemetry import percentiles
from autoscaler.sim.variants import FleetVariant
from autoscaler.sim.workload import Requests
from models.slo import MIN_TPOT_OUTPUT_TOKENS, SloTargets

FloatArray = NDArray[np.float64]
UTILIZATIONS = np.array([0.05, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.88, 0.95])
MANY = 8
QUANTILES = np.append(np.arange(0.025, 1.0, 0.05), 0.99)
LEVELS = tuple(QUANTILES.tolist())
SAMPLE = 5000  # requests of one point of the table; a fifth more come first, to fill the fleet
FILL = 0.2
TTFT, TPOT = slice(0, len(LEVELS)), slice(len(LEVELS), 2 * len(LEVELS))
SMOOTH, RUNNING, WAITING, KV_USAGE, STAY = range(2 * len(LEVELS), 2 * len(LEVELS) + 5)


@dataclass(frozen=True, slots=True)
class Response:
    """The table of one engine. Rows hold TTFT and TPOT quantiles and the columns SMOOTH ... STAY.

    saturated_rps: what a replica completes when requests always wait; saturated_running: its batch
    then. isl_tokens, osl_tokens: of the sample. table: shape (2, utilizations, columns), by fleet size.
    """

    profile: EngineProfile
    saturated_rps: float
    saturated_running: float
    isl_tokens: float
    osl_tokens: float
    table: FloatArray

    def capacity_rps(self, isl_tokens: float, osl_tokens: float) -> float:
        """Return the requests a second of a saturated replica with these mean lengths."""
        here, there = (
            self._work(isl_tokens, osl_tokens),
            self._work(self.isl_tokens, self.osl_tokens),
        )
        return self.saturated_rps * there / here

    def at(self, utilization: float, replicas: float) -> FloatArray:
        """Return a row, linear between those of the table; the size n of a fleet counts as 1 / n."""
        size = (1 - 1 / min(max(replicas, 1.0), MANY)) / (1 - 1 / MANY)
        return np.asarray(row_at(self.table, UTILIZATIONS, float(utilization), size))

    def _work(self, isl_tokens: float, osl_tokens: float) -> float:
        """Seconds of an engine that is full for a request: its prompt, and its part of each step."""
        p = self.profile
        step = p.base_seconds / max(self.saturated_running, 1.0) + p.per_sequence_seconds
        context = isl_tokens + osl_tokens / 2
        return p.per_prompt_token_seconds * isl_tokens + osl_tokens * (
            step + p.per_context_token_seconds * context
        )


def measure(profile: EngineProfile, requests: Requests, targets: SloTargets, seed: int) -> Response:
    """Measure the table with lengths drawn from `requests`; the same seed gives the same table."""
    if not len(requests.arrive_seconds):
        raise SimulationError("fluid: no request to take lengths from; at least one is needed")
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, len(requests.arrive_seconds), round(SAMPLE * (1 + FILL)))
    inputs, outputs = requests.input_tokens[lengths], requests.output_tokens[lengths]
    every = Requests(np.zeros(len(lengths)), inputs, outputs)
    rate, running = _saturate(profile, every, targets)
    table = np.empty((2, len(UTILIZATIONS), STAY + 1))
    for size, replicas in enumerate((1, MANY)):
        for k, utilization in enumerate(UTILIZATIONS):
            gaps = rng.exponential(1 / (utilization * rate * replicas), len(lengths))
            load = Requests(np.cumsum(gaps), inputs, outputs)
            table[size, k] = _steady(profile, load, targets, replicas)
    return Response(profile, rate, running, float(inputs.mean()), float(outputs.mean()), table)


def _fleet(profile: EngineProfile, load: Requests, targets: SloTargets, replicas: int) -> Fleet:
    variant = FleetVariant("fluid", profile, 1, replicas, replicas, lambda _rng: 0.0)
    return Fleet(load, [variant], targets, start_seconds=0.0, seed=0)


def _saturate(profile: EngineProfile, load: Requests, targets: SloTargets) -> tuple[float, float]:
    """Return completions a second and the batch of a replica at which everything waits."""
    fleet = _fleet(profile, load, targets, 1)
    fleet.advance(1e-3)
    while fleet.busy:
        fleet.advance(600.0)
    ends = np.sort(fleet.outcomes().end_seconds.dropna().to_numpy())
    if len(ends) < 2:
        raise SimulationError("fluid: the engine refuses the requests; see outcomes().refused")
    # the middle: the first ends come late, and at last the batch runs dry
    first, last = len(ends) // 5, 3 * len(ends) // 5
    rate = (last - first) / (ends[last] - ends[first])
    again = _fleet(profile, load, targets, 1)
    again.advance(float(ends[first]))
    return float(rate), again.advance(float(ends[last] - ends[first])).variants["fluid"].running


def _steady(
    profile: EngineProfile, load: Requests, targets: SloTargets, replicas: int
) -> FloatArray:
    fleet = _fleet(profile, load, targets, replicas)
    fill = round(len(load.arrive_seconds) * FILL / (1 + FILL))
    fleet.advance(float(load.arrive_seconds[fill]))
    last = float(load.arrive_seconds[-1])
    seen = fleet.advance(last - fleet.now_seconds + 1e-3).variants["fluid"]
    while fleet.busy:
        fleet.advance(600.0)
    done = fleet.outcomes().iloc[fill:].dropna(subset=["end_seconds"])
    ttft = (done.first_seconds - done.arrive_seconds).to_numpy()
    decode = (done.end_seconds - done.first_seconds).to_numpy()
    judged = done.output_tokens.to_numpy() >= MIN_TPOT_OUTPUT_TOKENS
    tpot = decode / np.maximum(done.output_tokens.to_numpy() - 1, 1)
    smooth = float(np.mean(~judged | (tpot <= targets.tpot_seconds)))
    stay = float(np.mean(ttft + decode))
    counts = [seen.running / replicas, seen.waiting / replicas, seen.kv_cache_usage_ratio]
    quantiles = percentiles(ttft, LEVELS) + percentiles(tpot[judged], LEVELS)
    return np.array([*quantiles, smooth, *counts, stay])

"""Fit an engine to requests that a real one served: replay them, compare TTFT and TPOT, adjust.

Unknown are the five coefficients of a step and the capacity of the KV cache; the limits of the scheduler
are facts of the engine's start. What is minimised is the mean over the requests of

    min(|log(TTFT / measured)|, 1) + min(|log(TPOT / measured)|, 1)

an absolute error, so that single requests that went another way (preempted or not) do not pull, and a
relative one, so that 50 ms and 50 s weigh the same. The whole load is replayed whatever part is fitted:
a request's latency depends on those that run and wait with it. A coarse grid of speeds and capacities
gives the starts of Nelder-Mead (scipy): the loss has steps where the order of events changes, so that
there is no gradient to follow. Requests that never exhausted the cache say nothing of its capacity: it is
fitted apart, and kept only if it explains clearly more than a cache that never fills.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from autoscaler.sim.engine import EngineProfile, SimulationError
from autoscaler.sim.fleet import Fleet, FleetVariant
from autoscaler.sim.workload import Requests
from models.slo import SloTargets

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# A step of some 20 ms; 0.1 ms a sequence, 30 ns a context token, 40 us a prompt token, 5 ms with prompts:
# the middle of what today's accelerators need for models of 8 to 70 G parameters.
TYPICAL = (0.02, 1e-4, 3e-8, 4e-5, 5e-3)
SPEEDS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)  # of the grid: added to the typical logarithms
CAPACITIES = 16  # of the grid, from the longest request to all requests at once, geometric
STARTS = 2  # the best of the grid
AGAIN = 0.3  # of the first move, from the best that was found
FIRST_MOVE = 0.7  # of a coefficient's logarithm
FIRST_MOVE_KV = 0.05  # the grid leaves little to find
EVALUATIONS = 800  # a start
CLEARLY = 0.9  # of the loss without a limit
WORST = 1.0  # of one request's error: a factor of e


@dataclass(frozen=True, slots=True)
class MeasuredRequests:
    """Requests and how long they took. Shapes (N,): seconds; NaN is not measured.

    TTFT counts from the arrival, or, where from_scheduler is set, from the moment that the engine's
    scheduler learned of the request: what vLLM itself reports, which leaves out the step under way.
    """

    requests: Requests
    ttft_seconds: FloatArray
    tpot_seconds: FloatArray
    from_scheduler: bool = False

    def __post_init__(self) -> None:
        n = len(self.requests.arrive_seconds)
        for name in ("ttft_seconds", "tpot_seconds"):
            values = getattr(self, name)
            if values.shape != (n,) or (values <= 0).any():
                raise SimulationError(
                    f"measured requests: {name}: one number > 0 (or NaN) for each of {n} requests is allowed"
                )


@dataclass(frozen=True, slots=True)
class EngineFit:
    """A fitted engine and its error: medians of |simulated / measured - 1| over the fitted requests."""

    profile: EngineProfile
    ttft_error_ratio: float
    tpot_error_ratio: float


def replay(measured: MeasuredRequests, profile: EngineProfile) -> tuple[FloatArray, FloatArray]:
    """Serve the requests on one replica; returns (TTFT, TPOT), shapes (N,), NaN where unserved."""
    variant = FleetVariant(profile.name, profile, 1, 1, 1, _never)
    begin = float(measured.requests.arrive_seconds[0])
    fleet = Fleet(measured.requests, [variant], SloTargets(), start_seconds=begin, seed=0)
    last = float(measured.requests.arrive_seconds[-1])
    fleet.advance(last - begin + 1.0)
    while fleet.busy:
        fleet.advance(3600.0)
    done = fleet.outcomes()
    since = done.seen_seconds if measured.from_scheduler else done.arrive_seconds
    tokens = np.maximum(done.output_tokens - 1, 1)
    return (
        (done.first_seconds - since).to_numpy(dtype=np.float64),
        ((done.end_seconds - done.first_seconds) / tokens).to_numpy(dtype=np.float64),
    )


def errors(
    measured: MeasuredRequests, profile: EngineProfile, use: BoolArray
) -> tuple[float, float]:
    """Medians of |simulated / measured - 1| of TTFT and TPOT over the requests in `use`, shape (N,)."""
    ttft, tpot = replay(measured, profile)
    return (
        float(np.nanmedian(np.abs(ttft / measured.ttft_seconds - 1)[use])),
        float(np.nanmedian(np.abs(tpot / measured.tpot_seconds - 1)[use])),
    )


def fit_engine(measured: MeasuredRequests, limits: EngineProfile, use: BoolArray) -> EngineFit:
    """Fit coefficients and KV capacity to the requests in `use`, shape (N,); deterministic.

    limits: the scheduler's limits; its coefficients and capacity do not matter. Raises SimulationError
    where nothing in `use` is measured.
    """
    known = use & np.isfinite(measured.ttft_seconds) & np.isfinite(measured.tpot_seconds)
    if not known.any():
        raise SimulationError("fit_engine: none of the requests to fit has both TTFT and TPOT")
    loss = _loss(measured, limits, known)
    tokens = measured.requests.input_tokens + measured.requests.output_tokens
    most = 2.0 * float(tokens.sum())  # more than all requests at once: never full
    ample, unlimited = _least(loss, [most])
    tight, limited = _least(loss, np.geomspace(1.1 * tokens.max(), most / 2, CAPACITIES).tolist())
    profile = _profile(limits, tight if limited < CLEARLY * unlimited else ample)
    return EngineFit(profile, *errors(measured, profile, known))


def _least(
    loss: Callable[[FloatArray], float], capacities: list[float]
) -> tuple[FloatArray, float]:
    """Return the best logarithms, and their loss; a single capacity stays as it is."""
    grid = [
        np.append(np.log(TYPICAL) + speed, np.log(capacity))
        for capacity in capacities
        for speed in SPEEDS
    ]
    move = np.array([FIRST_MOVE] * len(TYPICAL) + [FIRST_MOVE_KV])
    free = len(move) if len(capacities) > 1 else len(TYPICAL)
    best, value = grid[0], np.inf
    for start in sorted(grid, key=loss)[:STARTS]:
        found, least = _descend(loss, start, move[:free])
        if least < value:
            best, value = found, least
    found, least = _descend(loss, best, AGAIN * move[:free])  # a simplex may have collapsed early
    return (found, least) if least < value else (best, value)


def _descend(
    loss: Callable[[FloatArray], float], start: FloatArray, move: FloatArray
) -> tuple[FloatArray, float]:
    """Nelder-Mead over the first len(move) numbers of `start`; the others stay."""
    free, fixed = len(move), start[len(move) :]

    def of_free(values: FloatArray) -> float:
        return loss(np.append(values, fixed))

    simplex = start[:free] + np.vstack([np.zeros(free), np.diag(move)])
    found = minimize(
        of_free,
        start[:free],
        method="Nelder-Mead",
        options={"maxfev": EVALUATIONS, "xatol": 1e-3, "fatol": 1e-4, "initial_simplex": simplex},
    )
    return np.append(found.x, fixed), float(found.fun)


def _loss(
    measured: MeasuredRequests, limits: EngineProfile, known: BoolArray
) -> Callable[[FloatArray], float]:
    def loss(logarithms: FloatArray) -> float:
        simulated = replay(measured, _profile(limits, logarithms))
        total = 0.0
        for ours, theirs in zip(
            simulated, (measured.ttft_seconds, measured.tpot_seconds), strict=True
        ):
            ratio = np.log(ours[known] / theirs[known])
            missing = ~np.isfinite(ratio)  # never answered: as wrong as can be
            total += float(np.mean(np.where(missing, WORST, np.minimum(np.abs(ratio), WORST))))
        return total

    return loss


def _profile(limits: EngineProfile, logarithms: FloatArray) -> EngineProfile:
    values = np.exp(logarithms)
    return replace(
        limits,
        base_seconds=float(values[0]),
        per_sequence_seconds=float(values[1]),
        per_context_token_seconds=float(values[2]),
        per_prompt_token_seconds=float(values[3]),
        prompt_step_seconds=float(values[4]),
        kv_capacity_tokens=max(limits.block_tokens, int(values[5])),
    )


def _never(rng: np.random.Generator) -> float:  # noqa: ARG001  (a start-up: nothing starts here)
    return 0.0

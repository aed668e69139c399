"""What one simulated replica carries within the SLO: the yardstick of the rivals and of the bound."""

import math
from dataclasses import dataclass

import numpy as np

from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.fleet import Fleet, FleetVariant
from autoscaler.sim.workload import Requests
from models.slo import SloTargets

PROBE_SECONDS = 1200.0
PROBE_WARM_SECONDS = 120.0
PROBE_REQUESTS = 20_000  # lengths are drawn from at most this many
STEPS = 9  # of bisection: a 512th of the range, in logarithms
LOWEST_RPS = 0.01
HIGHEST_RPS = 200.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """Of one replica: the highest rate within the SLO, and the requests on it at that rate.

    is_reachable: False where even LOWEST_RPS misses: no number of replicas meets the SLO.
    """

    rate_rps: float
    concurrency: float
    is_reachable: bool = True


def replica_capacity(
    profile: EngineProfile,
    requests: Requests,
    targets: SloTargets,
    attainment: float,
    *,
    seed: int,
) -> Capacity:
    """Bisect the Poisson rate that one replica serves with `attainment`, lengths as in `requests`.

    Where even LOWEST_RPS misses (the SLO is out of reach), that rate is returned.
    """
    low, high = LOWEST_RPS, HIGHEST_RPS
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        share, _ = _probe(profile, requests, targets, middle, seed)
        low, high = (middle, high) if share >= attainment else (low, middle)
    share, concurrency = _probe(profile, requests, targets, low, seed)
    return Capacity(low, concurrency, is_reachable=low > LOWEST_RPS or share >= attainment)


def _probe(
    profile: EngineProfile, requests: Requests, targets: SloTargets, rate_rps: float, seed: int
) -> tuple[float, float]:
    """Return (attainment, mean concurrency) of one replica under a Poisson load."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(rate_rps * PROBE_SECONDS)
    known = min(len(requests.arrive_seconds), PROBE_REQUESTS)
    # over the whole span, not only its beginning
    among = np.linspace(0, len(requests.arrive_seconds) - 1, known).astype(np.int64)
    pick = rng.choice(among, size=count)
    load = Requests(
        np.sort(rng.random(count)) * PROBE_SECONDS,
        requests.input_tokens[pick],
        requests.output_tokens[pick],
    )
    variant = FleetVariant("probe", profile, 1, 1, 1, _never)
    fleet = Fleet(load, [variant], targets, start_seconds=0.0, seed=seed)
    fleet.advance(PROBE_WARM_SECONDS)
    seen = fleet.advance(PROBE_SECONDS - PROBE_WARM_SECONDS).variants["probe"]
    fleet.advance(PROBE_SECONDS)  # what has begun may end
    share = fleet.verdict(PROBE_WARM_SECONDS, PROBE_SECONDS).slo_attainment_ratio
    return (share if math.isfinite(share) else 1.0), seen.running + seen.waiting


def _never(rng: np.random.Generator) -> float:  # noqa: ARG001  (a start-up: nothing starts here)
    return 0.0

"""What a replica holds at a load: Little's law, against the closed form and against the simulator."""

import numpy as np
import pytest
from latency_world import engine

from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.fleet import Fleet, FleetVariant
from autoscaler.sim.workload import Requests
from models.capacity import BOTH, DECODE, PREFILL, TargetArrays, replica_capacity_rps
from models.concurrency import mean_requests, replica_concurrency
from models.latency_correction import KNOTS, Correction
from models.slo import SloTargets
from models.step_time import Coefficients

ISL, OSL = np.array([1000.0]), np.array([100.0])
GOALS = TargetArrays.of([SloTargets(1.0, 0.06)])
TARGET = np.array([0.99])


def held(rate: float, replicas: float = 1.0, role: str = BOTH, **changes: float) -> float:
    one = (np.array([rate]), np.array([replicas]))
    return float(mean_requests(engine(**changes), *one, ISL, OSL, role)[0])


def test_next_to_no_load_is_rate_times_what_a_lone_request_takes() -> None:
    c = engine()
    context = 1000.0 + 50.0
    step = c.base_seconds + c.per_sequence_seconds + c.per_context_token_seconds * context
    assert held(1e-4) == pytest.approx(
        1e-4 * float(np.ravel(100 * step + 1000 * c.per_prompt_token_seconds + c.base_seconds)[0]),
        rel=0.05,
    )


def test_it_grows_with_the_load_and_the_phases_are_parts_of_it() -> None:
    rates = [0.5, 1.0, 2.0, 4.0]
    whole = [held(r) for r in rates]
    assert whole == sorted(whole)
    assert held(1.0, role=PREFILL) < held(1.0, role=DECODE) < held(1.0)
    assert held(1e4) == np.inf
    assert np.isnan(held(np.nan))


def test_the_requests_at_the_slo_are_those_at_the_capacity() -> None:
    c, count = engine(), np.array([4.0])
    rps = replica_capacity_rps(c, ISL, OSL, GOALS, TARGET, count)
    got = replica_concurrency(c, ISL, OSL, GOALS, TARGET, count)
    assert got == pytest.approx(mean_requests(c, rps * count, count, ISL, OSL, BOTH), rel=0.01)
    assert got[0] > 1.0
    tighter = TargetArrays.of([SloTargets(1.0, 0.04)])
    assert replica_concurrency(c, ISL, OSL, tighter, TARGET, count)[0] < got[0]
    never = TargetArrays.of([SloTargets(1e-3, 0.06)])
    assert replica_concurrency(c, ISL, OSL, never, TARGET, count)[0] == 0.0
    assert np.isnan(replica_concurrency(c, ISL * np.nan, OSL, GOALS, TARGET, count)[0])


def test_what_was_learned_beyond_the_physics_counts_as_well() -> None:
    """An engine half as slow again as its steps tell holds half as many again, and fewer within the SLO."""
    c, count, rate = engine(), np.array([4.0]), np.array([4.0])
    slower = Correction(*np.full((2, 1, KNOTS), np.log(1.5)))
    asked = (c, rate, count, ISL, OSL, BOTH)
    assert mean_requests(*asked, slower)[0] == pytest.approx(1.5 * mean_requests(*asked)[0])
    within = (c, ISL, OSL, GOALS, TARGET, count)
    assert replica_concurrency(*within, slower)[0] < replica_concurrency(*within)[0]


@pytest.mark.parametrize(("isl", "osl", "rate"), [(1000, 200, 3.8), (4000, 300, 0.8)])
def test_a_simulated_engine_holds_as_many(isl: int, osl: int, rate: float) -> None:
    """Ten minutes of Poisson arrivals at about what its SLO allows; within 15 %."""
    rng, speed = np.random.default_rng(3), (0.02, 1e-4, 1e-7, 1e-4)
    names = ("base", "per_sequence", "per_context_token", "per_prompt_token")
    changes = {f"{n}_seconds": s for n, s in zip(names, speed, strict=True)}
    plain = {"routing_ratio": 0.0, "regularity_ratio": 0.0, "burst_ratio": 1.0}
    known = {"seen_load_ratio": 1.0, "isl_sigma": 0.5, "steps_per_token": 1 / 2048}
    c: Coefficients = engine(**changes, **plain, **known, prompt_growth_per_token=0.0)
    one = (np.array([rate]), np.array([1.0]), np.array([float(isl)]), np.array([float(osl)]))
    count = int(rate * 1200)
    load = Requests(
        np.sort(rng.random(count)) * 1200.0,
        np.maximum(1, rng.lognormal(np.log(isl) - 0.125, 0.5, count)).astype(np.int64),
        np.maximum(1, rng.lognormal(np.log(osl) - 0.32, 0.8, count)).astype(np.int64),
    )
    variant = FleetVariant("gpu", EngineProfile("gpu", *speed), 1, 1, 1, lambda _: 0.0)
    fleet = Fleet(load, [variant], SloTargets(), start_seconds=0.0, seed=1)
    fleet.advance(120.0)
    seen = fleet.advance(1080.0).variants["gpu"]
    assert seen.running + seen.waiting == pytest.approx(mean_requests(c, *one, BOTH)[0], rel=0.15)

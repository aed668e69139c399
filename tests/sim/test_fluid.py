"""The fluid beside the event engine (docs/simulator.md states what is held here), and its own laws."""

import numpy as np
import pytest
from sim_builders import after, requests, variant

from autoscaler.sim.engine import SimulationError
from autoscaler.sim.fleet import Fleet
from autoscaler.sim.fluid import FluidFleet
from autoscaler.sim.telemetry import Verdict
from autoscaler.sim.workload import Requests, draw_requests
from models.slo import SloTargets

TARGETS = SloTargets(ttft_seconds=1.5, tpot_seconds=0.2)
DAY = 6 * 3600.0


def waves() -> Requests:
    """Six hours, five requests a second on average, up and down by 60 %, with bursts."""
    rate = 5.0 * (1 + 0.6 * np.sin(np.arange(36) / 36 * 2 * np.pi))
    isl, osl = np.full(36, 600.0), np.full(36, 30.0)
    rng = np.random.default_rng(3)
    return draw_requests(
        rate, isl, osl, start_seconds=0.0, step_seconds=600.0, rng=rng, isl_sigma=0.6
    )


def follow(sim: Fleet | FluidFleet, rps_per_replica: float) -> tuple[Verdict, float]:
    """Let a fleet follow the known rate, five minutes behind it; returns verdict and accelerator-seconds."""
    for tick in range(round(DAY / 30)):
        if tick % 10 == 0:
            rate = 5.0 * (1 + 0.6 * np.sin(tick * 30 / DAY * 2 * np.pi))
            sim.scale("gpu", max(1, round(rate / rps_per_replica)))
        sim.advance(30.0)
    sim.advance(900.0)
    return sim.verdict(0.0, DAY), sim.accelerator_seconds()["gpu"]


@pytest.mark.parametrize(
    ("rps_per_replica", "points"),
    [(1.0, 0.03), (1.6, 0.02), (2.2, 0.03)],
    ids=["ample", "tight", "short"],
)
def test_a_day_of_scaling_agrees_with_the_event_engine(
    rps_per_replica: float, points: float
) -> None:
    gpu = variant(max_replicas=20, initial_replicas=5)
    load, start = waves(), {"start_seconds": 0.0, "seed": 1}
    exact, exact_cost = follow(Fleet(load, [gpu], TARGETS, **start), rps_per_replica)
    ours, cost = follow(FluidFleet(load, [gpu], TARGETS, **start), rps_per_replica)
    assert cost == pytest.approx(exact_cost, rel=0.01)
    assert ours.requests == exact.requests
    assert ours.slo_attainment_ratio == pytest.approx(exact.slo_attainment_ratio, abs=points)
    assert ours.ttft_p50_seconds == pytest.approx(exact.ttft_p50_seconds, rel=0.1)
    assert ours.ttft_p95_seconds == pytest.approx(exact.ttft_p95_seconds, rel=0.25)
    assert ours.tpot_p95_seconds == pytest.approx(exact.tpot_p95_seconds, rel=0.3)


def test_a_backlog_is_worked_off_at_the_rate_of_saturation_and_waits_as_long() -> None:
    load = Requests(np.linspace(0.0, 300.0, 3000), np.full(3000, 500), np.full(3000, 20))
    gpu, start = variant(initial_replicas=1), {"start_seconds": 0.0, "seed": 1}
    sims = [kind(load, [gpu], TARGETS, **start) for kind in (Fleet, FluidFleet)]
    seen = [[sim.advance(60.0).variants["gpu"] for _ in range(5)] for sim in sims]
    for exact, ours in zip(seen[0][1:], seen[1][1:], strict=True):
        assert ours.finished_requests == pytest.approx(exact.finished_requests, rel=0.15)
    assert seen[1][-1].waiting == pytest.approx(seen[0][-1].waiting, rel=0.15)
    assert seen[1][-1].ttft_p50_seconds == pytest.approx(seen[0][-1].ttft_p50_seconds, rel=0.15)


def test_nobody_is_served_before_a_replica_is_ready_and_nobody_is_lost() -> None:
    load = Requests(np.arange(100.0), np.full(100, 100), np.full(100, 5))
    gpu = variant(initial_replicas=0, startup=after(90.0))
    sim = FluidFleet(load, [gpu], TARGETS, start_seconds=0.0, seed=1)
    sim.scale("gpu", 1)
    first = sim.advance(60.0)
    assert first.arrival_rate_rps == 1.0
    assert first.variants["gpu"].finished_requests == 0.0
    assert first.variants["gpu"].waiting == pytest.approx(60.0)
    assert np.isnan(first.variants["gpu"].slo_attainment_ratio)
    sim.advance(60.0)
    sim.advance(600.0)
    verdict = sim.verdict(0.0, 200.0)
    assert (verdict.requests, verdict.unserved_requests) == (100, 0)
    assert verdict.ttft_p50_seconds > 20.0  # the first came 90 s before the replica
    assert sim.accelerator_seconds() == {"gpu": 4 * 720.0}


def test_without_traffic_nothing_is_known_but_the_fleet() -> None:
    load = requests((5000.0, 100, 5))
    sim = FluidFleet(load, [variant()], TARGETS, start_seconds=0.0, seed=1)
    seen = sim.advance(60.0)
    assert seen.arrival_rate_rps == 0.0
    assert np.isnan(seen.isl_tokens)
    assert seen.variants["gpu"].ready == 1
    assert np.isnan(seen.variants["gpu"].ttft_p95_seconds)
    assert sim.verdict(0.0, 60.0).requests == 0


def test_what_a_fluid_does_not_know_is_refused() -> None:
    two = [variant(role="prefill"), variant(name="back", role="decode")]
    start = {"start_seconds": 0.0, "seed": 1}
    with pytest.raises(SimulationError, match="roles and prefix groups need the event engine"):
        FluidFleet(requests((0.0, 10, 5)), two, TARGETS, **start)
    with pytest.raises(SimulationError, match="no request to take lengths from"):
        FluidFleet(requests(), [variant()], TARGETS, **start)

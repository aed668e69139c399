"""Engines fitted to requests: to a real vLLM's (the issue's bounds), and back to a known engine."""

from dataclasses import replace

import numpy as np
import pytest
from measured_runs import measured_runs
from sim_builders import requests

from autoscaler.sim.calibrate import MeasuredRequests, fit_engine, replay
from autoscaler.sim.engine import EngineProfile, SimulationError
from autoscaler.sim.workload import Requests

RUNS = {run.name: run for run in measured_runs()}


@pytest.mark.parametrize("name", RUNS)
def test_the_second_half_of_a_real_run_follows_from_the_first(name: str) -> None:
    run = RUNS[name]
    ttft_error, tpot_error = run.held_out_errors(run.fit())
    assert ttft_error <= 0.10
    assert tpot_error <= 0.08


def test_what_a_known_engine_does_is_found_again() -> None:
    known = EngineProfile(
        "known", 0.015, 5e-5, 2e-8, 6e-5, 64, 1024, 20_000, prompt_step_seconds=0.004
    )
    rng = np.random.default_rng(6)
    load = Requests(
        np.cumsum(rng.exponential(0.25, 120)),
        rng.integers(50, 2000, 120),
        rng.integers(20, 300, 120),
    )
    bare = MeasuredRequests(load, np.ones(120), np.ones(120))
    measured = MeasuredRequests(load, *replay(bare, known))
    fit = fit_engine(measured, replace(known, base_seconds=1.0), np.arange(120) < 60)
    assert fit.ttft_error_ratio < 0.04
    assert fit.tpot_error_ratio < 0.02
    assert fit.profile.kv_capacity_tokens == pytest.approx(20_000, rel=0.03)
    ours, exact = fit.profile.step_seconds(8, 8000, 0), known.step_seconds(8, 8000, 0)
    assert ours == pytest.approx(exact, rel=0.05)


def test_a_cache_that_was_never_full_is_taken_as_ample() -> None:
    known = EngineProfile("known", 0.015, 5e-5, 2e-8, 6e-5, 64, 1024, 100_000)
    load = Requests(np.arange(20.0), np.full(20, 500), np.full(20, 50))
    measured = MeasuredRequests(load, *replay(MeasuredRequests(load, *np.ones((2, 20))), known))
    fit = fit_engine(measured, known, np.ones(20, dtype=bool))
    assert fit.profile.kv_capacity_tokens > load.input_tokens.sum() + load.output_tokens.sum()


def test_what_cannot_be_fitted_is_refused() -> None:
    load = requests((0.0, 10, 5), (1.0, 10, 5))
    with pytest.raises(SimulationError, match="ttft_seconds: one number > 0"):
        MeasuredRequests(load, np.array([0.1, 0.0]), np.array([0.1, 0.1]))
    with pytest.raises(SimulationError, match="tpot_seconds"):
        MeasuredRequests(load, np.array([0.1, 0.2]), np.array([0.1]))
    nothing = MeasuredRequests(load, *np.full((2, 2), np.nan))
    with pytest.raises(SimulationError, match="none of the requests to fit"):
        fit_engine(nothing, EngineProfile("x", 0.1, 0, 0, 0), np.ones(2, dtype=bool))

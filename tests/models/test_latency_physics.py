from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_world import engine

from models.latency_tails import (
    OSL_SIGMA,
    tails,
    tpot_quantile,
    tpot_share,
    ttft_quantile,
    ttft_share,
)
from models.robust_fit import minimise
from models.step_time import Coefficients, mean_field, request_work


def field(c: Coefficients, rate: float, replicas: float, isl: float, osl: float):  # noqa: ANN201
    work = request_work(c, np.array([isl]), np.array([osl]))
    return work, mean_field(c, work, np.array([rate]), np.array([replicas]))


def test_one_replica_by_hand() -> None:
    # d = 2.5e-4 + 1e-7 * (1000 + 50) = 3.55e-4, k = d + 1e-4 * 1000 / 100 = 1.355e-3
    # rate 3: load = 3 * 100 * k = 0.4065; idle = 3 * (100 * 0.030355 + 0.1 + 0.03 * (1 + 1000/2048))
    #       = 3 * (3.0355 + 0.144648) = 9.54045; neighbours = idle / (1 - load) = 16.0749
    # tpot = 0.030355 + 1.355e-3 * 16.0749 = 0.052137
    _, batch = field(engine(), 3.0, 1.0, 1000.0, 100.0)
    assert batch.neighbours[0] == pytest.approx(16.0749, rel=1e-4)
    assert batch.tpot_seconds[0] == pytest.approx(0.052137, rel=1e-4)


def test_saturation_by_hand() -> None:
    # 100 * 3.55e-4 + 0.1 + 0.03 * (1000 + 100) / 2048 = 0.0355 + 0.1 + 0.016113
    work, _ = field(engine(), 1.0, 1.0, 1000.0, 100.0)
    assert work.saturation_seconds[0] == pytest.approx(0.151613, rel=1e-4)
    # 8 places in the batch: 100 tokens are 100 / 8 steps of 0.03 s a request instead
    few, _ = field(engine(max_sequences=8.0), 1.0, 1.0, 1000.0, 100.0)
    assert few.saturation_seconds[0] == pytest.approx(0.1355 + 0.03 * 100 / 8, rel=1e-4)


def least_loaded(replicas: int, load: float, arrivals: int) -> float:
    """Mean number of neighbours in a simulation of infinite servers behind a least-load router."""
    rng = np.random.default_rng(replicas)
    count = np.zeros(replicas, dtype=int)
    pairs = total = 0.0
    for _ in range(arrivals):
        rate = replicas * load + count.sum()
        pairs += (count * (count - 1)).sum() / rate
        total += count.sum() / rate
        if rng.random() * rate < replicas * load:
            count[np.argmin(count)] += 1
        else:
            count[rng.choice(replicas, p=count / count.sum())] -= 1
    return pairs / total


@pytest.mark.parametrize("replicas", [1, 4, 16])
@pytest.mark.parametrize("load", [0.3, 1.0, 4.0])
def test_neighbours_agree_with_a_simulated_router(replicas: int, load: float) -> None:
    # an engine whose stay does not depend on its neighbours: 1 s, all of it decode
    c = engine(
        base_seconds=0.01,
        per_sequence_seconds=1e-12,
        per_context_token_seconds=0.0,
        per_prompt_token_seconds=0.0,
        steps_per_token=1e-9,
    )
    _, batch = field(c, load, float(replicas), 1.0, 99.0)
    assert batch.neighbours[0] == pytest.approx(least_loaded(replicas, load, 20_000), abs=0.2)


def test_ttft_agrees_with_a_lindley_recursion() -> None:
    # one replica, one output token: a single server of lognormal service times (M/G/1)
    c = engine(per_sequence_seconds=1e-9, isl_sigma=0.6, start_steps=1e-9, base_seconds=1e-4)
    rng = np.random.default_rng(11)
    n, isl, rate = 300_000, 1000.0, 6.0
    service = (1e-4 + 1e-4 / 2048) * isl * np.exp(rng.normal(0, 0.6, n) - 0.18) + 1e-4
    gap = rng.exponential(1 / rate, n)
    wait = np.zeros(n)
    for i in range(1, n):
        wait[i] = max(0.0, wait[i - 1] + service[i - 1] - gap[i])
    ttft = wait + service
    work, batch = field(c, rate, 1.0, isl, 1.0)
    t = tails(c, work, batch, np.array([rate]), np.array([1.0]))
    for level in (0.5, 0.95, 0.99):
        said = ttft_quantile(t, np.array(level))[0]
        assert said == pytest.approx(np.quantile(ttft, level), rel=0.2)


loads = st.floats(0.001, 30.0)


@settings(max_examples=100, deadline=None)
@given(loads, st.floats(1, 64), st.floats(1, 20_000), st.floats(1, 4_000), st.floats(0.01, 0.99))
def test_a_percentile_is_the_inverse_of_the_share(
    rate: float, replicas: float, isl: float, osl: float, level: float
) -> None:
    c = engine()
    work, batch = field(c, rate, replicas, isl, osl)
    t = tails(c, work, batch, np.array([rate]), np.array([replicas]), 60.0)
    at = ttft_quantile(t, np.array(level))
    assert np.isfinite(at).all()
    assert ttft_share(t, at * 1.001)[0] >= level - 1e-6
    assert ttft_share(t, at * 0.999)[0] <= level + 1e-6
    token = tpot_quantile(t, np.array(level))
    assert token[0] >= t.tpot_floor_seconds[0]
    body = replace(t, jump_count=np.zeros(1))  # percentiles do without single long prompts
    assert tpot_share(body, token * 1.001)[0] >= level - 1e-6
    assert tpot_share(t, token)[0] <= tpot_share(body, token)[0]


@settings(max_examples=60, deadline=None)
@given(loads, st.floats(10, 8000), st.floats(1, 1000))
def test_an_overload_is_finite_and_grows_with_its_length(
    rate: float, isl: float, osl: float
) -> None:
    c = engine()
    work, batch = field(c, rate, 2.0, isl, osl)
    args = (c, work, batch, np.array([rate]), np.array([2.0]))
    short = ttft_quantile(tails(*args, 30.0), np.array(0.95))
    long = ttft_quantile(tails(*args, 300.0), np.array(0.95))
    assert np.isfinite(long).all()
    assert long[0] >= short[0] * (1 - 1e-6)


def test_robust_fit_ignores_outliers() -> None:
    at = np.linspace(0, 5, 60)
    seen = 2.0 * np.exp(-0.7 * at)
    seen[::10] += 3.0

    def residuals(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x[0] * np.exp(-x[1] * at) - seen, np.zeros(1)

    def slopes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        decay = np.exp(-x[1] * at)
        return np.stack([decay, -x[0] * at * decay], axis=1), np.zeros((1, 2))

    found = minimise(residuals, slopes, np.array([1.0, 0.1]), 0.01)
    assert found == pytest.approx([2.0, 0.7], rel=0.02)


def test_jumps_count_the_answers_that_one_long_prompt_delays() -> None:
    """The closed form against drawn lengths: an answer misses if one prompt adds more than there is room."""
    c = engine()
    rate, isl, osl = 0.5, 900.0, 120.0
    work, batch = field(c, rate, 4.0, isl, osl)
    t = tails(c, work, batch, np.array([rate]), np.array([4.0]))
    seconds = 1.5 * (t.tpot_floor_seconds + t.tpot_excess_seconds)[0]
    body = tpot_share(replace(t, jump_count=np.zeros(1)), np.array(seconds))[0]
    said = 1.0 - tpot_share(t, np.array(seconds))[0] / body
    rng = np.random.default_rng(1)
    draws = 400_000
    answers = osl * np.exp(OSL_SIGMA * rng.normal(size=draws) - OSL_SIGMA**2 / 2)
    sigma = float(c.isl_sigma[0])
    prompts = work.prompt_seconds[0] * np.exp(sigma * rng.normal(size=draws) - sigma**2 / 2)
    room = seconds - (t.tpot_floor_seconds + t.tpot_excess_seconds)[0]
    met = rate * answers * batch.tpot_seconds[0]  # prompts that come in an answer's way
    drawn = float((met * (prompts > room * answers)).mean())
    assert 1e-4 < said < 0.2
    assert said == pytest.approx(drawn, rel=0.05)

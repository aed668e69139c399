"""Drawn requests have the rate, the bursts and the lengths that were asked for."""

import numpy as np
import pytest

from autoscaler.sim.engine import SimulationError
from autoscaler.sim.profiles import fit_measured, measured_profile, profile_names
from autoscaler.sim.startup import startup_facts, typical_startup
from autoscaler.sim.workload import Requests, draw_requests

STEPS = 48


def draw(rate: np.ndarray, seed: int = 0, **options: float) -> Requests:
    n = len(rate)
    return draw_requests(
        rate,
        np.full(n, 1000.0),
        np.full(n, 100.0),
        start_seconds=1000.0,
        step_seconds=600.0,
        rng=np.random.default_rng(seed),
        **options,
    )


def test_rates_and_lengths_have_the_means_asked_for() -> None:
    rate = np.linspace(4.0, 12.0, STEPS)
    drawn = draw(rate)
    counts, _ = np.histogram(drawn.arrive_seconds - 1000.0, bins=np.arange(STEPS + 1) * 600.0)
    # a step's count scatters by bursts of 0.3 over a minute: about 0.3 x sqrt(2 x 60 / 600) = 13 %
    assert counts.sum() == pytest.approx(rate.sum() * 600, rel=0.06)
    assert np.corrcoef(counts, rate)[0, 1] > 0.8
    assert drawn.input_tokens.mean() == pytest.approx(1000, rel=0.02)
    assert drawn.output_tokens.mean() == pytest.approx(100, rel=0.02)
    assert np.std(np.log(drawn.input_tokens)) == pytest.approx(0.9, rel=0.02)


def test_bursts_have_the_variation_and_the_memory_asked_for() -> None:
    drawn = draw(np.full(STEPS * 2, 40.0), burst_cv=0.5, burst_memory_seconds=60.0)
    ten, _ = np.histogram(drawn.arrive_seconds, bins=np.arange(1000.0, 1000.0 + 96 * 600, 10.0))
    # variance of a count: Poisson's mean, plus (mean x cv) squared for the rate, slightly averaged
    spread = np.sqrt(ten.var() - ten.mean()) / ten.mean()
    assert spread == pytest.approx(0.5, abs=0.05)
    rate = ten - ten.mean()
    lagged = (rate[6:] * rate[:-6]).mean() / (ten.var() - ten.mean())
    assert lagged == pytest.approx(np.exp(-1), abs=0.1)  # after a minute


def test_without_bursts_it_is_a_poisson_process() -> None:
    drawn = draw(np.full(STEPS, 10.0), burst_cv=0.0)
    gaps = np.diff(drawn.arrive_seconds)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.01)


def test_a_gap_is_bridged_and_not_silent() -> None:
    rate = np.full(12, 10.0)
    rate[4:8] = np.nan
    drawn = draw(rate, burst_cv=0.0)
    inside = drawn.between(1000.0 + 4 * 600, 1000.0 + 8 * 600)
    assert len(inside.arrive_seconds) == pytest.approx(10 * 2400, rel=0.02)


def test_draws_depend_on_the_seed_alone() -> None:
    one, two, other = draw(np.full(3, 5.0)), draw(np.full(3, 5.0)), draw(np.full(3, 5.0), seed=1)
    np.testing.assert_array_equal(one.arrive_seconds, two.arrive_seconds)
    np.testing.assert_array_equal(one.output_tokens, two.output_tokens)
    assert len(one.arrive_seconds) != len(other.arrive_seconds)


def test_zero_rate_draws_nothing() -> None:
    assert len(draw(np.zeros(4)).arrive_seconds) == 0


def test_nonsense_is_refused_by_name() -> None:
    with pytest.raises(SimulationError, match="rate_rps has no finite value"):
        draw(np.full(3, np.nan))
    with pytest.raises(SimulationError, match="rate_rps goes down to -1"):
        draw(np.array([1.0, -1.0]))
    with pytest.raises(SimulationError, match="ascending"):
        Requests(np.array([1.0, 0.0]), np.array([1, 1]), np.array([1, 1]))
    with pytest.raises(SimulationError, match="output_tokens, request 1: -1"):
        Requests(np.array([0.0, 1.0]), np.array([1, 1]), np.array([1, -1]))
    with pytest.raises(SimulationError, match="input_tokens, request 0: 0"):
        Requests(np.array([0.0, 1.0]), np.array([0, 1]), np.array([1, 1]))
    with pytest.raises(
        SimulationError, match="prefix_tokens, request 1: 5; allowed: 0 to its input"
    ):
        Requests(*(np.array([n, 4]) for n in (0.0, 1, 1)), np.array([0, 0]), np.array([0, 5]))
    with pytest.raises(SimulationError, match="2 arrivals, 1 input"):
        Requests(np.array([0.0, 1.0]), np.array([1]), np.array([1, 1]))


@pytest.mark.parametrize("name", profile_names())
def test_measured_profiles_fit_what_was_measured(name: str) -> None:
    fit = fit_measured(name)
    assert fit.decode_error_ratio < 0.05
    assert fit.prompt_error_ratio < 0.25
    assert fit.profile.per_prompt_token_seconds > 0


def test_a_profile_reads_as_on_the_board() -> None:
    h100 = measured_profile("llama2-70b-h100-80gb-tp4")
    # measured: 59.5 ms for 512 tokens alone, 29.5 ms a token at batch 1, 52.4 ms at batch 64
    assert h100.step_seconds(1, 0, 512) == pytest.approx(0.0595, rel=0.25)
    assert h100.step_seconds(1, 576, 0) == pytest.approx(0.0295, rel=0.05)
    assert h100.step_seconds(64, 64 * 576, 0) == pytest.approx(0.0524, rel=0.10)
    # (4 x (80e9 x 0.9 - 4e9) - 138e9) bytes / 327,680 bytes a token
    assert h100.kv_capacity_tokens == 408_935


def test_an_unknown_profile_names_those_that_exist() -> None:
    with pytest.raises(SimulationError, match="no profile 'llama9'; allowed: gpt-oss-120b-"):
        measured_profile("llama9")


def test_a_profile_that_ships_with_the_models_is_an_engine_too() -> None:
    shipped = measured_profile("qwen3-32b-h100-tp2")
    assert shipped.base_seconds == pytest.approx(0.013939)  # models/bundle/engine_profiles.csv
    assert shipped.kv_capacity_tokens == 268_550


def test_starts_are_drawn_from_the_facts_of_each_kind() -> None:
    rng = np.random.default_rng(0)

    def drawn(cold_caches_share: float, new_node_share: float) -> list[float]:
        facts = startup_facts(cold_caches_share=cold_caches_share, new_node_share=new_node_share)
        return [facts.sample(rng) for _ in range(500)]

    warm, cold, node = drawn(0, 0), drawn(1, 0), drawn(0, 1)
    assert 30 < np.median(warm) < 60
    assert 200 < np.median(cold) < 300
    assert 600 < np.median(node) < 1000
    assert min(warm) > 20
    startup = typical_startup()
    typical = [startup(rng) for _ in range(500)]
    assert np.median(typical) == pytest.approx(np.median(warm), rel=0.25)
    with pytest.raises(SimulationError, match="together at most 1"):
        startup_facts(cold_caches_share=0.8, new_node_share=0.3)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latency_world import engine

from models.capacity import predicted_latency
from models.latency_drift import (
    LIMIT,
    Drift,
    at_pace,
    expected_tpot_p50,
    factor,
    followed,
)
from models.step_time import mean_field, request_work

MANY = np.array([1000.0])


def after(offs: list[float], requests: float = 1000.0) -> Drift:
    drift = Drift(np.zeros(1), np.zeros(1), np.zeros(1))
    for off in offs:
        drift = followed(drift, np.array([off]), np.array([requests]))
    return drift


def test_the_first_window_by_hand() -> None:
    # gain 1/80 of log(1.2) = 0.18232
    drift = after([np.log(1.2)])
    assert drift.log_factor[0] == pytest.approx(0.18232 / 80, rel=1e-4)
    assert drift.windows[0] == 1.0
    assert factor(drift)[0] == 1.0  # one window is no evidence
    # six requests count as a fifth of a window
    assert after([np.log(1.2)], requests=6.0).windows[0] == pytest.approx(0.2)


def test_a_drift_is_followed_and_forgotten() -> None:
    slow = after([np.log(1.2)] * 400)
    assert factor(slow)[0] == pytest.approx(1.2, rel=0.01)
    again = slow
    for _ in range(400):
        again = followed(again, np.zeros(1), MANY)
    assert factor(again)[0] == 1.0


def test_noise_without_a_drift_changes_nothing() -> None:
    offs = np.random.default_rng(4).normal(0.02, 0.15, 2000)
    assert factor(after(offs.tolist()))[0] == 1.0


def test_a_correction_has_its_limits() -> None:
    assert factor(after([np.log(2.5)] * 1000))[0] == pytest.approx(1.3)
    assert factor(after([-np.log(2.5)] * 1000))[0] == pytest.approx(1 / 1.3)


def test_what_is_beyond_belief_teaches_nothing_and_is_counted() -> None:
    drift = after([0.0] * 50 + [np.log(1000.0)] * 25)
    assert drift.log_factor[0] == 0.0
    assert drift.odd_windows[0] == 25
    assert drift.windows[0] == 50
    assert followed(drift, np.array([0.1]), MANY).odd_windows[0] == 0
    assert followed(drift, np.array([np.nan]), MANY).odd_windows[0] == 25  # silence is no answer


def test_the_expected_median_is_that_of_the_batch_that_was_seen() -> None:
    c, one = engine(), np.ones(1)
    work = request_work(c, np.array([1000.0]), np.array([100.0]))
    rate = np.array([3.0])
    batch = mean_field(c, work, rate, one)
    said = predicted_latency(c, rate, one, np.array([1000.0]), np.array([100.0]))["tpot_p50"]
    seen = expected_tpot_p50(c, work, rate, batch.neighbours, one)
    assert seen == pytest.approx(said, rel=0.02)
    assert expected_tpot_p50(c, work, rate, 2 * batch.neighbours, one)[0] > 1.3 * said[0]


def test_a_slower_pace_is_the_same_engine_on_another_clock() -> None:
    c = engine()
    args = (np.ones(1), np.array([1000.0]), np.array([100.0]))
    fast = predicted_latency(c, np.array([2.6]), *args)
    slow = predicted_latency(at_pace(c, np.array([1.3])), np.array([2.0]), *args)
    for name in ("tpot_p50", "tpot_p95", "tpot_p99"):
        assert slow[name] == pytest.approx(1.3 * fast[name])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-20, 20) | st.just(float("nan")), max_size=60), st.floats(0, 1e4))
def test_the_factor_stays_within_its_limits(offs: list[float], requests: float) -> None:
    drift = after(offs, requests)
    assert np.isfinite(factor(drift)).all()
    assert abs(np.log(factor(drift)[0])) <= LIMIT + 1e-12

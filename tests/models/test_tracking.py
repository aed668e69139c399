"""The level and scale of a noisy series."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.tracking import LEAST_RATIO, PRIOR_RATIO, PRIOR_STEPS, WINDOWS, follow


def test_one_value_is_the_level_and_the_prior_is_the_scale() -> None:
    track = follow(np.array([[np.nan, 40.0]]))
    assert track.centre[0] == pytest.approx(40.0)
    assert track.scale[0] == pytest.approx(PRIOR_RATIO * 40.0)


def test_a_steady_rate_is_averaged_and_a_walk_is_followed() -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(50.0, (1, 400)).astype(float)
    walk = 500 + np.cumsum(rng.normal(0.0, 5.0, (1, 400)), axis=1)
    steady, wandering = follow(counts), follow(walk)
    assert steady.centre[0] == pytest.approx(50.0, abs=3.0)  # sd of a mean of 15 to 30: 1.5
    assert wandering.centre[0] == pytest.approx(walk[0, -1], abs=8.0)
    assert steady.window[0] > np.log(8)
    assert wandering.window[0] < np.log(3)
    # mean distance of a Poisson(50) step from its mean: 0.8 * sqrt(50) = 5.6
    assert steady.scale[0] == pytest.approx(5.6, rel=0.35)


def test_a_constant_series_has_only_the_priors_share_of_scale() -> None:
    track = follow(np.full((1, 500), 10.0))
    # 360 steps that never missed beside two off by 0.2 * 10 would be 0.011: the load counts more
    assert track.scale[0] == pytest.approx(LEAST_RATIO * 10)
    young = follow(np.full((1, 18), 10.0))
    assert young.scale[0] == pytest.approx(PRIOR_STEPS * PRIOR_RATIO * 10 / (17 + PRIOR_STEPS))


def test_nothing_known_is_nan_and_no_warning() -> None:
    track = follow(np.full((2, 30), np.nan))
    assert np.isnan(track.centre).all()
    assert np.isnan(track.scale).all()


def test_gaps_take_the_longer_window() -> None:
    values = np.full((1, 100), 8.0)
    values[0, -2:] = np.nan
    assert follow(values).centre[0] == pytest.approx(8.0)


@settings(max_examples=25, deadline=None)
@given(factor=st.floats(1e-3, 1e6), seed=st.integers(0, 1000))
def test_scale_free(factor: float, seed: int) -> None:
    values = np.random.default_rng(seed).gamma(2.0, 5.0, (1, 80))
    one, other = follow(values), follow(values * factor)
    assert other.centre[0] == pytest.approx(factor * one.centre[0], rel=1e-4)
    assert other.scale[0] == pytest.approx(factor * one.scale[0], rel=1e-4)
    assert one.misses.shape == (1, 80)
    assert WINDOWS[0] == 1

"""Exponential smoothing: shares fitted by statsmodels, the recursion at serving equal to the library's."""

import numpy as np
import pytest
from statsmodels.tsa.holtwinters import SimpleExpSmoothing

from models.smoothing import (
    LEAST_FIT_STEPS,
    LEAST_SHARE,
    USUAL_SHARE,
    WINDOW_STEPS,
    fit_shares,
    smoothed,
)

DAY = 144


def wandering(steps: int, share: float, seed: int) -> np.ndarray:
    """A load for which simple exponential smoothing by `share` is the best forecast (ARIMA(0, 1, 1))."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0.0, 5.0, steps)
    return np.asarray(1000.0 + noise + share * (np.cumsum(noise) - noise))


@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_the_share_that_made_the_load_is_found(share: float) -> None:
    values = np.stack([wandering(1000, share, 1), wandering(1000, share, 2)])
    found = fit_shares(values, DAY)
    assert found[:2] == pytest.approx(share, abs=0.08)
    assert found[2] == pytest.approx(np.median(found[:2]))


def test_no_other_share_misses_less() -> None:
    """Unlike the library's own account: a search over shares, with the recursion that serves."""
    values = wandering(600, 0.3, 3)[np.newaxis]
    fitted = fit_shares(values, DAY)[0]

    def miss(share: float) -> float:
        windows = np.lib.stride_tricks.sliding_window_view(values[0], WINDOW_STEPS)[:-1]
        ahead = values[0, WINDOW_STEPS:]
        return float(((ahead - smoothed(windows, np.full(len(windows), share))) ** 2).sum())

    least = min(miss(s) for s in np.linspace(0.05, 1.0, 20))
    assert miss(fitted) <= 1.002 * least


def test_serving_is_the_librarys_recursion() -> None:
    values = wandering(WINDOW_STEPS, 0.3, 4)
    model = SimpleExpSmoothing(values, initialization_method="known", initial_level=values[0])
    theirs = model.fit(smoothing_level=0.3, optimized=False).forecast(1)[0]
    ours = smoothed(values[np.newaxis], np.array([0.3]))
    assert ours == pytest.approx(theirs)
    longer = np.concatenate([np.full(50, 9e9), values])  # older steps are out of the window
    assert smoothed(longer[np.newaxis], np.array([0.3])) == pytest.approx(ours)


def test_at_a_gap_the_level_stays() -> None:
    values = np.array([[10.0, 20.0, np.nan, np.nan, 40.0, np.nan], [np.nan] * 6])
    got = smoothed(values, np.array([0.5, 0.5]))
    assert got[0] == pytest.approx(0.5 * 40 + 0.5 * 15)
    assert np.isnan(got[1])
    without = smoothed(values[:1, [0, 1, 4]], np.array([0.5]))
    assert got[0] == without[0]


def test_the_young_the_constant_and_those_full_of_gaps_take_the_fleets() -> None:
    values = np.full((4, 1000), np.nan)
    values[0] = wandering(1000, 0.6, 5)
    values[1, -LEAST_FIT_STEPS + 1 :] = wandering(LEAST_FIT_STEPS - 1, 0.1, 6)
    values[2] = 7.0
    values[3, ::2] = 5.0
    found = fit_shares(values, DAY)
    assert found.tolist() == [found[0]] * 5
    assert fit_shares(values[2:], DAY).tolist() == [USUAL_SHARE] * 3


def test_a_gap_does_not_pass_for_load() -> None:
    """Hours without telemetry: the share of the longest stretch, not of a load that fell to zero."""
    values = wandering(900, 0.2, 7)
    whole = fit_shares(values[np.newaxis, :600], DAY)[0]
    values[600:640] = np.nan
    assert fit_shares(values[np.newaxis], DAY)[0] == whole


def test_a_load_that_has_no_level_is_followed_slowly() -> None:
    values = np.random.default_rng(8).poisson(50.0, (1, 800)).astype(float)
    assert LEAST_SHARE <= fit_shares(values, DAY)[0] < 0.1


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e15])
def test_the_unit_does_not_matter(size: float) -> None:
    values = wandering(500, 0.4, 9)[np.newaxis]
    assert fit_shares(values * size, DAY)[0] == pytest.approx(fit_shares(values, DAY)[0], abs=0.01)

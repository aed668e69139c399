"""An earlier day is taken at its word where the last day says so, and nowhere else."""

import numpy as np
import pytest

from models.quantiles import FloatArray
from models.schedule import DOUBT, SHARPNESS, sampled_steps, schedule

DAY = 144
AT = sampled_steps(DAY)
LEADS = np.array([[1, 3]])


def of(load: FloatArray, days: int = 1) -> tuple[FloatArray, FloatArray]:
    """The last day of a series, and the day `days` before, as `schedule` wants them."""
    newest = load.size - 1
    then = load[newest + AT - days * DAY]
    return load[np.newaxis, -DAY:], then[np.newaxis, :, np.newaxis]


def test_samples_are_bounded_whatever_the_step() -> None:
    assert sampled_steps(144).tolist() == list(range(-143, 1))
    assert sampled_steps(1440).size == 144
    assert sampled_steps(1440)[[0, -1]].tolist() == [-1430, 0]


def test_a_nightly_job_is_foretold_by_the_night_before() -> None:
    load = np.tile(np.where((np.arange(DAY) >= 60) & (np.arange(DAY) < 70), 500.0, 10.0), 3)
    load[-DAY:] += 1.0  # a request more than yesterday at any time
    recent, day = of(load)
    found = schedule(recent, day, LEADS, 2)
    assert found.miss[0, 0] == pytest.approx(1.0)
    assert (found.trust > 0.9).all()
    # ten steps from now the job runs, and yesterday knows it
    anchor = found.anchor(np.array([11.0]), np.array([[[500.0], [10.0]]]))
    assert anchor[0, 0] > 450.0
    assert anchor[0, 1] == pytest.approx(10.0, abs=0.5)
    assert found.scale(np.array([100.0]))[0] < 2.0  # noise is what yesterday missed by


def test_trust_by_hand() -> None:
    """Up and down by 8 each step: a lead of one step misses by 8, the median by 4, yesterday by 1."""
    load = np.tile([0.0, 8.0], DAY) + np.repeat([0.0, 1.0], DAY)
    recent, day = of(load)
    found = schedule(recent, day, np.array([[1]]), 1)
    better = (4.0 / (DOUBT * 1.0)) ** SHARPNESS  # the median's miss is the least of those it beats
    assert found.trust[0, 0, 0] == pytest.approx(better / (1 + better))


def test_bursts_at_any_time_trust_nothing() -> None:
    rng = np.random.default_rng(3)
    load = np.full(3 * DAY, 10.0)
    load[rng.choice(3 * DAY, 20, replace=False)] = 5000.0
    recent, day = of(load)
    assert schedule(recent, day, LEADS, 2).trust.max() < 0.05


def test_a_smooth_cycle_is_left_to_the_level() -> None:
    at = np.arange(3 * DAY)
    load = 100 + 50 * np.sin(2 * np.pi * at / DAY) * (1 + 0.1 * (at // DAY))
    recent, day = of(load)
    assert schedule(recent, day, np.array([[1]]), 1).trust.max() < 0.05


@pytest.mark.parametrize("fill", [np.nan, 0.0, 7.0])
def test_nothing_known_or_nothing_that_moves_changes_nothing(fill: float) -> None:
    recent, day = np.full((1, DAY), fill), np.full((1, DAY, 2), np.nan)
    found = schedule(recent, day, LEADS, 2)
    assert (found.trust == 0.0).all()
    np.testing.assert_allclose(found.scale(np.array([3.0])), [3.0], rtol=1e-15)
    np.testing.assert_array_equal(
        found.anchor(np.array([7.0]), np.full((1, 2, 2), np.nan)), [[7.0, 7.0]]
    )


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(4)
    recent, days = rng.gamma(2.0, 10.0, (5, DAY)), rng.gamma(2.0, 10.0, (5, DAY, 2))
    leads = np.tile(LEADS, (5, 1))
    every, one = schedule(recent, days, leads, 2), schedule(recent[3:4], days[3:4], LEADS, 2)
    np.testing.assert_array_equal(every.trust[3], one.trust[0])
    np.testing.assert_array_equal(every.miss[3], one.miss[0])

"""A value that stands alone above all others is unknown; a jump that stays, and a busy hour, are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.believable import HUNDREDFOLD, NEAR_RATIO, WITNESSES, believable
from models.quantiles import FloatArray


def window(*newest: float, steps: int = 200) -> FloatArray:
    """A steady load of 8 to 12, then what comes."""
    rng = np.random.default_rng(2)
    return np.append(rng.uniform(8.0, 12.0, steps - len(newest)), newest)[np.newaxis]


def test_a_spike_is_unknown_wherever_it_stands() -> None:
    for at in (0, 100, 199):
        load = window()
        load[0, at] = 1e7
        got = believable(load)
        assert np.flatnonzero(np.isnan(got[0])).tolist() == [at]
        np.testing.assert_array_equal(np.delete(got[0], at), np.delete(load[0], at))


@pytest.mark.parametrize("times", [2.0, 50.0, 80.0])
def test_a_jump_of_fifty_times_is_believed_at_once(times: float) -> None:
    load = window(12.0 * times)
    np.testing.assert_array_equal(believable(load), load)


def test_a_jump_of_a_thousand_times_is_believed_from_its_second_step_on() -> None:
    for steps in range(1, 4):
        got = believable(window(*[1e4] * steps))
        assert np.isnan(got[0, -steps:]).all() == (steps < 2)
        assert np.isfinite(got[0, -steps:]).all() == (steps >= 2)


def test_a_burst_like_one_of_the_days_before_is_believed_at_once() -> None:
    load = np.concatenate([window(1e4), window(1e4), window(11.0)])

    def earlier(rows: NDArray[np.int64]) -> FloatArray:
        assert rows.tolist() == [0, 1]  # who has no burst is not asked
        return np.array([9e3, np.nan])

    got = believable(load, earlier)
    np.testing.assert_array_equal(got[[0, 2]], load[[0, 2]])
    assert np.isnan(got[1, -1])


def test_two_spikes_of_different_size_do_not_speak_for_each_other() -> None:
    got = believable(window(1e4, 1e6))
    assert np.isnan(got[0, -2:]).tolist() == [False, True]  # 1e4 has a larger one beside it


def test_a_load_that_wakes_from_zero_is_believed() -> None:
    load = np.zeros((1, 200))
    load[0, -3:] = 500.0
    np.testing.assert_array_equal(believable(load), load)  # of its size nothing is known


def test_gaps_stay_gaps_and_other_rows_stay_as_they_are() -> None:
    load = np.concatenate([window(1e9), window(11.0)])
    load[:, 50:60] = np.nan
    got = believable(load)
    assert np.isnan(got[0, -1])
    np.testing.assert_array_equal(got[1], load[1])
    assert np.isnan(got[:, 50:60]).all()


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 3.0), st.integers(1, 300))
def test_the_quick_look_misses_nothing(seed: int, spread: float, steps: int) -> None:
    """Against the rule itself, row by row, without the look at sums."""
    rng = np.random.default_rng(seed)
    load = np.exp(spread * rng.standard_normal((4, steps))) * rng.integers(0, 2, (4, steps))
    load[rng.random((4, steps)) < 0.1] = np.nan
    load[0, rng.integers(steps)] = 1e9
    expected = load.copy()
    for row in expected:
        positive = np.sort(row[row > 0])
        if positive.size >= WITNESSES:
            around = np.append(np.insert(np.nan_to_num(row), 0, 0.0), 0.0)
            alone = np.maximum(around[:-2], around[2:]) < NEAR_RATIO * row
            row[(row > HUNDREDFOLD * positive[-WITNESSES]) & alone] = np.nan
    np.testing.assert_array_equal(believable(load), expected)

"""A value that stands alone above all others is unknown; a jump that stays, and a busy hour, are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.believable import HUNDREDFOLD, WITNESSES, believable
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


def test_a_jump_of_a_thousand_times_is_believed_from_its_fifth_step_on() -> None:
    for steps in range(1, 8):
        got = believable(window(*[1e4] * steps))
        assert np.isnan(got[0, -steps:]).all() == (steps < WITNESSES)
        assert np.isfinite(got[0, -steps:]).all() == (steps >= WITNESSES)


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
            row[row > HUNDREDFOLD * positive[-WITNESSES]] = np.nan
    np.testing.assert_array_equal(believable(load), expected)

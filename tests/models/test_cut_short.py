import numpy as np
import pytest

from models.cut_short import without_cut_steps
from models.features import Grid, look_back

GAP = np.nan


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ([10, 10, GAP, 2], [10, 10, GAP, GAP]),  # the newest: not believed yet
        ([10, 10, GAP, 2, 11, 10], [10, 10, GAP, GAP, 11, 10]),  # it was a part
        ([10, 10, GAP, 2, GAP], [10, 10, GAP, GAP, GAP]),
        ([10, 10, GAP, 2, 2], [10, 10, GAP, 2, 2]),  # a second step says the same: it fell
        ([10, 10, GAP, 2, 0], [10, 10, GAP, 2, 0]),
        ([10, 10, GAP, 6, 10], [10, 10, GAP, 6, 10]),  # more than half: noise can do that
        ([1, 1, GAP, 9, 9], [1, 1, GAP, 9, 9]),
        ([0, 0, GAP, 0, 0], [0, 0, GAP, 0, 0]),
        ([10, GAP, 2, GAP, 10, GAP, 2], [10, GAP, 2, GAP, 10, GAP, 2]),  # every other is missing
        ([GAP, GAP, 2, 10, 10], [GAP, GAP, 2, 10, 10]),  # no gap: a young service
    ],
)
def test_the_step_after_a_gap(window: list[float], expected: list[float]) -> None:
    beside = [5.0] * len(window)  # a service without a gap stays as it is
    found = without_cut_steps(np.array([window, beside]))
    np.testing.assert_array_equal(found, [expected, beside])


def test_the_level_does_not_fall_with_a_step_that_was_cut_short() -> None:
    values = np.full((1, 300), 100.0)
    values[0, 290:294], values[0, 294] = GAP, 3.0
    at = np.array([294])
    known = look_back(values, 0.0, Grid(600.0), (np.array([0]), at), np.array([1, 2]))
    assert known.track.centre[0] == pytest.approx(100.0)
    assert known.last[0] == 100.0


def test_a_real_fall_is_believed_a_step_later() -> None:
    values = np.full((1, 300), 100.0)
    values[0, 290:294], values[0, 294:] = GAP, 3.0
    at = np.array([295])
    known = look_back(values, 0.0, Grid(600.0), (np.array([0]), at), np.array([1, 2]))
    assert known.last[0] == 3.0

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.features import Grid, Known, feature_matrix, feature_names, look_back

HOUR = Grid(3600.0)  # 24 steps a day, 168 a week: small enough to work by hand
TEN = Grid(600.0)


def at(step: int, row: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array([row]), np.array([step])


def known_of(values: NDArray[np.float64], step: int, leads: list[int], grid: Grid = HOUR) -> Known:
    return look_back(values, 0.0, grid, at(step), np.array(leads))


def test_spans_of_a_minute_grid() -> None:
    grid = Grid(60.0)
    assert (grid.day_steps, grid.week_steps, grid.hour_steps) == (1440, 10_080, 60)
    assert grid.level_steps == 15
    assert grid.history_steps == 10_080 + 15 + 8  # a week, its level, half the smoothing


def test_same_time_yesterday_and_last_week() -> None:
    values = np.arange(400.0)[np.newaxis]  # value = step
    known = known_of(values, 300, [1, 5])
    # one day of hours earlier: step 300 + 1 - 24 = 277; smoothing over 276..278 has the same mean
    np.testing.assert_array_equal(known.yesterday.exact, [[277.0, 281.0]])
    np.testing.assert_allclose(known.yesterday.smooth, [[277.0, 281.0]])
    np.testing.assert_allclose(known.last_week.smooth, [[300 + 1 - 168, 300 + 5 - 168]])
    assert known.yesterday.level[0] == pytest.approx((274 + 275 + 276) / 3)
    assert known.base[0] == pytest.approx((298 + 299 + 300) / 3)
    assert known.target_seconds[0, 0] == 301 * 3600.0


def test_a_lead_beyond_a_day_looks_two_days_back() -> None:
    known = known_of(np.arange(400.0)[np.newaxis], 300, [30])
    assert known.yesterday.exact[0, 0] == 300 + 30 - 48


def test_gaps_are_skipped_not_zero() -> None:
    values = np.full((1, 100), 8.0)
    values[0, 98:] = np.nan
    known = known_of(values, 99, [1])
    assert (known.last[0], known.age_steps[0]) == (8.0, 2.0)
    assert known.base[0] == 8.0  # the mean of what is known
    assert known.level(2)[0] != known.level(2)[0]  # both newest steps are gaps: NaN


def test_all_gaps_give_nan_without_a_warning() -> None:
    known = known_of(np.full((1, 50), np.nan), 49, [1, 2])
    assert np.isnan(known.base).all()
    names = feature_names(HOUR)
    row = feature_matrix(known, HOUR)[0]
    assert np.isnan(row[names.index("lag_0")])
    assert row[names.index("known_ratio")] == 0.0


def test_all_zero_service_is_not_a_division_by_zero() -> None:
    known = known_of(np.zeros((1, 60)), 59, [1])
    assert np.isfinite(known.u(np.zeros(1))).all()
    np.testing.assert_array_equal(known.expand(np.zeros((1, 1))), [[0.0]])


def test_young_steps_hide_older_load() -> None:
    values = np.arange(400.0)[np.newaxis]
    known = look_back(
        values, 0.0, HOUR, at(300), np.array([1]), young_steps=np.array([4], dtype=np.int64)
    )
    assert np.isnan(known.yesterday.exact).all()
    assert known.counts[0, -1] == 4  # steps 297..300
    assert known.sums[0, -1] == 297 + 298 + 299 + 300


def test_matrix_rows_and_names() -> None:
    values = np.arange(1.0, 401.0).reshape(1, -1)
    known = known_of(values, 300, [1, 2, 3])
    matrix = feature_matrix(known, HOUR)
    names = feature_names(HOUR)
    assert matrix.shape == (3, len(names))
    np.testing.assert_array_equal(matrix[:, names.index("lead")], [1, 2, 3])
    # the level follows the newest value closely: it foretells the next two steps best by far
    assert known.track.centre[0] == pytest.approx(301.0, abs=0.3)
    # a lag earlier is one less; scales are the slope of the ramp, about 1, and the prior's share
    expected = (300.0 - known.track.centre[0]) / known.track.scale[0]
    assert matrix[0, names.index("lag_1")] == pytest.approx(expected, rel=1e-5)
    # two hours ahead, yesterday's rise: 301 + (279 - 277)
    expected = (303.0 - known.track.centre[0]) / known.track.scale[0]
    assert matrix[1, names.index("rise_day")] == pytest.approx(expected, rel=1e-5)


def test_weekend_and_hour() -> None:
    names = feature_names(HOUR)
    # 1970-01-01 00:00 is a Thursday; step 47 with lead 1 is Saturday 00:00
    row = feature_matrix(known_of(np.ones((1, 60)), 47, [1]), HOUR)[0]
    assert row[names.index("weekend")] == 1.0
    assert row[names.index("weekday")] == 5.0
    assert row[names.index("hour_cos")] == pytest.approx(1.0)
    friday = feature_matrix(known_of(np.ones((1, 60)), 46, [1]), HOUR)[0]
    assert friday[names.index("weekend")] == 0.0
    assert friday[names.index("weekday")] == 4.0


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.01, 1e6), seed=st.integers(0, 1000))
def test_scale_free(scale: float, seed: int) -> None:
    values = np.random.default_rng(seed).gamma(3.0, 10.0, (1, 300))
    one = feature_matrix(known_of(values, 299, [1, 3], TEN), TEN)
    other = feature_matrix(known_of(values * scale, 299, [1, 3], TEN), TEN)
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), step=st.integers(5, 250))
def test_nothing_later_than_the_origin_is_read(seed: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.gamma(3.0, 10.0, (1, 300))
    other = values.copy()
    other[:, step + 1 :] = rng.gamma(3.0, 1000.0, (1, 300 - step - 1))
    np.testing.assert_array_equal(
        feature_matrix(known_of(values, step, [1, 6], TEN), TEN),
        feature_matrix(known_of(other, step, [1, 6], TEN), TEN),
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000))
def test_expand_undoes_u(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = known_of(rng.gamma(3.0, 10.0, (1, 200)), 199, [1], TEN)
    x = rng.gamma(2.0, 20.0, (1, 7))
    np.testing.assert_allclose(known.expand(known.u(x)), x, rtol=1e-9)

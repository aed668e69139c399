import numpy as np
import pytest

from models.features import Grid, look_back
from models.quantiles import QUANTILES
from models.simple_rules import (
    DEFAULT_SPREAD,
    MIN_ERRORS,
    NORMAL_QUANTILES,
    PRIOR_ERRORS,
    RULES,
    error_quantiles,
    rule_centres,
    share_errors,
)

HOUR = Grid(3600.0)
MEDIAN = QUANTILES.index(0.5)


def centres(values: np.ndarray, step: int) -> dict[str, float]:
    known = look_back(values, 0.0, HOUR, (np.array([0]), np.array([step])), np.array([2]))
    z = rule_centres(known, HOUR, np.array([0.5]))
    return dict(zip(RULES, known.expand(z)[0, 0], strict=True))


def test_rules_by_hand() -> None:
    values = np.full((1, 200), 10.0)
    values[0, 100 + 2 - 24 - 1 : 100 + 2 - 24 + 2] = 40.0  # yesterday, two hours from now: 40
    values[0, 99:101] = (20.0, 30.0)  # level now: (10 + 20 + 30) / 3 = 20, last value 30
    got = centres(values, 100)
    assert got["last-value"] == pytest.approx(30.0)
    assert got["level"] == pytest.approx(20.0)
    assert got["smoothing"] == pytest.approx(0.5 * 30 + 0.25 * 20 + 0.25 * 10)
    assert got["yesterday"] == pytest.approx(40.0)
    # level a day ago: steps 74..76 are 10 -> 40 * 20 / 10 = 80
    assert got["yesterday-ratio"] == pytest.approx(80.0)
    assert got["level-and-yesterday"] == pytest.approx((30 + 80) / 2)
    # yesterday rose from (10 + 10 + 10) / 3 at hour 100 - 24 to 40 two hours later; half of that
    assert got["last-value-and-rise"] == pytest.approx(
        30 + 0.5 * (40 - (10 + 10 + 40) / 3), rel=0.5
    )


def test_last_week_by_hand() -> None:
    values = np.full((1, 200), 10.0)
    values[0, 190 + 2 - 7 * 24] = 25.0  # a week before the step that is two hours ahead
    got = centres(values, 190)
    assert got["last-week"] == pytest.approx(25.0)
    # with its neighbours (10 + 25 + 10) / 3, times the level now over then, 10 / 10
    assert got["last-week-ratio"] == pytest.approx(15.0)


def test_a_rule_without_its_season_is_nan() -> None:
    got = centres(np.full((1, 20), 5.0), 19)
    assert np.isnan(got["yesterday"])
    assert np.isnan(got["last-week"])
    assert np.isnan(got["last-week-ratio"])
    assert got["level"] == pytest.approx(5.0)


def test_error_quantiles_need_enough_errors() -> None:
    errors = np.linspace(-1, 1, 101)
    table, count = error_quantiles(np.stack([errors, np.full(101, np.nan)], axis=1))
    assert count.tolist() == [101, 0]
    np.testing.assert_allclose(table[0], [-0.8, 0.0, 0.6, 0.8, 0.9, 0.98])
    assert np.isnan(table[1]).all()
    few, _ = error_quantiles(errors[: MIN_ERRORS - 1, np.newaxis])
    assert np.isnan(few).all()


def test_no_errors_at_all() -> None:
    table, count = error_quantiles(np.empty((0, 3, 2)))
    assert table.shape == (3, 2, len(QUANTILES))
    assert count.sum() == 0
    shared, _ = share_errors(table[np.newaxis], count[np.newaxis])
    np.testing.assert_allclose(shared[0, 0, 0], DEFAULT_SPREAD * np.asarray(NORMAL_QUANTILES))


def test_shared_errors_lean_on_the_fleet() -> None:
    q = len(QUANTILES)
    table = np.stack([np.full((2, 1, q), 1.0), np.full((2, 1, q), 3.0), np.full((2, 1, q), np.nan)])
    table[:, 1] = np.nan  # nobody knows lead 1: it takes lead 0's
    count = np.zeros((3, 2, 1), dtype=np.int64)
    count[:2, 0] = int(PRIOR_ERRORS)  # own and fleet weigh the same
    shared, pool = share_errors(table, count)
    np.testing.assert_allclose(pool[:, 0, MEDIAN], [2.0, 2.0])
    np.testing.assert_allclose(shared[:, 0, 0, MEDIAN], [1.5, 2.5, 2.0])
    np.testing.assert_allclose(shared[:, 1, 0, MEDIAN], 2.0)

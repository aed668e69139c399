import math

import numpy as np
import pytest

from models.losses import coverage_ratio, pinball_loss, pinball_losses, wape_ratio


def test_pinball_by_hand() -> None:
    # y = 10: forecast 8 at 0.9 misses by 2 above -> 0.9 * 2; forecast 12 at 0.5 -> 0.5 * 2
    losses = pinball_losses(np.array([10.0]), np.array([[8.0, 12.0]]), (0.9, 0.5))
    np.testing.assert_allclose(losses, [[1.8, 1.0]])


def test_over_forecast_at_a_high_quantile_is_cheap() -> None:
    # y = 10, forecast 12 at 0.9: (0.9 - 1) * (10 - 12) = 0.2
    assert pinball_loss(np.array([10.0]), np.array([[12.0]]), (0.9,)) == pytest.approx(0.2)


def test_gaps_count_for_nothing() -> None:
    actual, forecast = np.array([np.nan, 4.0]), np.array([[1.0], [2.0]])
    assert pinball_loss(actual, forecast, (0.5,)) == pytest.approx(1.0)  # 0.5 * 2
    assert math.isnan(pinball_loss(actual[:1], forecast[:1], (0.5,)))


def test_wrong_number_of_quantiles_is_refused() -> None:
    with pytest.raises(ValueError, match="1 quantiles, 2 were named"):
        pinball_losses(np.zeros(3), np.zeros((3, 1)), (0.5, 0.9))


def test_coverage_and_wape() -> None:
    actual = np.array([1.0, 2.0, 3.0, np.nan])
    assert coverage_ratio(actual, np.array([1.0, 1.0, 4.0, 9.0])) == pytest.approx(2 / 3)
    # |1-2| + |2-2| + |3-0| = 4 over 6
    assert wape_ratio(actual, np.array([2.0, 2.0, 0.0, 1.0])) == pytest.approx(4 / 6)
    assert math.isnan(wape_ratio(np.zeros(2), np.ones(2)))
    assert math.isnan(coverage_ratio(actual[3:], np.ones(1)))

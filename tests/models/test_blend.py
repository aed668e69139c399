"""Weights go to who is right, and only as far as the evidence goes."""

import numpy as np
import pytest

from models.blend import fleet_weights, learn_weights
from models.quantiles import QUANTILES

SHAPE = np.array([-1.2816, 0.0, 0.8416, 1.2816, 1.6449, 2.3263])
EVEN = np.full(2, 0.5)


def contestants(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Two contestants: one knows the centre, the other is off by two standard deviations."""
    centre = rng.normal(100.0, 20.0, rows)
    right = centre[:, None] + SHAPE
    wrong = right + 2.0
    return np.stack([right, wrong], axis=1), centre + rng.normal(0.0, 1.0, rows)


def test_weight_moves_to_the_better_contestant() -> None:
    forecast, actual = contestants(np.random.default_rng(1), 500)
    weights = learn_weights(forecast, actual, EVEN)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] > 0.75


def test_nothing_known_keeps_the_prior() -> None:
    forecast = np.zeros((4, 2, len(QUANTILES)))
    np.testing.assert_array_equal(learn_weights(forecast, np.full(4, np.nan), EVEN), EVEN)
    np.testing.assert_array_equal(fleet_weights([(forecast, np.full(4, np.nan))], EVEN), EVEN)


def test_every_service_counts_alike_in_the_fleet() -> None:
    rng = np.random.default_rng(2)
    small, truth = contestants(rng, 300)
    large, truth_large = contestants(rng, 300)
    large = large[:, ::-1] * 1000.0  # a service of another size, for which the second is right
    weights = fleet_weights([(small, truth), (small, truth), (large, truth_large * 1000.0)], EVEN)
    assert weights[0] > 0.5  # two of three


def test_units_do_not_matter() -> None:
    forecast, actual = contestants(np.random.default_rng(3), 200)
    one = learn_weights(forecast, actual, EVEN)
    other = learn_weights(forecast * 1e4, actual * 1e4, EVEN)
    np.testing.assert_allclose(one, other, rtol=1e-9)

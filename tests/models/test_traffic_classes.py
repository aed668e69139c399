import numpy as np
import pytest

from models.quantiles import FloatArray
from models.traffic_classes import MOST, Hull, hull_of


def around(points: FloatArray, each: int, noise: float = 0.01) -> FloatArray:
    """`each` bins in a row at each of `points`, with noise: a mix that stays for hours, then moves."""
    rng = np.random.default_rng(3)
    every = np.repeat(points, each, axis=0)
    return every + rng.normal(0.0, noise, every.shape)


def hull_with(bins: FloatArray) -> Hull:
    corners, count = hull_of(bins, np.ones(len(bins)))
    return Hull(corners[np.newaxis], np.array([count]))


def test_noise_around_one_mix_is_one_class() -> None:
    rng = np.random.default_rng(0)
    corners, count = hull_of(1.0 + rng.normal(0.0, 0.2, (500, 2)), np.ones(500))
    assert count == 1
    assert corners == pytest.approx(np.ones((MOST, 2)), abs=0.05)


def test_two_kinds_that_take_turns_are_two_classes_at_their_lengths() -> None:
    chat, documents = np.array([0.25, 1.2]), np.array([3.0, 0.6])
    corners, count = hull_of(around(np.tile([chat, documents], (10, 1)), 20), np.ones(400))
    assert count == 2
    found = corners[:2][np.argsort(corners[:2, 0])]
    assert found == pytest.approx(np.array([chat, documents]), abs=0.05)


def test_three_kinds_are_a_triangle_and_shares_are_told_exactly() -> None:
    kinds = np.array([[0.3, 0.3], [2.5, 0.4], [0.8, 2.8]])
    hull = hull_with(around(np.tile(kinds, (10, 1)), 20))
    assert hull.count[0] == 3
    share = np.array([0.2, 0.5, 0.3])
    mix = (share @ kinds)[np.newaxis, np.newaxis]
    shares = hull.shares(mix)
    assert shares.sum() == pytest.approx(1.0)
    assert hull.points(shares)[0, 0] == pytest.approx(mix[0, 0])  # in the hull: exactly
    order = [int(np.abs(hull.corners[0] - k).sum(axis=1).argmin()) for k in kinds]
    assert shares[0, 0, order] == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_point_shares_are_shares_and_the_mix_lies_in_the_hull(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hull = hull_with(around(rng.uniform(0.1, 4.0, (12, 2)), 20))
    wild = rng.normal(1.0, 5.0, (1, 200, 2))
    shares = hull.shares(wild)
    assert (shares >= 0).all()
    assert shares.sum(axis=-1) == pytest.approx(1.0)
    again = hull.shares(hull.points(shares))
    assert again == pytest.approx(shares, abs=1e-9)
    low, high = hull.corners[0].min(axis=0), hull.corners[0].max(axis=0)
    mix = hull.points(shares)
    assert (mix >= low - 1e-9).all()
    assert (mix <= high + 1e-9).all()


def test_unknown_bins_and_single_absurd_ones_make_no_class() -> None:
    bins = around(np.tile([[0.5, 1.0], [2.0, 1.0]], (10, 1)), 20)
    bins[5] = np.nan
    bins[200] = 1e6
    corners, count = hull_of(bins, np.ones(len(bins)))
    assert count == 2
    assert corners.max() < 3.0
    assert hull_of(np.full((50, 2), np.nan), np.ones(50))[1] == 1
    assert hull_of(np.zeros((0, 2)), np.zeros(0))[1] == 1

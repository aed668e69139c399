"""Quantiles from buckets: by hand, against Prometheus' definition, and what cannot be known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.histograms import (
    BucketError,
    bounds_with_mass,
    bucket_of,
    checked_bounds,
    error_bound,
    quantiles,
    share_within,
)

BOUNDS = [0.1, 0.5, 1.0, np.inf]


def test_interpolation_by_hand() -> None:
    # 10 requests: 2 up to 0.1, 6 more up to 0.5, 2 more up to 1.0; the median is the 5th: 3rd of the
    # six in (0.1, 0.5]: 0.1 + 3/6 x 0.4
    assert quantiles(BOUNDS, [2, 8, 10, 10], 0.5) == pytest.approx(0.3)
    assert quantiles(BOUNDS, [2, 8, 10, 10], 0.1) == pytest.approx(
        0.05
    )  # the first bucket starts at 0
    assert quantiles(BOUNDS, [0, 0, 0, 4], 0.5) == 1.0  # in +Inf: the highest finite bound


def test_nothing_counted_is_unknown() -> None:
    assert np.isnan(quantiles(BOUNDS, [0, 0, 0, 0], 0.5))
    assert np.isnan(quantiles(BOUNDS, [np.nan] * 4, 0.5))
    low, high = share_within(BOUNDS, [0, 0, 0, 0], 0.5)
    assert np.isnan(low)
    assert np.isnan(high)


def test_shares_are_exact_at_a_bound_and_a_bracket_between() -> None:
    assert share_within(BOUNDS, [2, 8, 10, 10], 0.5) == (0.8, 0.8)
    assert share_within(BOUNDS, [2, 8, 10, 10], 0.7) == (0.8, 1.0)
    assert share_within(BOUNDS, [2, 8, 10, 10], 0.05) == (0.0, 0.2)
    assert share_within(BOUNDS, [2, 8, 9, 10], 5.0) == (0.9, 1.0)


def test_the_bucket_of_an_estimate_and_its_error() -> None:
    lower, upper = bucket_of(BOUNDS, [0.3, 0.5, 1.0, np.nan])
    np.testing.assert_array_equal(lower, [0.1, 0.1, 1.0, np.nan])
    np.testing.assert_array_equal(upper, [0.5, 0.5, np.inf, np.nan])
    np.testing.assert_allclose(error_bound(BOUNDS, [0.2, 1.0]), [0.3, np.inf])


@pytest.mark.parametrize(
    "bounds", [[1.0], [1.0, 2.0], [2.0, 1.0, np.inf], [np.nan, np.inf], [1.0, 1.0, np.inf]]
)
def test_what_is_no_histogram(bounds: list[float]) -> None:
    with pytest.raises(BucketError, match="allowed"):
        checked_bounds(bounds)


def test_a_level_outside() -> None:
    with pytest.raises(BucketError, match="0 to 1"):
        quantiles(BOUNDS, [1, 1, 1, 1], 1.5)


values = st.lists(st.floats(0.001, 20.0), min_size=1, max_size=60)
grids = st.lists(st.floats(0.01, 10.0), min_size=1, max_size=12, unique=True).map(sorted)


@given(values, grids, st.floats(0.0, 1.0))
def test_the_truth_is_in_the_bucket_of_the_estimate(
    sample: list[float], grid: list[float], level: float
) -> None:
    bounds = [*grid, np.inf]
    counts = [sum(v <= b for v in sample) for b in bounds]
    estimate = quantiles(bounds, counts, level)
    lower, upper = bucket_of(bounds, estimate)
    rank = max(1, int(np.ceil(level * len(sample) - 1e-9)))
    truth = sorted(sample)[rank - 1]  # the smallest value that a share of `level` does not exceed
    edge = bool(np.isclose(estimate, bounds[:-1]).any())  # at a bound: the bucket on either side
    assert edge or lower <= truth <= upper


@given(
    st.lists(st.lists(st.integers(0, 5), min_size=6, max_size=6), min_size=1, max_size=5),
    st.floats(0.01, 0.99),
)
def test_leaving_out_bounds_without_mass_changes_no_quantile(
    mass: list[list[int]], level: float
) -> None:
    bounds = np.array([0.1, 0.2, 0.5, 1.0, 2.0, np.inf])
    counts = np.cumsum(np.array(mass), axis=1)  # a histogram a row
    keep = bounds_with_mass(bounds, counts.sum(axis=0))
    if keep.sum() < 2:
        return  # nothing but the last bound: everything above the highest
    np.testing.assert_allclose(
        quantiles(bounds[keep], counts[:, keep], level), quantiles(bounds, counts, level)
    )

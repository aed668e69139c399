import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.otlp_histogram import (
    FINEST_SCALE,
    Histogram,
    bucket_of,
    coarser,
    comparable,
    difference,
    quantiles,
    to_buckets,
)


def explicit(counts: dict[int, float], bounds: tuple[float, ...] = (1.0, 2.0, 4.0)) -> Histogram:
    return Histogram(float(sum(counts.values())), math.nan, counts, bounds=bounds)


def exponential(counts: dict[int, float], scale: int, zero: float = 0.0) -> Histogram:
    return Histogram(sum(counts.values()) + zero, math.nan, counts, scale=scale, zero_count=zero)


def test_quantile_interpolates_in_its_bucket_and_tells_the_bucket() -> None:
    # 10 in (0, 1], 10 in (1, 2]: rank 15 of 20 lies half way through (1, 2]
    assert quantiles(to_buckets(explicit({0: 10.0, 1: 10.0})), [0.75]) == [(1.5, 1.0, 2.0)]


def test_quantile_beyond_the_last_bound_is_that_bound_never_missing() -> None:
    # 1 of 10 above 4: the p95 is somewhere above
    assert quantiles(to_buckets(explicit({0: 9.0, 3: 1.0})), [0.95]) == [(4.0, 4.0, math.inf)]


def test_quantile_of_nothing_is_missing() -> None:
    ((estimate, lower, upper),) = quantiles({}, [0.5])
    assert math.isnan(estimate)
    assert math.isnan(lower)
    assert math.isnan(upper)


def test_zero_values_have_a_quantile_of_zero() -> None:
    assert quantiles(to_buckets(exponential({}, 3, zero=5.0)), [0.5])[0][0] == 0.0


def test_replicas_with_other_bounds_add_up() -> None:
    # 4 spread over (0, 4] and 2 over (0, 1]: below 1 are 1 + 2 = 3 of 6, the median
    assert quantiles({(0.0, 4.0): 4.0, (0.0, 1.0): 2.0}, [0.5])[0][0] == pytest.approx(1.0)


def test_coarser_joins_neighbours() -> None:
    # scale 1 has buckets (2^(i/2), 2^((i+1)/2)]; scale 0 joins 2i and 2i + 1, below zero too
    joined = coarser(exponential({-2: 1.0, -1: 2.0, 0: 3.0, 1: 4.0}, 1), 0)
    assert joined.counts == {-1: 3.0, 0: 7.0}
    with pytest.raises(ValueError, match="coarser"):
        coarser(joined, 1)


def test_difference_across_a_change_of_scale() -> None:
    # the SDK went from scale 1 to 0 between two exports; index 1 of scale 1 is index 0 of scale 0
    before, after = exponential({0: 1.0, 1: 1.0}, 1), exponential({0: 5.0, 3: 2.0}, 0)
    assert comparable(before, after)
    added = difference(before, after)
    assert added is not None
    assert (added.scale, added.counts, added.count) == (0, {0: 3.0, 3: 2.0}, 5.0)


def test_difference_of_a_fallen_bucket_is_a_restart() -> None:
    assert difference(explicit({0: 3.0}), explicit({1: 5.0})) is None


def test_other_bounds_are_not_comparable() -> None:
    assert not comparable(explicit({0: 1.0}), explicit({0: 1.0}, bounds=(1.0, 3.0)))
    assert not comparable(exponential({0: 1.0}, 2), explicit({0: 1.0}))


@given(st.floats(1e-9, 1e6))
def test_the_bucket_of_a_value_holds_it_and_is_narrow(value: float) -> None:
    lower, upper = bucket_of(value)
    assert lower * (1 - 1e-12) < value <= upper * (1 + 1e-12)
    assert upper / lower == pytest.approx(2 ** (2.0**-FINEST_SCALE))


@given(
    st.lists(st.floats(1e-4, 1e3), min_size=1, max_size=200),
    st.integers(-2, 9),
    st.sampled_from([0.5, 0.9, 0.95, 0.99]),
)
def test_exponential_quantile_is_within_its_bucket_width(
    values: list[float], scale: int, q: float
) -> None:
    counts: dict[int, float] = {}
    for value in values:
        index = math.ceil(math.log2(value) * 2.0**scale) - 1
        counts[index] = counts.get(index, 0.0) + 1.0
    ((estimate, lower, upper),) = quantiles(to_buckets(exponential(counts, scale)), [q])
    truth = float(np.quantile(values, q, method="inverted_cdf"))
    width = 2.0 ** (2.0 ** -min(scale, FINEST_SCALE))
    assert lower * (1 - 1e-9) <= truth <= upper * (1 + 1e-9)
    assert 1 / width - 1e-9 <= estimate / truth <= width + 1e-9

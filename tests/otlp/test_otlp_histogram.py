import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from otlp_builders import distributions
from quantile_oracle import quantile_bucket

from models.otlp_histogram import (
    FINEST_SCALE,
    Buckets,
    Histogram,
    bucket_of,
    coarser,
    comparable,
    difference,
    to_buckets,
)
from models.otlp_quantiles import quantiles, shares_within


def explicit(counts: dict[int, float], bounds: tuple[float, ...] = (1.0, 2.0, 4.0)) -> Histogram:
    return Histogram(float(sum(counts.values())), math.nan, counts, bounds=bounds)


def exponential(counts: dict[int, float], scale: int, zero: float = 0.0) -> Histogram:
    return Histogram(sum(counts.values()) + zero, math.nan, counts, scale=scale, zero_count=zero)


def quantile(buckets: Buckets, q: float) -> float:
    return float(quantiles(distributions(buckets), [q])[0, 0])


def test_quantile_interpolates_in_its_bucket() -> None:
    # 10 in (0, 1], 10 in (1, 2]: rank 15 of 20 lies half way through (1, 2]
    assert quantile(to_buckets(explicit({0: 10.0, 1: 10.0})), 0.75) == 1.5


def test_quantile_beyond_the_last_bound_is_that_bound_never_missing() -> None:
    # 1 of 10 above 4: the p95 is somewhere above
    assert quantile(to_buckets(explicit({0: 9.0, 3: 1.0})), 0.95) == 4.0


def test_quantile_of_nothing_is_missing() -> None:
    assert math.isnan(quantile({}, 0.5))


def test_zero_values_have_a_quantile_of_zero() -> None:
    assert quantile(to_buckets(exponential({}, 3, zero=5.0)), 0.5) == 0.0


def test_replicas_with_other_bounds_add_up() -> None:
    # 4 spread over (0, 4] and 2 over (0, 1]: below 1 are 1 + 2 = 3 of 6, the median
    assert quantile({(0.0, 4.0): 4.0, (0.0, 1.0): 2.0}, 0.5) == pytest.approx(1.0)


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
    buckets = to_buckets(exponential(counts, scale))
    estimate = quantile(buckets, q)
    _, lower, upper = quantile_bucket(buckets, q)
    truth = float(np.quantile(values, q, method="inverted_cdf"))
    width = 2.0 ** (2.0 ** -min(scale, FINEST_SCALE))
    assert lower * (1 - 1e-9) <= truth <= upper * (1 + 1e-9)
    assert 1 / width - 1e-9 <= estimate / truth <= width + 1e-9


EDGES = [0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, math.inf]
BUCKETS = st.dictionaries(
    st.tuples(st.integers(0, 7), st.integers(1, 4)).map(
        lambda x: (EDGES[x[0]], EDGES[min(x[0] + x[1], 8)])
    ),
    st.integers(0, 50).map(float),
    max_size=8,
)


@given(st.lists(BUCKETS, min_size=1, max_size=5))
def test_many_quantiles_at_once_are_those_one_by_one(many: list[Buckets]) -> None:
    asked = (0.01, 0.5, 0.95, 0.99, 1.0)
    together = quantiles(distributions(*many), asked)
    for row, buckets in zip(together, many, strict=True):
        alone = [quantile_bucket(buckets, q)[0] for q in asked]
        assert row.tolist() == pytest.approx(alone, nan_ok=True)


def test_large_tables_are_worked_through_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [{(0.0, 1.0): float(i), (1.0, 2.0): 1.0} for i in range(1, 20)]
    whole = quantiles(distributions(*many), [0.5])
    monkeypatch.setattr("models.otlp_quantiles.MAX_CELLS", 9)  # three histograms of three edges
    assert quantiles(distributions(*many), [0.5]).tolist() == whole.tolist()


def test_share_within_a_target() -> None:
    # 6 in (0, 1], 2 in (1, 3], 2 beyond: at 1 exactly 0.6; at 2 between 0.6 and 0.8, half way 0.7
    buckets = {(0.0, 1.0): 6.0, (1.0, 3.0): 2.0, (3.0, math.inf): 2.0}
    many = distributions(buckets, buckets, buckets, buckets, {})
    targets = np.array([1.0, 2.0, 5.0, math.inf, 1.0])
    shares = shares_within(many, targets)
    assert shares[0].tolist() == pytest.approx([0.6, 0.6, 0.6])
    assert shares[1].tolist() == pytest.approx([0.6, 0.8, 0.7])
    assert shares[2].tolist() == pytest.approx([0.8, 1.0, 0.8])
    assert np.isnan(shares[3:]).all()  # no target; no values

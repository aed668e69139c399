import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.empirical import known_quantiles


def test_by_hand() -> None:
    x = np.array([[4.0, np.nan], [1.0, np.nan], [np.nan, 7.0], [3.0, np.nan]])
    # column 0: 1, 3, 4; the median is 3, the 0.25 quantile half way from 1 to 3
    np.testing.assert_array_equal(known_quantiles(x, 0.5), [3.0, 7.0])
    np.testing.assert_array_equal(known_quantiles(x, (0.25, 1.0)), [[2.0, 4.0], [7.0, 7.0]])


def test_nothing_known() -> None:
    assert np.isnan(known_quantiles(np.full((3, 2), np.nan), (0.5, 0.9))).all()
    assert known_quantiles(np.empty((0, 2)), (0.5, 0.9)).shape == (2, 2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 30))
def test_agrees_with_numpy(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2, 3))
    x[1:][rng.random((rows - 1, 2, 3)) < 0.3] = np.nan  # the first row is known
    level = (0.1, 0.5, 0.99)
    expected = np.moveaxis(np.nanquantile(x, level, axis=0), 0, -1)
    np.testing.assert_allclose(known_quantiles(x, level), expected, rtol=1e-12, atol=1e-12)

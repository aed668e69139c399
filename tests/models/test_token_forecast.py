import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.token_forecast import token_quantiles


def test_the_mean_of_both_within_what_the_classes_allow() -> None:
    own = np.array([[[900.0, 1000.0, 9000.0]]])
    requests = np.array([[[1.0, 2.0, 3.0]]])
    got = token_quantiles(own, requests, np.array([[500.0]]), np.array([[400.0, 800.0]]))
    assert got[0, 0].tolist() == [700.0, 1000.0, 2400.0]  # 5250 would be 1750 tokens a request


def test_where_nothing_is_known_of_the_mix_the_tokens_own_forecast_speaks() -> None:
    own, requests = np.full((1, 2, 3), 7.0), np.full((1, 2, 3), 1.0)
    unknown = np.full((1, 2), np.nan)
    assert token_quantiles(own, requests, unknown, unknown).tolist() == own.tolist()
    free = token_quantiles(own, requests, np.full((1, 2), 9.0), unknown)
    assert free.tolist() == np.full((1, 2, 3), 8.0).tolist()


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_quantiles_never_cross_and_never_leave_the_hull(seed: int) -> None:
    rng = np.random.default_rng(seed)
    own, requests = (np.sort(rng.gamma(1.0, 100.0, (3, 4, 6)), axis=-1) for _ in range(2))
    bounds = np.sort(rng.gamma(1.0, 5.0, (3, 2)), axis=1)
    got = token_quantiles(own, requests, rng.gamma(1.0, 5.0, (3, 4)), bounds)
    assert (np.diff(got, axis=-1) >= 0).all()
    length = got / requests
    assert (length >= bounds[:, :1, np.newaxis] * (1 - 1e-12)).all()
    assert (length <= bounds[:, 1:, np.newaxis] * (1 + 1e-12)).all()
    assert got == pytest.approx(np.sort(got, axis=-1))

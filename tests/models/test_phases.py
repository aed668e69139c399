"""Prefill and decode both count a request: what is offered is counted once."""

import numpy as np
import pytest

from models.phases import offered, phases_of

NAN = np.nan


def test_one_phase_adds_up() -> None:
    rates = np.array([[1.0, NAN, NAN], [2.0, 3.0, NAN]])
    np.testing.assert_equal(offered(rates, ("Both", "Both")), [3.0, 3.0, NAN])


def test_two_phases_count_the_same_requests() -> None:
    # 4 req/s through two prefill variants and one of decode; in the second interval decode lags,
    # in the third prefill is not scraped
    rates = np.array([[1.0, 1.0, NAN], [3.0, 3.0, NAN], [4.0, 3.5, 4.0]])
    np.testing.assert_equal(offered(rates, ("Prefill", "Prefill", "Decode")), [4.0, 4.0, 4.0])


def test_a_variant_of_both_serves_either_phase() -> None:
    assert phases_of(("Prefill", "Decode", "Both")) == ((0, 2), (1, 2))
    rates = np.array([[3.0], [3.0], [2.0]])  # 2 of 5 req/s stay on the mixed one
    assert offered(rates, ("Prefill", "Decode", "Both")) == pytest.approx([5.0])

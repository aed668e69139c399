"""Intervals gather into steps; gaps stay gaps; the mix follows the traffic."""

import math
from dataclasses import replace

import numpy as np
import pytest
from builders import NOW, SERVICE, observation, seen, silence

from autoscaler.outlook import History
from models.frames import LoadSeries


def test_four_quarters_make_a_step() -> None:
    history = History([SERVICE], 60.0, 5)
    done = [
        history.observe(observation(NOW + 15 * (i + 1), rate=float(i), h100=seen(1)))
        for i in range(4)
    ]
    assert done == [False, False, False, True]
    assert history.end_seconds == NOW + 60
    assert history.requests[0, -1] == pytest.approx((0 + 1 + 2 + 3) * 15.0)


def test_half_a_step_is_scaled_and_less_is_a_gap() -> None:
    history = History([SERVICE], 60.0, 5)
    for i in range(8):
        at = NOW + 15 * (i + 1)
        seen_now = i in (0, 1, 4)  # two quarters of the first minute, one of the second
        history.observe(observation(at, rate=2.0, h100=seen(1)) if seen_now else silence(at))
    assert history.requests[0, -2] == pytest.approx(120.0)
    assert math.isnan(history.requests[0, -1])


def test_a_pause_leaves_gaps_not_zeros() -> None:
    history = History([SERVICE], 60.0, 10)
    for i in range(4):
        history.observe(observation(NOW + 15 * (i + 1), rate=2.0, h100=seen(1)))
    history.observe(observation(NOW + 300, rate=2.0, h100=seen(1)))
    assert history.end_seconds == NOW + 300
    assert np.isnan(history.requests[0, -4:]).all()
    history.observe(observation(NOW + 1e6, rate=2.0, h100=seen(1)))
    assert np.isnan(history.requests).all()


def test_an_interval_may_be_longer_than_a_step_or_lie_across_two() -> None:
    history = History([SERVICE], 60.0, 6)
    long = observation(NOW + 180, rate=2.0, h100=seen(1))
    assert history.observe(replace(long, interval_seconds=180.0))
    assert history.requests[0, -3:].tolist() == [120.0] * 3
    assert history.end_seconds == NOW + 180
    # 45 s each: the second lies across two steps
    for i, rate in enumerate((1.0, 3.0, 3.0)):
        later = observation(NOW + 225 + 45 * i, rate=rate, h100=seen(1))
        history.observe(replace(later, interval_seconds=45.0))
    assert history.requests[0, -2:].tolist() == [90.0, 180.0]  # 45 x 1 + 15 x 3; 60 x 3
    assert history.end_seconds == NOW + 300


def test_what_is_recorded_after_now_is_not_known() -> None:
    values = np.zeros((1, 8, 3))
    values[0, :, 0] = np.arange(8)  # 7 requests in the minute that ends at NOW
    history = History([SERVICE], 60.0, 5)
    history.seed(LoadSeries((SERVICE,), NOW - 480, 60.0, values))
    assert history.observe(observation(NOW - 120, rate=1.0, h100=seen(1)))
    assert history.end_seconds == NOW - 120
    assert history.requests[0, 2:].tolist() == [3.0, 4.0, 5.0]
    assert np.isnan(history.requests[0, :2]).all()
    # what was recorded up to now is not counted again
    history.observe(observation(NOW - 105, rate=1.0, h100=seen(1)))
    assert history._sum[0] == 15.0


def test_recorded_history_is_taken_over() -> None:
    values = np.array([[[60.0, 6000.0, 600.0]] * 8])
    history = History(["other", SERVICE], 60.0, 5)
    history.seed(LoadSeries((SERVICE, "unknown"), NOW - 480, 60.0, np.repeat(values, 2, axis=0)))
    assert history.requests[1].tolist() == [60.0] * 5
    assert np.isnan(history.requests[0]).all()
    assert (history.isl_tokens[1], history.osl_tokens[1]) == (100.0, 10.0)
    assert history.end_seconds == NOW
    with pytest.raises(ValueError, match="steps of 300 s"):
        history.seed(LoadSeries((SERVICE,), NOW, 300.0, values))


def test_lengths_follow_slowly() -> None:
    history = History([SERVICE], 60.0, 60)
    values = np.array([[[120.0, 12_000.0, 1200.0]] * 60])
    history.seed(LoadSeries((SERVICE,), NOW - 3600, 60.0, values))
    for i in range(120):  # half an hour of prompts ten times as long
        history.observe(observation(NOW + 15 * (i + 1), rate=2.0, h100=seen(1)))
    assert 500.0 < history.isl_tokens[0] < 900.0  # 1 - 1/e of the way from 100 to 1000

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


def recorded(services: tuple[str, ...], counts: list[float], end: float = NOW) -> LoadSeries:
    """Return a record of these requests a minute, the last minute ending at `end`."""
    values = np.zeros((len(services), len(counts), 3))
    values[:, :, 0] = counts
    values[:, :, 1], values[:, :, 2] = values[:, :, 0] * 100.0, values[:, :, 0] * 10.0
    return LoadSeries(services, end - 60.0 * len(counts), 60.0, values)


def minutes(history: History, count: int, rate: float, start: float = NOW) -> None:
    for i in range(4 * count):
        history.observe(observation(start + 15 * (i + 1), rate=rate, h100=seen(1)))


def test_what_was_seen_stays_and_a_late_record_fills_the_gaps_before() -> None:
    history = History([SERVICE], 60.0, 6)
    minutes(history, 2, rate=1.0)  # 60 requests in each of two minutes after NOW
    history.seed(recorded((SERVICE,), [1, 2, 3, 4, 5, 6, 7, 8], end=NOW + 60.0))
    # the record's last minute was seen: 60 stays; before it 4 to 7, the oldest do not fit
    assert history.requests[0].tolist() == [4.0, 5.0, 6.0, 7.0, 60.0, 60.0]
    assert history.end_seconds == NOW + 120


def test_a_gap_in_what_was_seen_is_filled_from_the_record() -> None:
    history = History([SERVICE], 60.0, 4)
    minutes(history, 1, rate=1.0)
    history.observe(silence(NOW + 120))
    minutes(history, 1, rate=1.0, start=NOW + 120)
    history.seed(recorded((SERVICE,), [7, 8, 9], end=NOW + 180.0))
    assert history.requests[0].tolist()[1:] == [60.0, 8.0, 60.0]


def test_a_record_that_ended_long_ago_changes_nothing() -> None:
    history = History([SERVICE], 60.0, 3)
    minutes(history, 3, rate=1.0)
    history.seed(recorded((SERVICE,), [7, 8, 9], end=NOW - 600.0))
    assert history.requests[0].tolist() == [60.0] * 3
    assert history.isl_tokens[0] == 1000.0  # as seen


def test_a_record_that_is_ahead_ends_the_open_step() -> None:
    history = History([SERVICE], 60.0, 4)
    for i in range(2):  # half a minute of 1 req/s
        history.observe(observation(NOW + 15 * (i + 1), rate=1.0, h100=seen(1)))
    history.seed(recorded((SERVICE,), [5, 6, 7], end=NOW + 120.0))
    assert history.requests[0].tolist()[1:] == [5.0, 6.0, 7.0]
    minutes(history, 1, rate=2.0, start=NOW + 120)
    assert history.requests[0, -1] == 120.0  # and not with the half minute before


def test_a_record_off_the_grid_is_placed_where_it_lies_nearest() -> None:
    history = History([SERVICE], 60.0, 4)
    minutes(history, 1, rate=1.0)
    history.seed(recorded((SERVICE,), [5, 6, 7], end=NOW - 20.0))
    assert history.requests[0].tolist() == [5.0, 6.0, 7.0, 60.0]


def test_services_come_and_go_and_the_others_keep_theirs() -> None:
    history = History([SERVICE, "b"], 60.0, 4)
    history.seed(recorded((SERVICE, "b"), [1, 2, 3, 4]))
    history.observe(observation(NOW + 15, rate=2.0, h100=seen(1)))
    other = history.covering(["a", SERVICE], 4)
    assert np.isnan(other.requests[0]).all()
    assert other.requests[1].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert other.isl_tokens[1] == history.isl_tokens[0]
    assert other.osl_tokens[1] == history.osl_tokens[0]
    assert math.isnan(other.isl_tokens[0])
    assert other.end_seconds == NOW
    for i in range(1, 4):  # the step that was open goes on: 15 s of 2 req/s, then 45 s of 4 req/s
        other.observe(observation(NOW + 15 * (i + 1), rate=4.0, h100=seen(1)))
    assert other.requests[1].tolist() == [2.0, 3.0, 4.0, 210.0]
    assert history.requests[0].tolist() == [1.0, 2.0, 3.0, 4.0]  # a copy
    assert history.covering([SERVICE], 2).requests.tolist() == [[3.0, 4.0]]
    longer = history.covering([SERVICE], 6).requests[0]
    assert np.isnan(longer[:2]).all()
    assert longer[2:].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_who_joins_later_can_be_seeded_later() -> None:
    history = History([SERVICE], 60.0, 4)
    minutes(history, 2, rate=1.0)
    history = history.covering([SERVICE, "b"], 4)
    history.seed(recorded(("b",), [5, 6, 7, 8], end=NOW + 60.0))
    assert history.requests[1].tolist()[:3] == [6.0, 7.0, 8.0]
    assert math.isnan(history.requests[1, 3])
    assert history.requests[0].tolist()[2:] == [60.0, 60.0]


def test_an_outage_is_a_gap_and_a_service_at_zero_is_at_zero() -> None:
    down, at_zero = (History([SERVICE], 60.0, 5) for _ in range(2))
    for i in range(4):
        now = NOW + 15 * (i + 1)
        down.observe(observation(now, rate=0.0, h100=seen(0, starting=3)))
        at_zero.observe(observation(now, rate=0.0, h100=seen(0)))
    assert math.isnan(down.requests[0, -1])  # replicas are starting: nobody could be served
    assert at_zero.requests[0, -1] == 0.0
    counted = History([SERVICE], 60.0, 5)
    for i in range(4):  # a gateway counts on
        counted.observe(observation(NOW + 15 * (i + 1), rate=2.0, h100=seen(0, starting=3)))
    assert counted.requests[0, -1] == pytest.approx(120.0)

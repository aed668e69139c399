"""The error budget, worked by hand."""

import math

import pytest
from builders import seen

from autoscaler.core import budget
from autoscaler.core.outcome import BudgetHour
from autoscaler.core.types import ServiceObservation
from models.slo import SloTargets

TARGETS = SloTargets(ttft_seconds=1.0, tpot_seconds=0.1)


def test_hours_gather_and_leave_the_window() -> None:
    hours = budget.record((), 3600.0 * 10 + 5, 2.0, 100.0, 0.9)  # 10 missed
    hours = budget.record(hours, 3600.0 * 10 + 20, 2.0, 100.0, 1.0)
    assert [(h.hour, h.finished, round(h.missed, 9)) for h in hours] == [(10, 200.0, 10.0)]
    hours = budget.record(hours, 3600.0 * 12 + 1, 2.0, 50.0, 1.0)
    assert [h.hour for h in hours] == [12]  # the tenth hour is out of a window of two


@pytest.mark.parametrize("finished", [0.0, math.nan])
def test_nothing_finished_changes_nothing(finished: float) -> None:
    assert budget.record((), 0.0, 24.0, finished, 0.5) == ()


def test_the_budget_is_whole_at_the_start() -> None:
    attained = budget.attained_ratio((), 0.99, math.nan)
    assert attained == pytest.approx(0.9925)  # as planned: a quarter of the misses is kept back
    assert budget.left_ratio((), 0.99, 24.0, math.nan) == 1.0


def test_what_is_left_counts_the_rest_of_the_window_at_the_recent_rate() -> None:
    # 1 req/s over 24 h: 86,400 requests, 864 of them may miss; 216 did in the first hour
    hours = budget.record((), 3600.0, 24.0, 3600.0, 0.94)
    assert budget.left_ratio(hours, 0.99, 24.0, 1.0) == pytest.approx(0.75)
    # nothing is known of the rest: 216 of the 36 that the hour allows
    assert budget.left_ratio(hours, 0.99, 24.0, math.nan) == pytest.approx(-5.0)


def test_attained_mixes_what_was_seen_with_the_grace() -> None:
    # grace: 1 req/s x 6 h = 21,600 at 0.9925 -> 162 missed; seen: 14,400 with 432 missed
    hours = budget.record((), 3600.0, 24.0, 14_400.0, 0.97)
    assert budget.attained_ratio(hours, 0.99, 1.0) == pytest.approx(1 - 594 / 36_000)


def test_a_surplus_plans_leaner_and_a_deficit_safer() -> None:
    # three quarters of the 1 % that may miss are planned for
    assert budget.attainment_target(0.9925, 0.99) == pytest.approx(0.9925)
    assert budget.attainment_target(0.991, 0.99) == pytest.approx(0.9955)  # 0.0075 - 2 x 0.0015
    assert budget.attainment_target(0.5, 0.99) == pytest.approx(0.998125)  # a quarter of 0.75 %
    assert budget.attainment_target(0.993, 0.99) == pytest.approx(0.9915)  # 0.0075 + 2 x 0.0005
    assert budget.attainment_target(1.0, 0.99) == pytest.approx(0.990625)  # at most 1.25 x 0.75 %


def test_promises_that_were_too_dark_may_be_darker_next_time() -> None:
    # grace: 1 req/s x 6 h = 21,600, 216 of them missed as expected; seen: 14,400, 288 expected, 72 missed
    hours = budget.record((), 3600.0, 24.0, 14_400.0, 0.995, 0.98)
    assert hours[0].foretold == pytest.approx(288.0)
    bias = budget.miss_bias(hours, 0.99, 1.0)
    assert bias == pytest.approx((72 + 216) / (288 + 216))
    assert budget.attainment_target(0.9925, 0.99, bias) == pytest.approx(1 - 0.0075 / bias)
    assert budget.attainment_target(1.0, 0.99, 0.5) == pytest.approx(1 - 1.25 * 0.0075 * 2)
    # more missed than expected: the budget says so, not the bias
    assert budget.miss_bias(budget.record((), 3600.0, 24.0, 1e6, 0.5, 0.99), 0.99, 1.0) == 1.5
    assert budget.miss_bias(budget.record((), 3600.0, 24.0, 1e9, 1.0, 0.5), 0.99, 1.0) == 0.5


def test_without_a_promise_as_many_were_expected_as_missed() -> None:
    hours = budget.record((), 3600.0, 24.0, 1000.0, 0.9)  # 100 missed
    assert budget.miss_bias(hours, 0.99, 1.0) == pytest.approx(1.0)
    hours = budget.record(hours, 3601.0, 24.0, 1000.0, 1.0, 0.8)  # 200 more expected, none missed
    assert [hours[0].missed, hours[0].foretold] == pytest.approx([100.0, 300.0])
    old = (
        BudgetHour(1, 1000.0, 100.0),
    )  # written by a version that did not keep what was expected
    assert budget.miss_bias(old, 0.99, 1.0) == pytest.approx(1.0)


def test_measured_shares_are_weighted_by_requests() -> None:
    variants = {
        "a": seen(1, finished_requests=100.0, slo_attainment_ratio=0.9),
        "b": seen(1, finished_requests=300.0, slo_attainment_ratio=1.0),
        "c": seen(1, finished_requests=math.nan),
    }
    finished, share = budget.observed_attainment(ServiceObservation(1, 1, 1, variants), TARGETS)
    assert finished == 400.0
    assert share == pytest.approx(0.975)


@pytest.mark.parametrize(
    ("percentiles", "target", "share"),
    [
        ((0.1, 0.2, 0.4), math.inf, 1.0),
        ((0.1, 0.2, 0.4), 0.4, 0.995),  # nothing is known beyond p99
        ((0.1, 0.2, 0.4), 0.2, 0.95),
        ((0.1, 0.2, 0.4), 0.05, 0.25),
        ((0.1, 0.4, math.nan), 0.2, 0.725),  # half way in the log: (0.5 + 0.95) / 2
        ((math.nan, math.nan, math.nan), 0.2, math.nan),
    ],
)
def test_shares_are_read_off_percentiles(
    percentiles: tuple[float, float, float], target: float, share: float
) -> None:
    assert budget.share_within(percentiles, target) == pytest.approx(share, nan_ok=True)

"""The error budget, worked by hand."""

import math

import pytest
from builders import seen

from autoscaler.core import budget
from autoscaler.core.outcome import BudgetHour, Told
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
    attained = budget.attained_ratio(budget.spent(()), 0.99, math.nan)
    assert attained == pytest.approx(0.991)  # as planned: a tenth of the misses is kept back
    assert budget.left_ratio(budget.spent(()), 0.99, 24.0, math.nan) == 1.0


def test_what_is_left_counts_the_rest_of_the_window_at_the_recent_rate() -> None:
    # 1 req/s over 24 h: 86,400 requests, 864 of them may miss; 216 did in the first hour
    hours = budget.record((), 3600.0, 24.0, 3600.0, 0.94)
    assert budget.left_ratio(budget.spent(hours), 0.99, 24.0, 1.0) == pytest.approx(0.75)
    # nothing is known of the rest: 216 of the 36 that the hour allows
    assert budget.left_ratio(budget.spent(hours), 0.99, 24.0, math.nan) == pytest.approx(-5.0)


def test_attained_mixes_what_was_seen_with_the_grace() -> None:
    # grace: 1 req/s x 6 h = 21,600 at 0.991 -> 194.4 missed; seen: 14,400 with 432 missed
    hours = budget.record((), 3600.0, 24.0, 14_400.0, 0.97)
    assert budget.attained_ratio(budget.spent(hours), 0.99, 1.0) == pytest.approx(
        1 - 626.4 / 36_000
    )


def test_a_deficit_plans_safer_and_luck_is_not_spent() -> None:
    # nine tenths of the 1 % that may miss are planned for
    assert budget.attainment_target(0.991, 0.99) == pytest.approx(0.991)
    assert budget.attainment_target(0.9895, 0.99) == pytest.approx(0.9925)  # 0.009 - 0.0015
    assert budget.attainment_target(0.5, 0.99) == pytest.approx(0.99775)  # a quarter of 0.9 %
    assert budget.attainment_target(1.0, 0.99) == pytest.approx(0.991)  # luck is not spent


def test_a_model_that_is_too_dark_or_too_bright_is_read_as_such() -> None:
    # doubt: 1 req/s x 2 h = 7,200, 72 of them missed as expected; seen: 14,400, 288 expected, 72 missed
    hours = budget.record((), 3600.0, 24.0, 14_400.0, 0.995, Told(expected=0.98))
    assert hours[0].foretold == pytest.approx(288.0)
    bias = budget.miss_bias(budget.spent(hours), 0.99, 1.0)
    assert bias == 0.7  # (72 + 72) / (288 + 72) is 0.4: so few is luck
    assert budget.attainment_target(0.991, 0.99, 0.5) == pytest.approx(1 - 0.009 / 0.5)
    missed = budget.record((), 3600.0, 24.0, 14_400.0, 0.98, Told(expected=0.995))
    assert budget.miss_bias(budget.spent(missed), 0.99, 1.0) == pytest.approx(
        (288 + 72) / (72 + 72)
    )
    assert budget.attainment_target(0.991, 0.99, 2.5) == pytest.approx(1 - 0.009 / 2.5)
    hopeless = budget.record((), 3600.0, 24.0, 1e6, 0.5, Told(0.99))
    assert budget.miss_bias(budget.spent(hopeless), 0.99, 1.0) == 4.0


def test_without_an_expectation_as_many_were_expected_as_missed() -> None:
    hours = budget.record((), 3600.0, 24.0, 1000.0, 0.9)  # 100 missed
    assert budget.miss_bias(budget.spent(hours), 0.99, 1.0) == pytest.approx(1.0)
    hours = budget.record(hours, 3601.0, 24.0, 1000.0, 1.0, Told(expected=0.8))  # 200 more expected
    assert [hours[0].missed, hours[0].foretold] == pytest.approx([100.0, 300.0])
    old = (
        BudgetHour(1, 1000.0, 100.0),
    )  # written by a version that did not keep what was expected
    assert budget.miss_bias(budget.spent(old), 0.99, 1.0) == pytest.approx(1.0)
    assert budget.plan_slack(budget.spent(old), 0.99, 1.0) == pytest.approx(1.0)


def test_an_hour_whose_plans_told_nothing_holds_nothing_told() -> None:
    hours = budget.record((), 3600.0, 24.0, 100.0, 0.9)
    hours = budget.record(hours, 3615.0, 24.0, 100.0, 0.9, Told(expected=0.99, aimed=0.99))
    assert math.isnan(hours[0].aimed)  # an aim without a promise compares nothing
    assert math.isnan(hours[0].promised)
    said = Told(aimed=0.99, promised=0.995)
    hours = budget.record(hours, 3630.0, 24.0, 1000.0, 1.0, said)  # 10 aimed at, 5 promised
    hours = budget.record(hours, 3645.0, 24.0, 1000.0, 1.0, said)
    hours = budget.record(hours, 3660.0, 24.0, 1000.0, 1.0)  # silent again: what was told stays
    assert [hours[0].aimed, hours[0].promised] == pytest.approx([20.0, 10.0])
    assert hours[0].finished == 3200.0


def test_plans_that_are_safer_than_their_aim_may_aim_leaner() -> None:
    # doubt: 7,200 requests, 72 misses; seen: 14,400 requests, 144 misses aimed at, 72 expected
    hours = budget.record((), 3600.0, 24.0, 14_400.0, 1.0, Told(aimed=0.99, promised=0.995))
    slack = budget.plan_slack(budget.spent(hours), 0.99, 1.0)
    assert slack == pytest.approx((72 + 72) / (144 + 72))
    assert budget.attainment_target(0.991, 0.99, 1.0, slack) == pytest.approx(1 - 0.009 / slack)
    # a plan that cannot be had is no reason to aim higher
    short = budget.record((), 3600.0, 24.0, 1e6, 1.0, Told(aimed=0.99, promised=0.5))
    assert budget.plan_slack(budget.spent(short), 0.99, 1.0) == 1.0
    safe = budget.record((), 3600.0, 24.0, 1e9, 1.0, Told(aimed=0.99, promised=1.0))
    assert budget.plan_slack(budget.spent(safe), 0.99, 1.0) == budget.LEAST_SLACK
    assert budget.attainment_target(0.5, 0.2, 0.1, 0.1) == 0.5  # an aim stays one


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

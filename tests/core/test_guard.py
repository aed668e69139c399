"""The guard's steps, one table each."""

import math

import pytest
from builders import SERVICE, observation, policy, seen, variant

from autoscaler.core import guard
from autoscaler.core.types import Behavior, Mode, ScalingLimit, ScalingRules, ScheduleWindow

MONDAY_9 = 1_767_571_200.0 + 9 * 3600  # 2026-01-05 09:00 UTC


def test_stabilization_keeps_the_maximum_of_its_window() -> None:
    window, n = guard.stabilized((), 0.0, 3, 60.0, current=9)
    assert n == 9  # a controller that has just started remembers what runs
    window, n = guard.stabilized(window, 30.0, 4, 60.0, current=9)
    assert n == 9
    window, n = guard.stabilized(window, 61.0, 2, 60.0, current=9)
    assert n == 4  # the first two are out
    window, n = guard.stabilized(window, 95.0, 2, 60.0, current=4)
    assert n == 2


def test_a_mix_is_measured_in_replicas_of_each_variant_alone() -> None:
    # 4 of 5 and 2 of 10: all that is needed, which 5 of the one or 10 of the other would be, too
    assert guard.runs_alone([(0, 1)], [4, 2], [5, 10]) == [5, 10]
    assert guard.runs_alone([(0,)], [7], [5]) == [7]
    # prefill and decode apart, and a variant that serves both: by the phase that has more
    assert guard.runs_alone([(0, 2), (1, 2)], [1, 6, 1], [2, 4, 4]) == [2, 7, 7]
    assert guard.runs_alone([(0, 1)], [0, 3], [0, 0]) == [3, 3]  # nothing needed: counts add up


def test_a_little_less_must_do_for_five_minutes() -> None:
    window: guard.Holds = ((0.0, 20),)
    for i in range(1, 22):
        window, n = guard.stabilized(window, 15.0 * i, 18, 60.0, current=20)
        assert n == (18 if 15.0 * i >= 300.0 else 20)  # the 20 at 0 s is five minutes old then
    # more than a tenth goes with the policy's window, and nothing waits where that is 0
    assert guard.stabilized(((0.0, 20),), 61.0, 17, 60.0, current=20)[1] == 17
    assert guard.stabilized(((0.0, 20),), 15.0, 18, 0.0, current=20)[1] == 18
    assert guard.stabilized(((0.0, 1),), 61.0, 0, 60.0, current=1)[1] == 0  # the last one, neither


def test_a_fleet_that_turned_scales_down_later() -> None:
    up, down = (100.0, {"a": 4}), (200.0, {"a": 3})
    steady = ((-math.inf, {"a": 2}), up)
    assert guard.calmed(60.0, guard.turns(steady, "a", 300.0)) == 60.0
    once = (*steady, down)
    assert guard.calmed(60.0, guard.turns(once, "a", 300.0)) == 60.0 * guard.CALMING
    twice = (*once, (400.0, {"a": 6}))
    assert guard.calmed(60.0, guard.turns(twice, "a", 500.0)) == 60.0 * guard.CALMING**2
    often = twice + tuple((500.0 + i, {"a": 5 + i % 2}) for i in range(9))
    assert guard.calmed(60.0, guard.turns(often, "a", 600.0)) == guard.MAX_CALM_SECONDS
    assert (
        guard.calmed(900.0, guard.turns(often, "a", 600.0)) == 900.0
    )  # what the policy asks for stays
    assert (
        guard.calmed(60.0, guard.turns(once, "a", 200.0 + guard.TURNS_SECONDS)) == 60.0
    )  # long ago
    assert guard.calmed(60.0, guard.turns(once, "b", 300.0)) == 60.0
    assert guard.calmed(0.0, guard.turns(often, "a", 600.0)) == 0.0  # none was asked for


def test_a_start_of_what_swings_is_dearer() -> None:
    steady = ((-math.inf, {"a": 2}), (100.0, {"a": 4}))
    assert guard.dearer_start_usd(0.2, 5.0, guard.turns(steady, "a", 300.0)) == 0.2
    once = (*steady, (200.0, {"a": 3}))
    assert guard.dearer_start_usd(0.2, 5.0, guard.turns(once, "a", 300.0)) == pytest.approx(0.8)
    twice = (*once, (250.0, {"a": 4}))
    assert guard.dearer_start_usd(0.2, 5.0, guard.turns(twice, "a", 300.0)) == pytest.approx(3.2)
    thrice = (*twice, (290.0, {"a": 3}))
    assert guard.dearer_start_usd(0.2, 5.0, guard.turns(thrice, "a", 300.0)) == 5.0  # an hour of it
    assert (
        guard.dearer_start_usd(6.0, 5.0, guard.turns(thrice, "a", 300.0)) == 6.0
    )  # which a slow start exceeds
    assert guard.dearer_start_usd(0.2, 5.0, guard.turns(thrice, "b", 300.0)) == 0.2
    assert (
        guard.dearer_start_usd(0.2, 5.0, guard.turns(thrice, "a", 300.0 + guard.TURNS_SECONDS))
        == 0.2
    )


@pytest.mark.parametrize(
    ("limits", "current", "expected"),
    [
        ((), 4, (1, 40)),
        ((ScalingLimit(percent=False, value=3, period_seconds=60),), 4, (1, 7)),
        ((ScalingLimit(percent=True, value=50, period_seconds=60),), 4, (2, 6)),
        (
            (
                ScalingLimit(percent=False, value=1, period_seconds=60),
                ScalingLimit(percent=True, value=100, period_seconds=60),
            ),
            4,
            (1, 8),  # the most generous counts; at least minReplicas 1
        ),
    ],
    ids=["none", "pods", "percent", "both"],
)
def test_rate_limits(
    limits: tuple[ScalingLimit, ...], current: int, expected: tuple[int, int]
) -> None:
    rules = ScalingRules(0.0, limits)
    world = policy(behavior=Behavior(Mode.SCALE, rules, rules))
    changes = ((-math.inf, {"h100": current}),)
    assert guard.bounds(world, variant(), current, changes, 1000.0) == expected


def test_count_at_reads_history() -> None:
    changes = ((-math.inf, {"a": 2}), (100.0, {"a": 5}), (200.0, {"a": 3}))
    assert [guard.count_at(changes, t, "a", 9) for t in (50.0, 100.0, 150.0, 250.0)] == [2, 5, 5, 3]
    assert guard.count_at((), 50.0, "a", 9) == 9


def test_changes_are_remembered_as_long_as_a_period_may_ask() -> None:
    changes = guard.remember_change((), 0.0, {"a": 1}, {"a": 2})
    assert changes == ((-math.inf, {"a": 1}), (0.0, {"a": 2}))
    assert guard.remember_change(changes, 10.0, {"a": 2}, {"a": 2}) is changes
    later = guard.remember_change(changes, 4000.0, {"a": 2}, {"a": 3})
    assert later == ((0.0, {"a": 2}), (4000.0, {"a": 3}))


def window(**changes: object) -> ScheduleWindow:
    fields: dict[str, object] = {"name": "w", "time_zone": "UTC", "min_replicas": 2}
    return ScheduleWindow(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("each", "active"),
    [
        (window(days=(0,), start_second=8 * 3600, end_second=10 * 3600), True),
        (window(days=(1,), start_second=8 * 3600, end_second=10 * 3600), False),
        (window(days=(0,), start_second=10 * 3600, end_second=11 * 3600), False),
        # 9:00 UTC is 10:00 in Berlin
        (window(time_zone="Europe/Berlin", start_second=10 * 3600, end_second=11 * 3600), True),
        # Sunday 22:00 to 10:00 reaches into Monday; Monday's own begins at 22:00
        (window(days=(6,), start_second=22 * 3600, end_second=10 * 3600), True),
        (window(days=(0,), start_second=22 * 3600, end_second=10 * 3600), False),
        (window(from_seconds=MONDAY_9 - 1, until_seconds=MONDAY_9 + 1), True),
        (window(from_seconds=MONDAY_9 + 1, until_seconds=MONDAY_9 + 2), False),
    ],
)
def test_schedule_windows(each: ScheduleWindow, active: bool) -> None:
    assert bool(guard.active_windows(policy(schedule=(each,)), MONDAY_9)) is active


@pytest.mark.parametrize(
    ("changes", "trouble"),
    [
        ({}, False),
        ({"waiting": 50.0}, False),  # a queue, but nobody misses anything
        ({"ttft_p95_seconds": 5.0}, False),  # late, but nothing waits: a long prompt
        ({"waiting": 50.0, "ttft_p95_seconds": 5.0}, True),
        ({"waiting": math.nan, "slo_attainment_ratio": 0.5}, True),
        (
            {"waiting": math.nan, "ttft_p95_seconds": math.nan, "slo_attainment_ratio": math.nan},
            False,
        ),
    ],
)
def test_trouble_is_a_queue_with_missed_objectives(
    changes: dict[str, float], trouble: bool
) -> None:
    shown = observation(h100=seen(2, **changes)).services["prod/chat"]
    assert guard.in_trouble(policy(), shown) is trouble


def test_nothing_ready_and_something_waiting_is_trouble() -> None:
    shown = observation(h100=seen(0, waiting=1.0)).services["prod/chat"]
    assert guard.in_trouble(policy(), shown)
    assert guard.backlog_requests(shown) == 1.0


@pytest.mark.parametrize(
    ("running", "waiting", "ttft_p95_seconds", "expected"),
    [
        pytest.param(400.0, 0.0, 0.4, 3, id="calm: one fewer, however many are in flight"),
        pytest.param(400.0, 0.0, 0.8, 4, id="within the target: what runs"),
        pytest.param(10.0, 30.0, 0.8, 5, id="more waits than is served: one more"),
        pytest.param(400.0, 9.0, 1.5, 6, id="half beyond: half as many more"),
        pytest.param(400.0, 90.0, 7.0, 8, id="far beyond: twice as many"),
        pytest.param(100.0, 0.0, math.nan, 13, id="nothing measured: 100 in flight, 8 a replica"),
        pytest.param(0.0, 0.0, math.nan, 3, id="nothing measured, nothing in flight: one fewer"),
        pytest.param(math.nan, 0.0, math.nan, 4, id="nobody knows what is in flight: what runs"),
    ],
)
def test_without_a_model_latency_leads_and_concurrency_only_fills_in(
    running: float, waiting: float, ttft_p95_seconds: float, expected: int
) -> None:
    variant_seen = seen(
        4,
        running=running,
        waiting=waiting,
        ttft_p95_seconds=ttft_p95_seconds,
        tpot_p95_seconds=math.nan,
    )
    observed = observation(h100=variant_seen).services[SERVICE]
    assert guard.unmodelled_replicas(policy(), observed, 4) == expected


def test_a_service_is_unsettled_for_two_hours_after_a_change() -> None:
    assert not guard.unsettled((), 0.0)
    first = guard.remember_change((), 100.0, {"a": 2}, {"a": 2})  # seen, not changed
    assert not guard.unsettled(first, 100.0)
    changed = guard.remember_change(first, 200.0, {"a": 2}, {"a": 3})
    assert guard.unsettled(changed, 200.0)
    assert guard.unsettled(changed, 200.0 + 7199.0)
    assert not guard.unsettled(changed, 200.0 + 7200.0)


def test_a_little_more_must_be_needed_for_six_minutes() -> None:
    past: guard.Holds = ((0.0, 5),)
    kept, wanted = guard.lasting(past, 15.0, 6, 0.0, 5)
    assert wanted == 5  # one more of five: 5 was enough 15 s ago
    for i in range(2, 25):
        kept, wanted = guard.lasting(kept, 15.0 * i, 6, 0.0, 5)
        assert wanted == (6 if 15.0 * i >= 360.0 else 5)  # the 5 at 0 s is six minutes old then


@pytest.mark.parametrize(
    ("current", "value"),
    [
        (1, 2),  # half of a pair is not a little
        (5, 7),  # nor two of five
        (20, 23),  # nor three of twenty
        (5, 3),  # less is the hold's business
    ],
)
def test_more_than_a_little_is_followed_at_once(current: int, value: int) -> None:
    assert guard.lasting(((0.0, current),), 15.0, value, 0.0, current)[1] == value
    assert guard.lasting((), 15.0, value, 0.0, current)[1] == value


def test_two_of_twenty_are_a_little() -> None:
    assert guard.lasting(((0.0, 20),), 15.0, 22, 0.0, 20)[1] == 20
    assert guard.lasting((), 15.0, 22, 0.0, 20)[1] == 22  # just started: nothing is remembered

"""What goes wrong, tick by tick, with the decisions that follow worked by hand.

The world: 18 req/s predicted and 20 measured, ticks every 15 s, a window of 300 s. By its speeds a
replica of these tests carries 4 to 5 req/s, so 5 replicas are needed and 6 run.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

from builders import (
    NOW,
    SERVICE,
    forecasts,
    observation,
    outlook,
    policies,
    policy,
    seen,
    silence,
    variant,
)

from autoscaler.core.outcome import Forecasts, ServiceDecision, StartLead, State
from autoscaler.core.tick import tick
from autoscaler.core.types import (
    Behavior,
    Mode,
    Observation,
    Policies,
    Reason,
    ScalingLimit,
    ScalingRules,
)

TICK = 15.0
NEEDED, RUNS = 5, 6
KNOWN = forecasts({SERVICE: outlook(18.0)})


def walk(
    observations: Iterable[Observation],
    world: Policies | None = None,
    known: Forecasts | Callable[[float], Forecasts] = KNOWN,
) -> list[ServiceDecision]:
    """Return the decision of every tick, nothing obeying them."""
    state, out = State(), []
    for seen_now in observations:
        at = seen_now.now_seconds
        told = known(at) if callable(known) else known
        state, decisions = tick(world or policies(policy()), told, state, seen_now)
        out.append(decisions.services[SERVICE])
    return out


def replicas(decisions: Iterable[ServiceDecision]) -> list[int]:
    return [d.variants["h100"] for d in decisions]


def calm(i: int, **changes: float) -> Observation:
    return observation(now=NOW + TICK * i, rate=20.0, h100=seen(RUNS, **changes))


def test_an_hour_of_missing_telemetry_holds_and_then_begins_anew() -> None:
    lost = range(4, 244)  # 240 ticks: an hour
    steps = [silence(NOW + TICK * i) if i in lost else calm(i) for i in range(280)]
    decided = walk(steps)
    assert replicas(decided[:244]) == [RUNS] * 244
    assert {d.reason for d in decided[4:244]} == {Reason.STALE_TELEMETRY}
    # back at 244: the window of 20 ticks begins then, although the hour before it is long over
    assert replicas(decided[244:264]) == [RUNS] * 20
    assert replicas(decided[264:]) == [NEEDED] * 16


def test_a_stale_scrape_is_no_load_of_zero() -> None:
    # the rate cannot be told, the pods can: nothing moves, and nothing is planned from it
    stale = [observation(now=NOW + TICK * i, rate=math.nan, h100=seen(RUNS)) for i in range(1, 40)]
    decided = walk([calm(0), *stale])
    assert replicas(decided) == [RUNS] * 40
    assert {d.reason for d in decided[1:]} == {Reason.STALE_TELEMETRY}


def test_latency_that_is_not_a_number_neither_raises_nor_lowers() -> None:
    nothing = dict.fromkeys(
        (
            "ttft_p50_seconds",
            "ttft_p95_seconds",
            "tpot_p50_seconds",
            "tpot_p95_seconds",
            "slo_attainment_ratio",
            "running",
            "waiting",
        ),
        math.nan,
    )
    decided = walk(calm(i, **nothing) for i in range(40))
    # the forecast alone: the window's 20 ticks, then what it needs
    assert replicas(decided) == [RUNS] * 20 + [NEEDED] * 20


def test_a_tenfold_spike_is_sized_by_what_was_measured_of_it() -> None:
    late = {"waiting": 306.0, "ttft_p95_seconds": 30.0, "slo_attainment_ratio": 0.05}
    spike = [
        observation(now=NOW + TICK * i, rate=200.0, h100=seen(RUNS, **late)) for i in range(4, 9)
    ]
    decided = walk([*(calm(i) for i in range(4)), *spike])
    assert {d.reason for d in decided[4:]} == {Reason.REACTIVE}
    # the last minute's mean rises a quarter of the step a tick, with the backlog over three minutes:
    # 6 may wait, so 300 / 180 = 1.67 beside (20 + 20 + 20 + 200) / 4 = 65, 110, 155, 200
    told = [float(d.detail.split("sized for ")[1].split(" ")[0]) for d in decided[4:]]
    assert told == [66.67, 111.67, 156.67, 201.67, 201.67]
    assert replicas(decided[4:]) == sorted(replicas(decided[4:]))


def test_a_lead_time_that_doubles_looks_further_ahead() -> None:
    rises = outlook(20.0)
    rates = rises.arrival_rate_rps.copy()
    rates[6:] *= 2.0  # from six minutes ahead: beyond 240 + 15 s, within 480 + 15 s
    rises = replace(rises, arrival_rate_rps=rates)

    def known(now: float) -> Forecasts:
        slow = now >= NOW + TICK * 4
        lead = StartLead(240.0, 480.0) if slow else StartLead(120.0, 240.0)
        return replace(
            forecasts({SERVICE: replace(rises, cutoff_seconds=now)}),
            starts={(SERVICE, "h100"): lead},
        )

    decided = walk((calm(i) for i in range(8)), known=known)
    ready_in_time = replicas(walk([calm(0)], known=forecasts({SERVICE: outlook(40.0)})))[0]
    assert replicas(decided) == [RUNS] * 4 + [ready_in_time] * 4


def test_an_inventory_that_shrinks_below_what_runs_is_followed_and_told() -> None:
    def at(i: int) -> Observation:
        pools = {"h100": 10 if i < 4 else 3}
        return observation(now=NOW + TICK * i, rate=20.0, h100=seen(RUNS), pools=pools)

    decided = walk(at(i) for i in range(8))
    assert replicas(decided) == [RUNS] * 4 + [3] * 4
    last = decided[-1]
    assert (last.reason, last.shortfall_ratio) == (Reason.QUOTA, 1 - 3 / NEEDED)
    assert last.detail.startswith("40% of the requirement does not fit: ")


def test_a_budget_of_zero_leaves_the_least_count_and_no_more() -> None:
    nothing = policies(policy(budget_usd_per_hour=0.0))
    decided = walk((calm(i) for i in range(4)), world=nothing)
    assert replicas(decided) == [1] * 4  # minReplicas
    assert {d.reason for d in decided} == {Reason.BUDGET}
    # not faster than the policy's scale-down allows, either
    slowly = Behavior(
        Mode.SCALE,
        ScalingRules(0.0),
        ScalingRules(0.0, (policy_limit(1),)),
    )
    decided = walk(
        [calm(i) for i in range(2)],
        world=policies(policy(budget_usd_per_hour=0.0, behavior=slowly)),
    )
    assert replicas(decided) == [RUNS - 1] * 2
    # who may have none gets none
    free = policies(policy(budget_usd_per_hour=0.0, variants=(variant(min_replicas=0),)))
    assert replicas(walk([calm(0)], world=free)) == [0]


def policy_limit(replicas: int) -> ScalingLimit:
    return ScalingLimit(percent=False, value=replicas, period_seconds=600.0)


def test_a_clock_that_jumps_ahead_scales_nothing_down() -> None:
    jumped = [
        replace(calm(i), now_seconds=NOW + TICK * i + 3 * 3600.0 * (i >= 4)) for i in range(40)
    ]
    decided = walk(jumped)
    # what the window held has expired unseen: it begins anew at the jump and lasts its 20 ticks
    assert replicas(decided) == [RUNS] * 24 + [NEEDED] * 16

"""Accounts of closed hours: small hours worked by hand, and what must hold of every hour."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import (
    NOW,
    SERVICE,
    forecasts,
    latency_model,
    observation,
    outlook,
    policies,
    policy,
    seen,
    silence,
    variant,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autoscaler.core import account_orders as orders
from autoscaler.core.account_hour import Closing, as_measured, close_hours
from autoscaler.core.account_minutes import MOST_ROWS, OpenHour
from autoscaler.core.accounting import Ledger
from autoscaler.core.accounts import Account, Cause, PlanName
from autoscaler.core.hpa import HpaView, landing, recommendation
from autoscaler.core.outcome import StartLead, State
from autoscaler.core.tick import tick
from autoscaler.core.types import Observation, Policies, Role
from models import capacity
from models.slo import SloTargets

USD = 4.0  # a replica and hour, of `builders.policies`
HOUR = int(NOW // 3600)
FREE = policies(policy(variants=(variant(min_replicas=0),)))
LEAD = StartLead(120.0, 240.0)  # two minutes
KNOWN = forecasts({}, h100=LEAD)
Series = float | Sequence[float]


def series(value: Series) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.broadcast_to(np.asarray(value, dtype=np.float64), 60)


def account(
    needed: Series,
    *,
    rate: Series = 2.0,
    required: Series | None = None,
    guarded: Series | None = None,
    decided: Series | None = None,
    ready: Series | None = None,
    paid: Series | None = None,
    missed_ratio: float = 0.01,
    usd: float = USD,
    judged: bool = True,
    minutes: Sequence[int] = range(60),
    world: Policies = FREE,
) -> Account:
    """One hour of a minute a tick. What is not given is as in the step before it."""
    need, load = series(needed), series(rate)
    want = need if required is None else series(required)
    guard = want if guarded is None else series(guarded)
    chosen = guard if decided is None else series(decided)
    there = chosen if ready is None else series(ready)
    cost = there if paid is None else series(paid)
    hour = OpenHour(("h100",))
    for m in minutes:
        requests = float(load[m]) * 60.0
        ended = requests if judged else 0.0
        hour.add(
            HOUR * 60 + m,
            (
                *(60.0, requests, ended, ended * missed_ratio, float(cost[m]) * usd / 60.0),
                *(requests, requests * 1000.0, requests * 100.0),
            ),
            (need[m], want[m], guard[m], chosen[m], usd),
            (float(there[m]) * 60.0,),
            (float(chosen[m]),),
        )
    return close_hours(Closing(world, KNOWN, State(), HOUR), {SERVICE: hour})[SERVICE]


def attained(rate: float, replicas: float) -> float:
    return float(
        capacity.attainment(
            latency_model((SERVICE, "h100")).coefficients([(SERVICE, "h100")]),
            *(np.array([x]) for x in (rate, replicas, 1000.0, 100.0)),
            capacity.TargetArrays.of([policy().targets], "Both"),
        )[0]
    )


def dollars(of: Account) -> dict[Cause, float]:
    return {cause: pytest.approx(part.usd, abs=1e-9) for cause, part in of.causes.items()}


NONE = dict.fromkeys(Cause, 0.0)


def test_a_steady_load_costs_everybody_the_same() -> None:
    got = account(3.0)
    assert dollars(got) == NONE
    assert {c: round(p.missed_requests, 6) for c, p in got.causes.items()} == NONE
    for plan in (PlanName.FORESERVE, PlanName.CLAIRVOYANT, PlanName.LAST_VALUE):
        assert got.plans[plan].usd == pytest.approx(12.0)  # 3 replicas, 4 $ each
        assert got.plans[plan].missed_requests == pytest.approx(72.0)  # 1 % of 2 req/s for an hour
        assert got.attainment(plan) == pytest.approx(0.99)
    assert (got.measured_seconds, got.partial) == (3600.0, False)
    assert got.start_seconds == NOW


def test_a_replica_that_only_the_guard_holds_is_the_guards() -> None:
    assert dollars(account(3.0, guarded=4.0)) == {**NONE, Cause.GUARD: 4.0}


def test_a_step_costs_the_last_value_one_lead_of_misses_and_the_clairvoyant_its_price() -> None:
    # From minute 30 on 30 req/s need 6 replicas, not 2. Ordered then, they are ready in minute 32.
    need = [2.0] * 30 + [6.0] * 30
    load = [7.0] * 30 + [30.0] * 30
    got = account(need, rate=load)
    late = 2 * 60 * 30.0  # requests of the two minutes
    lost = late * (attained(30.0, 6.0) - attained(30.0, 2.0))
    assert lost > 0.9 * late
    part = got.causes[Cause.LEAD_TIME]
    assert part.missed_requests == pytest.approx(lost)
    assert part.usd == pytest.approx(-4 * USD * 2 / 60)  # four replicas, two minutes later
    # who orders for the forecast at once is no better if that sees nothing coming
    assert got.causes[Cause.FORECAST].missed_requests == pytest.approx(0.0)


def test_a_forecast_that_is_right_makes_the_lead_good() -> None:
    need = [2.0] * 30 + [6.0] * 30
    load = [7.0] * 30 + [30.0] * 30
    right = [2.0] * 28 + [6.0] * 32  # two minutes earlier
    got = account(need, rate=load, required=right)
    for name in ("usd", "missed_requests"):
        lead, told = (getattr(got.causes[c], name) for c in (Cause.LEAD_TIME, Cause.FORECAST))
        assert told == pytest.approx(-lead)


def test_a_forecast_of_twice_the_load_is_paid_for_twice() -> None:
    got = account(3.0, required=6.0)
    assert dollars(got) == {**NONE, Cause.FORECAST: 12.0}


def test_a_forecast_of_half_the_load_gives_nothing_up_that_the_load_needs_now() -> None:
    got = account(4.0, required=2.0, guarded=4.0)
    assert dollars(got) == NONE


def test_what_does_not_fit_is_cheaper_and_misses() -> None:
    got = account(6.0, rate=30.0, decided=3.0)
    assert dollars(got) == {**NONE, Cause.QUOTA: -12.0}
    lost = 3600 * 30.0 * (attained(30.0, 6.0) - attained(30.0, 3.0))
    assert got.causes[Cause.QUOTA].missed_requests == pytest.approx(lost)


def test_what_never_came_and_is_paid_for_is_the_rest() -> None:
    got = account(3.0, ready=3.0, paid=5.0)
    assert dollars(got) == {**NONE, Cause.REST: 8.0}


def test_misses_that_the_model_did_not_expect_are_its_own() -> None:
    # Ours has 3 of 6 replicas. What the model expects of both is scaled by what came of ours.
    good = account(6.0, rate=30.0, decided=3.0, missed_ratio=0.0)
    expected = good.expected_missed_requests / good.finished_requests
    assert 0.5 < expected <= 1.0
    told = account(6.0, rate=30.0, decided=3.0, missed_ratio=expected)
    assert told.causes[Cause.LATENCY_MODEL].missed_requests == pytest.approx(0.0, abs=1e-6)
    assert good.causes[Cause.LATENCY_MODEL].missed_requests < -1000  # too dark: nothing missed
    assert good.plans[PlanName.CLAIRVOYANT].missed_requests == pytest.approx(0.0, abs=1.0)


@pytest.mark.parametrize(
    ("missed", "expected", "measured", "told"),
    [
        (50.0, 50.0, 80.0, 80.0),  # as ours
        (0.0, 0.0, 0.0, 0.0),
        (500.0, 0.0, 0.0, 500.0),  # a model that was right of ours is believed
        (1000.0, 10.0, 40.0, 1000.0),  # all are all
        (1000.0, 1000.0, 1000.0, 1000.0),
        (20.0, 40.0, 10.0, 5.0),  # a quarter came true
        (0.0, 0.0, 100.0, 100.0),  # a tenth missed for no reason that the model knows
        (500.0, 0.0, 100.0, 550.0),  # so it does of those it believed in time
        (math.nan, 0.0, 1.0, math.nan),
    ],
)
def test_scaled_as_ours(missed: float, expected: float, measured: float, told: float) -> None:
    got = as_measured(missed, expected, measured, 1000.0)
    assert got == pytest.approx(told, nan_ok=True)


def test_a_price_that_is_unknown_leaves_the_misses() -> None:
    got = account(3.0, usd=math.nan)
    assert all(math.isnan(a.usd) for a in got.plans.values())
    assert all(math.isfinite(a.missed_requests) for a in got.plans.values())


def test_misses_that_are_not_measured_are_unknown_and_what_the_model_says_of_causes_too() -> None:
    got = account(3.0, judged=False)
    assert math.isnan(got.finished_requests)
    assert all(math.isnan(a.missed_requests) for a in got.plans.values())
    assert got.plans[PlanName.FORESERVE].usd == pytest.approx(12.0)
    assert math.isnan(got.attainment(PlanName.HPA))


def test_an_hpa_follows_the_load_late_and_comes_down_later() -> None:
    # 5.3 req/s and a replica within the SLO: 2 for 7 req/s, 6 for 30, and 6 for five minutes more
    load = [7.0] * 20 + [30.0] * 20 + [7.0] * 20
    got = account(6.0, rate=load)
    minutes = 20 * 2 + 25 * 6 + 15 * 2
    assert got.plans[PlanName.HPA].usd == pytest.approx(minutes * USD / 60)
    assert got.plans[PlanName.HPA].missed_requests > 2 * 60 * 30 * 0.9  # two minutes late


def test_an_slo_that_no_replica_meets_is_no_target_for_an_hpa() -> None:
    tight = policy(variants=(variant(min_replicas=0),), targets=SloTargets(ttft_seconds=0.001))
    got = account(3.0, world=policies(tight))
    assert math.isnan(got.plans[PlanName.HPA].usd)
    assert math.isfinite(got.plans[PlanName.LAST_VALUE].usd)


def test_an_engine_of_unknown_speed_is_unknown() -> None:
    hour = OpenHour(("h100",))
    counts = (3.0,) * 4
    tokens = (120.0, 120_000.0, 12_000.0)
    hour.add(HOUR * 60, (60.0, 120.0, 120.0, 1.0, 0.2, *tokens), (*counts, USD), (180.0,), (3,))
    other = forecasts({}, latency_model(("prod/other", "h100")), h100=LEAD)
    got = close_hours(Closing(FREE, other, State(), HOUR), {SERVICE: hour})[SERVICE]
    assert math.isnan(got.plans[PlanName.CLAIRVOYANT].missed_requests)
    assert got.plans[PlanName.CLAIRVOYANT].usd == pytest.approx(3 * USD / 60)


def test_less_than_half_of_an_hour_is_said() -> None:
    got = account(3.0, minutes=range(20))
    assert (got.measured_seconds, got.partial) == (1200.0, True)
    assert got.plans[PlanName.FORESERVE].usd == pytest.approx(4.0)  # of those 20 minutes
    assert got.plans[PlanName.CLAIRVOYANT].usd == pytest.approx(4.0)


def test_an_hour_without_requests_has_no_misses() -> None:
    got = account(0.0, rate=0.0, guarded=0.0)
    assert got.plans[PlanName.FORESERVE].usd == 0.0
    assert got.plans[PlanName.HPA].usd == pytest.approx(USD)  # an HPA keeps one
    assert got.plans[PlanName.CLAIRVOYANT].missed_requests == 0.0


def test_minimums_hold_for_every_plan() -> None:
    world = policies(policy(variants=(variant(min_replicas=2),)))
    got = account(0.0, rate=0.0, guarded=2.0, world=world)
    assert {a.usd for a in got.plans.values()} == {8.0}


counts = st.lists(st.integers(0, 12), min_size=60, max_size=60)


@settings(max_examples=40, deadline=None)
@given(
    need=counts,
    want=counts,
    guard=counts,
    chosen=counts,
    there=counts,
    load=st.lists(st.floats(0, 40), min_size=60, max_size=60),
    missed=st.floats(0, 1),
)
def test_the_parts_add_up(
    need: list[int],
    want: list[int],
    guard: list[int],
    chosen: list[int],
    there: list[int],
    load: list[float],
    missed: float,
) -> None:
    got = account(
        need,
        rate=load,
        required=want,
        guarded=guard,
        decided=chosen,
        ready=there,
        missed_ratio=missed,
    )
    for name, least in (("usd", 1e-9), ("missed_requests", 1e-5)):
        ours, best = (
            getattr(got.plans[p], name) for p in (PlanName.FORESERVE, PlanName.CLAIRVOYANT)
        )
        parts = sum(getattr(part, name) for part in got.causes.values())
        assert parts == pytest.approx(ours - best, abs=least)
    for plan in PlanName:
        assert 0.0 <= got.plans[plan].missed_requests <= got.finished_requests * (1 + 1e-9)


paths = arrays(np.float64, (2, 30), elements=st.integers(0, 9).map(float))
leads = arrays(np.int64, 2, elements=st.integers(0, 6))


@given(paths, leads)
def test_no_plan_that_is_ready_in_time_is_cheaper_than_the_clairvoyant(
    ordered: Any, lead: Any
) -> None:
    served = orders.ready_of(ordered, lead)
    best = orders.clairvoyant(served, lead)
    assert (best <= ordered).all()
    assert (orders.ready_of(best, lead) >= served).all()


@given(paths, leads)
def test_a_right_forecast_orders_what_the_clairvoyant_does(needed: Any, lead: Any) -> None:
    ahead = np.stack(
        [n[np.minimum(np.arange(30) + k, 29)] for n, k in zip(needed, lead, strict=True)]
    )
    told = orders.forecast(needed, ahead, lead)
    best = orders.clairvoyant(needed, lead)
    for s, k in enumerate(lead):  # before the first lead is over nothing was ordered for it
        assert (told[s, k:] == best[s, k:]).all()


@given(arrays(np.float64, 40, elements=st.integers(64, 128).map(float)), st.integers(8, 16))
def test_the_hpa_is_the_one_of_core_hpa(in_flight: Any, begin: int) -> None:
    # counts that one look reaches: a rise over two of them may end within the tolerance, one short
    wanted = in_flight[np.newaxis] / 8.0
    got = orders.hpa(wanted, *(np.array([x]) for x in (float(begin), 1.0, 40.0)))
    current, past = begin, []
    for t, metric in enumerate(in_flight):
        for look in range(4):  # a minute
            recommended = tuple((60.0 * (t - s), n) for s, n in past)
            view = HpaView(
                *(current, current, current, 1, 40), target=8.0, recommendations=recommended
            )
            advice = recommendation(view, round(metric * 1000))
            current = landing(view, advice)
            if look == 0:
                past = [*past, (t, advice)]
        assert got[0, t] == current


def test_gaps_are_held() -> None:
    rows = np.array([[np.nan, 1.0, np.nan, 3.0], [np.nan] * 4])
    np.testing.assert_array_equal(orders.held(rows), [[1.0, 1.0, 1.0, 3.0], [np.nan] * 4])


# the ledger: from ticks


def two(now: float) -> Observation:
    return observation(now, rate=7.0, h100=seen(2))


def walk(ledger: Ledger, ticks: int, *, start: float = NOW, of: Any = None) -> list[Account]:
    world, known = policies(policy()), forecasts({SERVICE: outlook(7.0)}, h100=LEAD)
    state, count, closed = State(), 2, []
    for i in range(1, ticks + 1):
        now = start + 15.0 * i
        shown: Observation = observation(now, rate=7.0, h100=seen(count)) if of is None else of(now)
        state, decisions = tick(world, known, state, shown)
        count = decisions.services[SERVICE].variants["h100"]
        closed += ledger.take_in(world, known, state, shown, decisions).values()
    return closed


def test_an_hour_closes_with_the_first_tick_of_the_next() -> None:
    ledger = Ledger()
    assert walk(ledger, 240) == []
    (got,) = walk(ledger, 1, start=NOW + 3600.0)
    assert (got.start_seconds, got.measured_seconds) == (NOW, 3600.0)
    assert got.plans[PlanName.FORESERVE].usd > 0
    parts = [p.usd for p in got.causes.values()]
    differs = got.plans[PlanName.FORESERVE].usd - got.plans[PlanName.CLAIRVOYANT].usd
    assert sum(parts) == pytest.approx(differs)
    assert all(math.isfinite(a.missed_requests) for a in got.plans.values())


def test_an_hour_that_begins_with_the_process_is_partial() -> None:
    (got,) = walk(Ledger(), 100, start=NOW + 2400.0)
    assert (got.measured_seconds, got.partial) == (1200.0, True)


def test_an_interval_that_begins_before_the_hour_opens_no_hour_again() -> None:
    ledger = Ledger()
    walk(ledger, 241)
    late = walk(
        ledger, 1, start=NOW + 3615.0, of=lambda now: replace(two(now), interval_seconds=600)
    )
    assert late == []
    minutes = ledger._hours[SERVICE].table()[:, 0]
    assert (np.diff(minutes) > 0).all()


def test_silence_is_not_measured() -> None:
    (got,) = walk(Ledger(), 241, of=silence)
    assert got.measured_seconds == 0.0
    assert got.partial
    assert all(math.isnan(a.usd + a.missed_requests) for a in got.plans.values())


def test_orders_of_the_hour_before_are_ready_in_this_one() -> None:
    hour = OpenHour(("h100",))
    tokens = (60.0, 60_000.0, 6000.0)
    for m in range(55, 65):  # the load steps up with the full hour
        need = 2.0 if m < 60 else 6.0
        load = (60.0, 60.0 * (7.0 if m < 60 else 30.0), 60.0, 0.0, need * USD / 60, *tokens)
        hour.add(HOUR * 60 - 60 + m, load, (*(need,) * 4, USD), (need * 60,), (need,))
    got = close_hours(Closing(FREE, KNOWN, State(), HOUR), {SERVICE: hour})[SERVICE]
    assert got.measured_seconds == 300.0
    assert (
        got.causes[Cause.LEAD_TIME].missed_requests > 0
    )  # ordered at the hour, ready two minutes on


def test_what_is_kept_is_bounded() -> None:
    hour = OpenHour(("h100",))
    ledger = Ledger()
    walk(ledger, 3 * 240)
    kept = ledger._hours[SERVICE]
    assert len(kept.table()) <= MOST_ROWS
    for i in range(1000):  # a minute's ticks are one row
        hour.add(5, (1.0,) * 8, (float(i),) * 5, (1.0,), (1.0,))
    assert hour.table().shape[0] == 1
    assert hour.table()[0, 1] == 1000.0
    assert hour.table()[0, 9] == 999.0


def test_a_service_that_is_gone_has_no_account_and_no_rows() -> None:
    ledger = Ledger()
    walk(ledger, 10)
    world = replace(policies(policy()), services={})
    shown = silence(NOW + 3700.0)
    state, decisions = tick(world, KNOWN, State(), shown)
    assert ledger.take_in(world, KNOWN, state, shown, decisions) == {}
    assert ledger._hours == {}


def test_other_variants_begin_anew() -> None:
    ledger = Ledger()
    walk(ledger, 10)
    both = (variant(), variant("l40s"))
    world = policies(policy(variants=both))
    known = forecasts({SERVICE: outlook(7.0)}, latency_model((SERVICE, "h100"), (SERVICE, "l40s")))
    shown = observation(NOW + 165.0, rate=7.0, h100=seen(2), l40s=seen(0))
    state, decisions = tick(world, known, State(), shown)
    ledger.take_in(world, known, state, shown, decisions)
    assert len(ledger._hours[SERVICE].table()) == 1


def test_phases_apart_miss_what_either_misses() -> None:
    model = latency_model((SERVICE, "p"), (SERVICE, "d"))
    roles = (variant("p", role=Role.PREFILL), variant("d", role=Role.DECODE))
    world = policies(policy(variants=roles))
    known = forecasts({SERVICE: outlook(5.0)}, model, p=LEAD, d=LEAD)
    state, ledger = State(), Ledger()
    for i in range(1, 242):
        shown = observation(NOW + 15.0 * i, rate=5.0, p=seen(2), d=seen(2))
        state, decisions = tick(world, known, state, shown)
        closed = ledger.take_in(world, known, state, shown, decisions)
    got = closed[SERVICE]
    assert 0 <= got.expected_missed_requests < 0.05 * got.finished_requests
    assert got.plans[PlanName.FORESERVE].usd == pytest.approx(4 * USD)

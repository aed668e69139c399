"""Spot capacity in plans: worked by hand, and all three solvers against brute force."""

import itertools
import math
from dataclasses import replace

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
    variant,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_planner import NO_LIMITS, below, counts, need_variant, service, variants

from autoscaler.core.greedy import greedy_plan
from autoscaler.core.milp import solve
from autoscaler.core.needs import Limits, ServiceNeed, usage_of
from autoscaler.core.outcome import ServiceDecision, StartLead, State
from autoscaler.core.planner import plan_replicas
from autoscaler.core.separable import cheapest
from autoscaler.core.spot import spot_in_words, worth_ratio
from autoscaler.core.tick import tick
from autoscaler.core.types import (
    SPOT_INTERRUPTIONS_PER_HOUR,
    AcceleratorClass,
    CapacityType,
    Pool,
    Role,
)

HALF = "no more than maxSpotRatio 50% of the requirement rests on it"


def mixed(
    future: int, ratio: float = 0.5, *, upper: int = 10, name: str = "n/s", priority: int = 0
) -> ServiceNeed:
    """`stays` at $4 beside `spot` at $1.60, equally fast."""
    return service(
        name,
        need_variant("stays", future=future, upper=upper),
        need_variant("spot", future=future, usd_per_hour=1.6, spot=True),
        max_spot_ratio=ratio,
        priority=priority,
    )


def test_a_replica_is_worth_the_time_that_it_serves() -> None:
    # taken back once in two hours, half an hour out: 120 of 150 minutes
    assert worth_ratio(0.5, 1800.0) == pytest.approx(0.8)
    assert worth_ratio(0.2, 180.0) == pytest.approx(1 - 0.2 * 180 / 3600, abs=1e-3)
    assert worth_ratio(0.0, 180.0) == 1.0


@pytest.mark.parametrize(
    ("future", "ratio", "expected"),
    [
        (4, 0.5, (2, 2)),
        (5, 0.5, (3, 2)),  # 2.5 of 5 must stay: 3
        (4, 0.7, (2, 2)),  # 1.2 of 4: a fifth of a replica too little is too little
        (4, 1.0, (0, 4)),
        (4, 0.0, (4, 0)),
        (1, 0.5, (1, 0)),  # the only replica is not on spot
    ],
)
def test_at_most_a_share_rests_on_spot(
    future: int, ratio: float, expected: tuple[int, int]
) -> None:
    need = mixed(future, ratio)
    assert cheapest(need) == expected
    solved = solve((need,), NO_LIMITS)
    assert solved is not None
    assert solved[0] == {"n/s": expected}
    assert greedy_plan((need,), NO_LIMITS) == {"n/s": expected}


def test_spot_alone_is_planned_as_ever() -> None:
    need = service("n/s", need_variant(future=4, spot=True), max_spot_ratio=0.0)
    assert counts((need,)) == {"n/s": (4,)}
    assert spot_in_words(need, (4,)) == ""
    two = replace(need, variants=(*need.variants, need_variant("b", future=2, spot=True)))
    assert counts((two,)) == {"n/s": (0, 2)}


def test_what_cannot_stay_rests_on_spot_and_is_told() -> None:
    need = mixed(4)
    limits = Limits({"stays": 1}, {}, {}, {})
    plan = plan_replicas((need,), limits)
    assert plan.services["n/s"].replicas == (1, 3)
    assert plan.services["n/s"].limited_by is None
    assert greedy_plan((need,), limits) == {"n/s": (1, 3)}
    assert spot_in_words(need, (1, 3)) == (
        "75% of the requirement rests on spot, more than maxSpotRatio 50%: "
        "no more of what stays can be had"
    )
    small = mixed(4, upper=1)  # maxReplicas, or a rate limit
    assert counts((small,)) == {"n/s": (1, 3)}


def test_a_budget_goes_before_the_cap() -> None:
    # 4 are needed; 2 x $4 + 2 x $1.60 = $11.20 > $9: one stays, 3 x $1.60 + $4 = $8.80
    need = replace(mixed(4), budget_usd_per_hour=9.0)
    assert counts((need,)) == {"n/s": (1, 3)}
    assert greedy_plan((need,), NO_LIMITS)["n/s"][0] >= 1


def test_no_cap_of_a_higher_tier_leaves_load_of_a_lower_one_unserved() -> None:
    low = service("n/low", need_variant("stays", future=4))
    high = mixed(4, name="n/high", priority=9)
    got = counts((low, high), Limits({"stays": 4}, {}, {}, {}))
    assert got == {"n/low": (4,), "n/high": (0, 4)}


def test_the_cap_holds_for_each_phase() -> None:
    p = need_variant("p", role=Role.PREFILL, future=2)
    q = need_variant("q", role=Role.PREFILL, future=2, usd_per_hour=1.0, spot=True)
    d = need_variant("d", role=Role.DECODE, future=4)
    e = need_variant("e", role=Role.DECODE, future=4, usd_per_hour=1.0, spot=True)
    need = service("n/s", p, q, d, e, max_spot_ratio=0.5)
    assert counts((need,)) == {"n/s": (1, 1, 2, 2)}
    solved = solve((need,), NO_LIMITS)
    assert solved is not None
    assert solved[0] == {"n/s": (1, 1, 2, 2)}
    assert greedy_plan((need,), NO_LIMITS) == {"n/s": (1, 1, 2, 2)}


def test_spot_goes_when_what_stays_serves_and_not_before() -> None:
    # a fleet on spot alone until now: 2 of 4 must stay; their spot goes when they are ready
    spot = need_variant("spot", future=4, hold=4, present=4, usd_per_hour=1.6, spot=True)
    spot = replace(spot, current=4, ready=4)
    stays = need_variant("stays", future=4, hold=4, present=4)
    assert counts((service("n/s", stays, spot, max_spot_ratio=0.5),)) == {"n/s": (2, 4)}
    there = replace(stays, current=2, ready=2)
    assert counts((service("n/s", there, spot, max_spot_ratio=0.5),)) == {"n/s": (2, 2)}


def test_expected_restarts_are_in_the_price() -> None:
    # $0.10 cheaper an hour, but taken back so often that starts cost $0.20
    stays = need_variant("stays", future=3)
    spot = need_variant("spot", future=3, usd_per_hour=3.9, spot=True, restart_usd_per_hour=0.2)
    need = service("n/s", stays, spot)
    assert counts((need,)) == {"n/s": (3, 0)}
    assert greedy_plan((need,), NO_LIMITS) == {"n/s": (3, 0)}
    assert counts((replace(need, variants=(stays, replace(spot, restart_usd_per_hour=0.05))),)) == {
        "n/s": (0, 3)
    }


def test_the_cap_is_told_where_it_decided() -> None:
    assert spot_in_words(mixed(4), (2, 2)).endswith(HALF)
    assert spot_in_words(mixed(4, 1.0), (0, 4)) == ""
    assert spot_in_words(mixed(4), (4, 0)) == ""  # something else keeps them
    dear = mixed(4)
    dear = replace(dear, variants=(dear.variants[0], replace(dear.variants[1], usd_per_hour=9.0)))
    assert spot_in_words(dear, (2, 2)) == ""  # spot would not be cheaper


spot_variants = st.tuples(variants, st.booleans(), st.sampled_from([0.0, 0.2])).map(
    lambda x: replace(
        x[0],
        spot=x[1],
        current=min(x[0].current, x[0].upper),
        ready=min(x[0].current, x[0].upper),
        lower=min(x[0].lower, x[0].upper),
        restart_usd_per_hour=x[2] if x[1] else 0.0,
    )
)
one_service = st.tuples(
    st.lists(spot_variants, min_size=1, max_size=3),
    st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    st.sampled_from([math.inf, 8.0]),
).map(
    lambda x: service(
        "n/s",
        *(replace(v, name=f"v{i}") for i, v in enumerate(x[0])),
        max_spot_ratio=x[1],
        budget_usd_per_hour=x[2],
    )
)


def every_plan(need: ServiceNeed, limits: Limits) -> list[tuple[float, float]]:
    """(cost, excess of spot) of every lasting and running plan that satisfies the need."""
    space = list(itertools.product(*(range(v.lower, v.upper + 1) for v in need.variants)))
    lasting = [
        (m, need.objective_usd(m, m), need.spot_excess(m))
        for m in space
        if need.covered(m) >= 1 - 1e-9
    ]
    starts = [v.start_usd for v in need.variants]
    return [
        (usd + sum((b - a) * start for a, b, start in zip(m, n, starts, strict=True)), excess)
        for n in space
        if need.keeps(n)
        and need.usd_per_hour(n) <= need.budget_usd_per_hour
        and usage_of((need,), {"n/s": n}, limits).fits()
        for m, usd, excess in lasting
        if below(m, n)
    ]


def cost_of(need: ServiceNeed, n: tuple[int, ...]) -> tuple[float, float]:
    every = itertools.product(*(range(v.lower, v.upper + 1) for v in need.variants))
    return min(
        (need.objective_usd(m, n), need.spot_excess(m))
        for m in every
        if below(m, n) and need.covered(m) >= 1 - 1e-9
    )


@settings(max_examples=100, deadline=None)
@given(need=one_service, a=st.integers(2, 12), b=st.integers(2, 12))
def test_solvers_agree_with_brute_force_and_keep_the_cap_where_they_can(
    need: ServiceNeed, a: int, b: int
) -> None:
    for limits in (NO_LIMITS, Limits({"a": a, "b": b}, {}, {}, {})):
        plans = every_plan(need, limits)
        if not plans:
            continue
        solved = solve((need,), limits)
        assert solved is not None
        found = [solved[0]["n/s"], plan_replicas((need,), limits).services["n/s"].replicas]
        for n in found:
            if not need.satisfied(
                n
            ):  # a scrap of load may go unserved where the cap is else broken
                assert all(x > 0 for _, x in plans)
                assert need.covered(n) > 0.85
                continue
            cost, excess = cost_of(need, n)
            assert cost == pytest.approx(min(plans)[0], rel=1e-3)
            if any(x == 0 for _, x in plans):
                assert excess == 0
    alone = cheapest(need)
    plans = every_plan(need, NO_LIMITS)
    assert (alone is None) == (not plans)
    if alone is not None:
        assert cost_of(need, alone)[0] == pytest.approx(min(plans)[0])
    rich = replace(need, budget_usd_per_hour=math.inf)
    assert rich.spot_excess(greedy_plan((rich,), NO_LIMITS)["n/s"]) == 0


def decide(capacity_type: CapacityType, rate: float = 0.0, ratio: float = 0.5) -> ServiceDecision:
    """Two equally fast variants, the second one cheaper, and 20 req/s coming."""
    classes = (
        AcceleratorClass("h100", 4.0, None),
        AcceleratorClass("s", 1.6, None, capacity_type, interruptions_per_hour=rate),
    )
    mine = policy(
        variants=(variant("h100", min_replicas=0), variant("s", min_replicas=0)),
        max_spot_ratio=ratio,
    )
    both = ((SERVICE, "h100"), (SERVICE, "s"))
    told = forecasts(
        {SERVICE: outlook(20.0)},
        latency_model(*both),
        h100=StartLead(120.0, 240.0),
        s=StartLead(120.0, 240.0),
    )
    _, decisions = tick(
        policies(mine, pools=(Pool("p", classes),)),
        told,
        State(),
        observation(NOW, rate=20.0, h100=seen(0), s=seen(0)),
    )
    return decisions.services[SERVICE]


def test_a_tick_rests_half_of_a_need_on_spot_and_says_so() -> None:
    free = decide(CapacityType.ON_DEMAND)
    assert free.variants["h100"] == 0
    capped = decide(CapacityType.SPOT, SPOT_INTERRUPTIONS_PER_HOUR)
    total = sum(capped.variants.values())
    assert capped.variants["h100"] == math.ceil(total / 2)
    assert capped.detail.endswith(HALF)
    assert capped.cost_usd_per_hour == pytest.approx(
        4.0 * capped.variants["h100"] + 1.6 * capped.variants["s"]
    )


def test_more_are_needed_of_what_is_taken_back_and_no_less_is_attained() -> None:
    steady = decide(CapacityType.SPOT, ratio=1.0)
    # out 135 s after each of ten interruptions an hour: worth 1 / 1.375
    shaky = decide(CapacityType.SPOT, 10.0, ratio=1.0)
    more = shaky.required_replicas / steady.required_replicas
    assert 1.1 < more <= 1.375 + 1 / steady.required_replicas
    assert shaky.predicted_attainment_ratio >= shaky.attainment_target_ratio - 1e-3
    assert shaky.needed_replicas == steady.needed_replicas  # of what serves, in hindsight

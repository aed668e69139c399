"""Plans by prices against the exact solver, their own bound, and what limits and priorities promise."""

import itertools
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_planner import NO_LIMITS, below, need_variant, needs_strategy, service

from autoscaler.core import planner
from autoscaler.core.milp import SHORT_PRICES, given_up_times, lack_prices_usd, solve
from autoscaler.core.needs import Limits, ServiceNeed, usage_of
from autoscaler.core.planner import FEW, plan_replicas
from autoscaler.core.priced import plan_by_price
from autoscaler.core.separable import cheapest
from autoscaler.core.types import Role

Plan = Mapping[str, tuple[int, ...]]


def crowd(
    size: int, seed: int, *, share: float = 0.8, unsettled: int = 0
) -> tuple[tuple[ServiceNeed, ...], Limits]:
    """Services of two kinds of GPU in three tiers and four namespaces; `share` of what they want."""
    rng = random.Random(seed)  # noqa: S311 - a case, not a secret
    needs = []
    for i in range(size):
        kinds = []
        for name, usd in (("a", 4.0), ("b", 2.5)):
            future, current = rng.randint(1, 9), rng.randint(0, 6)
            kinds.append(
                need_variant(
                    name,
                    usd_per_hour=usd,
                    future=future,
                    hold=future + rng.randint(0, 2),
                    present=max(1, future - rng.randint(0, 2)),
                    current=current,
                    ready=rng.randint(0, current),
                    upper=12,
                )
            )
        needs.append(service(f"n{i % 4}/s{i}", *kinds, priority=i % 3, unsettled=i % 5 < unsettled))
    wanted = [cheapest(need) or (0, 0) for need in needs]
    classes = {name: int(share * sum(n[i] for n in wanted)) for i, name in enumerate("ab")}
    return tuple(needs), Limits(classes, dict.fromkeys("ab", "p"), {}, {})


def priced(needs: tuple[ServiceNeed, ...], limits: Limits) -> tuple[Plan, float]:
    got = plan_by_price(needs, limits, cheapest)
    assert got is not None
    return got


def cost_usd(needs: tuple[ServiceNeed, ...], plan: Plan) -> float:
    """What the MILP would minimise, of a plan whose lasting part is the best that explains it."""
    total = 0.0
    for need, price in zip(needs, lack_prices_usd(needs), strict=True):
        n = plan[need.service]
        kept = price * given_up_times(need) * given_up(need, n)
        every = itertools.product(*(range(v.lower, v.upper + 1) for v in need.variants))
        total += kept + min(
            need.objective_usd(m, n) + price * short_price(1.0 - need.covered(m))
            for m in every
            if below(m, n)
        )
    return total


def short_price(short: float) -> float:
    third = 1.0 / len(SHORT_PRICES)
    return sum(
        times * min(max(short - i * third, 0.0), third) for i, times in enumerate(SHORT_PRICES)
    )


def given_up(need: ServiceNeed, n: tuple[int, ...]) -> float:
    lacking = 0.0
    for phase in need.phases():
        for starting in (True, False):
            kept = 0.0
            for i in phase:
                v = need.variants[i]
                have, alone = (v.current, v.hold) if starting else (v.ready, v.present)
                kept += min(n[i], have) / alone
            lacking = max(lacking, need.hold_floor(phase, starting=starting) - kept)
    return lacking


@pytest.mark.parametrize("unsettled", [0, 2])
@pytest.mark.parametrize("seed", range(4))
def test_prices_cost_one_service_more_than_the_exact_plan_at_most(
    seed: int, unsettled: int
) -> None:
    """With K limits no more than K services are torn between two plans: here two, and whole replicas."""
    needs, limits = crowd(40, seed, unsettled=unsettled)
    plan, _ = priced(needs, limits)
    exact = solve(needs, limits)
    assert exact is not None
    best, ours = cost_usd(needs, exact[0]), cost_usd(needs, plan)
    lowest_tier = [p for n, p in zip(needs, lack_prices_usd(needs), strict=True) if n.priority == 0]
    assert best * (1 - 1e-4) <= ours <= best + max(lowest_tier)
    assert usage_of(needs, plan, limits).fits()
    tiers = [
        sum(1 - n.covered(p[n.service]) for n in needs if n.priority > 0) for p in (plan, exact[0])
    ]
    assert tiers[0] == pytest.approx(tiers[1], abs=1e-6)  # who is short is the priorities' choice


@settings(max_examples=60, deadline=None)
@given(needs=needs_strategy, a=st.integers(0, 12), b=st.integers(0, 12))
def test_limits_and_bounds_are_kept(needs: tuple[ServiceNeed, ...], a: int, b: int) -> None:
    limits = Limits({"a": a, "b": b}, {}, {}, {})
    got = plan_by_price(needs, limits, cheapest)
    least = {need.service: tuple(v.lower for v in need.variants) for need in needs}
    if got is None:
        assert not usage_of(needs, least, limits).fits()
        return
    plan, gap = got
    assert usage_of(needs, plan, limits).fits()
    assert 0.0 <= gap <= 1.0
    for need in needs:
        for n, v in zip(plan[need.service], need.variants, strict=True):
            assert v.lower <= n <= v.upper


@settings(max_examples=100, deadline=None)
@given(needs=needs_strategy, a=st.integers(0, 24), b=st.integers(0, 24))
def test_what_fits_alone_is_never_called_too_much(
    needs: tuple[ServiceNeed, ...], a: int, b: int
) -> None:
    limits = Limits({"a": a, "b": b}, {}, {}, {})
    alone = {n.service: plan for n in needs if (plan := cheapest(n)) is not None}
    if len(alone) == len(needs) and usage_of(needs, alone, limits).fits():
        assert not planner._too_much(needs, limits)


def test_what_is_certainly_too_much_is_seen_without_a_plan() -> None:
    needs, limits = crowd(90, seed=5, share=0.6)
    assert planner._too_much(needs, limits)
    assert not planner._too_much(needs, Limits({"a": 10_000, "b": 10_000}, {}, {}, {}))
    assert not planner._too_much(needs, Limits({"a": 10}, {}, {}, {}))  # as many of b as one likes


def test_many_services_keep_quotas_and_budgets_and_serve_the_higher_tier_first() -> None:
    needs, limits = crowd(300, seed=11, share=0.7)
    limits = replace(
        limits,
        namespace_accelerators={("p", "n0"): 120, ("p", "n1"): 10_000},
        pool_budget_usd_per_hour={"p": 1500.0},
    )
    plan, gap = priced(needs, limits)
    usage = usage_of(needs, plan, limits)
    assert usage.fits()
    assert usage.namespace["p", "n0"] <= 120
    assert gap < 0.02
    assert priced(needs, limits) == (plan, gap)  # the same every time
    lack = {
        tier: sum(1 - n.covered(plan[n.service]) for n in needs if n.priority == tier)
        for tier in range(3)
    }
    top = tuple(n for n in needs if n.priority == 2)
    with_all_to_itself = priced(top, limits)[0]
    least = sum(1 - n.covered(with_all_to_itself[n.service]) for n in top)
    assert lack[2] <= least + 0.5  # of a hundred services; the others do not take from them
    assert lack[0] > 10 > lack[2]


def test_who_uses_nothing_scarce_has_the_exact_plan_of_its_own() -> None:
    needs, limits = crowd(80, seed=3)
    free = service(
        "n9/free", need_variant("c", future=5), need_variant("d", future=7, usd_per_hour=2.0)
    )
    plan = plan_replicas((*needs, free), limits)
    assert plan.status == "priced"
    assert plan.services["n9/free"].replicas == cheapest(free)


def test_prefill_and_decode_are_short_together() -> None:
    pairs = tuple(
        service(
            f"n/s{i}",
            need_variant("p", role=Role.PREFILL, future=6),
            need_variant("d", role=Role.DECODE, future=3),
        )
        for i in range(70)
    )
    plan = plan_replicas(pairs, Limits({"p": 210}, {}, {}, {}))  # half of the prefill they want
    assert plan.status == "priced"
    counts = [p.replicas for p in plan.services.values()]
    assert sum(p for p, _ in counts) == 210
    for p, d in counts:  # what prefill cannot feed no decode replica waits for
        assert d <= -(-3 * p // 6) + 1


def test_minimums_that_do_not_fit_leave_the_greedy_plan() -> None:
    needs = tuple(service(f"n/s{i}", need_variant(lower=2, future=3)) for i in range(FEW + 1))
    limits = Limits({"a": FEW}, {}, {}, {})
    assert plan_by_price(needs, limits, cheapest) is None
    assert plan_replicas(needs, limits).status == "greedy"


def test_a_budget_of_ones_own_is_kept() -> None:
    need = service("n/s", need_variant(future=8), budget_usd_per_hour=13.0)
    assert priced((need,), NO_LIMITS)[0] == {"n/s": (3,)}

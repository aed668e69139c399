import math
from dataclasses import replace
from typing import Any

import pytest
from builders import SERVICE, policies, policy, seen, variant
from test_metrics import INTERVAL, decision, fed, step, value

from autoscaler.core.types import AcceleratorClass, Pool, ServiceObservation
from autoscaler.edge.regret import Regret

POOLS = (Pool("p", (AcceleratorClass("h100", 4.0, None), AcceleratorClass("l40s", 1.0, None))),)


def regret(needed: float, *, of: Any = None, **variant_changes: Any) -> Regret:
    """One hour of 4 desired replicas at 16 $/h, of which `needed` were, in hindsight."""
    out = Regret()
    shown = ServiceObservation(9.0, 1000.0, 100.0, {"h100": seen(4, **variant_changes)})
    out.take_in(of or policy(), POOLS, shown, decision(needed_replicas=needed), 3600.0)
    return out


@pytest.mark.parametrize(
    ("needed", "changes", "usd", "lacking"),
    [
        (4, {}, 0.0, 0.0),
        (3, {}, 4.0, 0.0),  # one of four too many, 4 $/h
        (6, {}, 0.0, 7200.0),  # two too few, for an hour; never a negative price
        (3, {"starting": 2, "draining": 1}, 16.0, 0.0),  # 7 are paid for: 28 - 12
        (5, {"ready": 3, "starting": 2}, 0.0, 7200.0),  # paid for and not there yet
        (0, {}, 12.0, 0.0),  # the policy keeps one: 16 - 4
    ],
)
def test_by_hand(needed: float, changes: dict[str, Any], usd: float, lacking: float) -> None:
    got = regret(float(needed), **changes)
    assert got.usd == pytest.approx(usd)
    assert got.shortfall_replica_seconds == lacking


def test_the_price_of_what_runs_is_exact_and_of_what_was_needed_the_planned_mean() -> None:
    # Runs: 3 x 4 $ + 2 x 1 $ = 14 $/h. Planned: 1 x 4 $ + 2 x 1 $ = 6 $/h, 2 $ a replica; needed 2: 4 $.
    both = policy(variants=(variant(min_replicas=0), variant("l40s", min_replicas=0)))
    shown = ServiceObservation(9.0, 1.0, 1.0, {"h100": seen(3), "l40s": seen(2)})
    planned = decision(variants={"h100": 1, "l40s": 2}, cost_usd_per_hour=6.0, needed_replicas=2.0)
    got = Regret()
    got.take_in(both, POOLS, shown, planned, 3600.0)
    assert got.usd == pytest.approx(10.0)


def test_nothing_is_added_where_a_number_is_unknown() -> None:
    assert math.isnan(regret(math.nan).usd)
    assert math.isnan(regret(math.nan).shortfall_replica_seconds)
    two = policy(variants=(variant(), variant("l40s")))  # the scale of l40s cannot be read
    assert math.isnan(regret(3.0, of=two).usd)
    unpriced = Regret()
    shown = ServiceObservation(9.0, 1.0, 1.0, {"h100": seen(4)})
    unpriced.take_in(policy(), (), shown, decision(cost_usd_per_hour=math.nan), 3600.0)
    assert math.isnan(unpriced.usd)
    assert unpriced.shortfall_replica_seconds == 0.0  # needs no price


def test_an_unknown_interval_leaves_the_total() -> None:
    total = regret(3.0)
    shown = ServiceObservation(9.0, 1.0, 1.0, {"h100": seen(4)})
    total.take_in(policy(), POOLS, shown, decision(needed_replicas=math.nan), 3600.0)
    assert total.usd == pytest.approx(4.0)
    assert total.shortfall_replica_seconds == 0.0


def test_as_metrics() -> None:
    # Three ready at 4 $/h. One needed: 8 $/h for 15 s. Then five needed: two lacking for 15 s.
    free = policies(policy(variants=(variant(min_replicas=0),)))
    first = step(0, decided=decision(needed_replicas=1.0))
    second = step(1, decided=decision(needed_replicas=5.0))
    blind = step(2, decided=decision(needed_replicas=math.nan))
    metrics = fed(first, second, blind, of=free)
    assert value(metrics, "regret_usd_total", service=SERVICE) == pytest.approx(8 * INTERVAL / 3600)
    assert value(metrics, "shortfall_replica_seconds_total", service=SERVICE) == 2 * INTERVAL
    assert math.isnan(value(metrics, "needed_replicas", service=SERVICE))


def test_without_prices_there_is_a_shortfall_and_no_regret() -> None:
    metrics = fed(
        step(decided=decision(cost_usd_per_hour=math.nan)), of=replace(policies(policy()), pools=())
    )
    assert math.isnan(value(metrics, "regret_usd_total", service=SERVICE))
    assert value(metrics, "shortfall_replica_seconds_total", service=SERVICE) == 0.0
    assert value(metrics, "needed_replicas", service=SERVICE) == 3.0

"""`needed_replicas`: what the load measured now would have needed, whatever was forecast."""

import math
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

from autoscaler.core.outcome import ServiceDecision, StartLead, State
from autoscaler.core.tick import tick
from autoscaler.core.types import Policies, Role
from models import capacity

LEAD = StartLead(120.0, 240.0)


def decided(world: Policies, known: Any, shown: Any, state: State | None = None) -> ServiceDecision:
    return tick(world, known, state or State(), shown)[1].services[SERVICE]


def one(rate: float, forecast_rps: float = 10.0) -> ServiceDecision:
    shown = observation(rate=rate, h100=seen(3))
    return decided(policies(policy()), forecasts({SERVICE: outlook(forecast_rps)}), shown)


def attained(rate: float, replicas: float) -> float:
    """The share within the SLO at a steady rate: the formula behind the search, evaluated once."""
    return float(
        capacity.attainment(
            latency_model((SERVICE, "h100")).coefficients([(SERVICE, "h100")]),
            np.array([rate]),
            np.array([replicas]),
            np.array([1000.0]),
            np.array([100.0]),
            capacity.TargetArrays.of([policy().targets], "Both"),
        )[0]
    )


@pytest.mark.parametrize(("rate", "needed"), [(0.5, 1), (7.0, 2), (30.0, 6), (80.0, 15)])
def test_one_fewer_would_miss_the_slo(rate: float, needed: int) -> None:
    got = one(rate)
    assert got.needed_replicas == needed
    assert attained(rate, got.needed_replicas) >= got.attainment_target_ratio
    assert got.needed_replicas == 1 or (
        attained(rate, got.needed_replicas - 1) < got.attainment_target_ratio
    )


def test_the_forecast_does_not_matter() -> None:
    calm, alarmed = one(7.0, forecast_rps=1.0), one(7.0, forecast_rps=60.0)
    assert calm.needed_replicas == alarmed.needed_replicas
    assert calm.required_replicas < alarmed.required_replicas


def test_a_known_rate_needs_no_more_than_an_uncertain_one_around_it() -> None:
    assert one(20.0, forecast_rps=20.0).needed_replicas <= one(20.0, 20.0).required_replicas


def test_no_load_needs_nothing_whatever_the_policy_keeps() -> None:
    assert one(0.0).needed_replicas == 0.0


def test_what_was_not_measured_is_unknown() -> None:
    nothing_yet = decided(policies(policy()), forecasts({SERVICE: outlook(5.0)}), silence())
    assert math.isnan(nothing_yet.needed_replicas)
    assert math.isnan(one(math.nan).needed_replicas)


def test_a_variant_of_unknown_speed_makes_it_unknown() -> None:
    known = forecasts({SERVICE: outlook(5.0)}, latency_model(("prod/other", "h100")))
    shown = observation(rate=5.0, h100=seen(3))
    unknown = latency_model((SERVICE, "h100"), base_seconds=math.nan)
    assert math.isnan(
        decided(policies(policy()), replace(known, latency=unknown), shown).needed_replicas
    )


def test_a_mix_of_variants_of_one_speed_needs_as_many_as_one_of_them() -> None:
    model = latency_model((SERVICE, "a"), (SERVICE, "b"))
    both = (variant("a", min_replicas=0), variant("b", min_replicas=0))
    shown = observation(rate=30.0, a=seen(0), b=seen(6))
    got = decided(
        policies(policy(variants=both)),
        forecasts({SERVICE: outlook(30.0)}, model, a=LEAD, b=LEAD),
        shown,
    )
    alone = decided(
        policies(policy(variants=(variant("b"),))),
        forecasts({SERVICE: outlook(30.0)}, model, b=LEAD),
        observation(rate=30.0, b=seen(6)),
    )
    assert got.needed_replicas == alone.needed_replicas


def test_prefill_and_decode_are_added_up() -> None:
    model = latency_model((SERVICE, "p"), (SERVICE, "d"))
    roles = (variant("p", role=Role.PREFILL), variant("d", role=Role.DECODE))
    got = decided(
        policies(policy(variants=roles)),
        forecasts({SERVICE: outlook(5.0)}, model, p=LEAD, d=LEAD),
        observation(rate=1.0, p=seen(1), d=seen(1)),
    )
    assert got.needed_replicas == 2.0  # one request a second: one of each


def test_the_last_minute_counts_while_telemetry_is_gone_for_less() -> None:
    world, known = policies(policy()), forecasts({SERVICE: outlook(5.0)})
    state, _ = tick(world, known, State(), observation(rate=7.0, h100=seen(3)))
    soon = decided(world, known, silence(NOW + 30.0), state)
    later = decided(world, known, silence(NOW + 61.0), state)
    assert soon.needed_replicas == one(7.0).needed_replicas
    assert math.isnan(later.needed_replicas)

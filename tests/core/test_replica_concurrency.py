"""What the scaler can count replicas by: requests that a replica holds within the SLO, in mode Keda."""

import json
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

from autoscaler.core.outcome import ServiceDecision, State
from autoscaler.core.tick import tick
from autoscaler.core.types import Behavior, Mode, Policy, Role, ScalingRules
from autoscaler.edge.decisions import decisions_to_dict
from models.capacity import TargetArrays, attainment
from models.concurrency import mean_requests
from models.slo import SloTargets


def keda(**changes: Any) -> Policy:
    behavior = Behavior(Mode.KEDA, ScalingRules(0.0), ScalingRules(300.0))
    return replace(policy(**changes), behavior=behavior)


def decided(one: Policy, shown: Any = None, **latency: float) -> ServiceDecision:
    names = [v.name for v in one.variants]
    known = forecasts(
        {SERVICE: outlook(10.0)}, latency_model(*[(SERVICE, n) for n in names], **latency)
    )
    each = {n: seen(3) for n in names}
    shown = observation(rate=10.0, **each) if shown is None else shown
    return tick(policies(one), known, State(), shown)[1].services[SERVICE]


def test_a_replica_with_as_many_requests_is_at_its_slo() -> None:
    got = decided(keda())
    (held,) = got.replica_concurrency.values()
    c = latency_model((SERVICE, "h100")).coefficients([(SERVICE, "h100")])
    count = float(got.variants["h100"])
    rates = np.linspace(0.1, 30.0, 3000) * count
    mix = (np.array([1000.0]), np.array([100.0]))
    requests = mean_requests(c, rates, np.array([count]), *mix, "Both")
    goals = TargetArrays.of([policy().targets], "Both")
    share = attainment(c, rates, np.array([count]), *mix, goals)
    at = float(np.interp(held, requests, share))
    assert at == pytest.approx(got.attainment_target_ratio, abs=0.002)


@pytest.mark.parametrize("mode", [Mode.RECOMMEND, Mode.SCALE])
def test_in_other_modes_nobody_asks_and_it_costs_nothing(mode: Mode) -> None:
    one = keda()
    got = decided(replace(one, behavior=replace(one.behavior, mode=mode)))
    assert got.replica_concurrency == {}


def test_each_variant_and_role_has_its_own() -> None:
    split = keda(variants=(variant("p", role=Role.PREFILL), variant("d", role=Role.DECODE)))
    held = decided(split).replica_concurrency
    assert held.keys() == {"p", "d"}
    assert 1.0 <= held["p"] < held["d"]


def test_what_is_not_known_is_left_out() -> None:
    unknown = keda(variants=(variant(), variant("b200")))
    known = forecasts({SERVICE: outlook(10.0)}, latency_model((SERVICE, "h100")))
    shown = observation(rate=10.0, h100=seen(3), b200=seen(1))
    made = tick(policies(unknown), known, State(), shown)[1].services[SERVICE]
    assert made.replica_concurrency.keys() == {"h100"}
    assert decided(keda(targets=SloTargets(1e-6, 1e-6))).replica_concurrency == {}
    nothing = forecasts({}, latency_model((SERVICE, "h100")))
    blind = tick(policies(keda()), nothing, State(), silence())[1].services[SERVICE]
    assert blind.replica_concurrency == {}


def test_however_tight_the_slo_a_replica_holds_one_request() -> None:
    assert decided(keda(targets=SloTargets(0.2, 0.021), attainment=0.95)).replica_concurrency == {
        "h100": 1.0  # by the model a part of one
    }


def test_it_is_logged_beside_the_count_and_only_where_known() -> None:
    world = policies(keda())
    known = forecasts({SERVICE: outlook(10.0)})
    _, made = tick(world, known, State(), observation(NOW, rate=10.0, h100=seen(3)))
    (entry,) = decisions_to_dict(made)["services"][SERVICE]["variants"].values()
    assert entry["replica_concurrency"] == pytest.approx(
        made.services[SERVICE].replica_concurrency["h100"], abs=1e-8
    )
    _, other = tick(policies(policy()), known, State(), observation(NOW, rate=10.0, h100=seen(3)))
    text = json.dumps(decisions_to_dict(other))
    assert "replica_concurrency" not in text

"""Replicas that are ready and not scraped: others stand for them, or the load is unknown."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.types import (
    Observation,
    Policies,
    ServiceObservation,
    VariantObservation,
)
from autoscaler.edge.reading import Reading
from autoscaler.operate.collect import Replicas
from autoscaler.operate.coverage import settled_seconds, whole
from autoscaler.policy import parse_policies

SERVICE = "prod/chat"


def policies(*variants: tuple[str, str]) -> Policies:
    """A policy whose variants have these names and roles."""
    entries = "".join(
        f"""
  - name: {name}
    role: {role}
    targetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
    acceleratorClass: any
    maxReplicas: 50"""
        for name, role in variants
    )
    text = f"""
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {{name: chat, namespace: prod}}
spec:
  model: chat
  slo: {{objectives: [{{metric: ttft, targetSeconds: 1.0}}]}}
  variants:{entries}
"""
    return parse_policies([("p", text)])


ONE = policies(("a", "Both"))
TWO = policies(("a", "Both"), ("b", "Both"))
PHASES = policies(("p", "Prefill"), ("d", "Decode"))


def reading(
    scraped: dict[str, float], rate: float = 12.0, *, rebuilt: bool = True, running: float = 30.0
) -> Reading:
    variants = {
        name: VariantObservation(0, 0, 0, 0, running=running, waiting=6.0) for name in scraped
    }
    seen = ServiceObservation(rate, 500.0, 100.0, variants)
    return Reading(
        Observation(1000.0, 15.0, {SERVICE: seen}, {}),
        {},
        (),
        {},
        {},
        (),
        {(SERVICE, name): n for name, n in scraped.items()},
        frozenset({SERVICE} if rebuilt else ()),
    )


def ready(**settled: int) -> dict[tuple[str, str], Replicas]:
    return {(SERVICE, name): Replicas(n, n, 0, 0, n) for name, n in settled.items()}


@pytest.mark.parametrize(("window", "expected"), [(37.5, 120.0), (150.0, 225.0)])
def test_a_replica_is_settled_after_a_window_and_half(window: float, expected: float) -> None:
    assert settled_seconds(window) == expected


def test_three_of_five_stand_for_all() -> None:
    observation, told = whole(reading({"a": 3.0}), ONE, ready(a=5))
    seen = observation.services[SERVICE]
    assert seen.arrival_rate_rps == pytest.approx(20.0)  # 12 x 5 / 3
    assert seen.variants["a"].running == pytest.approx(50.0)
    assert seen.variants["a"].waiting == pytest.approx(10.0)
    assert seen.isl_tokens == 500.0  # a mean is no sum
    assert told == {SERVICE: "3 of 5 ready replicas are scraped: their load stands for all"}


def test_what_a_gateway_counted_is_whole() -> None:
    observation, told = whole(reading({"a": 3.0}, rebuilt=False), ONE, ready(a=5))
    assert observation.services[SERVICE].arrival_rate_rps == 12.0
    assert observation.services[SERVICE].variants["a"].running == pytest.approx(50.0)
    assert SERVICE in told


def test_less_than_half_is_unknown() -> None:
    observation, told = whole(reading({"a": 2.0}), ONE, ready(a=5))
    assert math.isnan(observation.services[SERVICE].arrival_rate_rps)
    assert math.isnan(observation.services[SERVICE].variants["a"].running)
    assert told[SERVICE] == (
        "2 of 5 ready replicas are scraped: what the others serve is not known"
    )


@pytest.mark.parametrize(
    ("scraped", "settled"),
    [
        (5.0, 5),
        (6.0, 5),  # one that has just become ready is scraped already
        (4.6, 5),  # a scrape that failed
        (97.0, 100),
        (3.0, 0),  # nobody knows which pods are meant
    ],
)
def test_what_is_whole_stays_as_it_is(scraped: float, settled: int) -> None:
    before = reading({"a": scraped})
    observation, told = whole(before, ONE, ready(a=settled))
    assert observation == before.observation
    assert told == {}


def test_without_any_scrape_there_is_nothing_to_scale_up() -> None:
    before = reading({}, rebuilt=False)
    assert whole(before, ONE, ready(a=5)) == (before.observation, {})


def test_a_variant_that_nobody_scrapes() -> None:
    """10 of 12 replicas are scraped: the rate grows by 12 / 10, what b does is not known."""
    observation, told = whole(reading({"a": 10.0}), TWO, ready(a=10, b=2))
    assert observation.services[SERVICE].arrival_rate_rps == pytest.approx(14.4)
    assert observation.services[SERVICE].variants["a"].running == 30.0
    assert told[SERVICE].startswith("10 of 12")


def test_the_phase_that_is_scraped_best_counts_the_requests() -> None:
    """Every request passes both phases: prefill is whole, so the rate is."""
    observation, _ = whole(reading({"p": 4.0, "d": 3.0}), PHASES, ready(p=4, d=5))
    seen = observation.services[SERVICE]
    assert seen.arrival_rate_rps == 12.0
    assert seen.variants["p"].running == 30.0
    assert seen.variants["d"].running == pytest.approx(50.0)


@given(scraped=st.floats(0.0, 50.0), settled=st.integers(0, 50), rate=st.floats(0.0, 1e6))
def test_a_missing_scrape_never_reads_as_less_load(
    scraped: float, settled: int, rate: float
) -> None:
    observation, told = whole(reading({"a": scraped}, rate), ONE, ready(a=settled))
    after = observation.services[SERVICE].arrival_rate_rps
    assert math.isnan(after) or rate <= after <= 2.0 * rate * (1 + 1e-9)
    assert bool(told) == (after != rate or observation != reading({"a": scraped}, rate).observation)

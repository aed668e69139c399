"""The planned count through operator, scaler, a real gRPC client and the HPA, in KEDA's order of calls."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hpa_world import Hpa, Rules, World
from scaler_rig import Authority, Served, policy, ref, stamp

from autoscaler.edge.keda.tls import TlsFiles
from autoscaler.policy.status import ConditionReason

COUNTS = range(1, 101)
FREE = Rules([("Pods", 100_000, 15.0)], 0.0)  # one step may go anywhere, at once


@pytest.fixture(params=["plain", "mTLS"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A scaler, and KEDA on one connection to it."""
    if request.param == "plain":
        served = Served()
        keda = served.keda()
    else:
        authority = Authority(tmp_path)
        served = Served(TlsFiles(*authority.issue("scaler"), authority.certificate))
        certificate, key = authority.issue("keda")
        keda = served.keda(
            grpc.ssl_channel_credentials(
                authority.certificate.read_bytes(), key.read_bytes(), certificate.read_bytes()
            )
        )
    counts = COUNTS if request.param == "plain" else range(1, 101, 7)
    yield World(served, keda, free(1), counts)
    served.close()


def free(current: int, tolerance: float = 0.1) -> Hpa:
    return Hpa(
        spec=current,
        target=1.0,
        scale_up=FREE,
        scale_down=FREE,
        up_tolerance=tolerance,
        down_tolerance=tolerance,
    )


def one_step_can(current: int) -> set[int]:
    """Counts of which ceil makes a metric outside [0.9 c, 1.1 c]: of n that is ((n - 1), n]; and c itself."""
    milli = [(n, 1000 * (n - 1) + 1, 1000 * n) for n in range(1, 121)]
    low, high = 900 * current, 1100 * current
    return {current} | {n for n, first, last in milli if first < low or last > high}


def test_every_pair_lands_exactly_where_one_step_can(world: World) -> None:
    limited = 0
    for current in world.currents:
        can = one_step_can(current)
        for planned in COUNTS:
            world.h = free(current)
            verdict = world.decide(planned)
            if planned % 10 == 0:
                world.poll()
            landed = world.look()
            if planned in can:
                assert (landed, verdict.reason) == (planned, ConditionReason.EXACT)
                continue
            limited += 1
            side = "scaleUp" if planned > current else "scaleDown"
            assert (verdict.status, verdict.reason) == ("False", ConditionReason.TOLERANCE_LIMITED)
            assert f'behavior.{side}.tolerance: "0"' in verdict.message
            assert landed == (current if planned < current else min(n for n in can if n >= planned))
    if world.currents == COUNTS:
        assert limited == 783  # 414 of growth, 369 of a fall: docs/design/013


def test_with_tolerance_0_all_pairs_are_exact(world: World) -> None:
    for current in world.currents:
        for planned in COUNTS:
            world.h = free(current, tolerance=0.0)
            verdict = world.decide(planned)
            assert world.look() == planned
            assert verdict.reason is ConditionReason.EXACT


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.1, 0.25])
def test_on_the_way_it_never_falls_below_and_ends_at_the_smallest_count_it_can(
    world: World, tolerance: float
) -> None:
    """Kubernetes' default rules and others; the operator looks only every other time."""
    steps = [("Pods", 4, 15.0), ("Percent", 100, 15.0)]
    slow = Rules([("Percent", 10, 15.0), ("Pods", 1, 15.0)], 30.0)
    for current, planned in ((1, 100), (100, 1), (10, 11), (12, 11), (60, 64), (40, 38), (7, 9)):
        world.h = free(current, tolerance)
        world.h.scale_up, world.h.scale_down = Rules(steps, 0.0), slow
        counts = [current]
        for turn in range(80):
            if turn % 2 == 0:
                verdict = world.decide(planned)
            counts.append(world.look())
            assert counts[-1] >= min(current, planned), counts
        ended = counts[-1]
        assert counts[-10:] == [ended] * 10, counts
        assert ended >= planned
        if ended != planned:  # held inside the band, by the tolerance alone
            assert ended <= planned / (1 - tolerance)
            assert verdict.reason is ConditionReason.TOLERANCE_LIMITED


def test_rules_of_the_hpa_are_told_with_the_setting_that_removes_them(world: World) -> None:
    world.h = free(10)
    world.h.scale_up = Rules([("Pods", 2, 60.0)], 0.0)
    verdict = world.decide(40)
    assert (verdict.status, verdict.reason) == ("False", ConditionReason.BEHAVIOR_LIMITED)
    assert "h100: 40 decided, 10 asked for now; the HPA sets 12 at its next look" in verdict.message
    assert "behavior.scaleUp.policies" in verdict.message
    assert world.look() == 12
    world.h = free(40)
    world.h.scale_down = Rules(FREE.policies, 300.0)
    verdict = world.decide(10)
    assert verdict.reason is ConditionReason.STABILIZATION_PENDING
    assert "behavior.scaleDown.stabilizationWindowSeconds: 0" in verdict.message
    world.h = free(10)
    world.h.maximum = 20
    verdict = world.decide(30)
    assert verdict.reason is ConditionReason.BOUNDED_BY_MIN_MAX
    assert world.look() == 20


def test_target_type_value_counts_ready_pods(world: World) -> None:
    world.h = free(20)
    world.h.average, world.h.ready = False, 10
    assert world.decide(15).reason is ConditionReason.EXACT
    assert world.keda.count() == 1.5
    assert world.look() == 15


def test_streams_with_reconnects_say_what_the_polls_say(world: World) -> None:
    world.h = free(1)
    for planned in (0, 3, 0):
        world.decide(planned)
        stream = world.keda.stream()  # KEDA comes back
        assert next(stream).result is world.keda.is_active() is (planned > 0)
        stream.cancel()
        assert next(world.keda.stream("StreamMetricSpec")) == world.keda.spec()


@pytest.mark.parametrize("readings", ["nothing", "a list that nobody wrote"])
def test_where_no_hpa_is_known_kubernetes_defaults_hold(world: World, readings: str) -> None:
    """An older operator, or one without rights: the band is 10 % all the same."""
    world.h = free(10)
    document = policy(desired=11, current=10)
    if readings != "nothing":
        document["status"]["variants"][0]["delivery"] = {"minReplicas": 5, "maxReplicas": 2}
    world.served.plans.apply("MODIFIED", document)
    assert world.keda.count() == 12.0
    assert world.keda.count(ref(tolerance="0")) == 11.0
    assert world.keda.count(ref(tolerance="0.3")) == 14.0
    world.served.plans.apply("MODIFIED", policy(desired=11, current=None))
    assert world.keda.count() == 11.0  # nobody knows what runs


def test_versions_of_keda_without_floats_are_told_no_less(world: World) -> None:
    world.h = free(10)
    world.decide(9)
    value = world.keda.metrics()
    assert (value.metricValueFloat, value.metricValue) == (8.5, 9)  # 9 is inside the band: held


@pytest.mark.parametrize("fallback", [None, 4, 40])
def test_a_killed_operator_takes_nothing_away(world: World, fallback: int | None) -> None:
    """It dies in a rise, in a fall, and at rest; the HPA asks on every 15 s for half an hour."""
    for current, planned in ((10, 30), (30, 10), (10, 11), (11, 10), (20, 20)):
        world.h = free(current)
        world.decide(planned)
        world.served.hands.elapsed += 1.0
        document = dict(world.document)
        document["spec"] = document["spec"] | {
            "fallback": {"afterSeconds": 600} | ({} if fallback is None else {"replicas": fallback})
        }
        document["status"] = document["status"] | {
            "lastDecisionTime": stamp(world.served.hands.elapsed)
        }
        world.served.plans.apply("MODIFIED", document)
        counts = []
        for _ in range(120):
            counts.append(world.look())
            assert counts[-1] >= min(current, planned)
            assert world.keda.is_active() is True
            world.served.hands.elapsed += 15.0
        # 180 s the plan, then what ran or was planned, whichever is more; after 780 s the fallback
        assert counts[11] >= planned
        assert counts[-1] >= max(planned, fallback or 0)
        world.served.hands.elapsed += 1.0

"""StreamIsActive and StreamMetricSpec: pushed within a second, to every stream there is."""

import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from scaler_rig import Served, policy, ref, until

from autoscaler.edge.keda import service

STREAMS = 500
PUSHED_SECONDS = 1.0


def test_activity_is_told_at_once_and_at_each_change(served: Served) -> None:
    served.plans.replace([policy(desired=0, current=0)])
    stream = served.keda().stream()
    assert next(stream).result is False
    for desired, active in ((1, True), (0, False), (5, True)):
        begun = time.monotonic()
        served.plans.apply("MODIFIED", policy(desired=desired, current=0))
        assert next(stream).result is active
        assert time.monotonic() - begun < PUSHED_SECONDS


def test_what_stays_active_is_not_told_again(served: Served) -> None:
    served.plans.replace([policy(desired=3)])
    stream = served.keda().stream()
    assert next(stream).result is True
    for desired in (4, 5, 6):
        served.plans.apply("MODIFIED", policy(desired=desired))
    served.plans.apply("MODIFIED", policy(desired=0, current=0))
    assert next(stream).result is False


def test_while_nothing_is_known_a_stream_says_nothing_and_then_what_is(served: Served) -> None:
    stream = served.keda().stream()
    until(lambda: served.exported("foreserve_scaler_open_streams") == 1.0)
    served.plans.replace([policy("other")])  # known, and not among them
    served.plans.apply("ADDED", policy(desired=None, current=None, decided=None))
    served.plans.apply("MODIFIED", policy(desired=2))
    assert next(stream).result is True
    served.plans.apply("DELETED", policy())  # no reason to call it inactive
    served.plans.apply("ADDED", policy(desired=0, current=0))
    assert next(stream).result is False


def test_a_plan_that_ages_wakes_by_its_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOOK_SECONDS", 0.1)
    served = Served()
    served.plans.replace([policy(desired=0, current=0, fallback={"replicas": 2})])
    stream = served.keda().stream()
    assert next(stream).result is False
    served.hands.elapsed = 781.0  # 180 s, and 600 s of fallback.afterSeconds
    assert next(stream).result is True  # looked at again without an event
    served.close()


def test_the_spec_is_told_at_once_and_the_stream_stays(served: Served) -> None:
    keda = served.keda()
    stream = keda.stream("StreamMetricSpec")
    assert next(stream) == keda.spec()
    time.sleep(0.1)
    assert stream.is_active()


def test_500_streams_are_pushed_within_a_second_and_leave_nothing_behind(served: Served) -> None:
    names = [f"chat-{n % 50}" for n in range(STREAMS)]
    off = [policy(name, desired=0, current=0) for name in set(names)]
    served.plans.replace(off)
    keda = served.keda()
    streams = [keda.stream(asked=ref(name)) for name in names]
    with ThreadPoolExecutor(STREAMS) as pool:
        assert not any(m.result for m in pool.map(next, streams))
        assert served.exported("foreserve_scaler_open_streams") == STREAMS
        waiting = [pool.submit(lambda s: (next(s).result, time.monotonic()), s) for s in streams]
        begun = time.monotonic()
        for name in set(names):
            served.plans.apply("MODIFIED", policy(name, desired=1, current=0))
        assert keda.is_active(ref(names[0])) is True
        told = [w.result(10.0) for w in waiting]
    assert all(active for active, _ in told)
    assert max(when for _, when in told) - begun < PUSHED_SECONDS
    for stream in streams:
        stream.cancel()
    until(lambda: served.exported("foreserve_scaler_open_streams") == 0.0)
    assert served.server.scaler._bells._bells == {}


def test_a_client_that_comes_back_is_told_at_once(served: Served) -> None:
    served.plans.replace([policy(desired=1)])
    for _ in range(5):
        keda = served.keda()
        assert next(keda.stream()).result is True
        keda.channel.close()
    until(lambda: served.exported("foreserve_scaler_open_streams") == 0.0)


def test_a_client_that_reads_nothing_holds_up_nobody(served: Served) -> None:
    """What it does not read waits for it alone: others are told."""
    served.plans.replace([policy(desired=1)])
    slow = served.keda()
    stuck = [slow.stream() for _ in range(20)]  # never read
    until(lambda: served.exported("foreserve_scaler_open_streams") == 20.0)
    quick = served.keda()
    stream = quick.stream()
    assert next(stream).result is True
    for n in range(2000):
        active = n % 2 == 1
        served.plans.apply("MODIFIED", policy(desired=int(active), current=0))
    served.plans.apply("MODIFIED", policy(desired=0, current=0))
    begun = time.monotonic()
    until(lambda: next(stream).result is False, PUSHED_SECONDS)
    assert quick.count() == 0.0
    assert time.monotonic() - begun < PUSHED_SECONDS
    for s in stuck:
        s.cancel()


def test_a_stream_of_a_client_that_vanished_ends(served: Served) -> None:
    served.plans.replace([policy()])
    stream = served.keda().stream()
    next(stream)
    stream.cancel()
    until(lambda: served.exported("foreserve_scaler_open_streams") == 0.0)
    assert isinstance(stream.code(), grpc.StatusCode)

"""StreamIsActive and StreamMetricSpec: pushed within a second, to every stream there is."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from scaler_rig import SERVICE, Keda, Served, Wire, policy, ref, until

from autoscaler.edge.keda import server, service

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


def test_a_silent_stream_lives_and_one_whose_client_is_gone_without_a_word_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """KEDA's streams say nothing for days, and a node that dies closes no connection."""
    quick = {"grpc.keepalive_time_ms": 200, "grpc.http2.ping_timeout_ms": 500}
    monkeypatch.setattr(server, "OPTIONS", tuple((dict(server.OPTIONS) | quick).items()))
    served = Served()
    served.plans.replace([policy(desired=0, current=0)])
    wire = Wire(served.address)
    channel = grpc.insecure_channel(wire.address)
    stream, other = Keda(channel).stream(), served.keda().stream()
    assert next(stream).result is next(other).result is False
    time.sleep(2.0)  # ten pings, and nothing to say
    served.plans.apply("MODIFIED", policy(desired=1, current=0))
    assert next(stream).result is next(other).result is True
    wire.cut()
    until(lambda: served.exported("foreserve_scaler_open_streams") == 1.0, 5.0)
    served.plans.apply("MODIFIED", policy(desired=0, current=0))
    assert next(other).result is False
    channel.close()
    wire.close()
    served.close()


def test_a_client_that_is_gone_is_noticed_within_40_seconds() -> None:
    options = dict(server.OPTIONS)
    silence, answer = "grpc.keepalive_time_ms", "grpc.http2.ping_timeout_ms"
    assert options[silence] + options[answer] <= 40_000
    assert options["grpc.keepalive_timeout_ms"] <= options[answer]


def test_a_storm_of_reconnects_leaves_nothing_behind_and_delays_nobody(served: Served) -> None:
    """Thirty clients that come, ask, stream and go without good-bye, again and again."""
    served.plans.replace([policy(desired=1)])
    calm, worst, failures = served.keda(), 0.0, []
    steady = calm.stream()
    assert next(steady).result is True
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            channel = grpc.insecure_channel(served.address, [("grpc.use_local_subchannel_pool", 1)])
            try:
                keda = Keda(channel)
                stream = keda.stream()
                assert next(stream).result is True
                assert keda.count() == 1.0
            except grpc.RpcError as error:
                failures.append(error.code())
            finally:
                channel.close()

    threads = [threading.Thread(target=come_and_go) for _ in range(30)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        begun = time.monotonic()
        assert calm.count() == 1.0
        worst = max(worst, time.monotonic() - begun)
        time.sleep(0.1)
    over.set()
    for thread in threads:
        thread.join(10.0)
    assert failures == []
    assert worst < 2.0  # KEDA gives a call three seconds or more
    until(lambda: served.exported("foreserve_scaler_open_streams") == 1.0)
    served.plans.apply("MODIFIED", policy(desired=0, current=0))
    assert next(steady).result is False


def test_a_policy_that_is_deleted_and_made_again(served: Served) -> None:
    """An error while there is none, never a zero; streams stay and go on with the new one."""
    served.plans.replace([policy(desired=3)])
    keda = served.keda()
    stream = keda.stream()
    assert next(stream).result is True
    served.plans.apply("DELETED", policy(desired=3))
    for ask in (keda.metrics, keda.is_active):
        with pytest.raises(grpc.RpcError) as error:
            ask()
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert served.plans._asked == {}  # who asked for it is forgotten with it
    served.plans.apply("ADDED", policy(desired=None, current=None, decided=None))
    for ask in (keda.metrics, keda.is_active):
        with pytest.raises(grpc.RpcError) as error:
            ask()
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert keda.spec().metricSpecs
    served.plans.apply("MODIFIED", policy(desired=0, current=0, decided=1.0))
    assert next(stream).result is False
    assert keda.count() == 0.0


@pytest.mark.parametrize("method", ["StreamIsActive", "StreamMetricSpec"])
def test_a_malformed_message_opens_no_stream(served: Served, method: str) -> None:
    served.plans.replace([policy()])
    keda = served.keda()
    stream = keda.channel.unary_stream(f"{SERVICE}{method}")(b"\xff\xff\xff")
    with pytest.raises(grpc.RpcError) as error:
        next(stream)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert served.exported("foreserve_scaler_open_streams") == 0.0
    assert keda.count() == 7.0

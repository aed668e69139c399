import contextlib
import copy
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from apidouble import ApiDouble
from apiserver import ApiServer
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes.client import ApiClient, Configuration
from scripted import ScriptedServer, answer, hang
from virtual_time import VirtualTime

from autoscaler.edge.kube.api import KubeApi, KubeConflict, KubeNotFound, KubeUnavailable
from autoscaler.edge.kube.lease import Lease

DURATION, DEADLINE, RETRY = 10.0, 7.0, 2.0
FAST = {"duration_seconds": 3.0, "renew_deadline_seconds": 2.2, "retry_seconds": 0.3}
Json = dict[str, Any]


# -- a server and candidates in virtual time: nobody waits, every order of events is possible ----------


@dataclass
class Trouble:
    """What happens to one request: seconds on the way there and back, and what gets lost."""

    there: float = 0.01
    back: float = 0.01
    late: float = 0.0  # carried out that much later, when the client has long given up
    lost: bool = False  # never arrives


@dataclass
class Server:
    """One Lease object with optimistic concurrency."""

    time: VirtualTime
    lease: Json | None = None
    version: int = 0
    writes: list[tuple[float, str]] = field(default_factory=list)  # when, holder

    def put(self, body: Json, create: bool) -> Json:
        if create != (self.lease is None):
            raise KubeConflict("exists", 409) if create else KubeNotFound("gone", 404)
        if not create and body["metadata"]["resourceVersion"] != str(self.version):
            raise KubeConflict("changed", 409)
        self.store(body)
        self.writes.append((self.time.now, body["spec"]["holderIdentity"]))
        return self.read()

    def store(self, body: Json) -> None:
        self.version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self.version)

    def read(self) -> Json:
        if self.lease is None:
            raise KubeNotFound("gone", 404)
        return copy.deepcopy(self.lease)


class Line:
    """A KubeApi over a bad line: what Lease uses of it."""

    def __init__(self, server: Server, troubles: Iterator[Trouble], timeout: float = 5.0) -> None:
        self.server, self.troubles, self.timeout = server, troubles, timeout

    def within(self, seconds: float) -> "Line":
        return Line(self.server, self.troubles, seconds)

    def get(self, _: str) -> Json:
        return self._call(self.server.read)

    def create(self, _: str, body: Json) -> Json:
        return self._call(lambda: self.server.put(body, create=True))

    def replace(self, _: str, body: Json) -> Json:
        return self._call(lambda: self.server.put(body, create=False))

    def _call(self, act: Callable[[], Json]) -> Json:
        trouble, virtual = next(self.troubles), self.server.time
        if trouble.lost or trouble.late or trouble.there > self.timeout:
            if not trouble.lost:
                late = max(trouble.late, trouble.there)
                virtual.spawn(lambda: self._in_vain(act), virtual.now + late)
            virtual.sleep(self.timeout)
            raise KubeUnavailable("no answer", 0, "Timeout")
        virtual.sleep(trouble.there)
        try:
            answer = act()
        finally:
            virtual.sleep(min(trouble.back, self.timeout - trouble.there))
        if trouble.there + trouble.back > self.timeout:
            raise KubeUnavailable("no answer", 0, "Timeout")
        return answer

    def _in_vain(self, act: Callable[[], Json]) -> None:
        with contextlib.suppress(KubeConflict, KubeNotFound):  # nobody is there to hear it
            act()


class Until:
    """A threading.Event of virtual time."""

    def __init__(self, virtual: VirtualTime, end: float = 1e9) -> None:
        self.virtual, self.end = virtual, end

    def is_set(self) -> bool:
        return self.virtual.over or self.virtual.now >= self.end

    def wait(self, seconds: float) -> None:
        self.virtual.sleep(min(seconds, max(self.end - self.virtual.now, 0.0)))


@dataclass
class World:
    time: VirtualTime
    server: Server
    leases: list[Lease] = field(default_factory=list)
    held: list[tuple[float, str]] = field(
        default_factory=list
    )  # when somebody began or ended to act

    def candidate(
        self,
        name: str,
        troubles: Iterator[Trouble],
        rate: float = 1.0,
        wall_offset: float = 0.0,
        start: float = 0.0,
        end: float = 1e9,
        release: bool = False,
    ) -> Lease:
        line: Any = Line(self.server, troubles)
        lease = Lease(
            line,
            "ns",
            "foreserve",
            name,
            lambda: 1000.0 + rate * self.time.now,
            lambda: 1.8e9 + wall_offset + self.time.now,
        )

        def work() -> None:
            stop: Any = Until(self.time, end)
            lease.run(stop)
            if release:
                lease.release()

        self.leases.append(lease)
        self.time.spawn(work, start)
        return lease

    def check(self) -> None:
        holders = [lease.identity for lease in self.leases if lease.is_held()]
        assert len(holders) <= 1, f"{holders} act at once at {self.time.now}"
        last = self.held[-1][1] if self.held else ""
        if (now := holders[0] if holders else "") != last:
            self.held.append((self.time.now, now))

    def run(self, seconds: float) -> None:
        self.time.run(seconds, self.check)


@pytest.fixture
def world() -> World:
    virtual = VirtualTime()
    return World(virtual, Server(virtual))


def fine() -> Iterator[Trouble]:
    while True:
        yield Trouble()


def then(*troubles: Trouble) -> Iterator[Trouble]:
    yield from troubles
    yield from fine()


def first_of(world: World, name: str) -> float:
    return next(at for at, holder in world.held if holder == name)


def test_the_first_holds_and_keeps_it(world: World) -> None:
    world.candidate("a", fine())
    world.candidate("b", fine(), start=0.5)
    world.run(100.0)
    assert world.held == [(pytest.approx(0.04), "a")]  # GET and POST, 0.02 s each
    # a renewal each 2 s from then on: 0, 2, ..., 100
    assert [holder for _, holder in world.server.writes] == ["a"] * 51


def test_after_a_clean_release_within_one_retry(world: World) -> None:
    world.candidate("a", fine(), end=31.0, release=True)
    world.candidate("b", fine(), start=0.5)
    world.run(60.0)
    assert 31.0 < first_of(world, "b") <= 31.02 + RETRY + 0.04
    assert world.server.lease is not None
    assert world.server.lease["spec"]["leaseTransitions"] == 1


def test_what_is_released_looks_as_client_go_leaves_it(world: World) -> None:
    world.candidate("a", fine(), end=3.0, release=True)
    world.run(60.0)
    assert world.server.lease is not None
    spec = world.server.lease["spec"]
    assert (spec["holderIdentity"], spec["leaseDurationSeconds"]) == ("", 1)


@pytest.mark.parametrize(
    ("change", "holder"),
    [({"metadata": {"labels": {"x": "y"}}}, ""), ({"spec": {"holderIdentity": "thief"}}, "thief")],
)
def test_what_was_touched_is_given_back_too_but_not_anothers(
    world: World, change: Json, holder: str
) -> None:
    lease = world.candidate("a", fine(), end=3.0, release=True)
    # between the renewal at 2 s and the release at 3 s
    world.time.spawn(lambda: world.server.store({**world.server.read(), **change}), 2.5)
    world.run(60.0)
    assert world.server.read()["spec"]["holderIdentity"] == holder
    assert not lease.is_held()


@pytest.mark.parametrize("death", [30.1, 30.9, 31.5, 31.99, 32.01])
def test_after_a_death_within_duration_and_retry(world: World, death: float) -> None:
    world.candidate("a", fine(), end=death)
    world.candidate("b", fine(), start=0.5)
    world.run(60.0)
    last = max(at for at, holder in world.server.writes if holder == "a")
    taken = first_of(world, "b")
    # seen within a retry of being written, then 10 s, then one GET and one PUT of 0.02 s
    assert last + DURATION <= taken <= last + DURATION + RETRY + 0.07


@pytest.mark.parametrize("offset", [-300.0, 300.0, 1e8])
def test_wall_clocks_do_not_matter(world: World, offset: float) -> None:
    world.candidate("a", fine(), wall_offset=offset, end=40.0)
    world.candidate("b", fine(), start=0.5)
    world.run(80.0)
    assert [holder for _, holder in world.held] == ["a", "", "b"]
    assert first_of(world, "b") >= 40.0 + DURATION - RETRY


def test_a_wall_clock_that_stands_still_is_no_death(world: World) -> None:
    lease = world.candidate("a", fine())
    lease._wall = lambda: 1.8e9
    world.candidate("b", fine(), start=0.5)
    world.run(100.0)
    assert [holder for _, holder in world.held] == ["a"]


def test_who_cannot_renew_stops_before_anybody_else_begins(world: World) -> None:
    dead = [Trouble(lost=True)] * 1000
    # GET and POST, then 9 renewals, then nothing gets through any more
    world.candidate("a", then(*[Trouble()] * 11, *dead))
    world.candidate("b", fine(), start=0.5)
    world.run(100.0)
    assert [holder for _, holder in world.held] == ["a", "", "b"]
    sent = max(at for at, holder in world.server.writes if holder == "a") - 0.01
    # the last step before its end is seen when somebody moves: within one period of b
    assert sent + DEADLINE <= world.held[1][0] <= sent + DEADLINE + RETRY
    assert world.held[2][0] >= sent + DURATION


def test_the_fence_counts_from_the_sending(world: World) -> None:
    lease = world.candidate("a", then(Trouble(), Trouble(there=1.0, back=1.0)), end=2.0)
    world.run(1e9)
    # POST sent at 0.02, its answer at 2.02
    world.time.now = 0.02 + DEADLINE - 0.001
    assert lease.is_held()
    world.time.now = 0.02 + DEADLINE + 0.001
    assert not lease.is_held()


def test_a_hanging_renewal_does_not_hold(world: World) -> None:
    lease = world.candidate("a", then(*[Trouble()] * 3))
    seen: list[bool] = []
    world.time.spawn(lambda: seen.append(lease.is_held()), 8.9)  # the renewal at 2.0 was the last
    line: Any = lease._api
    line.timeout = 50.0
    line.troubles = then(Trouble(), Trouble(), Trouble(), Trouble(lost=True))
    world.run(9.5)
    assert seen == [True]
    assert not lease.is_held()


def test_one_lost_answer_changes_nothing(world: World) -> None:
    world.candidate("a", then(*[Trouble()] * 6, Trouble(back=9.0)))
    world.candidate("b", fine(), start=0.5)
    world.run(100.0)
    assert [holder for _, holder in world.held] == ["a"]


def test_an_acquisition_whose_answer_is_lost_is_recognized(world: World) -> None:
    world.candidate("a", then(Trouble(), Trouble(back=9.0)))
    world.run(20.0)
    # GET 0.02, POST hangs 2.5 s, then at once GET and PUT, 0.02 s each
    assert world.held == [(pytest.approx(2.56), "a")]


def test_a_label_on_the_lease_is_no_loss(world: World) -> None:
    world.candidate("a", fine())

    def label() -> None:
        body = world.server.read()
        body["metadata"]["labels"] = {"x": "y"}
        world.server.store(body)

    for at in (3.0, 9.0, 15.5):
        world.time.spawn(label, at)
    world.run(60.0)
    assert [holder for _, holder in world.held] == ["a"]
    assert world.server.read()["metadata"]["labels"] == {"x": "y"}


def test_a_deleted_lease_is_made_again_by_its_holder(world: World) -> None:
    world.candidate("a", fine())
    world.candidate("b", fine(), start=0.5)

    def delete() -> None:
        world.server.lease = None

    world.time.spawn(delete, 10.1)  # b looks at 10.5, a renews at 12
    world.run(60.0)
    assert {holder for _, holder in world.held} <= {"a", ""}
    assert world.server.read()["spec"]["holderIdentity"] == "a"


def test_the_name_of_a_predecessor_is_not_ours(world: World) -> None:
    world.candidate("a", fine(), end=10.1)
    world.candidate("a", fine(), start=11.0)  # the same pod, another process
    world.run(40.0)
    again = [at for at, holder in world.held if holder == "a"][1]
    assert again >= 11.0 + DURATION


def test_nonsense_in_the_record_is_outwaited(world: World) -> None:
    spec = {"holderIdentity": "x", "leaseDurationSeconds": "soon", "leaseTransitions": None}
    world.server.store({"metadata": {}, "spec": spec})
    world.candidate("a", fine())
    world.run(40.0)
    assert DURATION <= first_of(world, "a") < DURATION + 0.1


def test_another_duration_is_respected(world: World) -> None:
    spec = {"holderIdentity": "x", "leaseDurationSeconds": 25}
    world.server.store({"metadata": {}, "spec": spec})
    world.candidate("a", fine())
    world.run(40.0)
    assert 25.0 <= first_of(world, "a") < 25.1


def test_an_outage_is_one_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world.candidate("a", then(*[Trouble()] * 3, *[Trouble(lost=True)] * 4))
    world.run(60.0)
    lines = [record.message for record in caplog.records]
    assert lines.count("lease ns/foreserve: no answer") == 1
    assert lines.count("lease ns/foreserve: held by a") == 1


@pytest.mark.parametrize("bad", [(10.0, 10.0, 2.0), (10.0, 2.0, 2.0), (10.0, 7.0, 0.0)])
def test_durations_that_cannot_work_are_refused(bad: tuple[float, float, float]) -> None:
    line: Any = None
    with pytest.raises(ValueError, match="allowed: 0 < retry < renew deadline < duration"):
        Lease(
            line,
            "ns",
            "l",
            "a",
            duration_seconds=bad[0],
            renew_deadline_seconds=bad[1],
            retry_seconds=bad[2],
        )


TROUBLES = st.builds(
    Trouble,
    there=st.sampled_from([0.01, 0.01, 0.5, 2.0, 4.0]),
    back=st.sampled_from([0.01, 0.01, 0.5, 2.0, 9.0]),
    late=st.sampled_from([0.0, 0.0, 0.0, 3.0, 6.0, 12.0, 25.0]),
    lost=st.sampled_from([False, False, False, True]),
)
CANDIDATES = st.lists(
    st.fixed_dictionaries(
        {
            "troubles": st.lists(TROUBLES, max_size=30),
            "rate": st.sampled_from([0.9, 1.0, 1.1]),  # of the monotonic clock: far worse than real
            "wall_offset": st.sampled_from([-300.0, 0.0, 300.0]),
            "start": st.floats(0.0, 20.0),
            "end": st.sampled_from([15.0, 40.0, 1e9]),
            "release": st.booleans(),
        }
    ),
    min_size=2,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(CANDIDATES, st.lists(st.floats(0.0, 80.0), max_size=3))
def test_never_two_at_once(candidates: list[dict[str, Any]], touched: list[float]) -> None:
    virtual = VirtualTime()
    world = World(virtual, Server(virtual))
    for i, facts in enumerate(candidates):
        world.candidate(f"c{i}", then(*facts.pop("troubles")), **facts)

    def touch() -> None:
        if world.server.lease is not None:
            world.server.store(world.server.read())

    for at in touched:
        virtual.spawn(touch, at)
    world.run(90.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(TROUBLES, max_size=12), st.lists(TROUBLES, max_size=12))
def test_when_the_trouble_ends_somebody_acts(one: list[Trouble], other: list[Trouble]) -> None:
    virtual = VirtualTime()
    world = World(virtual, Server(virtual))
    world.candidate("a", then(*one))
    world.candidate("b", then(*other), start=0.5)
    # 12 requests of at most 2.5 s, a late write after 25 s, a take-over after 12 s
    world.run(12 * 2.5 + 25.0 + 12.0 + 10.0)
    assert world.held[-1][1] in {"a", "b"}


# -- against an API server, in real time -----------------------------------------------------------------


def run(lease: Lease) -> tuple[threading.Thread, threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=lease.run, args=(stop,), daemon=True)
    thread.start()
    return thread, stop


def wait_until(true: Callable[[], bool], seconds: float) -> float:
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - begun


def test_two_against_an_api_server(kube: ApiServer, namespace: str) -> None:
    api = KubeApi(kube.admin())
    a = Lease(api, namespace, "l", "a", wall=lambda: time.time() - 300.0, **FAST)  # noqa: TID251
    b = Lease(api, namespace, "l", "b", **FAST)
    a_thread, a_stop = run(a)
    wait_until(a.is_held, 5.0)
    b_thread, b_stop = run(b)
    time.sleep(4.0)  # longer than the lease lasts
    assert a.is_held()
    assert not b.is_held()
    a.release()
    assert not a.is_held()
    assert wait_until(b.is_held, 5.0) < 2.0  # a retry and a busy machine; not the 3 s of a lease
    a_thread.join(timeout=5)
    assert not a_thread.is_alive()
    b_stop.set()  # dies without a word
    b_thread.join(timeout=5)
    c = Lease(api, namespace, "l", "c", **FAST)
    c_thread, c_stop = run(c)
    assert 2.9 < wait_until(c.is_held, 10.0) < 3.0 + 2.0
    assert not b.is_held()
    spec = api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/l")["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("c", 2)
    c_stop.set()
    c_thread.join(timeout=5)
    c.release()
    a_stop.set()
    api.close()


def test_a_server_that_hangs_ends_the_right_to_act() -> None:
    stored: list[bytes] = []
    hanging = threading.Event()

    def act(connection: socket.socket, request: bytes) -> None:
        if hanging.is_set():
            hang(connection, request)
        elif body := request.partition(b"\r\n\r\n")[2]:
            stored.append(body)
            connection.sendall(answer(body))
        else:
            connection.sendall(answer(stored[-1]) if stored else answer(b"{}", "404 Not Found"))

    server = ScriptedServer(act)
    api = KubeApi(ApiClient(Configuration(host=server.url)))
    lease = Lease(api, "ns", "l", "a", **FAST)
    thread, stop = run(lease)
    wait_until(lease.is_held, 5.0)
    time.sleep(0.5)
    hanging.set()
    assert 1.0 < wait_until(lambda: not lease.is_held(), 5.0) < 2.2 + 0.3
    time.sleep(0.5)
    assert not lease.is_held()
    hanging.clear()
    wait_until(lease.is_held, 3.0)  # and it is back when the server is
    stop.set()
    thread.join(timeout=5)
    lease.release()
    assert b'"holderIdentity":""' in stored[-1]
    api.close()
    server.close()


def test_a_storm_of_conflicts_and_a_restart_are_survived(double: ApiDouble) -> None:
    api = KubeApi(double.admin())
    api.create("/api/v1/namespaces", {"metadata": {"name": "ns"}})
    lease = Lease(api, "ns", "l", "a", **FAST)
    thread, stop = run(lease)
    wait_until(lease.is_held, 5.0)
    double.conflict_storm("/leases/l", 3)
    double.fail("PUT", "/leases/l", 500, times=1)
    for _ in range(150):  # 3 conflicts and one failure: less than the renew deadline
        assert lease.is_held()
        time.sleep(0.01)
    double.restart(outage_seconds=0.3)
    wait_until(lambda: lease.left_seconds() > 2.0, 5.0)
    stop.set()
    thread.join(timeout=5)
    lease.release()
    api.close()

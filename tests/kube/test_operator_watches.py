"""The watches behind the operator: whatever ends a stream, what happened meanwhile is seen."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import kopf
import pytest
from apidouble import ApiDouble
from apiserver import ApiServer
from crd_setup import install
from kopf._cogs.clients import api as kopf_api
from operating import OWN_NAMESPACE, PER_REPLICA, Rig, Script, Time, Workloads, deployment, policy

from autoscaler import handlers
from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.kube.cluster import Cluster
from autoscaler.handlers import Watches
from autoscaler.operate.facts import reducers

BEGUN_ANEW_SECONDS = 30.0
SEEN_SECONDS = 60.0  # kopf takes its time to end and to begin anew, more on a busy machine


def until(told: Callable[[], bool], seconds: float = SEEN_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < end, "not seen in time"
        time.sleep(0.02)


class Watched:
    """An operator whose cache is filled by kopf: lists are due every ten minutes of its own clock."""

    def __init__(
        self,
        kube: ApiServer,
        namespace: str,
        start: Callable[[Watches], None] = Watches.start,
    ) -> None:
        install(kube)
        for name in (OWN_NAMESPACE, namespace):
            kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self.world = Workloads(kube, namespace)
        self.world.put(deployment(namespace, "chat", 2), policy(namespace, "chat"))
        self.world.run_pods("chat")
        self.service = f"{namespace}/chat"
        self.script = Script({self.service: 2 * PER_REPLICA})
        self.rig = Rig(kube, self.script, Time(), timeout_seconds=1.0)
        self.watches = Watches(self.rig.cluster, self.rig.api)
        self.rig.process._parts.finder._watching = lambda: self.watches.alive
        start(self.watches)
        until(lambda: self.watches.alive)
        self.rig.turn(1)
        self.world.edit("chat", {"metadata": {"labels": {"probe": "0"}, "annotations": {"a": "0"}}})

    def paused(self) -> bool:
        """Whether the cache knows of the pause annotation."""
        return any(seen.paused for seen in self.rig.cluster.values("policies") or ())

    def pause(self) -> None:
        self.world.edit("chat", {"metadata": {"annotations": {"foreserve.dev/paused": "true"}}})

    def check(self) -> None:
        """A pause that came after the stream had ended is obeyed, without a list."""
        self.pause()
        until(self.paused)
        self.script.running[self.service] = 9 * PER_REPLICA
        synced = self.rig.process._parts.finder._synced_at
        self.rig.turn(2)
        assert self.rig.process._parts.finder._synced_at == synced
        assert self.world.replicas("chat") == 2


@pytest.fixture
def watched(double: ApiDouble) -> Iterator[Watched]:
    it = Watched(double, "prod")
    yield it
    it.watches.close()


def test_streams_that_end_with_410_begin_anew(double: ApiDouble, watched: Watched) -> None:
    until(lambda: watches_of(double) >= 4)
    double.expire_watches()
    watched.check()


def test_streams_that_break_begin_anew(double: ApiDouble, watched: Watched) -> None:
    until(lambda: watches_of(double) >= 4)
    double.break_watches()
    watched.check()


def test_streams_that_fail_while_they_are_ended_are_no_news(
    double: ApiDouble,
    watched: Watched,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """aiohttp has an error that kopf does not know for a connection that is closed under a reader."""
    lines = kopf_api.iter_jsonlines

    async def lost(content: Any, **options: Any) -> AsyncIterator[Any]:
        try:
            async for line in lines(content, **options):
                yield line
        except asyncio.CancelledError:
            raise RuntimeError("Connection closed.") from None

    monkeypatch.setattr(kopf_api, "iter_jsonlines", lost)
    double.break_watches()
    watched.check()
    watched.watches.close()
    gc.collect()  # which is when asyncio tells of an error that nobody asked for
    assert [r.getMessage() for r in caplog.records if r.name == "asyncio"] == []


def test_what_was_deleted_while_nobody_watched_is_gone(double: ApiDouble, watched: Watched) -> None:
    until(lambda: watches_of(double) >= 4)
    double.fail("GET", "scalingpolicies$", 503, times=3)
    double.break_watches()
    double.request("DELETE", "/apis/foreserve.dev/v1alpha1/namespaces/prod/scalingpolicies/chat")
    watched.script.running[watched.service] = 9 * PER_REPLICA
    until(lambda: watched.rig.cluster.values("policies") == [])
    watched.rig.turn(2)
    assert watched.world.replicas("chat") == 2


@pytest.mark.parametrize("kind", ["scalingpolicies$", "pods$|nodes$|definitions$|policies$"])
def test_watching_begins_anew_after_401(
    double: ApiDouble, watched: Watched, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As while etcd does not answer: no token is known then, and kopf gives up."""
    until(lambda: watches_of(double) >= 4)
    double.fail("GET", kind, 401, times=1)
    double.break_watches()
    watched.check()
    errors = [r.exc_info[1] for r in caplog.records if r.exc_info]
    assert not any(isinstance(e, kopf.LoginError) for e in errors), caplog.text


@pytest.mark.parametrize("lingers", [False, True])
def test_watching_that_was_refused_from_the_start_begins_anew(
    double: ApiDouble,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    lingers: bool,
) -> None:
    """kopf gives up, but a stream that was about to try again (`lingers`) waits for a token for ever."""
    monkeypatch.setattr(handlers, "FOLLOW_SECONDS", 0.8)  # no look before the policies are refused

    def start(watches: Watches) -> None:
        double.slow(0.3, "scalingpolicies$")
        double.fail("GET", "scalingpolicies$", 401, times=1_000_000)
        if lingers:
            # both are tried again after 1 s: the CRDs' watch would end kopf in good order
            double.fail("GET", "/namespaces$|definitions$", 503, times=2, of_watches=True)
        watches.start()
        until(lambda: "401 Unauthorized" in caplog.text, BEGUN_ANEW_SECONDS)
        assert not watches.alive
        double.heal()
        until(lambda: watches.alive, BEGUN_ANEW_SECONDS)

    watched = Watched(double, "prod", start)
    try:
        watched.check()
    finally:
        watched.watches.close()
    own = [r for r in caplog.records if r.name.startswith("foreserve") and r.levelno > logging.INFO]
    assert len(own) == 1, caplog.text
    assert "Traceback" not in caplog.text


def test_watching_that_does_not_begin_begins_anew(
    double: ApiDouble, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handlers, "START_SECONDS", 1.0)

    def start(watches: Watches) -> None:
        double.pause(5.0)
        watches.start()
        until(lambda: "no watch stream was opened within 1 s" in caplog.text, BEGUN_ANEW_SECONDS)
        monkeypatch.setattr(handlers, "START_SECONDS", 60.0)

    watched = Watched(double, "prod", start)
    try:
        watched.check()
    finally:
        watched.watches.close()
    assert "Traceback" not in caplog.text


def test_an_account_without_a_name_watches_all_the_same(
    double: ApiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container: the user of the manifests is a number that no /etc/passwd knows."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr("getpass.getuser", nobody)
    install(double)
    watches = Watches(Cluster(reducers()), KubeApi(double.admin()))
    watches.start()
    try:
        until(lambda: watches.alive)
    finally:
        watches.close()


def test_credentials_that_are_refused_are_one_line(
    double: ApiDouble, caplog: pytest.LogCaptureFixture
) -> None:
    install(double)
    api = KubeApi(double.client("nobody's token"))
    watches = Watches(Cluster(reducers()), api)
    watches.start()
    try:
        until(lambda: "401 Unauthorized" in caplog.text)
        time.sleep(5.0)  # it is tried again after 1 and 2 s
    finally:
        watches.close()
    told = [r for r in caplog.records if r.levelname in {"WARNING", "ERROR", "CRITICAL"}]
    assert len(told) == 1, caplog.text
    assert "does the ServiceAccount still exist" in told[0].getMessage()
    assert "Traceback" not in caplog.text
    assert not watches.alive


TELLS = ("running", "observation", "orchestration")  # kopf's parts that tell of tasks that failed


@pytest.mark.parametrize("part", TELLS)
def test_whichever_part_of_kopf_is_refused_it_is_one_line(
    part: str, double: ApiDouble, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of open streams `orchestration` tells, at a start `observation`."""

    async def operate(*_: object) -> None:
        error = kopf.LoginError("Ran out of valid credentials.")
        log = logging.getLogger(f"kopf._core.reactor.{part}")
        log.error("Watcher has failed", exc_info=error)
        raise error

    monkeypatch.setattr(Watches, "_operate", operate)
    watches = Watches(Cluster(reducers()), KubeApi(double.admin()))
    watches.start()
    until(lambda: "401 Unauthorized" in caplog.text)
    watches.close()
    (told,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "does the ServiceAccount still exist" in told.getMessage()
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("part", TELLS)
def test_other_errors_of_kopf_are_told(part: str, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger(f"kopf._core.reactor.{part}")
    log.error("Watcher has failed", exc_info=KeyError("a bug"))
    assert "a bug" in caplog.text


@pytest.mark.slow
def test_a_restarted_server_is_watched_again(kube: ApiServer, namespace: str) -> None:
    watched = Watched(kube, namespace)
    try:
        kube.restart(1.0)
        watched.check()
    finally:
        watched.watches.close()


def watches_of(double: ApiDouble) -> int:
    return sum("watch" in r.query for r in list(double._open.values()))

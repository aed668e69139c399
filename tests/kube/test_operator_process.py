"""`foreserve run` as users run it: a process, signals, a real Lease in real time."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from apidouble import ApiDouble
from apiserver import ApiServer
from crd_setup import install
from operating import OWN_NAMESPACE, PER_REPLICA, Workloads, deployment, policy
from running import LEASE, Prometheus, Running, Traffic, holder, until

from autoscaler.cli.replay import replay as replay_command

TURN_SECONDS = 15.0  # by when a new load is acted upon, on a busy machine
Start = Callable[[str], Running]
CHECKPOINT = f"/api/v1/namespaces/{OWN_NAMESPACE}/configmaps/foreserve-checkpoint"


class Scene:
    """A cluster with one policy, its telemetry and processes."""

    def __init__(self, kube: ApiServer, namespace: str, folder: Path) -> None:
        self.kube, self.folder = kube, folder
        install(kube)
        kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": OWN_NAMESPACE}})
        kube.request("DELETE", LEASE)
        kube.request("DELETE", CHECKPOINT)
        self.world = Workloads(kube, namespace)
        self.world.put(deployment(namespace, "chat", 2), policy(namespace, "chat"))
        self.world.run_pods("chat")
        self.service = f"{namespace}/chat"
        self.traffic = Traffic({self.service: 2 * PER_REPLICA})
        self.prometheus = Prometheus(self.traffic)
        self._running: list[Running] = []

    def start(self, name: str) -> Running:
        running = Running(self.kube, self.prometheus.url, self.folder, name)
        self._running.append(running)
        return running

    def load(self, replicas: int) -> None:
        """Let so many requests run that this many replicas are needed."""
        self.traffic.running[self.service] = replicas * PER_REPLICA

    def wait_for(self, replicas: int) -> float:
        return until(
            lambda: self.world.replicas("chat") == replicas,
            TURN_SECONDS,
            lambda: f"{self.world.replicas('chat')} replicas\n" + self._running[-1].log,
        )

    def close(self) -> None:
        self.traffic.hangs = False
        for running in self._running:
            running.kill()
        self.prometheus.end()
        self.kube.request("DELETE", LEASE)
        self.kube.request("DELETE", CHECKPOINT)


@pytest.fixture
def scene(kube: ApiServer, namespace: str, tmp_path: Path) -> Iterator[Scene]:
    it = Scene(kube, namespace, tmp_path)
    yield it
    it.close()


@pytest.fixture
def fragile(double: ApiDouble, tmp_path: Path) -> Iterator[Scene]:
    double.request("POST", "/api/v1/namespaces", {"metadata": {"name": "prod"}})
    it = Scene(double, "prod", tmp_path)
    yield it
    it.close()


def test_it_acts_answers_probes_and_ends_cleanly(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    running = scene.start("first")
    running.wait_ready()
    assert running.ask("/healthz") == (200, "ok\n")
    until(lambda: holder(scene.kube) == "first", TURN_SECONDS, lambda: running.log)
    scene.load(5)
    scene.wait_for(5)
    status, metrics = running.ask("/metrics")
    assert status == 200
    assert 'service="chat"' in metrics or scene.service in metrics
    assert running.ask("/nothing")[0] == 404
    assert running.terminate() < 5.0, running.log
    assert holder(scene.kube) == ""  # a follower need not wait
    assert scene.kube.request("GET", CHECKPOINT)[0] == 200
    assert "Traceback" not in running.log
    assert scene.world.replicas("chat") == 5
    replay_command(running.decisions, running.models, None)  # or it raises
    replayed = re.search(r"(\d+) decisions replayed, 0 differ", capsys.readouterr().out)
    assert replayed is not None
    assert int(replayed[1]) >= 2


def test_a_killed_process_leaves_a_log_that_is_replayed(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    running = scene.start("first")
    running.wait_ready()
    until(lambda: holder(scene.kube) == "first", TURN_SECONDS, lambda: running.log)
    scene.load(5)
    scene.wait_for(5)
    running.kill()
    replay_command(running.decisions, running.models, None)
    assert " replayed, 0 differ" in capsys.readouterr().out


def test_without_a_crd_it_waits_and_says_so(double: ApiDouble, tmp_path: Path) -> None:
    double.request("POST", "/api/v1/namespaces", {"metadata": {"name": "prod"}})
    prometheus = Prometheus(Traffic())
    running = Running(double, prometheus.url, tmp_path, "early")
    try:
        until(lambda: "ScalingPolicy" in running.ask("/readyz")[1], 30.0, lambda: running.log)
        assert running.ask("/readyz")[0] == 503
        assert running.ask("/healthz")[0] == 200
        install(double)
        until(lambda: running.ask("/readyz")[0] == 200, 30.0, lambda: running.log)
    finally:
        running.kill()
        prometheus.end()


@pytest.mark.parametrize("ahead_seconds", [-300.0, 300.0])
def test_a_node_whose_clock_is_five_minutes_off_acts_as_any_other(
    scene: Scene, ahead_seconds: float
) -> None:
    """It is the server's clock that is off here: nobody but the two can know which one is right."""
    scene.traffic.ahead_seconds = ahead_seconds
    running = scene.start("off")
    running.wait_ready()
    scene.load(4)
    scene.wait_for(4)
    asked = scene.traffic.asked_seconds[-20:]
    assert max(abs(t - scene.traffic.now()) for t in asked) < 10.0
    assert "theirs counts" in running.log


@pytest.mark.slow
def test_telemetry_that_hangs_holds_and_the_process_can_still_be_ended(scene: Scene) -> None:
    running = scene.start("patient")
    running.wait_ready()
    scene.load(4)
    scene.wait_for(4)
    scene.traffic.hangs = True
    scene.load(30)
    with suppress(AssertionError):
        until(lambda: scene.world.replicas("chat") != 4, 12.0)
    assert scene.world.replicas("chat") == 4
    assert running.ask("/healthz")[0] == 200
    assert holder(scene.kube) == "patient"  # renewed beside the loop that waits
    assert running.terminate() < 25.0  # the grace period of a pod is 30 s
    assert holder(scene.kube) == ""


@pytest.mark.slow
def test_a_killed_leader_is_replaced_within_15_s(scene: Scene) -> None:
    first = scene.start("first")
    first.wait_ready()
    until(lambda: holder(scene.kube) == "first", TURN_SECONDS, lambda: first.log)
    second = scene.start("second")
    second.wait_ready()
    scene.load(5)
    scene.wait_for(5)
    assert holder(scene.kube) == "first"
    version = scene.world.version("chat")
    first.kill()
    scene.load(1)  # a window of 120 s stands against it, whoever leads
    took = until(lambda: holder(scene.kube) == "second", 15.0, lambda: second.log)
    assert took < 15.0
    with suppress(AssertionError):
        until(lambda: scene.world.version("chat") != version, 4.0)
    assert scene.world.version("chat") == version
    scene.load(8)
    scene.wait_for(8)
    assert second.terminate() < 5.0


@pytest.mark.slow
def test_killed_between_a_scale_and_its_checkpoint(fragile: Scene) -> None:
    assert isinstance(fragile.kube, ApiDouble)
    first = fragile.start("first")
    first.wait_ready()
    until(lambda: fragile.kube.request("GET", CHECKPOINT)[0] == 200, TURN_SECONDS)
    fragile.kube.fail("PUT|POST", "configmaps", 503, times=100_000)
    fragile.load(7)
    fragile.wait_for(7)
    first.kill()
    fragile.kube.heal()
    fragile.load(1)
    second = fragile.start("second")
    second.wait_ready()
    until(lambda: holder(fragile.kube) == "second", 15.0, lambda: second.log)
    with suppress(AssertionError):
        until(lambda: fragile.world.replicas("chat") != 7, 5.0)
    assert fragile.world.replicas("chat") == 7
    fragile.load(9)
    fragile.wait_for(9)


@pytest.mark.slow
def test_ten_seconds_without_an_api_server(scene: Scene) -> None:
    running = scene.start("only")
    running.wait_ready()
    scene.load(4)
    scene.wait_for(4)
    version = scene.world.version("chat")
    scene.kube.stop()
    scene.load(9)
    with suppress(AssertionError):
        until(lambda: running.process.poll() is not None, 10.0)
    scene.load(4)
    scene.kube.start()
    assert scene.world.version("chat") == version
    until(lambda: holder(scene.kube) == "only", 15.0, lambda: running.log)
    scene.load(6)
    until(lambda: scene.world.replicas("chat") == 6, 40.0, lambda: running.log)
    assert running.ask("/healthz")[0] == 200
    assert "Traceback" not in running.log
    assert running.terminate() < 5.0

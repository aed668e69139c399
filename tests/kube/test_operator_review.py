"""What a second pair of eyes found: waits that held up growth, memory lost at the wrong moment."""

import threading
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from apidouble import ApiDouble
from crd_setup import install
from operating import (
    OWN_NAMESPACE,
    PER_REPLICA,
    Always,
    Rig,
    Script,
    Time,
    Workloads,
    deployment,
    policy,
)

from autoscaler.edge.kube.api import KubeUnavailable
from autoscaler.edge.kube.events import ObjectRef
from autoscaler.edge.metrics import OperatorMetrics
from autoscaler.operate import report
from autoscaler.operate.marks import mark_idle_pods
from autoscaler.operate.report import Reporter, _StatusWrite

CHECKPOINT = f"/api/v1/namespaces/{OWN_NAMESPACE}/configmaps/foreserve-checkpoint"


@pytest.fixture
def world(double: ApiDouble) -> Iterator[Workloads]:
    install(double)
    for name in (OWN_NAMESPACE, "prod"):
        double.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return Workloads(double, "prod")


def chat(world: Workloads, replicas: int, name: str) -> str:
    world.put(deployment("prod", name, replicas), policy("prod", name))
    world.run_pods(name)
    return f"prod/{name}"


def test_growth_does_not_wait_for_marks_on_pods_that_go(
    double: ApiDouble, world: Workloads
) -> None:
    growing, shrinking = chat(world, 2, "growing"), chat(world, 6, "shrinking")
    loads = {("prod", p["metadata"]["name"]): 1.0 for p in world.pods("shrinking")}
    script = Script({growing: 2 * PER_REPLICA, shrinking: 6 * PER_REPLICA})
    rig = Rig(double, script, Time(), loads=loads)
    rig.turn(2)
    script.running[shrinking] = PER_REPLICA
    for _ in range(8):  # growth in every turn, and in one of the last the window has passed
        script.running[growing] += PER_REPLICA
        rig.turn()
        world.run_pods("growing")
    wrote = [c.path for c in double.calls if c.is_write and not c.path.endswith("/status")]
    marked = next(i for i, path in enumerate(wrote) if "/pods/shrinking" in path)
    scales = [path for path in wrote[marked:] if path.endswith("/scale")]
    assert scales[0].endswith("/shrinking/scale")  # that turn's growth was written before


def test_marks_end_in_time() -> None:
    class Slow:
        timeout_seconds = 5.0
        patched = 0

        def within(self, _: float) -> "Slow":
            return self

        def path_of(self, *_: Any) -> str:
            return "/pod"

        def patch(self, *_: Any) -> None:
            self.patched += 1

    api, seconds = Slow(), count(0, 1)  # each look at the clock is a second later
    facts, write = _six_idle_pods()
    before = mark_idle_pods(
        api,  # type: ignore[arg-type]
        lambda: {("prod", f"p{i}"): 0.0 for i in range(6)},
        OperatorMetrics("test"),
        lambda: float(next(seconds)),
    )
    before(facts, [write])
    assert api.patched == 2  # at 1 s and 2 s; from 3 s on the scale waits no longer


def _six_idle_pods() -> tuple[Any, Any]:
    from types import SimpleNamespace

    from autoscaler.core.types import TargetRef
    from autoscaler.edge.kube.pods import pod_record
    from autoscaler.edge.kube.scale import ScaleView
    from autoscaler.operate.effects import Write

    pods = [
        pod_record(
            {
                "metadata": {
                    "uid": f"u{i}",
                    "name": f"p{i}",
                    "namespace": "prod",
                    "creationTimestamp": "2026-11-27T06:00:00Z",
                    "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "controller": True}],
                },
                "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }
        )
        for i in range(6)
    ]
    target = TargetRef("apps/v1", "Deployment", "chat")
    write = Write("prod/chat", "default", "prod", target, ScaleView(6, 6, "app=chat", "1", "u"), 1)
    return SimpleNamespace(pods={("prod/chat", "default"): pods}), write


def test_a_slow_server_gets_some_statuses_a_turn_and_all_in_the_end(
    double: ApiDouble, world: Workloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"s{i:02}" for i in range(3 * report.PARALLEL)]
    world.put(*(policy("prod", name, mode="Recommend") for name in names))
    monkeypatch.setattr(report, "STATUS_SECONDS", 0.2)
    double.slow(0.25, "/status$")  # one round of PARALLEL, and the time is up
    rig = Rig(double, Script(), Time())
    rig.turn()
    assert sum(bool(world.status(n)) for n in names) == report.PARALLEL
    rig.turn(2)
    assert all(world.status(n) for n in names)


def test_a_status_whose_path_is_unknown_is_one_that_failed() -> None:
    class Lost:
        def within(self, _: float) -> "Lost":
            return self

        def path_of(self, *_: Any) -> str:
            raise KubeUnavailable("GET /apis: no answer", 0, "Timeout")

    reporter = Reporter(Lost(), "test", OperatorMetrics("test"), 60.0)  # type: ignore[arg-type]
    about = ObjectRef("ScalingPolicy", "prod", "chat", "u")
    assert not reporter._put(_StatusWrite("u", about, {}, {}))


def test_who_ends_before_its_first_turn_leaves_the_memory_of_others(
    double: ApiDouble, world: Workloads
) -> None:
    service = chat(world, 4, "chat")
    Rig(double, Script({service: 4 * PER_REPLICA}), Time()).turn(2)
    version = world.ask("GET", CHECKPOINT)["metadata"]["resourceVersion"]
    stop = threading.Event()
    stop.set()
    heir = Rig(double, Script(), Time(), Always(tenure="second"))
    heir.process.run(stop)
    assert world.ask("GET", CHECKPOINT)["metadata"]["resourceVersion"] == version
    heir.turn()
    heir.process.run(stop)  # who has read it writes it
    assert world.ask("GET", CHECKPOINT)["metadata"]["resourceVersion"] != version

"""What a second pair of eyes found: waits that held up growth, memory lost at the wrong moment."""

import asyncio
import math
import threading
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from apidouble import ApiDouble
from builders import SERVICE, forecasts, observation, outlook, policies, seen
from builders import policy as core_policy
from cluster_objects import pod
from crd_setup import install
from operating import (
    OWN_NAMESPACE,
    PER_REPLICA,
    POLICIES,
    Always,
    Rig,
    Script,
    Time,
    Workloads,
    deployment,
    policy,
)

from autoscaler import handlers
from autoscaler.core.outcome import Decisions, State
from autoscaler.core.tick import tick
from autoscaler.core.types import Mode, TargetRef
from autoscaler.edge.kube.api import KubeUnavailable
from autoscaler.edge.kube.cluster import Cluster
from autoscaler.edge.kube.events import ObjectRef
from autoscaler.edge.kube.lister import sync
from autoscaler.edge.kube.pods import GROUP, Counts, replica_counts, whole_groups
from autoscaler.edge.kube.scale import ScaleView
from autoscaler.edge.metrics import OperatorMetrics
from autoscaler.handlers import Watches
from autoscaler.operate import report
from autoscaler.operate.effects import Write
from autoscaler.operate.facts import RESYNC_FEW_SECONDS, RESYNC_SECONDS
from autoscaler.operate.marks import _followed, mark_idle_pods
from autoscaler.operate.report import Reporter, _StatusWrite

CHECKPOINT = f"/api/v1/namespaces/{OWN_NAMESPACE}/configmaps/foreserve-checkpoint"


@pytest.fixture
def world(double: ApiDouble) -> Workloads:
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
    pods = [pod(f"p{i}", ready=True) for i in range(6)]
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


@pytest.mark.parametrize("meanwhile", [{"held": False}, {"tenure": "another"}])
def test_who_lost_the_lease_in_a_long_turn_leaves_the_memory_of_others(
    double: ApiDouble, world: Workloads, meanwhile: dict[str, Any]
) -> None:
    service = chat(world, 2, "chat")
    lease = Always()
    rig = Rig(double, Script({service: 5 * PER_REPLICA}), Time(), lease)
    reported = rig.process._reporter.report

    def slowly(*arguments: Any) -> None:
        reported(*arguments)
        for name, value in meanwhile.items():
            setattr(lease, name, value)

    rig.process._reporter.report = slowly  # type: ignore[method-assign]
    rig.turn()
    code, _ = double.request("GET", CHECKPOINT)
    assert code == 404
    rig.process._reporter.report = reported  # type: ignore[method-assign]
    lease.held = True
    rig.turn(2)
    assert double.request("GET", CHECKPOINT)[0] == 200


# -- what watches did not tell -----------------------------------------------


def watched(rig: Rig) -> Rig:
    """Let the rig believe that watches are open; none are, so nothing is told."""
    rig.process._operator._parts.finder._watching = lambda: True
    return rig


def test_a_deletion_that_no_watch_told_is_noticed_within_a_minute(
    double: ApiDouble, world: Workloads
) -> None:
    service = chat(world, 2, "chat")
    script = Script({service: 2 * PER_REPLICA})
    rig = watched(Rig(double, script, Time()))
    rig.turn()
    world.ask("DELETE", f"{POLICIES.format('prod')}/chat")
    script.running[service] = 9 * PER_REPLICA
    rig.turn(1, RESYNC_FEW_SECONDS)
    turn = rig.turn()
    assert turn is not None
    assert not turn.step.decisions.services
    replicas = world.replicas("chat")
    rig.turn(3)
    assert world.replicas("chat") == replicas


def test_a_stream_that_began_again_has_its_kind_listed(double: ApiDouble, world: Workloads) -> None:
    service = chat(world, 3, "chat")
    rig = watched(Rig(double, Script({service: 3 * PER_REPLICA}), Time()))
    rig.turn()
    gone, *others = world.pods("chat")
    path = f"/api/v1/namespaces/prod/pods/{gone['metadata']['name']}"
    world.ask("DELETE", path, params={"gracePeriodSeconds": "0"})
    turn = rig.turn(2, RESYNC_SECONDS / 4)
    assert turn is not None
    assert turn.facts.replicas[service, "default"].ready == 3  # nobody told
    rig.cluster.apply("pods", None, others[0])  # what a stream begins with after a 410
    turn = rig.turn()
    assert turn is not None
    assert turn.facts.replicas[service, "default"].ready == 2
    assert rig.cluster.doubted() == []


def test_quotas_that_cannot_be_read_hold_as_they_were(double: ApiDouble, world: Workloads) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus", "namespace": "prod"},
        "spec": {"hard": {"requests.nvidia.com/gpu": "4"}},
    }
    world.ask("POST", "/api/v1/namespaces/prod/resourcequotas", quota)
    rig = Rig(double, Script(), Time())
    rig.turn()
    finder = rig.process._operator._parts.finder
    assert [q["metadata"]["name"] for q in finder._slow._slow.quotas or ()] == ["gpus"]
    double.fail("GET", "resourcequotas", 403, times=100)
    turn = rig.turn(3)
    assert turn is not None
    assert "403" in turn.facts.problems["ResourceQuota"]
    assert [q["metadata"]["name"] for q in finder._slow._slow.quotas or ()] == ["gpus"]


def test_a_long_list_is_reduced_page_by_page() -> None:
    told: list[str] = []

    class Pages:
        def path_of(self, *_: Any) -> str:
            return "/pods"

        def get(self, _: str, params: dict[str, Any]) -> dict[str, Any]:
            number = int(params.get("continue", "1"))
            told.append(f"page {number}")
            metadata = {"uid": f"u{number}", "resourceVersion": "5"}
            token = {"continue": str(number + 1)} if number < 3 else {}
            return {
                "items": [{"metadata": metadata}],
                "metadata": {"resourceVersion": "9", **token},
            }

    def reduce(obj: Any) -> str:
        told.append(f"kept {obj['metadata']['uid']}")
        return str(obj["kind"])

    cluster = Cluster({"pods": reduce})
    assert sync(Pages(), cluster, ["pods"]) == {}  # type: ignore[arg-type]
    assert told == ["page 1", "kept u1", "page 2", "kept u2", "page 3", "kept u3"]
    assert cluster.values("pods") == ["Pod"] * 3


def test_a_server_that_does_not_answer_is_waited_for_once() -> None:
    asked: list[str] = []

    class Silent:
        def path_of(self, _: str, kind: str, *__: Any) -> str:
            return kind

        def get(self, path: str, _: Any) -> dict[str, Any]:
            asked.append(path)
            if path == "Pod":
                raise KubeUnavailable("GET pods: 503", 503, "Unavailable")  # an answer
            raise KubeUnavailable("GET nodes: no whole answer within 5 s", 0, "Timeout")

    cluster = Cluster(dict.fromkeys(("pods", "nodes", "namespaces"), dict))
    problems = sync(Silent(), cluster, ["pods", "nodes", "namespaces"])  # type: ignore[arg-type]
    assert asked == ["Pod", "Node"]
    assert problems["pods"] == "GET pods: 503"
    assert problems["namespaces"] == problems["nodes"] == "GET nodes: no whole answer within 5 s"


# -- groups of pods that serve one model together ----------------------------


def group(
    number: int, *, leader: bool = True, worker: bool = True, going: bool = False, size: int = 0
) -> Any:
    """One group of two pods: the leader's record and both; `size`: as its annotation says."""
    late = {"deletionTimestamp": "2026-11-27T06:30:00Z"} if going else {}
    labels = {GROUP: str(number)}
    first = replace(pod(f"chat-{number}", ready=leader, labels=labels), group_size=size)
    second = pod(f"chat-{number}-1", ready=worker, labels=labels, metadata=late)
    return first, (first, second)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([group(0), group(1)], Counts(2, 0, 0)),
        ([group(0), group(1, worker=False)], Counts(1, 1, 0)),  # the leader's probe says ready
        ([group(0), group(1, going=True)], Counts(1, 1, 0)),
        ([group(0, leader=False), group(1)], Counts(1, 1, 0)),
        ([group(0, size=2), group(1, size=3)], Counts(1, 1, 0)),  # a worker is not made yet
    ],
)
def test_a_group_is_ready_with_all_its_pods(groups: list[Any], expected: Counts) -> None:
    leaders = [leader for leader, _ in groups]
    members = [p for _, both in groups for p in both]
    assert replica_counts(whole_groups(leaders, members)) == expected


def test_pods_without_groups_stand_alone() -> None:
    pods = [pod("a", ready=True), pod("b", ready=False)]
    assert whole_groups(pods, pods) == pods


# -- placeholders ------------------------------------------------------------


@pytest.mark.parametrize("mode", [Mode.RECOMMEND, Mode.SCALE, Mode.KEDA])
def test_advice_that_nobody_follows_keeps_no_place_warm(mode: Mode) -> None:
    known = forecasts({SERVICE: outlook(20.0)})
    decided = tick(policies(core_policy()), known, State(), observation(rate=20.0, h100=seen(4)))[
        1
    ].services[SERVICE]
    decided = replace(decided, variants={"h100": 9})
    turn: Any = SimpleNamespace(
        step=SimpleNamespace(
            decisions=Decisions(0.0, {SERVICE: decided}, "optimal"),
            observation=observation(h100=seen(4)),
        ),
        standings={SERVICE: SimpleNamespace(mode=mode)},
    )
    got = _followed(turn).services[SERVICE]
    if mode is Mode.RECOMMEND:
        assert got.variants == {"h100": 4}  # what runs takes its room
        assert math.isnan(got.forecast_upper_rps)
    else:
        assert got == decided


# -- watching ----------------------------------------------------------------


@pytest.mark.parametrize("error", [asyncio.CancelledError(), RuntimeError("no loop")])
def test_watching_is_begun_again_whatever_ended_it(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = count()
    again = threading.Event()

    async def operate(self: Watches) -> None:
        if next(begun) == 0:
            raise error
        again.set()
        self._stop.set()

    monkeypatch.setattr(Watches, "_operate", operate)
    monkeypatch.setattr(handlers, "RESTART_SECONDS", (0.01,))
    watches = Watches(Cluster({}), SimpleNamespace())  # type: ignore[arg-type]
    watches.start()
    assert again.wait(10.0)
    watches.close()

"""Starts are offered to training by whoever leads, until they are kept."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from apidouble import ApiDouble
from cluster_objects import clock, condition, pod_object, ready_at
from crd_setup import install
from operating import (
    OWN_NAMESPACE,
    Always,
    Rig,
    Script,
    Time,
    Workloads,
    deployment,
    nothing_learned,
    policy,
)

from autoscaler.core.types import Policies
from autoscaler.edge.clock import Clock
from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.kube.pods import pod_record
from autoscaler.edge.kube.starts import Start
from autoscaler.edge.starts_file import StartsFile
from autoscaler.loop import Controller
from autoscaler.operate.memory import Memory
from autoscaler.operate.starts import StartLearner
from autoscaler.operate.turn import Turn
from models.frames import validate_startups
from models.lead_time import LeadTimeModel
from models.starts import WATCHED_FILE
from training.telemetry import read_frame

KEY = ("prod/chat", "h100")


class Store:
    """Keeps what it is offered, or not."""

    def __init__(self) -> None:
        self.works = True
        self.offers: list[list[str]] = []

    def keep(self, starts: list[Start]) -> bool:
        self.offers.append([s.uid.removeprefix("uid-prod-") for s in starts])
        return self.works


class World:
    """One learner, and pods that become ready."""

    def __init__(self, store: Store | None) -> None:
        self.memory = Memory(cast("KubeApi", None), "foreserve-system", Clock())
        keep = None if store is None else store.keep
        self.learner = StartLearner(self.memory, LeadTimeModel({}), keep)
        self.controller = Controller(Policies({}, ()), nothing_learned())

    def turn(self, *names: str, led: bool = True) -> None:
        """Take a turn in which these pods are ready, five minutes after they were made."""
        pods = [pod_record(pod_object(n, conditions=ready_at(5))) for n in names]
        turn: Any = SimpleNamespace(facts=SimpleNamespace(pods={KEY: pods}), led=led)
        self.learner.follow(cast("Turn", turn), self.controller)


def test_each_start_is_offered_once() -> None:
    store = Store()
    world = World(store)
    world.turn("a")
    world.turn("a")
    world.turn("a", "b")
    assert store.offers == [["a"], ["b"]]


def test_what_a_follower_saw_is_offered_when_it_leads() -> None:
    store = Store()
    world = World(store)
    world.turn("a", led=False)
    assert store.offers == []
    world.turn("a", "b")
    assert store.offers == [["a", "b"]]


def test_what_was_not_kept_is_offered_again() -> None:
    store = Store()
    world = World(store)
    store.works = False
    world.turn("a")
    world.turn("a")
    store.works = True
    world.turn("a", "b")
    world.turn("a", "b")
    assert store.offers == [["a"], ["a"], ["a", "b"]]


def test_without_a_place_starts_are_learned_all_the_same() -> None:
    world = World(None)
    world.turn("a")
    assert len(world.memory.starts) == 1
    learned = world.controller.models.lead_time.scores["prod/chat/h100"]
    assert learned["starts"] == 1


def test_a_start_that_was_given_up_is_kept_and_not_learned_from() -> None:
    store = Store()
    world = World(store)
    waits = [condition("Initialized", clock(1)), condition("Ready", clock(0, 9), "False")]
    for metadata in ({}, {"deletionTimestamp": clock(7)}):
        pods = [pod_record(pod_object("a", conditions=waits, metadata=metadata))]
        turn: Any = SimpleNamespace(facts=SimpleNamespace(pods={KEY: pods}), led=True)
        world.learner.follow(cast("Turn", turn), world.controller)
    assert store.offers == [["a"]]
    assert world.memory.starts == ()


def test_from_pods_on_an_api_server_to_what_training_reads(
    double: ApiDouble, tmp_path: Path
) -> None:
    install(double)
    for name in (OWN_NAMESPACE, "prod"):
        double.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    world = Workloads(double, "prod")
    world.put(deployment("prod", "chat", 2), policy("prod", "chat"))
    world.run_pods("chat", ready_after_seconds=75.0)
    lease = Always(held=False)
    rig = Rig(double, Script({"prod/chat": 16.0}), Time(), lease)
    learner = StartLearner(rig.memory, LeadTimeModel({}), StartsFile(tmp_path).keep)
    for led in (False, True, True):
        lease.held = led
        turn = rig.turn()
        assert turn is not None
        learner.follow(turn, rig.controller)
    frame = read_frame(tmp_path / WATCHED_FILE, validate_startups)
    assert list((frame.ready_ts - frame.created_ts).dt.total_seconds()) == [75.0, 75.0]
    assert set(frame.service + " " + frame.variant) == {"prod/chat default"}

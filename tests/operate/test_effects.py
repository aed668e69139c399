"""What is written: each workload once, growth first, only while the Lease lasts, nobody else's count."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from builders import SERVICE
from operate_objects import CHAT, view

from autoscaler.core.types import TargetRef
from autoscaler.edge.kube.api import (
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeNotFound,
    KubeUnavailable,
)
from autoscaler.edge.kube.scale import ScaleView
from autoscaler.operate.effects import Write, carry_out, writes_of

OTHER = TargetRef("apps/v1", "Deployment", "other")


@dataclass
class Decided:
    """As much of Decisions as is asked for."""

    services: dict[str, Any]


@dataclass
class Chosen:
    variants: dict[str, int]


@dataclass
class Server:
    """One workload's scale: its count and version; `answers` are the fates of the next PUTs."""

    replicas: int = 2
    version: int = 1
    uid: str = "u1"
    answers: list[KubeError | None] = field(default_factory=list)
    meanwhile: Callable[["Server"], None] | None = None
    puts: list[int] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    timeout_seconds: float = 5.0

    def within(self, seconds: float) -> "Server":
        self.limits.append(seconds)
        return self

    def path_of(self, *_: Any) -> str:
        return "/scale"

    def get(self, _: str) -> dict[str, Any]:
        return {
            "kind": "Scale",
            "metadata": {"resourceVersion": str(self.version), "uid": self.uid},
            "spec": {"replicas": self.replicas},
            "status": {"replicas": self.replicas},
        }

    def replace(self, _: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act(self)
        fate = self.answers.pop(0) if self.answers else None
        if fate is not None:
            raise fate
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise KubeConflict("PUT: 409 Conflict", 409, "Conflict")
        self.replicas, self.version = body["spec"]["replicas"], self.version + 1
        self.puts.append(self.replicas)
        return self.get("")


def write(replicas: int = 5) -> Write:
    return Write(SERVICE, "h100", "prod", CHAT, view(2), replicas)


def held(*answers: float) -> Callable[[], float]:
    """Return a Lease that says so, then for ever the last of it."""
    left: Iterator[float] = iter(answers)
    last = answers[-1]
    return lambda: next(left, last)


def carried(server: Server, writes: Iterable[Write], left: Callable[[], float]) -> Any:
    return carry_out(server, writes, left)  # type: ignore[arg-type]


def test_only_what_differs_is_written_growth_first_and_only_for_who_may() -> None:
    decided = Decided(
        {"a/x": Chosen({"v": 1, "w": 9}), "b/y": Chosen({"v": 4}), "c/z": Chosen({"v": 3})}
    )
    targets = {
        ("a/x", "v"): ("a", CHAT),
        ("a/x", "w"): ("a", OTHER),
        ("b/y", "v"): ("b", CHAT),
        ("c/z", "v"): ("c", CHAT),
    }
    scales: dict[Any, ScaleView | KubeError] = {
        ("a", CHAT): view(3),
        ("a", OTHER): KubeNotFound("gone", 404, "NotFound"),
        ("b", CHAT): view(2),
        ("c", CHAT): view(2),
    }
    out = writes_of(decided, targets, scales, ["a/x", "b/y", "unknown"])  # type: ignore[arg-type]
    assert [(w.service, w.variant, w.replicas, w.lowers) for w in out] == [
        ("b/y", "v", 4, False),
        ("a/x", "v", 1, True),
    ]


def test_a_write_is_done_once() -> None:
    server = Server()
    (outcome,) = carried(server, [write()], held(6.0))
    assert (outcome.problem, server.puts) == ("", [5])
    assert server.limits == [5.0]  # 6 s left and 3 s of grace: the request's own limit is shorter


def test_no_request_outlives_the_lease() -> None:
    server = Server()
    carried(server, [write()], held(0.5))
    assert server.limits == [3.5]
    lost = Server()
    (outcome,) = carried(lost, [write()], held(0.0))
    assert (outcome.conflict, lost.puts) == (True, [])
    assert "Lease was lost" in outcome.problem


def touched(server: Server) -> None:
    server.version += 1


def scaled_by_hand(server: Server) -> None:
    server.replicas, server.version = 7, server.version + 1


def scaled_alike(server: Server) -> None:
    server.replicas, server.version = 5, server.version + 1


def made_anew(server: Server) -> None:
    server.uid, server.version = "u2", server.version + 1


@pytest.mark.parametrize(
    ("meanwhile", "puts", "problem"),
    [
        (touched, [5], ""),
        (scaled_by_hand, [], "somebody else set 7 replicas"),
        (scaled_alike, [], ""),
        (made_anew, [], "deleted and created again"),
    ],
)
def test_a_conflict_is_looked_at_once(
    meanwhile: Callable[[Server], None], puts: list[int], problem: str
) -> None:
    server = Server(meanwhile=meanwhile)
    (outcome,) = carried(server, [write()], held(6.0))
    assert server.puts == puts
    assert problem in outcome.problem
    assert bool(outcome.problem) == bool(problem)


def test_the_second_try_asks_the_lease_again() -> None:
    server = Server(meanwhile=touched)
    (outcome,) = carried(server, [write()], held(6.0, 0.0))
    assert (outcome.conflict, server.puts) == (True, [])


@pytest.mark.parametrize(
    ("error", "conflict", "forbidden"),
    [
        (KubeForbidden("PUT: 403", 403, "Forbidden"), False, True),
        (KubeUnavailable("PUT: no answer", 0, "Timeout"), False, False),
        (KubeNotFound("PUT: 404", 404, "NotFound"), False, False),
    ],
)
def test_one_that_fails_stops_no_other(
    error: KubeError, *, conflict: bool, forbidden: bool
) -> None:
    server = Server(answers=[error])
    first, second = carried(server, [write()], held(6.0)), carried(server, [write()], held(6.0))
    assert (first[0].conflict, first[0].forbidden) == (conflict, forbidden)
    assert first[0].problem == str(error)
    assert (second[0].problem, server.puts) == ("", [5])

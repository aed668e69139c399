"""What is remembered over restarts, by whom it is believed, and when it is not the whole story."""

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from builders import NOW, SERVICE, policies, policy
from operate_objects import standing

from autoscaler.core.outcome import BudgetHour, ServiceState, State
from autoscaler.core.types import Mode
from autoscaler.edge.artifacts import ServingModels
from autoscaler.edge.clock import Clock
from autoscaler.edge.kube.api import KubeConflict, KubeError, KubeNotFound, KubeUnavailable
from autoscaler.loop import Controller
from autoscaler.operate.authority import Standing
from autoscaler.operate.collect import Replicas
from autoscaler.operate.memory import EVERY_SECONDS, KEEP_GONE_SECONDS, Memory
from models.latency import LatencyModel
from models.lead_time import LeadTimeModel

WINDOW_SECONDS = 300.0  # of the policy that `builders` makes
BUDGET = (BudgetHour(490_992, 1000.0, 7.0),)
REMEMBERED = ServiceState(
    desired={"h100": 5},
    changes=((NOW - 40.0, {"h100": 5}),),
    holds={"h100": ((NOW - 100.0, 6), (NOW - 40.0, 5))},
    rises={"h100": ((NOW - 40.0, 5),)},
    budget=BUDGET,
)


@dataclass
class ConfigMaps:
    """As much of an API server as a checkpoint needs. `broken`: what every request gets."""

    stored: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: KubeError | None = None
    version: int = 0
    reads: int = 0

    def get(self, path: str) -> dict[str, Any]:
        self.reads += 1
        if self.broken is not None:
            raise self.broken
        if path not in self.stored:
            raise KubeNotFound(f"GET {path}: 404", 404, "NotFound")
        return copy.deepcopy(self.stored[path])

    def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.put(f"{path}/{body['metadata']['name']}", body)

    def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        found = self.stored[path]["metadata"]["resourceVersion"]
        if body["metadata"].get("resourceVersion") != found:
            raise KubeConflict(f"PUT {path}: 409", 409, "Conflict")
        return self.put(path, body)

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.broken is not None:
            raise self.broken
        self.version += 1
        self.stored[path] = copy.deepcopy(body)
        self.stored[path]["metadata"]["resourceVersion"] = str(self.version)
        return body

    def delete(self, path: str) -> None:
        raise KubeNotFound(f"DELETE {path}: 404", 404, "NotFound")


@dataclass
class Hands:
    """The parts that a memory works with."""

    maps: ConfigMaps = field(default_factory=ConfigMaps)
    seconds: float = 0.0

    def memory(self) -> Memory:
        clock = Clock(lambda: NOW + self.seconds, lambda: self.seconds)
        return Memory(self.maps, "own", clock)  # type: ignore[arg-type]


def controller(state: ServiceState | None = None) -> Controller:
    latency = LatencyModel((), np.zeros((0, 0)), {})
    models = ServingModels("none", None, latency, LeadTimeModel({}))
    made = Controller(policies(policy()), models)
    if state is not None:
        made.restore(State({SERVICE: state}))
    return made


def counts(n: int) -> dict[tuple[str, str], Replicas]:
    return {(SERVICE, "h100"): Replicas(n, n, 0, 0)}


def handed_over(
    state: ServiceState, now: float, runs: int, after: Standing | None = None
) -> tuple[frozenset[str], ServiceState]:
    """Write `state` down, read it in another process, and look at what runs then."""
    hands = Hands()
    before, old = controller(state), hands.memory()
    old.take_note(before, {SERVICE: standing()}, counts(5), now)
    assert old.write(before, now=True) == ""
    own, memory = controller(), hands.memory()
    assert memory.recall(own, "second")
    fresh = memory.take_note(own, {SERVICE: after or standing()}, counts(runs), now)
    return fresh, own.state.services[SERVICE]


def test_an_open_window_goes_on() -> None:
    fresh, state = handed_over(REMEMBERED, NOW, 5)
    assert fresh == frozenset()
    assert state == REMEMBERED


@pytest.mark.parametrize(
    ("now", "runs", "after"),
    [
        pytest.param(NOW, 7, None, id="killed after a scale that was not written down"),
        pytest.param(NOW, 2, None, id="somebody scaled meanwhile"),
        pytest.param(NOW - 40.0 + WINDOW_SECONDS, 5, None, id="nobody acted for a whole window"),
        pytest.param(NOW, 5, standing("another"), id="made anew meanwhile"),
        pytest.param(NOW, 5, standing(mode=Mode.RECOMMEND), id="mode switched meanwhile"),
    ],
)
def test_what_is_not_the_whole_story_begins_anew(
    now: float, runs: int, after: Standing | None
) -> None:
    fresh, state = handed_over(REMEMBERED, now, runs, after)
    assert fresh == {SERVICE}
    assert state.holds == {"h100": ((now, runs),)}
    assert (state.desired, state.changes, state.rises) == ({"h100": runs}, (), {})
    assert state.budget == BUDGET


def test_advice_that_nobody_follows_is_no_doubt() -> None:
    hands, recommend = Hands(), standing(mode=Mode.RECOMMEND)
    before, old = controller(REMEMBERED), hands.memory()
    old.take_note(before, {SERVICE: recommend}, counts(2), NOW)
    assert old.write(before, now=True) == ""
    own, memory = controller(), hands.memory()
    memory.recall(own, "second")
    assert memory.take_note(own, {SERVICE: recommend}, counts(2), NOW) == frozenset()


def test_doubt_is_settled_by_the_first_look() -> None:
    own, memory = controller(REMEMBERED), Hands().memory()
    memory.interrupt()
    assert memory.take_note(own, {SERVICE: standing()}, counts(9), NOW) == {SERVICE}
    assert memory.take_note(own, {SERVICE: standing()}, counts(8), NOW) == frozenset()


def test_it_is_read_once_a_tenure() -> None:
    hands = Hands()
    memory = hands.memory()
    assert memory.recall(controller(), "first")
    reads = hands.maps.reads
    assert memory.recall(controller(), "first")
    assert hands.maps.reads == reads
    assert memory.recall(controller(), "second")
    assert hands.maps.reads > reads


def test_while_it_cannot_be_read_nobody_may_act() -> None:
    hands = Hands()
    hands.maps.broken = KubeUnavailable("GET: 503", 503, "ServiceUnavailable")
    own, memory = controller(REMEMBERED), hands.memory()
    assert not memory.recall(own, "first")
    assert own.state.services[SERVICE] == REMEMBERED
    hands.maps.broken = None
    assert memory.recall(own, "first")


def test_damage_forgets_everything_and_may_act(caplog: pytest.LogCaptureFixture) -> None:
    hands = Hands()
    before, old = controller(REMEMBERED), hands.memory()
    old.write(before, now=True)
    (head,) = hands.maps.stored.values()
    head["binaryData"]["part"] = "AAAA"
    own, memory = controller(REMEMBERED), hands.memory()
    memory.take_note(own, {SERVICE: standing()}, counts(5), NOW)
    assert memory.recall(own, "first")
    assert own.state == State()
    assert "all windows begin anew" in caplog.text
    fresh = memory.take_note(own, {SERVICE: standing("another")}, counts(5), NOW)
    assert fresh == frozenset()  # nobody knows what was before


def test_it_is_written_once_a_minute_or_at_once_and_failing_is_no_reason_for_haste() -> None:
    hands = Hands()
    own, memory = controller(REMEMBERED), hands.memory()
    assert memory.write(own, now=False) == ""
    hands.seconds = EVERY_SECONDS - 1.0
    assert memory.write(own, now=False) is None
    assert memory.write(own, now=True) == ""
    hands.seconds *= 2.5
    hands.maps.broken = KubeUnavailable("PUT: 503", 503, "ServiceUnavailable")
    assert memory.write(own, now=False) == "checkpoint: PUT: 503"
    assert memory.write(own, now=False) is None


def test_who_was_overtaken_reads_what_the_other_one_wrote() -> None:
    hands = Hands()
    own, memory = controller(), hands.memory()
    memory.recall(own, "first")
    memory.write(own, now=True)
    get = hands.maps.get

    def overtaken(path: str) -> dict[str, Any]:
        found = get(path)
        hands.maps.get = get  # type: ignore[method-assign]
        assert hands.memory().write(controller(REMEMBERED), now=True) == ""
        return found

    hands.maps.get = overtaken  # type: ignore[method-assign]
    told = memory.write(own, now=True)
    assert told is not None
    assert "another leader wrote one meanwhile" in told
    assert memory.recall(own, "first")
    assert own.state.services[SERVICE] == REMEMBERED


def test_a_policy_that_comes_back_keeps_its_budget_and_begins_anew() -> None:
    own, memory = controller(REMEMBERED), Hands().memory()
    memory.take_note(own, {SERVICE: standing()}, counts(5), NOW)
    memory.take_note(own, {}, {}, NOW)
    assert memory.gone([], NOW) == frozenset()
    assert memory.gone([], NOW + KEEP_GONE_SECONDS - 1.0) == frozenset()
    later = NOW + KEEP_GONE_SECONDS - 1.0
    assert memory.take_note(own, {SERVICE: standing()}, counts(5), later) == {SERVICE}
    assert own.state.services[SERVICE].budget == BUDGET
    assert memory.gone([SERVICE], later) == frozenset()
    assert memory.take_note(own, {SERVICE: standing()}, counts(5), later) == frozenset()


def test_a_policy_that_stays_away_is_forgotten() -> None:
    own, memory = controller(REMEMBERED), Hands().memory()
    memory.take_note(own, {SERVICE: standing()}, counts(5), NOW)
    memory.gone([], NOW)
    assert memory.gone([], NOW + KEEP_GONE_SECONDS) == {SERVICE}
    assert memory.gone([], NOW + 2 * KEEP_GONE_SECONDS) == frozenset()


def test_an_invalid_policy_is_not_gone_and_begins_anew_when_it_is_valid_again() -> None:
    own, memory = controller(REMEMBERED), Hands().memory()
    memory.take_note(own, {SERVICE: standing()}, counts(5), NOW)
    assert memory.gone([SERVICE], NOW) == frozenset()
    memory.take_note(own, {}, {}, NOW)  # it is not decided
    assert memory.gone([SERVICE], NOW + 2 * KEEP_GONE_SECONDS) == frozenset()
    assert memory.take_note(own, {SERVICE: standing()}, counts(5), NOW) == {SERVICE}
    assert memory.take_note(own, {SERVICE: standing()}, counts(5), NOW) == frozenset()


def test_starts_of_two_processes_are_joined() -> None:
    row = (SERVICE, "h100", NOW, NOW + 1.0, NOW + 2.0, NOW + 60.0)
    other = (*row[:2], *(t + 1.0 for t in row[2:]))
    hands = Hands()
    own, memory = controller(), hands.memory()
    memory.learn([row])
    memory.write(own, now=True)
    second = hands.memory()
    second.learn([row, other])
    second.recall(own, "second")
    assert second.starts == (row, other)


def test_the_state_written_is_the_one_read() -> None:
    hands = Hands()
    fuller = replace(REMEMBERED, last_telemetry_seconds=NOW)
    hands.memory().write(controller(fuller), now=True)
    own = controller()
    hands.memory().recall(own, "x")
    assert own.state == State({SERVICE: fuller})

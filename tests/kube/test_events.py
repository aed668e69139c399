"""Events: aggregated, limited, bounded; a failing API server costs a log line and nothing else."""

import logging
import re
from dataclasses import replace
from typing import Any

import pytest
from apiserver import ApiServer
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.edge.kube.api import (
    KubeApi,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeNotFound,
    KubeUnavailable,
)
from autoscaler.edge.kube.events import (
    BURST,
    PER_SECOND,
    EventAggregator,
    EventPoster,
    Happening,
    ObjectRef,
    changes,
    scaled,
)

NOW = 1_767_571_200.0  # 2026-01-05T00:00:00Z
CHAT = ObjectRef("ScalingPolicy", "prod", "chat", "uid-1")
POOL = ObjectRef("AcceleratorPool", "", "main", "uid-2")
(UP,) = scaled(CHAT, {"h100": (1, 3)}, "forecast: 12 requests/s")
LOG = logging.getLogger("foreserve.test.events")


def aggregator(**more: Any) -> EventAggregator:
    return EventAggregator("pod-a", **more)


def condition(kind: str, status: str, reason: str = "Why", message: str = "a sentence") -> Any:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def test_variants_that_move_together_are_one_event_a_direction() -> None:
    counts = {"prefill": (1, 3), "decode": (2, 1), "both": (4, 5), "same": (2, 2)}
    told = [(h.reason, h.message) for h in scaled(CHAT, counts, "forecast")]
    assert told == [
        ("ScaledUp", "prefill: 1 to 3 replicas, both: 4 to 5 replicas (forecast)"),
        ("ScaledDown", "decode: 2 to 1 replica (forecast)"),
    ]


def test_the_first_is_created_whole() -> None:
    events = aggregator()
    events.add(UP, NOW)
    (write,) = events.due(NOW)
    assert (write.namespace, write.create) == ("prod", True)
    assert re.fullmatch(r"chat\.[0-9a-f]{16}", write.name)
    assert write.body == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": write.name, "namespace": "prod"},
        "involvedObject": {
            "apiVersion": "foreserve.dev/v1alpha1",
            "kind": "ScalingPolicy",
            "namespace": "prod",
            "name": "chat",
            "uid": "uid-1",
        },
        "type": "Normal",
        "reason": "ScaledUp",
        "message": "h100: 1 to 3 replicas (forecast: 12 requests/s)",
        "count": 1,
        "firstTimestamp": "2026-01-05T00:00:00Z",
        "lastTimestamp": "2026-01-05T00:00:00Z",
        "source": {"component": "foreserve"},
        "reportingComponent": "foreserve",
        "reportingInstance": "pod-a",
    }
    assert list(events.due(NOW)) == []


def test_the_next_ones_count_up_for_ten_minutes() -> None:
    events = aggregator()
    names = []
    for seconds in (0, 30, 599, 600):
        events.add(replace(UP, message=f"at {seconds}"), NOW + seconds)
        (write,) = events.due(NOW + seconds)
        names.append((write.name, write.create, write.body["count"]))
        if not write.create:
            assert write.body == {
                "count": write.body["count"],
                "lastTimestamp": f"2026-01-05T00:{seconds // 60:02}:{seconds % 60:02}Z",
                "message": f"at {seconds}",
            }
    first, second, third, fourth = names
    assert [n[1:] for n in names] == [(True, 1), (False, 2), (False, 3), (True, 1)]
    assert first[0] == second[0] == third[0] != fourth[0]


def test_other_reasons_and_objects_have_their_own() -> None:
    events = aggregator()
    (down,) = scaled(CHAT, {"h100": (3, 1)}, "hold")
    assert (down.reason, down.message) == ("ScaledDown", "h100: 3 to 1 replica (hold)")
    again = replace(UP, about=replace(CHAT, uid="uid-9"))  # deleted and created again
    for happening in (UP, down, UP, replace(UP, about=POOL), again):
        events.add(happening, NOW)
    writes = {
        (w.namespace, w.body["involvedObject"]["uid"], w.body["reason"]): w.body["count"]
        for w in events.due(NOW)
    }
    assert writes == {
        ("prod", "uid-1", "ScaledUp"): 2,
        ("prod", "uid-1", "ScaledDown"): 1,
        ("default", "uid-2", "ScaledUp"): 1,  # a cluster-wide object's Events live in default
        ("prod", "uid-9", "ScaledUp"): 1,
    }


def test_a_storm_is_held_back_and_told_later() -> None:
    events = aggregator()
    many = [replace(UP, about=replace(CHAT, uid=f"uid-{i}")) for i in range(int(BURST) + 10)]
    for happening in many:
        events.add(happening, NOW)
        events.add(happening, NOW)
    first = list(events.due(NOW))
    assert len(first) == BURST
    assert list(events.due(NOW)) == []
    later = list(events.due(NOW + 4.0))
    assert len(later) == 4 * PER_SECOND
    rest = list(events.due(NOW + 60.0))
    told = [w.body["involvedObject"]["uid"] for w in (*first, *later, *rest)]
    assert told == [h.about.uid for h in many]  # in order, each once
    assert {w.body["count"] for w in (*first, *later, *rest)} == {2}
    # a clock that goes back fills nothing
    events.add(UP, NOW + 60.0)
    assert len(list(events.due(NOW))) == 1


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc"), st.floats(0, 200)), max_size=200)
)
def test_memory_and_rate_are_bounded(steps: list[tuple[int, str, float]]) -> None:
    events = aggregator(max_objects=8)
    now, told, added = NOW, 0, 0
    for number, reason, passed in steps:
        now += passed
        events.add(Happening(replace(CHAT, uid=str(number)), reason, "x"), now)
        added += 1
        assert len(events) <= 8
        told += len(list(events.due(now)))
    assert told <= min(added, BURST + PER_SECOND * (now - NOW))


def test_beyond_the_bound_the_longest_silent_are_forgotten() -> None:
    events = aggregator(max_objects=3)
    for uid in "abcad":  # "a" again before "d": "b" is the longest silent
        events.add(replace(UP, about=replace(CHAT, uid=uid)), NOW)
    assert len(events) == 3
    assert [w.body["involvedObject"]["uid"] for w in events.due(NOW)] == ["a", "c", "d"]
    assert len(events) == 3  # told, and remembered to be counted up


def test_what_changed_between_two_statuses() -> None:
    before = {
        "conditions": [
            condition("Ready", "True"),
            condition("ModelTrusted", "True"),
            condition("SLOAtRisk", "True"),
            condition("Constrained", "False"),
            condition("TelemetryFresh", "True"),
        ]
    }
    after = {
        "conditions": [
            condition("Ready", "True", "Other"),  # another reason: no news here
            condition("ModelTrusted", "False", "ForecastNotBetterThanNaive", "nothing beats it"),
            condition("SLOAtRisk", "False"),
            condition("Constrained", "True", "Quota"),
            condition("TelemetryFresh", "Unknown"),
        ]
    }
    assert [(h.reason, h.type, h.message) for h in changes(CHAT, before, after)] == [
        ("ModelNotTrusted", "Warning", "ForecastNotBetterThanNaive: nothing beats it"),
        ("SLONoLongerAtRisk", "Normal", "Why: a sentence"),
        ("Constrained", "Warning", "Quota: a sentence"),
    ]
    # at first sight only what is wrong is news
    fresh = {"conditions": [condition("Ready", "True"), condition("SLOAtRisk", "False")]}
    assert list(changes(CHAT, {}, fresh)) == []
    bad = {"conditions": [condition("Ready", "False"), condition("SLOAtRisk", "True")]}
    assert [h.reason for h in changes(CHAT, {}, bad)] == ["NotReady", "SLOAtRisk"]
    assert list(changes(CHAT, bad, bad)) == []


class ScriptedApi:
    """Raises what it is told to, in turn; then takes everything."""

    def __init__(self, *errors: KubeError | None) -> None:
        self.errors = list(errors)
        self.calls: list[tuple[str, str]] = []

    def within(self, timeout_seconds: float) -> "ScriptedApi":
        assert timeout_seconds < 5.0
        return self

    def create(self, path: str, body: Any) -> Any:
        return self._call("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, body)

    def _call(self, method: str, path: str, body: Any) -> Any:
        self.calls.append((method, path))
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return body


def poster(api: ScriptedApi, events: EventAggregator) -> EventPoster:
    return EventPoster(api, events, LOG)  # type: ignore[arg-type]


def test_an_outage_ends_the_post_is_told_once_and_loses_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = ScriptedApi(KubeUnavailable("down"), KubeUnavailable("down"))
    events = aggregator()
    post = poster(api, events)
    for i in range(3):
        events.add(replace(UP, about=replace(CHAT, uid=f"u{i}")), NOW)
    assert post.post(NOW) == 0
    assert len(api.calls) == 1  # one attempt a tick, not one for each Event
    assert post.post(NOW + 15) == 0
    assert post.post(NOW + 30) == 3
    assert [r.getMessage() for r in caplog.records] == ["events in prod are not posted: down"]
    assert [m for m, _ in api.calls] == ["POST"] * 5
    # after it worked, the next failure is told again
    api.errors.append(KubeUnavailable("down again"))
    events.add(UP, NOW + 40)
    post.post(NOW + 40)
    assert caplog.records[-1].getMessage() == "events in prod are not posted: down again"


def test_a_refusal_costs_one_event_and_keeps_no_other_from_being_posted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = ScriptedApi(KubeForbidden("no", 403), None, KubeForbidden("no", 403))
    events = aggregator()
    post = poster(api, events)
    events.add(UP, NOW)
    events.add(replace(UP, about=POOL), NOW)
    assert post.post(NOW) == 1
    events.add(UP, NOW + 1)
    assert post.post(NOW + 1) == 0
    assert len(caplog.records) == 1


def test_an_event_that_is_gone_is_created_again() -> None:
    api = ScriptedApi(None, KubeNotFound("gone", 404))
    events = aggregator()
    post = poster(api, events)
    for seconds in (0, 15):
        events.add(UP, NOW + seconds)
        post.post(NOW + seconds)
    assert [m for m, _ in api.calls] == ["POST", "PATCH", "POST"]


def test_a_creation_that_was_done_unseen_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    api = ScriptedApi(KubeUnavailable("no whole answer"), KubeConflict("exists", 409))
    events = aggregator()
    post = poster(api, events)
    events.add(UP, NOW)
    post.post(NOW)
    assert post.post(NOW + 15) == 1
    events.add(UP, NOW + 30)
    assert post.post(NOW + 30) == 1
    assert [m for m, _ in api.calls] == ["POST", "POST", "PATCH"]
    assert len({p for _, p in api.calls[:2]}) == 1
    assert len(caplog.records) == 1


def test_on_a_server(kube: ApiServer, namespace: str) -> None:
    api = KubeApi(kube.admin())
    events = aggregator()
    post = EventPoster(api, events, LOG)
    about = replace(CHAT, namespace=namespace)
    for seconds in (0, 15, 30):
        events.add(replace(UP, about=about), NOW + seconds)
        assert post.post(NOW + seconds) == 1
    events.add(replace(UP, about=about, reason="NotReady", type="Warning"), NOW)
    assert post.post(NOW + 45) == 1
    stored = api.list(f"/api/v1/namespaces/{namespace}/events")
    assert {(e["reason"], e["type"], e["count"], e["lastTimestamp"]) for e in stored} == {
        ("ScaledUp", "Normal", 3, "2026-01-05T00:00:30Z"),
        ("NotReady", "Warning", 1, "2026-01-05T00:00:00Z"),
    }
    # an Event of a cluster-wide object is accepted too, and a namespace that is gone only logged
    events.add(Happening(replace(POOL, name="events-test"), "Exhausted", "x" * 5000), NOW)
    assert post.post(NOW + 60) == 1
    events.add(replace(UP, about=replace(CHAT, namespace="gone", uid="uid-3")), NOW)
    assert post.post(NOW + 75) == 0

"""Starts of replicas from watched pods: one row a pod, and only what is known."""

from typing import Any

import numpy as np
import pandas as pd
from cluster_objects import HOUR_SECONDS, clock, condition, pod_object, ready_at

from autoscaler.edge.kube.pods import PodRecord, pod_record
from autoscaler.edge.kube.starts import Seen, Start, startups, startups_frame

KEY = ("prod/chat", "h100")
NOT_READY = [condition("Initialized", clock(1)), condition("Ready", clock(0, 9), "False")]


def starting(name: str = "a", **more: Any) -> PodRecord:
    return pod_record(pod_object(name, conditions=NOT_READY, **more))


def ready(name: str = "a", minute: int = 5, **more: Any) -> PodRecord:
    return pod_record(pod_object(name, conditions=ready_at(minute), **more))


def told(*looks: list[PodRecord]) -> list[list[tuple[str, float]]]:
    """Return (uid, start-up seconds) of the starts that each look tells."""
    seen: dict[tuple[str, str], Seen] = {}
    out = []
    for pods in looks:
        starts, seen = startups({KEY: pods}, seen)
        out.append([(s.uid, s.ready_seconds - s.created_seconds) for s in starts])
    return out


def test_a_watched_start_is_told_once() -> None:
    assert told(
        [starting()],  # nothing to tell yet
        [ready()],  # ready after five minutes
        [ready()],  # told
        [starting()],  # a probe fails
        [ready(minute=40)],  # and succeeds: no start
    ) == [[], [("uid-prod-a", 300.0)], [], [], []]


def test_a_crash_before_the_first_ready_is_part_of_the_start() -> None:
    restarted = {"containerStatuses": [{"restartCount": 3}]}
    looks = told([starting()], [starting(status=restarted)], [ready(minute=9, status=restarted)])
    assert looks == [[], [], [("uid-prod-a", 540.0)]]


def test_a_container_restart_is_no_start() -> None:
    restarted = {"containerStatuses": [{"restartCount": 1}]}
    assert told([ready(minute=30, status=restarted)]) == [[]]
    assert told([starting(status=restarted)], [ready(minute=30, status=restarted)]) == [[], []]


def test_a_pod_that_was_ready_at_the_first_look() -> None:
    # its conditions are in order, nothing restarted, five minutes: believed
    assert told([ready()]) == [[("uid-prod-a", 300.0)]]
    # two hours: a probe that failed and succeeded again is likelier
    old = {"creationTimestamp": "2026-11-27T04:00:00Z"}
    assert told([ready(metadata=old)]) == [[]]
    # Initialized is not known: not the whole story
    half = pod_record(pod_object("a", conditions=[condition("Ready", clock(5))]))
    assert told([half]) == [[]]
    # ready before it was scheduled: clocks differ by more than the start took
    odd = [condition("PodScheduled", clock(6)), *ready_at(5)[1:]]
    assert told([pod_record(pod_object("a", conditions=odd))]) == [[]]


def test_a_pod_that_had_been_ready_before_the_first_look_is_no_start() -> None:
    # initialized at :01, Ready turned false at :20: it was true in between
    lapsed = [condition("Initialized", clock(1)), condition("Ready", clock(20), "False")]
    assert told([pod_record(pod_object("a", conditions=lapsed))], [ready(minute=21)]) == [[], []]


def test_a_start_that_was_given_up_is_censored() -> None:
    gone = {"deletionTimestamp": clock(4, 30), "deletionGracePeriodSeconds": 30}
    seen: dict[tuple[str, str], Seen] = {}
    _, seen = startups({KEY: [starting()]}, seen)
    starts, seen = startups({KEY: [starting(metadata=gone)]}, seen)
    (start,) = starts
    assert np.isnan(start.ready_seconds)
    assert start.ended_seconds == HOUR_SECONDS + 240
    assert startups({KEY: [starting(metadata=gone)]}, seen)[0] == []
    # ended before the first look: whether it was ready is not known
    assert told([starting(metadata=gone)]) == [[]]


def test_a_variant_that_is_not_known_this_time_is_not_forgotten() -> None:
    _, seen = startups({KEY: [ready()]}, {})
    _, seen = startups({}, seen)
    assert startups({KEY: [ready()]}, seen)[0] == []
    _, seen = startups({KEY: []}, seen)  # the pod is gone
    assert seen == {KEY: Seen()}


def test_the_frame_is_that_of_startups_parquet() -> None:
    starts, _ = startups({KEY: [ready(), ready("b", 7)]}, {})
    given_up = Start("prod/chat", "l40s", "u", HOUR_SECONDS, *[float("nan")] * 3, HOUR_SECONDS + 9)
    frame = startups_frame([*starts, given_up])
    first, second, third = frame.to_dict("records")
    assert first["service"] == "prod/chat"
    assert first["created_ts"] == pd.Timestamp("2026-11-27T06:00:00Z")
    assert first["ready_ts"] == pd.Timestamp("2026-11-27T06:05:00Z")
    assert pd.isna(first["ended_ts"])
    # scheduled at :00:05, initialized at :01:00, ready at :05:00
    assert first["phase_schedule_seconds"] == 5
    assert first["phase_initialize_seconds"] == 55
    assert first["phase_load_seconds"] == 240
    assert (second["variant"], second["pod_uid"]) == ("h100", "uid-prod-b")
    assert pd.isna(third["ready_ts"])
    assert third["ended_ts"] == pd.Timestamp("2026-11-27T06:00:09Z")
    assert np.isnan(third["phase_schedule_seconds"])


def test_no_starts_are_an_empty_frame() -> None:
    assert len(startups_frame([])) == 0

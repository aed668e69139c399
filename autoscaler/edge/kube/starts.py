"""Starts of replicas as watched pods tell them, with the columns of startups.parquet (PROTOCOL.md section 1).

created    metadata.creationTimestamp
scheduled  PodScheduled became true: a node was found
initialized  Initialized became true: volumes, devices and init containers are done
ready      Ready became true for the first time: it serves

A pod's conditions know only the last change. A pod that this process saw before it was ready tells its own
story. One that was ready at the first look is believed if nothing says that it was ready before: no container
restarted, the times are in order and the start took no more than an hour (a loaded engine that fails a probe
becomes ready again, hours later).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from autoscaler.edge.kube.pods import PodRecord
from models.frames import validate_startups

MAX_UNWATCHED_SECONDS = 3600.0
SAME_SECOND = 1.0  # API times are whole seconds
COLUMNS = ("service", "variant", "created_ts", "ready_ts", "ended_ts")
PHASES = ("phase_schedule_seconds", "phase_initialize_seconds", "phase_load_seconds")
Replica = tuple[str, str]  # (service, variant)


@dataclass(frozen=True, slots=True)
class Start:
    """One start. Times in seconds since 1970; ready NaN: given up at `ended_seconds` (censored)."""

    service: str
    variant: str
    uid: str
    created_seconds: float
    scheduled_seconds: float
    initialized_seconds: float
    ready_seconds: float
    ended_seconds: float


@dataclass(frozen=True, slots=True)
class Seen:
    """uids: of pods seen while they were starting, and of those whose start is told or not to be told."""

    starting: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()


NOTHING_SEEN = Seen()


def startups(
    pods: Mapping[Replica, Sequence[PodRecord]], seen: Mapping[Replica, Seen]
) -> tuple[list[Start], dict[Replica, Seen]]:
    """Return the starts that ended since `seen`, one a pod, and what to remember for the next look.

    A pod that becomes ready for the first time is a start; one that is deleted before is a censored start.
    A container restart is none. Pods that are gone are forgotten, but not those of a variant that is
    absent from `pods`: its pods are not known this time.
    """
    starts = []
    remembered = dict(seen)
    for (service, variant), of in pods.items():
        before = seen.get((service, variant), NOTHING_SEEN)
        states = {pod.uid: _state(pod, before) for pod in of}
        starts += [_start(service, variant, pod) for pod in of if states[pod.uid] == "told"]
        starting = frozenset(uid for uid, state in states.items() if state == "starting")
        remembered[service, variant] = Seen(starting, frozenset(states) - starting)
    starts.sort(key=lambda s: (s.created_seconds, s.service, s.variant, s.uid))
    return starts, remembered


def startups_frame(starts: Iterable[Start]) -> pd.DataFrame:
    """Return the validated frame of these starts, with pod_uid and the seconds of each phase (or NaN).

    A process that begins anew tells starts again: whoever stores them keeps each pod_uid once.
    """
    rows = [
        (
            s.service,
            s.variant,
            s.created_seconds,
            s.ready_seconds,
            s.ended_seconds,
            s.scheduled_seconds - s.created_seconds,
            s.initialized_seconds - s.scheduled_seconds,
            s.ready_seconds - s.initialized_seconds,
            s.uid,
        )
        for s in starts
    ]
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *PHASES, "pod_uid"])
    for column in ("created_ts", "ready_ts", "ended_ts"):
        frame[column] = pd.to_datetime(frame[column].astype("float64"), unit="s", utc=True)
    return validate_startups(frame, "watched pods")


def _state(pod: PodRecord, seen: Seen) -> str:
    """Return starting, told (its start is to be told now) or done (told, or never to be told)."""
    watched = pod.uid in seen.starting
    if pod.uid in seen.done or math.isnan(pod.created_seconds):
        return "done"
    if pod.ready:
        return "told" if _in_order(pod) and (watched or _whole_story(pod)) else "done"
    if pod.deleting:
        return "told" if watched and pod.deletion_seconds >= pod.created_seconds else "done"
    if pod.ended or (not watched and _was_ready(pod)):
        return "done"
    return "starting"


def _in_order(pod: PodRecord) -> bool:
    """Return whether the times that are known follow each other (clocks of nodes may differ)."""
    times = (
        pod.created_seconds,
        pod.scheduled_seconds,
        pod.initialized_seconds,
        pod.ready_seconds,
    )
    known = [t for t in times if not math.isnan(t)]
    return not math.isnan(pod.ready_seconds) and known == sorted(known)


def _whole_story(pod: PodRecord) -> bool:
    known = not math.isnan(pod.scheduled_seconds + pod.initialized_seconds)
    took = pod.ready_seconds - pod.created_seconds
    return known and pod.restarts == 0 and took <= MAX_UNWATCHED_SECONDS


def _was_ready(pod: PodRecord) -> bool:
    """Return whether a pod that is not ready may have been so: Ready turned false after the start."""
    turned = pod.unready_seconds > pod.initialized_seconds + SAME_SECOND  # NaN compares false
    return turned or pod.restarts > 0


def _start(service: str, variant: str, pod: PodRecord) -> Start:
    return Start(
        service=service,
        variant=variant,
        uid=pod.uid,
        created_seconds=pod.created_seconds,
        scheduled_seconds=pod.scheduled_seconds,
        initialized_seconds=pod.initialized_seconds,
        ready_seconds=pod.ready_seconds,
        ended_seconds=math.nan if pod.ready else pod.deletion_seconds,
    )

"""Events: one for each scale and each change of a condition, counted up instead of repeated.

`EventAggregator` decides (pure: time comes in), `EventPoster` posts. One Event per object and reason
and ten minutes, with a count; all together no faster than a token bucket allows. What the bucket
holds back is counted and told later; what the API server refuses is not tried again.
"""

import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from autoscaler.edge.kube.api import (
    KubeApi,
    KubeConflict,
    KubeError,
    KubeNotFound,
    KubeUnavailable,
)
from autoscaler.edge.kube.conditions import clipped, condition_of, replicas
from autoscaler.policy.schema import API_VERSION
from autoscaler.policy.status import ConditionType

COMPONENT = "foreserve"
WINDOW_SECONDS = 600.0
BURST = 100.0  # Events at once ...
PER_SECOND = 2.0  # ... and in the long run
POST_SECONDS = 1.0  # of a tick, for Events
REQUEST_SECONDS = 2.0
MAX_OBJECTS = 4096  # (object, reason) pairs remembered: about 2 MiB

# What a condition means for the one who reads Events: the reason told when it is (True, False).
# A change to what is normal is Normal, the other a Warning.
CHANGES: Mapping[ConditionType, tuple[str, str]] = {
    ConditionType.READY: ("Ready", "NotReady"),
    ConditionType.TELEMETRY_FRESH: ("TelemetryFresh", "TelemetryStale"),
    ConditionType.MODEL_TRUSTED: ("ModelTrusted", "ModelNotTrusted"),
    ConditionType.SLO_AT_RISK: ("SLOAtRisk", "SLONoLongerAtRisk"),
    ConditionType.CONSTRAINED: ("Constrained", "NoLongerConstrained"),
    ConditionType.EXHAUSTED: ("AcceleratorsExhausted", "AcceleratorsAvailable"),
}
BAD_WHEN_TRUE = (ConditionType.SLO_AT_RISK, ConditionType.CONSTRAINED, ConditionType.EXHAUSTED)


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """The object that an Event is about; namespace empty: a cluster-wide one."""

    kind: str
    namespace: str
    name: str
    uid: str
    api_version: str = API_VERSION


@dataclass(frozen=True, slots=True)
class Happening:
    """Something worth an Event."""

    about: ObjectRef
    reason: str  # CamelCase, few: Events are aggregated by it
    message: str
    type: Literal["Normal", "Warning"] = "Normal"


@dataclass(frozen=True, slots=True)
class EventWrite:
    """One request: create the Event, or count an existing one up."""

    namespace: str
    name: str
    create: bool
    body: dict[str, Any]
    key: tuple[str, str]


@dataclass(slots=True)
class _Series:
    """One Event: what has happened, and how much of it has been told."""

    happening: Happening
    first_seconds: float
    last_seconds: float
    count: int = 1
    told: int = 0


def scaled(
    about: ObjectRef, counts: Mapping[str, tuple[int, int]], why: str
) -> Iterator[Happening]:
    """Yield what was written of a policy's variants, (before, after) each, in one happening a direction.

    `why` is the decision's reason and detail.
    """
    for reason, sign in (("ScaledUp", 1), ("ScaledDown", -1)):
        moved = [
            f"{variant}: {before} to {replicas(after)}"
            for variant, (before, after) in counts.items()
            if (after - before) * sign > 0
        ]
        if moved:
            yield Happening(about, reason, f"{', '.join(moved)} ({why})")


def changes(
    about: ObjectRef, previous: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Happening]:
    """Yield a happening for each condition whose status differs between two statuses (plain data).

    A condition seen for the first time is news only where it is bad; Unknown never is.
    """
    for kind, (when_true, when_false) in CHANGES.items():
        before, now = condition_of(previous, kind), condition_of(new, kind)
        status = now.get("status")
        if status not in ("True", "False") or status == before.get("status"):
            continue
        bad = (status == "True") == (kind in BAD_WHEN_TRUE)
        if not bad and before.get("status") not in ("True", "False"):
            continue
        reason = when_true if status == "True" else when_false
        message = f"{now.get('reason')}: {now.get('message')}"
        yield Happening(about, reason, message, "Warning" if bad else "Normal")


class EventAggregator:
    """What has happened, by object and reason; remembers at most MAX_OBJECTS of them."""

    def __init__(self, instance: str, max_objects: int = MAX_OBJECTS) -> None:
        self.instance = instance  # the pod's name, told as reportingInstance
        self._max_objects = max_objects
        self._series: OrderedDict[tuple[str, str], _Series] = OrderedDict()
        self._untold: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._tokens = BURST
        self._filled_seconds: float | None = None

    def __len__(self) -> int:
        return len(self._series)

    def add(self, happening: Happening, now_seconds: float) -> None:
        """Note a happening; `due` says when it is told."""
        key = (happening.about.uid or str(happening.about), happening.reason)
        series = self._series.get(key)
        if series is None or now_seconds - series.first_seconds >= WINDOW_SECONDS:
            self._series[key] = _Series(happening, now_seconds, now_seconds)
        else:
            series.happening = happening
            series.last_seconds = now_seconds
            series.count += 1
        self._series.move_to_end(key)
        self._untold[key] = None
        while len(self._series) > self._max_objects:
            oldest, _ = self._series.popitem(last=False)
            self._untold.pop(oldest, None)

    def due(self, now_seconds: float) -> Iterator[EventWrite]:
        """Yield what may be told now, longest waiting first; taking it counts as told."""
        if self._filled_seconds is not None:
            passed = max(0.0, now_seconds - self._filled_seconds)
            self._tokens = min(BURST, self._tokens + passed * PER_SECOND)
        self._filled_seconds = now_seconds
        while self._untold and self._tokens >= 1.0:
            key, _ = self._untold.popitem(last=False)
            self._tokens -= 1.0
            yield self._write(key, self._series[key])

    def forget(self, write: EventWrite) -> None:
        """Begin anew with what `write` was about: its Event is gone."""
        series = self._series.get(write.key)
        if series is not None:
            series.told = 0
            self._untold[write.key] = None

    def retry(self, write: EventWrite) -> None:
        """Tell it again later: nobody answered."""
        series = self._series.get(write.key)
        if series is not None:
            series.told = 0 if write.create else series.told
            self._untold[write.key] = None

    def _write(self, key: tuple[str, str], series: _Series) -> EventWrite:
        about = series.happening.about
        namespace = about.namespace or "default"  # as Kubernetes does for cluster-wide objects
        identity = f"{key}/{series.first_seconds!r}/{self.instance}"
        name = f"{about.name[:200]}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        create, series.told = series.told == 0, series.count
        body: dict[str, Any] = {
            "count": series.count,
            "lastTimestamp": _time(series.last_seconds),
            "message": clipped(series.happening.message),
        }
        if create:
            body |= self._whole(series, namespace, name)
        return EventWrite(namespace, name, create, body, key)

    def _whole(self, series: _Series, namespace: str, name: str) -> dict[str, Any]:
        about = series.happening.about
        involved = {
            "apiVersion": about.api_version,
            "kind": about.kind,
            "name": about.name,
            "uid": about.uid,
        }
        if about.namespace:
            involved["namespace"] = about.namespace
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "reason": series.happening.reason,
            "type": series.happening.type,
            "firstTimestamp": _time(series.first_seconds),
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self.instance,
        }


class EventPoster:
    """Posts what an aggregator has. Failures are logged once until it works again, never raised."""

    def __init__(self, api: KubeApi, aggregator: EventAggregator, log: logging.Logger) -> None:
        self._api = api.within(REQUEST_SECONDS)
        self._aggregator = aggregator
        self._log = log
        self._failing: set[str] = set()  # namespaces

    def post(self, now_seconds: float) -> int:
        """Post what is due and return how many were; ends where nobody answers or time is up."""
        posted = 0
        end = time.monotonic() + POST_SECONDS
        for write in self._aggregator.due(now_seconds):
            try:
                self._send(write)
            except KubeError as error:
                self._complain(write.namespace, error)
                if isinstance(error, KubeUnavailable):
                    self._aggregator.retry(write)
                    break
            else:
                posted += 1
                self._failing.discard(write.namespace)
            if time.monotonic() > end:
                break  # a tick does not wait for Events: the next one goes on
        return posted

    def _send(self, write: EventWrite) -> None:
        path = f"/api/v1/namespaces/{write.namespace}/events"
        try:
            if write.create:
                self._api.create(path, write.body)
            else:
                self._api.patch(f"{path}/{write.name}", write.body)
        except KubeConflict:
            return  # an attempt that nobody answered was done after all
        except KubeNotFound:
            if write.create:
                raise  # the namespace is gone
            self._aggregator.forget(write)  # the Event is: the next one due creates it again

    def _complain(self, namespace: str, error: KubeError) -> None:
        if namespace not in self._failing:
            self._failing.add(namespace)
            self._log.warning("events in %s are not posted: %s", namespace, error)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

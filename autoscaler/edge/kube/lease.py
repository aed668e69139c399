"""Who acts: one Lease of coordination.k8s.io, after client-go's leader election, without wall clocks.

A lease is free when nobody is named in it, or when its record has not changed for its own
leaseDurationSeconds *as this process observed it* on its monotonic clock. The times in the object are
for people. The holder's right to act ends `renew_deadline_seconds` after the last successful renewal
was SENT, computed whenever somebody asks, so that a thread that hangs holds nothing:

    holder     sent ---------- 7 s: stops acting
    follower       seen ------------------ 10 s: may take it (seen >= written >= sent)
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from autoscaler.edge.clock import wall_seconds
from autoscaler.edge.kube.api import (
    KubeApi,
    KubeConflict,
    KubeError,
    KubeNotFound,
)

log = logging.getLogger(__name__)

GROUP = "/apis/coordination.k8s.io/v1"
API_VERSION = "coordination.k8s.io/v1"
Json = dict[str, Any]


class Lease:
    """One candidate for one Lease. `run` in a thread of its own, `is_held` from anywhere.

    `identity` names this process and no other, also not its predecessor in the same pod.
    """

    def __init__(  # noqa: PLR0913 - three durations, two clocks
        self,
        api: KubeApi,
        namespace: str,
        name: str,
        identity: str,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = wall_seconds,
        *,
        duration_seconds: float = 10.0,
        renew_deadline_seconds: float = 7.0,
        retry_seconds: float = 2.0,
    ) -> None:
        if not 0.0 < retry_seconds < renew_deadline_seconds < duration_seconds:
            raise ValueError(
                f"lease {namespace}/{name}: retry {retry_seconds:g} s, renew deadline "
                f"{renew_deadline_seconds:g} s, duration {duration_seconds:g} s; "
                "allowed: 0 < retry < renew deadline < duration"
            )
        self._request_seconds = (renew_deadline_seconds - retry_seconds) / 2.0  # two may hang
        self._api = api.within(self._request_seconds)
        self._path = f"{GROUP}/namespaces/{namespace}/leases"
        self._namespace, self._name, self.identity = namespace, name, identity
        self._monotonic, self._wall = monotonic, wall
        self._duration, self._deadline = duration_seconds, renew_deadline_seconds
        self._retry = retry_seconds
        self._turn = threading.Lock()  # one request at a time: the loop's or the release
        self._fence = -math.inf  # monotonic: until when we may act
        self._lease: Json | None = None  # as the server last had it
        self._seen_spec: Json | None = None
        self._seen_at = -math.inf  # monotonic: since when the record has not changed
        self._tenure = ""  # the acquireTime of what we last tried to write: marks it as ours
        self._last_micros = 0
        self._over = False
        self._leader = ""  # for the log, as is
        self._trouble = ""  # so that an outage is one line

    def is_held(self) -> bool:
        """Return whether this process may act now."""
        return self.left_seconds() > 0.0

    def left_seconds(self) -> float:
        """Return for how long this process may act without another renewal; 0 if not at all."""
        return 0.0 if self._over else max(self._fence - self._monotonic(), 0.0)

    @property
    def tenure(self) -> str:
        """Another text with every acquisition: who acts again after a gap may have missed others."""
        return self._tenure

    def run(self, stop: threading.Event) -> None:
        """Acquire and renew until `stop` is set or the lease is released. Failures are waited out."""
        while not (stop.is_set() or self._over):
            stop.wait(self.step())

    def step(self) -> float:
        """Try once to acquire or renew; return the seconds until it should be tried again."""
        begun = self._monotonic()
        with self._turn:
            if not self._over:
                self._attempt()
            return self._pause(begun)

    def release(self) -> None:
        """Stop acting, and give the lease back so that a follower need not wait for its end.

        Not to be able to tell the server is logged, not raised: the lease then runs out by itself.
        """
        self._over = True
        with self._turn:
            if self._lease is None or not self._is_ours(self._lease["spec"]):
                return
            try:
                try:
                    self._give_back(self._lease)
                except KubeConflict:  # touched since, maybe only its labels
                    self._give_back(self._api.get(f"{self._path}/{self._name}"))
            except KubeError as error:
                log.warning("lease %s/%s: not given back: %s", self._namespace, self._name, error)
            else:
                log.info("lease %s/%s: given back", self._namespace, self._name)
            self._lease = None

    def _give_back(self, lease: Json) -> None:
        spec = lease.get("spec") or {}
        if not self._is_ours(spec):
            return
        now = self._stamp()
        empty = {
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": _count(spec.get("leaseTransitions")),
        }
        self._api.replace(f"{self._path}/{self._name}", {**lease, "spec": empty})

    def _attempt(self) -> None:
        """Renew what is ours, else look whether the lease is free and take it."""
        try:
            if self._lease is not None and self._is_ours(self._lease["spec"]):
                try:
                    self._write(self._lease)
                except (KubeConflict, KubeNotFound):  # touched, maybe only its labels, or deleted
                    self._look_and_take()
            else:
                self._look_and_take()
        except KubeError as error:  # what we hold we keep for now: the fence ends it in time
            if str(error) != self._trouble:
                log.warning("lease %s/%s: %s", self._namespace, self._name, error)
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _look_and_take(self) -> None:
        try:
            lease = self._api.get(f"{self._path}/{self._name}")
        except KubeNotFound:
            self._lease, self._fence = None, -math.inf
            if self._is_free(self._seen_spec):  # deleted: whom we saw last keeps his time
                self._write(None)
            return
        self._observe(lease)
        if not self._is_ours(lease["spec"]):
            self._fence = -math.inf
        if self._is_free(lease["spec"]):
            self._write(lease)

    def _write(self, lease: Json | None) -> None:
        """Make the lease ours, or ours for longer; the fence counts from before the request."""
        sent = self._monotonic()
        now = self._stamp()
        old: Json = {} if lease is None else lease["spec"]
        ours = self._is_ours(old)
        if not ours:
            self._tenure = now
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self._duration),
            "acquireTime": self._tenure,
            "renewTime": now,
            "leaseTransitions": _count(old.get("leaseTransitions"))
            + (not ours and lease is not None),
        }
        if lease is None:
            meta = {"name": self._name, "namespace": self._namespace}
            body = {"apiVersion": API_VERSION, "kind": "Lease", "metadata": meta, "spec": spec}
            answer = self._api.create(self._path, body)
        else:
            answer = self._api.replace(f"{self._path}/{self._name}", {**lease, "spec": spec})
        self._observe(answer)
        self._fence = sent + self._deadline

    def _observe(self, lease: Json) -> None:
        """Remember the record, and since when it is this one."""
        spec = lease.get("spec")
        lease["spec"] = spec = spec if isinstance(spec, dict) else {}
        if spec != self._seen_spec:
            self._seen_spec, self._seen_at = spec, self._monotonic()
        self._lease = lease
        leader = str(spec.get("holderIdentity") or "")
        if leader != self._leader:
            self._leader = leader
            log.info("lease %s/%s: held by %s", self._namespace, self._name, leader or "nobody")

    def _is_ours(self, spec: Json) -> bool:
        """Whether this process wrote it: an answer that got lost is recognized by its acquireTime."""
        written = (spec.get("holderIdentity"), spec.get("acquireTime"))
        return written == (self.identity, self._tenure)

    def _is_free(self, spec: Json | None) -> bool:
        """Whether we may write our name into it: nobody's, ours, or not renewed in its time."""
        return spec is None or self._is_ours(spec) or self._monotonic() >= self._free_at(spec)

    def _free_at(self, spec: Json) -> float:
        """Return when (monotonic) this record's holder has lost it; -inf: it has none."""
        if not spec.get("holderIdentity"):
            return -math.inf
        duration = spec.get("leaseDurationSeconds")
        if not isinstance(duration, int) or duration <= 0:
            duration = self._duration
        return self._seen_at + duration

    def _pause(self, begun: float) -> float:
        """Return the seconds until the next attempt: one a retry period, and one when it is free."""
        now = self._monotonic()
        until = begun + self._retry
        if self._seen_spec is not None and not self._is_ours(self._seen_spec):
            free_at = self._free_at(self._seen_spec)
            until = min(until, free_at) if now < free_at else until
        return max(until - now, 0.0)

    def _stamp(self) -> str:
        """Return the time as the API writes it, strictly later than the last one that was written.

        The record must change with every renewal even if this machine's clock stands still.
        """
        self._last_micros = max(round(self._wall() * 1e6), self._last_micros + 1)
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self._last_micros)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0

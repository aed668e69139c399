"""What changes slowly, read once a minute: ResourceQuotas, Kueue's queues, devices, XID errors."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autoscaler.edge.clock import Clock
from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.kube.dra import device_class_of
from autoscaler.edge.kube.facts import ClusterFacts
from autoscaler.edge.kube.lister import optional
from autoscaler.operate.roster import Roll

SLOW_SECONDS = 60.0
DRA_API = "resource.k8s.io/v1"
Read = Callable[[str, str], list[dict[str, Any]] | None]


@dataclass(frozen=True, slots=True)
class Slow:
    """What is read once a minute. None: could not be read, for the reason in `problems`."""

    quotas: list[dict[str, Any]] | None = None
    facts: ClusterFacts = field(default_factory=ClusterFacts)
    problems: Mapping[str, str] | None = None


class SlowReader:
    """Reads it, or returns what was read less than SLOW_SECONDS ago."""

    def __init__(
        self, api: KubeApi, clock: Clock, xids: Callable[[float], Mapping[str, int]] | None
    ) -> None:
        """`xids`: at a time, node -> the XID error that a device of it reported."""
        self._api = api
        self._clock = clock
        self._xids = xids
        self._read_at = -math.inf
        self._slow = Slow()

    def read(self, roll: Roll, now_seconds: float) -> Slow:
        """Return what the pools in force need to know."""
        if self._clock.monotonic() - self._read_at < SLOW_SECONDS:
            return self._slow
        problems: dict[str, str] = {}

        def read(api_version: str, kind: str) -> list[dict[str, Any]] | None:
            objects, problem = optional(self._api, api_version, kind)
            if problem:
                problems[kind] = problem
            return objects

        facts = ClusterFacts()
        classes = [c for body in roll.pool_bodies for c in body.spec.classes]
        if any(c.quota is not None and c.quota.kueue_cluster_queue for c in classes):
            facts = _with_kueue(facts, read)
        if any(device_class_of(c.resource_name) is not None for c in classes):
            facts = _with_devices(facts, read)
        if self._xids is not None:
            facts = replace(facts, xids=self._xids(now_seconds))
        quotas = read("v1", "ResourceQuota")
        quotas = self._slow.quotas if quotas is None else quotas  # the last ones hold meanwhile
        self._slow = Slow(quotas, facts, problems)
        self._read_at = self._clock.monotonic()
        return self._slow


def _with_kueue(facts: ClusterFacts, read: Read) -> ClusterFacts:
    version = "kueue.x-k8s.io/v1beta2"
    queues = read(version, "ClusterQueue")
    if queues == []:  # or Kueue is older
        version = "kueue.x-k8s.io/v1beta1"
        queues = read(version, "ClusterQueue")
    local, flavors = read(version, "LocalQueue"), read(version, "ResourceFlavor")
    return replace(
        facts,
        cluster_queues=_by_name(queues),
        local_queues=None
        if local is None
        else {
            (q["metadata"]["namespace"], q["metadata"]["name"]): q["spec"]["clusterQueue"]
            for q in local
        },
        flavors=None
        if flavors is None
        else {f["metadata"]["name"]: f["spec"].get("nodeLabels") or {} for f in flavors},
    )


def _with_devices(facts: ClusterFacts, read: Read) -> ClusterFacts:
    return replace(
        facts,
        device_classes=_by_name(read(DRA_API, "DeviceClass")),
        resource_slices=read(DRA_API, "ResourceSlice"),
        resource_claims=read(DRA_API, "ResourceClaim"),
    )


def _by_name(objects: list[dict[str, Any]] | None) -> dict[str, dict[str, Any]] | None:
    return None if objects is None else {o["metadata"]["name"]: o for o in objects}

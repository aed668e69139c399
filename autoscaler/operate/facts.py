"""What one turn knows of the cluster: policies in force, scales, pods, accelerators, who else writes.

Watched kinds come from the cache; scales and possible rivals are read every turn; what changes slowly
(quotas, queues, device classes) is read once a minute. What could not be read is None, and named.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autoscaler.core.types import TargetRef
from autoscaler.edge.clock import Clock
from autoscaler.edge.kube.api import KubeApi, KubeError, KubeNotFound
from autoscaler.edge.kube.cluster import Cluster
from autoscaler.edge.kube.dra import device_class_of
from autoscaler.edge.kube.facts import ClusterFacts
from autoscaler.edge.kube.inventory import Inventory, usable
from autoscaler.edge.kube.lister import optional, sync
from autoscaler.edge.kube.nodes import node_record
from autoscaler.edge.kube.pods import PodRecord, pod_record, pods_of, replica_counts, whole_groups
from autoscaler.edge.kube.quantities import JsonObject, KubeObjectError
from autoscaler.edge.kube.quotas import NamespaceLimits, namespace_limits
from autoscaler.edge.kube.scale import ScaleView, read_scales
from autoscaler.edge.kube.selectors import group_selector
from autoscaler.operate.authority import TargetKey
from autoscaler.operate.collect import Replicas, VariantKey, replicas_of
from autoscaler.operate.coverage import SETTLED_SECONDS
from autoscaler.operate.roster import Roll, Roster, is_paused, see

log = logging.getLogger("foreserve")

RESYNC_SECONDS = 600.0  # lists that put right what watches may have missed
RESYNC_FEW_SECONDS = 60.0  # of kinds with few objects: a deleted policy must not act for long
RESYNC_UNWATCHED_SECONDS = 30.0  # while nobody watches
SLOW_SECONDS = 60.0
SCALE_PARALLEL = 8
SCALE_DEADLINE_SECONDS = 8.0
RESYNC_FAILED_SECONDS = 30.0  # after a list that failed
MANY = ("pods", "nodes")
FEW = ("policies", "pools", "namespaces")
NEEDED = ("policies", "pools", "pods")  # without these nothing is decided: no pool means no limit
SETTINGS_NAME = "foreserve"  # ConfigMap in the operator's namespace
DRA_API = "resource.k8s.io/v1"


def reducers() -> dict[str, Callable[[JsonObject], Any]]:
    """Return what the cache keeps of each watched kind."""
    return {
        "policies": see,
        "pools": see,
        "pods": _readable(pod_record),
        "nodes": _readable(node_record),
        "namespaces": lambda o: (o["metadata"]["name"], is_paused(o["metadata"])),
    }


def _readable(reduce: Callable[[JsonObject], Any]) -> Callable[[JsonObject], Any]:
    """Return the reducer with one odd object left out, and logged, instead of a whole list lost."""

    def reduced(obj: JsonObject) -> Any:  # noqa: ANN401 - whatever the reducer makes
        try:
            return reduce(obj)
        except KubeObjectError as error:
            log.warning("%s", error)
            return None

    return reduced


@dataclass(frozen=True, slots=True)
class Slow:
    """What is read once a minute. None: could not be read, for the reason in `problems`."""

    quotas: list[dict[str, Any]] | None = None
    facts: ClusterFacts = field(default_factory=ClusterFacts)
    problems: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a turn knows of the cluster. `problems`: what could not be read, and why."""

    roll: Roll
    scales: Mapping[TargetKey, ScaleView | KubeError]
    pods: Mapping[VariantKey, list[PodRecord]]  # one a replica: leaders of groups
    groups: Mapping[VariantKey, list[PodRecord]]  # all pods of the replicas
    replicas: Mapping[VariantKey, Replicas]
    inventory: Inventory
    quotas: NamespaceLimits
    hpas: list[dict[str, Any]] | None
    scaled_objects: list[dict[str, Any]] | None
    paused_namespaces: frozenset[str] | None  # None: never read
    paused_all: bool
    problems: Mapping[str, str]

    def targets(self) -> dict[VariantKey, TargetKey]:
        """Return the workload of every variant that is decided."""
        return {
            (name, v.name): (policy.namespace, v.target_ref)
            for name, policy in self.roll.policies.services.items()
            for v in policy.variants
        }


class NotReadyError(Exception):
    """The cluster is not known well enough to decide anything; one sentence."""


class FactFinder:
    """Reads the facts of a turn; remembers what need not be read every time."""

    def __init__(
        self,
        api: KubeApi,
        cluster: Cluster,
        namespace: str,
        clock: Clock,
        watching: Callable[[], bool],
        xids: Callable[[float], Mapping[str, int]] | None = None,
    ) -> None:
        self._api = api
        self._cluster = cluster
        self._namespace = namespace
        self._clock = clock
        self._watching = watching
        self._xids = xids
        self._roster = Roster()
        self._synced_at = dict.fromkeys((*FEW, *MANY), -math.inf)
        self._slow_at = -math.inf
        self._slow = Slow()
        self._paused_all = True  # until the switch was read once, nothing is written
        self._problems: dict[str, str] = {}

    def find(self, now_seconds: float) -> Facts:
        """Return the facts; raises NotReadyError while policies, pools or pods were never seen."""
        problems = dict(self._resync())
        roll = self._roster.call(
            self._cluster.values("policies") or [], self._cluster.values("pools") or []
        )
        targets = {
            (name, v.name): (policy.namespace, v.target_ref)
            for name, policy in roll.policies.services.items()
            for v in policy.variants
        }
        scales = read_scales(self._api, targets.values(), SCALE_PARALLEL, SCALE_DEADLINE_SECONDS)
        every_pod: list[PodRecord] = [
            p for p in self._cluster.values("pods") or [] if p is not None
        ]
        pods = pods_of(_selectors(targets, scales), every_pod)
        groups = _groups(_selectors(targets, scales), every_pod)
        ours = {p.uid for own in groups.values() for p in own}
        slow = self._slowly(roll, now_seconds)
        problems |= slow.problems or {}
        nodes = self._cluster.values("nodes")
        facts = replace(
            slow.facts,
            pods=every_pod,
            nodes=None if nodes is None else [n for n in nodes if n is not None],
        )
        hpas, problem = optional(self._api, "autoscaling/v2", "HorizontalPodAutoscaler")
        problems |= {"horizontalpodautoscalers": problem} if problem else {}
        scaled_objects, problem = optional(self._api, "keda.sh/v1alpha1", "ScaledObject")
        problems |= {"scaledobjects": problem} if problem else {}
        return Facts(
            roll=roll,
            scales=scales,
            pods=pods,
            groups=groups,
            replicas=_replicas(targets, scales, pods, groups, now_seconds),
            inventory=usable(roll.pool_bodies, facts, lambda p: p.uid in ours),
            quotas=namespace_limits(
                roll.pool_bodies, slow.quotas or [], every_pod, lambda p: p.uid in ours
            ),
            hpas=hpas,
            scaled_objects=scaled_objects,
            paused_namespaces=_paused(self._cluster.values("namespaces")),
            paused_all=self._switch(problems),
            problems=problems,
        )

    def _resync(self) -> Mapping[str, str]:
        now = self._clock.monotonic()
        doubted = self._cluster.doubted()
        due = [k for k in (*FEW, *MANY) if k in doubted or self._due(k, now)]
        failed = sync(self._api, self._cluster, due)
        self._problems = {k: p for k, p in self._problems.items() if k not in due} | failed
        self._synced_at |= dict.fromkeys(due, now)
        for kind in NEEDED:
            if self._cluster.values(kind) is None:
                raise NotReadyError(self._problems.get(kind, f"{kind} were not listed yet"))
        return self._problems

    def _due(self, kind: str, now: float) -> bool:
        """Whether a kind is to be listed: seldom while it is watched, soon after a list that failed."""
        if kind in NEEDED and self._cluster.values(kind) is None:
            return True
        every = RESYNC_FEW_SECONDS if kind in FEW else RESYNC_SECONDS
        if not self._watching():
            every = RESYNC_UNWATCHED_SECONDS
        if kind in self._problems:
            every = min(every, RESYNC_FAILED_SECONDS)
        return now - self._synced_at[kind] >= every

    def _switch(self, problems: dict[str, str]) -> bool:
        """Read the switch that pauses everything; what it said last holds while it cannot be read.

        `data.paused` or the annotation of policies and namespaces, on the ConfigMap: a data key has no "/".
        """
        path = self._api.path_of("v1", "ConfigMap", self._namespace, SETTINGS_NAME)
        try:
            settings = self._api.get(path)
            said = (settings.get("data") or {}).get("paused", "false")
            self._paused_all = is_paused(settings["metadata"]) or str(said).lower() != "false"
        except KubeNotFound:
            self._paused_all = False
        except KubeError as error:
            problems["pause switch"] = str(error)
        return self._paused_all

    def _slowly(self, roll: Roll, now_seconds: float) -> Slow:
        if self._clock.monotonic() - self._slow_at < SLOW_SECONDS:
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
        self._slow_at = self._clock.monotonic()
        return self._slow


def _paused(namespaces: list[tuple[str, bool]] | None) -> frozenset[str] | None:
    return None if namespaces is None else frozenset(name for name, paused in namespaces if paused)


Read = Callable[[str, str], list[dict[str, Any]] | None]


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


def _selectors(
    targets: Mapping[VariantKey, tuple[str, TargetRef]],
    scales: Mapping[TargetKey, ScaleView | KubeError],
) -> dict[VariantKey, tuple[str, str]]:
    """Return (namespace, selector) of each workload whose scale tells one: "" would select all pods."""
    out = {}
    for key, target in targets.items():
        view = scales[target]
        if isinstance(view, ScaleView) and view.selector:
            out[key] = (target[0], view.selector)
    return out


def _groups(
    selectors: Mapping[VariantKey, tuple[str, str]], pods: list[PodRecord]
) -> dict[VariantKey, list[PodRecord]]:
    """Return all pods of the targets, workers of groups included."""
    groups = {}
    for key, (namespace, selector) in selectors.items():
        try:
            groups[key] = (namespace, group_selector(selector))
        except KubeObjectError as error:
            log.warning("%s: %s", key[0], error)
    return pods_of(groups, pods)


def _is_settled(pod: PodRecord, now_seconds: float) -> bool:
    """Whether a pod serves and has been ready for so long that its metrics must have been scraped."""
    serves = pod.ready and not pod.deleting and not pod.ended
    return serves and now_seconds - pod.ready_seconds >= SETTLED_SECONDS


def _replicas(
    targets: Mapping[VariantKey, TargetKey],
    scales: Mapping[TargetKey, ScaleView | KubeError],
    pods: Mapping[VariantKey, list[PodRecord]],
    groups: Mapping[VariantKey, list[PodRecord]],
    now_seconds: float,
) -> dict[VariantKey, Replicas]:
    """Return the counts of every workload whose scale could be read.

    Without a selector nobody knows which pods are meant: those that exist count as ready.
    """
    out = {}
    for key, target in targets.items():
        view = scales[target]
        if not isinstance(view, ScaleView):
            continue
        own = pods.get(key)
        if own is None:
            out[key] = replicas_of(view.replicas, min(view.status_replicas, view.replicas), 0, 0)
        else:
            members = whole_groups(own, groups.get(key, own))
            counts = replica_counts(members)
            settled = sum(_is_settled(pod, now_seconds) for pod in members)
            out[key] = replicas_of(
                view.replicas, counts.ready, counts.starting, counts.draining, settled
            )
    return out

"""What one turn knows of the cluster: policies in force, scales, pods, accelerators, who else writes.

Watched kinds come from the cache; scales and possible rivals are read every turn; what changes slowly
(quotas, queues, device classes) is read once a minute. What could not be read is None, and named.
"""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autoscaler.edge.clock import Clock
from autoscaler.edge.kube.api import KubeApi, KubeError, KubeNotFound
from autoscaler.edge.kube.cluster import Cluster
from autoscaler.edge.kube.inventory import Inventory, usable
from autoscaler.edge.kube.lister import optional, sync
from autoscaler.edge.kube.nodes import node_record
from autoscaler.edge.kube.pods import PodRecord, pod_record, pods_of
from autoscaler.edge.kube.quantities import JsonObject, KubeObjectError
from autoscaler.edge.kube.quotas import NamespaceLimits, namespace_limits
from autoscaler.edge.kube.room import free_on_nodes
from autoscaler.edge.kube.scale import ScaleView, read_scales
from autoscaler.operate.authority import TargetKey
from autoscaler.operate.collect import Replicas, VariantKey
from autoscaler.operate.coverage import SETTLED_SECONDS
from autoscaler.operate.fleet import groups_of, replicas_in, selectors_of, targets_of
from autoscaler.operate.roster import Roll, Roster, is_paused, see
from autoscaler.operate.slow import SlowReader

log = logging.getLogger("foreserve")

RESYNC_SECONDS = 600.0  # lists that put right what watches may have missed
RESYNC_FEW_SECONDS = 60.0  # of kinds with few objects: a deleted policy must not act for long
RESYNC_UNWATCHED_SECONDS = 30.0  # while nobody watches
SCALE_PARALLEL = 8
SCALE_DEADLINE_SECONDS = 8.0
RESYNC_FAILED_SECONDS = 30.0  # after a list that failed
MANY = ("pods", "nodes")
FEW = ("policies", "pools", "namespaces")
NEEDED = ("policies", "pools", "pods")  # without these nothing is decided: no pool means no limit
SETTINGS_NAME = "foreserve"  # ConfigMap in the operator's namespace


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
class Facts:
    """Everything that a turn knows of the cluster. `problems`: what could not be read, and why."""

    roll: Roll
    scales: Mapping[TargetKey, ScaleView | KubeError]
    pods: Mapping[VariantKey, list[PodRecord]]  # one a replica: leaders of groups
    groups: Mapping[VariantKey, list[PodRecord]]  # all pods of the replicas
    replicas: Mapping[VariantKey, Replicas]
    inventory: Inventory
    free_on_nodes: Mapping[str, tuple[int, ...]]
    quotas: NamespaceLimits
    hpas: list[dict[str, Any]] | None
    scaled_objects: list[dict[str, Any]] | None
    paused_namespaces: frozenset[str] | None  # None: never read
    paused_all: bool
    problems: Mapping[str, str]

    def targets(self) -> dict[VariantKey, TargetKey]:
        """Return the workload of every variant that is decided."""
        return targets_of(self.roll.policies)


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
        settled_seconds: float = SETTLED_SECONDS,
    ) -> None:
        """`xids`: node -> the XID error of a device. `settled_seconds`: ready so long, scraped for sure."""
        self._api = api
        self._cluster = cluster
        self._namespace = namespace
        self._clock = clock
        self._watching = watching
        self._roster = Roster()
        self._settled_seconds = settled_seconds
        self._synced_at = dict.fromkeys((*FEW, *MANY), -math.inf)
        self._slow = SlowReader(api, clock, xids)
        self._paused_all = True  # until the switch was read once, nothing is written
        self._problems: dict[str, str] = {}

    def find(self, now_seconds: float) -> Facts:
        """Return the facts; raises NotReadyError while policies, pools or pods were never seen."""
        problems = dict(self._resync())
        roll = self._roster.call(
            self._cluster.values("policies") or [], self._cluster.values("pools") or []
        )
        targets = targets_of(roll.policies)
        scales = read_scales(self._api, targets.values(), SCALE_PARALLEL, SCALE_DEADLINE_SECONDS)
        every_pod: list[PodRecord] = [
            p for p in self._cluster.values("pods") or [] if p is not None
        ]
        selectors = selectors_of(targets, scales)
        pods, groups = pods_of(selectors, every_pod), groups_of(selectors, every_pod)
        ours = {p.uid for own in groups.values() for p in own}
        slow = self._slow.read(roll, now_seconds)
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
            replicas=replicas_in(
                targets, scales, pods, groups, now_seconds - self._settled_seconds
            ),
            inventory=usable(roll.pool_bodies, facts, lambda p: p.uid in ours),
            free_on_nodes=free_on_nodes(roll.pool_bodies, facts),
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


def _paused(namespaces: list[tuple[str, bool]] | None) -> frozenset[str] | None:
    return None if namespaces is None else frozenset(name for name, paused in namespaces if paused)

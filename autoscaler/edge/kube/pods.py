"""Pods as the operator needs them: who owns them, what they request, how far they have come.

A pod of the API has hundreds of fields and a cluster tens of thousands of pods: `pod_record` keeps what is
used and nothing else. A time that has not come is NaN.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from autoscaler.edge.kube.quantities import JsonObject, KubeObjectError, extended, seconds_of
from autoscaler.edge.kube.selectors import Requirement, parse_selector, selects

__all__ = [
    "Counts", "Lacking", "PodRecord", "lacking", "pod_record", "pods_of", "replica_counts", "selects",
    "whole_groups",
]  # fmt: skip
Key = TypeVar("Key", bound=Hashable)
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
DELETION_COST_OURS = "foreserve.dev/deletion-cost"  # "true" beside a cost that this operator set
GROUP = "leaderworkerset.sigs.k8s.io/group-index"
GROUP_SIZE = "leaderworkerset.sigs.k8s.io/size"
ENDED = ("Succeeded", "Failed")  # an evicted pod is Failed


@dataclass(frozen=True, slots=True)
class PodRecord:
    """What is used of one pod. Times in seconds since 1970, NaN: not yet.

    requests: accelerators and other extended resources (names with a '/'), as the scheduler counts them.
    claims: names of its ResourceClaims. gated: a scheduling gate (Kueue, say) keeps it from the scheduler.
    deletion_seconds: when the deletion was asked for. unready_seconds: when Ready last became false.
    restarts: of its containers. group_size: pods of the group that it belongs to, itself included; 0: of
    none. unschedulable: what the scheduler says of a pod that fits nowhere, else "".
    """

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    node: str | None
    phase: str
    owner: tuple[str, str] | None  # (kind, name) of the controller
    requests: Mapping[str, int]
    claims: tuple[str, ...]
    created_seconds: float
    scheduled_seconds: float
    initialized_seconds: float
    ready_seconds: float
    unready_seconds: float
    deletion_seconds: float
    ready: bool
    restarts: int
    gated: bool
    unschedulable: str
    deletion_cost: int | None
    deletion_cost_ours: bool
    priority_class: str
    group_size: int = 0

    @property
    def ended(self) -> bool:
        """Whether it holds nothing any more: succeeded, failed or evicted."""
        return self.phase in ENDED

    @property
    def deleting(self) -> bool:
        """Whether its deletion was asked for."""
        return not math.isnan(self.deletion_seconds)


@dataclass(frozen=True, slots=True)
class Counts:
    """Replicas of one target: serving, on their way (pending ones too), on their way out."""

    ready: int
    starting: int
    draining: int


@dataclass(frozen=True, slots=True)
class Lacking:
    """Pods that the scheduler could not place for want of one resource; `message` is one's reason."""

    pods: int
    accelerators: int
    message: str


def pod_record(obj: JsonObject) -> PodRecord:
    """Return what is used of a Pod of the API; raises KubeObjectError for what no API server sends."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    annotations = metadata.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    ready = conditions.get("Ready", {})
    return PodRecord(
        uid=metadata.get("uid", ""),
        namespace=metadata.get("namespace", ""),
        name=metadata.get("name", ""),
        labels=metadata.get("labels") or {},
        node=spec.get("nodeName") or None,
        phase=status.get("phase", "Pending"),
        owner=_owner(metadata),
        requests=_requests(spec),
        claims=_claims(spec, status),
        created_seconds=seconds_of(metadata.get("creationTimestamp")),
        scheduled_seconds=_since(conditions.get("PodScheduled", {}), "True"),
        initialized_seconds=_since(conditions.get("Initialized", {}), "True"),
        ready_seconds=_since(ready, "True"),
        unready_seconds=_since(ready, "False"),
        deletion_seconds=_deletion(metadata),
        ready=ready.get("status") == "True",
        restarts=sum(c.get("restartCount", 0) for c in status.get("containerStatuses") or ()),
        gated=bool(spec.get("schedulingGates")),
        unschedulable=_unschedulable(conditions.get("PodScheduled", {})),
        deletion_cost=_whole_number(annotations.get(DELETION_COST)),
        deletion_cost_ours=annotations.get(DELETION_COST_OURS) == "true",
        priority_class=spec.get("priorityClassName") or "",
        group_size=_whole_number(annotations.get(GROUP_SIZE)) or 0,
    )


def replica_counts(pods: Iterable[PodRecord]) -> Counts:
    """Return how many of a target's pods serve, start and drain; those that ended do not count."""
    ready = starting = draining = 0
    for pod in pods:
        if pod.ended:
            continue
        if pod.deleting:
            draining += 1
        elif pod.ready:
            ready += 1
        else:
            starting += 1
    return Counts(ready, starting, draining)


def whole_groups(leaders: Iterable[PodRecord], members: Iterable[PodRecord]) -> list[PodRecord]:
    """Return the leaders, not ready where another pod of their group is not, or is not there yet.

    A model that is split over the pods of a group is served by all of them or not at all, whatever the
    leader's own probe says. `members`: all pods of one LeaderWorkerSet; pods without a group stay as they
    are.
    """
    serving = Counter(p.labels[GROUP] for p in members if GROUP in p.labels and _serves(p))
    every = Counter(p.labels[GROUP] for p in members if GROUP in p.labels and not p.ended)

    def whole(leader: PodRecord) -> bool:
        group = leader.labels.get(GROUP)
        return group is None or serving[group] >= max(every[group], leader.group_size)

    return [p if whole(p) else replace(p, ready=False) for p in leaders]


def _serves(pod: PodRecord) -> bool:
    return pod.ready and not pod.deleting and not pod.ended


def pods_of(
    targets: Mapping[Key, tuple[str, str]], pods: Iterable[PodRecord]
) -> dict[Key, list[PodRecord]]:
    """Return the pods of every target, given as (namespace, selector).

    One pass over the pods: each target is looked up by one label that its pods must have. A target without
    pods has an empty list; one whose selector cannot be read is absent (`parse_selector` says why).
    """
    out: dict[Key, list[PodRecord]] = {}
    index: dict[tuple[str, str, str], list[tuple[Key, tuple[Requirement, ...]]]] = {}
    others: dict[str, list[tuple[Key, tuple[Requirement, ...]]]] = {}
    for key, (namespace, selector) in targets.items():
        try:
            terms = parse_selector(selector)
        except KubeObjectError:
            continue  # unknown is not zero: the target is absent
        out[key] = []
        equal = next((t for t in terms if t.op == "in" and len(t.values) == 1), None)
        if equal is None:
            others.setdefault(namespace, []).append((key, terms))
        else:
            (value,) = equal.values
            index.setdefault((namespace, equal.key, value), []).append((key, terms))
    wanted = {label for _, label, _ in index}
    for pod in pods:
        found = list(others.get(pod.namespace, ()))
        for label in wanted & pod.labels.keys():
            found += index.get((pod.namespace, label, pod.labels[label]), ())
        for key, terms in found:
            if all(t.holds(pod.labels) for t in terms):
                out[key].append(pod)
    return out


def lacking(pods: Iterable[PodRecord], resource: str) -> Lacking | None:
    """Return the pods that wait because `resource` ran out, or None if none does.

    The scheduler says "Insufficient nvidia.com/gpu" for a resource of nodes and "cannot allocate all
    claims" for DRA devices (a resource without a '/'). Its words are an interface since Kubernetes 1.0
    only by habit: the pod must request the resource, too.
    """
    pattern = re.compile(rf"Insufficient {re.escape(resource)}(?!\.?[-\w/])")
    count = accelerators = 0
    message = ""
    for pod in pods:
        if not pod.unschedulable or pod.ended or pod.deleting:
            continue
        of_node = resource in pod.requests and pattern.search(pod.unschedulable)
        of_claim = "/" not in resource and pod.claims and "claims" in pod.unschedulable
        if of_node or of_claim:
            count += 1
            accelerators += pod.requests.get(resource, 0)
            message = message or pod.unschedulable
    return Lacking(count, accelerators, message) if count else None


def _owner(metadata: JsonObject) -> tuple[str, str] | None:
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller"):
            return owner["kind"], owner["name"]
    return None


def _requests(spec: JsonObject) -> dict[str, int]:
    """Return what the scheduler counts (KEP-753, KEP-2837).

    Containers and sidecars (init containers that restart always) together, but at least what each
    init container needs beside the sidecars before it; a request of the pod itself has the last word.
    """
    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        _add(total, _of_container(container))
    peak: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    for container in spec.get("initContainers") or ():
        own = _of_container(container)
        if container.get("restartPolicy") == "Always":
            _add(sidecars, own)
            own = {}
        for name in own.keys() | sidecars.keys():
            need = own.get(name, 0) + sidecars.get(name, 0)
            peak[name] = max(peak.get(name, 0), need)
    _add(total, sidecars)
    total = {name: max(total.get(name, 0), peak.get(name, 0)) for name in total | peak}
    total |= _of_container(spec)
    _add(total, extended(spec.get("overhead")))
    return {name: count for name, count in total.items() if count}


def _of_container(container: JsonObject) -> dict[str, int]:
    resources = container.get("resources") or {}
    return extended(resources.get("limits")) | extended(resources.get("requests"))


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


def _claims(spec: JsonObject, status: JsonObject) -> tuple[str, ...]:
    """Return the names of the ResourceClaims; those made from a template are named in the status."""
    claims = spec.get("resourceClaims") or ()
    names = [c["resourceClaimName"] for c in claims if c.get("resourceClaimName")]
    made = [c.get("resourceClaimName") for c in status.get("resourceClaimStatuses") or ()]
    by_scheduler = (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName")
    return tuple(dict.fromkeys(n for n in [*names, *made, by_scheduler] if n))


def _since(condition: JsonObject, status: str) -> float:
    if condition.get("status") != status:
        return math.nan
    return seconds_of(condition.get("lastTransitionTime"))


def _deletion(metadata: JsonObject) -> float:
    """Return when the deletion was asked for: deletionTimestamp lies the grace period after it."""
    grace = metadata.get("deletionGracePeriodSeconds") or 0
    return seconds_of(metadata.get("deletionTimestamp")) - grace


def _unschedulable(condition: JsonObject) -> str:
    if condition.get("status") != "False" or condition.get("reason") != "Unschedulable":
        return ""
    return condition.get("message") or "unschedulable"


def _whole_number(annotation: str | None) -> int | None:
    """Return a whole number; None for none and for what Kubernetes' controllers ignore, too."""
    return int(annotation) if annotation and re.fullmatch(r"-?[0-9]+", annotation) else None

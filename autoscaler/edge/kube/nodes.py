"""Nodes as the inventory needs them: what they hold, and why one does not count."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autoscaler.edge.kube.quantities import JsonObject, extended

BLOCKING_EFFECTS = ("NoSchedule", "NoExecute")
NODE_TAINTS = (
    "node.kubernetes.io/",  # set by Kubernetes: not-ready, disk-pressure, out-of-service ...
    "node.cloudprovider.kubernetes.io/",  # not initialized, shut down
    "karpenter.sh/disrupt",  # about to be removed (disrupted, disruption)
    "ToBeDeletedByClusterAutoscaler",
)


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What is used of one node. allocatable: extended resources, whole; taints: (key, effect)."""

    name: str
    labels: Mapping[str, str]
    allocatable: Mapping[str, int]
    ready: bool
    unschedulable: bool
    taints: tuple[tuple[str, str], ...]


def node_record(obj: JsonObject) -> NodeRecord:
    """Return what is used of a Node of the API; raises KubeObjectError for what no API server sends."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    conditions = {c["type"]: c.get("status") for c in status.get("conditions") or ()}
    return NodeRecord(
        name=metadata["name"],
        labels=metadata.get("labels") or {},
        allocatable=extended(status.get("allocatable")),
        ready=conditions.get("Ready") == "True",
        unschedulable=bool(spec.get("unschedulable")),
        taints=tuple((t["key"], t["effect"]) for t in spec.get("taints") or ()),
    )


def why_excluded(node: NodeRecord, excluded: Collection[str], xids: Mapping[str, int]) -> str:
    """Return why nothing new can run on this node, or "" if it can.

    `excluded`: the pool's own list. `xids`: node -> the XID error that a device of it reported.
    """
    if node.name in excluded:
        return "listed as excluded in the pool"
    if not node.ready:
        return "not Ready"
    if node.unschedulable:
        return "cordoned"
    for key, effect in node.taints:
        if key.startswith(NODE_TAINTS) and effect in BLOCKING_EFFECTS:
            return f"taint {key}:{effect}"
    if node.name in xids:
        return f"a device reported XID {xids[node.name]}"
    return ""


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Return whether `labels` hold every label of a nodeSelector; an empty one selects all nodes."""
    return all(labels.get(key) == value for key, value in selector.items())

"""What the inventory is told of the cluster, and what a counted class is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoscaler.edge.kube.nodes import NodeRecord
from autoscaler.edge.kube.pods import PodRecord
from autoscaler.edge.kube.quantities import JsonObject


class UnknownInventory(Exception):  # noqa: N818 - not an error: a class whose number is not known
    """Why a class cannot be counted, in one sentence."""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What was last seen. None: not seen yet, or not allowed to be seen; that is never zero.

    nodes, pods: of the whole cluster. xids: node -> the XID error that DCGM reports of a device of it.
    cluster_queues: Kueue ClusterQueues by name; local_queues: (namespace, name) -> ClusterQueue;
    flavors: nodeLabels of ResourceFlavors by name. device_classes by name, resource_slices and
    resource_claims: as the API gives them, v1 or v1beta.
    """

    nodes: Sequence[NodeRecord] | None = None
    pods: Sequence[PodRecord] | None = None
    xids: Mapping[str, int] = field(default_factory=dict)
    cluster_queues: Mapping[str, JsonObject] | None = None
    local_queues: Mapping[tuple[str, str], str] | None = None
    flavors: Mapping[str, Mapping[str, str]] | None = None
    device_classes: Mapping[str, JsonObject] | None = None
    resource_slices: Sequence[JsonObject] | None = None
    resource_claims: Sequence[JsonObject] | None = None


Source = tuple[str, ...]  # what was counted: a resource of a node, a flavor of a queue, a device


@dataclass(frozen=True, slots=True)
class Counted:
    """Accelerators of one class, what they were counted from, and what is odd about it ("": nothing)."""

    accelerators: int
    sources: frozenset[Source]
    problem: str = ""

"""Accelerators of a Kueue ClusterQueue: its nominal quota less what others reserve of it.

Reads kueue.x-k8s.io v1beta1 and v1beta2 alike. What others in the cohort borrow is not subtracted: a queue
gets its nominal quota back by preemption. Nothing is planned on quota that this queue could borrow; but what
our pods hold, borrowed or not, counts until they are gone, as on nodes: a limit below it would scale down.
"""

from collections.abc import Callable, Mapping, Sequence

from autoscaler.edge.kube.facts import ClusterFacts, Counted, UnknownInventory
from autoscaler.edge.kube.nodes import matches
from autoscaler.edge.kube.pods import PodRecord
from autoscaler.edge.kube.quantities import JsonObject, whole
from autoscaler.policy.schema import AcceleratorClassSpec

QUEUE_NAME = "kueue.x-k8s.io/queue-name"  # label of a workload: its LocalQueue


def in_cluster_queue(
    c: AcceleratorClassSpec, facts: ClusterFacts, ours: Callable[[PodRecord], bool]
) -> Counted:
    """Return the accelerators of a class with `quota.kueueClusterQueue`; raises UnknownInventory.

    A queue that is held admits nothing new, but what it admitted goes on: then there is what our pods
    hold. A queue that is drained has nothing.
    """
    name = (c.quota and c.quota.kueue_cluster_queue) or ""
    queue = _queue(name, facts)
    nominal = _nominal(queue, c.resource_name)
    if not nominal:
        raise UnknownInventory(f"ClusterQueue {name} has no quota of {c.resource_name}")
    flavors = _flavors(c, name, sorted(nominal), facts)
    sources = frozenset((name, flavor, c.resource_name) for flavor in flavors)
    policy = queue["spec"].get("stopPolicy") or "None"
    if policy == "HoldAndDrain":
        return Counted(0, sources, f"ClusterQueue {name} is drained (stopPolicy {policy})")
    mine = _mine(c, name, facts, ours)
    if policy == "Hold":
        return Counted(mine, sources, f"ClusterQueue {name} admits nothing new (stopPolicy Hold)")
    reserved = sum(_reserved(queue, name, flavor, c.resource_name) for flavor in flavors)
    quota = sum(nominal[flavor] for flavor in flavors)
    return Counted(max(mine, quota - max(0, reserved - mine)), sources)


def _queue(name: str, facts: ClusterFacts) -> JsonObject:
    if facts.cluster_queues is None:
        raise UnknownInventory(
            f"ClusterQueue {name} is not known: Kueue is not installed, or its queues may not be read"
        )
    if name not in facts.cluster_queues:
        raise UnknownInventory(f"ClusterQueue {name} does not exist")
    return facts.cluster_queues[name]


def _nominal(queue: JsonObject, resource: str) -> dict[str, int]:
    """Return the nominal quota of `resource` by flavor."""
    return {
        flavor["name"]: whole(r["nominalQuota"])
        for group in queue["spec"].get("resourceGroups") or ()
        for flavor in group["flavors"]
        for r in flavor["resources"]
        if r["name"] == resource
    }


def _flavors(
    c: AcceleratorClassSpec, queue: str, names: Sequence[str], facts: ClusterFacts
) -> list[str]:
    """Return the flavors that are of this class: those on nodes that its nodeSelector selects."""
    if len(names) == 1 or not c.node_selector:
        return list(names)
    chosen = []
    for name in names:
        labels = None if facts.flavors is None else facts.flavors.get(name)
        if labels is None:
            raise UnknownInventory(
                f"ClusterQueue {queue} has several flavors of {c.resource_name} and ResourceFlavor "
                f"{name} is not known; which of them are of this class cannot be told"
            )
        if matches(c.node_selector, labels):
            chosen.append(name)
        elif all(labels.get(key, value) == value for key, value in c.node_selector.items()):
            raise UnknownInventory(
                f"ResourceFlavor {name} of ClusterQueue {queue} does not say whether its nodes have "
                f"{', '.join(f'{k}={v}' for k, v in c.node_selector.items())}; give it these nodeLabels"
            )
    if not chosen:
        raise UnknownInventory(
            f"no flavor of ClusterQueue {queue} is on nodes that the class selects"
        )
    return chosen


def _reserved(queue: JsonObject, name: str, flavor: str, resource: str) -> int:
    status = queue.get("status") or {}
    for of in status.get("flavorsReservation") or status.get("flavorsUsage") or ():
        if of["name"] == flavor:
            for r in of["resources"]:
                if r["name"] == resource:
                    return whole(r.get("total") or 0)
    raise UnknownInventory(
        f"ClusterQueue {name} does not say yet how much of flavor {flavor} is reserved"
    )


def _mine(
    c: AcceleratorClassSpec, queue: str, facts: ClusterFacts, ours: Callable[[PodRecord], bool]
) -> int:
    """Return what our admitted pods hold of the queue; a gated pod waits and holds nothing."""
    if facts.pods is None:
        raise UnknownInventory("pods are not known yet, or may not be read")
    labels: Mapping[str, Mapping[str, str]] = {n.name: n.labels for n in facts.nodes or ()}
    total = 0
    for pod in facts.pods:
        local = pod.labels.get(QUEUE_NAME)
        count = pod.requests.get(c.resource_name, 0)
        if not local or not count or pod.ended or pod.gated or not ours(pod):
            continue
        if facts.local_queues is None:
            raise UnknownInventory("LocalQueues are not known yet, or may not be read")
        if facts.local_queues.get((pod.namespace, local)) != queue:
            continue
        if pod.node is None or matches(c.node_selector, labels.get(pod.node, c.node_selector)):
            total += count
    return total

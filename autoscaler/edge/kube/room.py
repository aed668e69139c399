"""Accelerators that are free on nodes that are there: where a new replica would land without waiting.

free(class) = of each node that it selects and where new pods may go:
              allocatable - requests of all pods there, less what pods wait for that have no node yet

Placeholders make way and count as free. Nothing is said of a class whose devices are no resource of nodes
(DRA), nor while nodes or pods were not seen: then nobody knows on what node a replica will land.
"""

from collections.abc import Iterable, Mapping, Sequence

from autoscaler.edge.kube.dra import device_class_of
from autoscaler.edge.kube.facts import ClusterFacts
from autoscaler.edge.kube.nodes import matches, why_excluded
from autoscaler.edge.kube.pods import PodRecord
from autoscaler.edge.kube.warm import is_placeholder
from autoscaler.policy.schema import AcceleratorPool


def free_on_nodes(
    pools: Sequence[AcceleratorPool], facts: ClusterFacts
) -> dict[str, tuple[int, ...]]:
    """Return class -> free accelerators of each node that has any, the most first; absent: not known."""
    if not facts.nodes or facts.pods is None:
        return {}
    taken, asked = _use(facts.pods)
    out = {}
    for pool in pools:
        listed = frozenset(pool.spec.excluded)
        for c in pool.spec.classes:
            if device_class_of(c.resource_name) is not None:
                continue
            free = [
                n.allocatable.get(c.resource_name, 0) - taken.get((n.name, c.resource_name), 0)
                for n in facts.nodes
                if matches(c.node_selector, n.labels) and not why_excluded(n, listed, facts.xids)
            ]
            out[c.name] = _left(free, asked.get(c.resource_name, 0))
    return out


def _use(pods: Iterable[PodRecord]) -> tuple[Mapping[tuple[str, str], int], Mapping[str, int]]:
    """Return what pods hold, by (node, resource), and what those without a node ask for, by resource."""
    taken: dict[tuple[str, str], int] = {}
    asked: dict[str, int] = {}
    for pod in pods:
        if pod.ended or is_placeholder(pod):
            continue
        for resource, count in pod.requests.items():
            if pod.node is not None:
                at = (pod.node, resource)
                taken[at] = taken.get(at, 0) + count
            elif not (pod.deleting or pod.gated):
                asked[resource] = asked.get(resource, 0) + count
    return taken, asked


def _left(free: Iterable[int], asked: int) -> tuple[int, ...]:
    """Return what is left of each node once the pods that have none have found theirs."""
    left = []
    for count in sorted((n for n in free if n > 0), reverse=True):
        gone = min(asked, count)
        asked -= gone
        left.append(count - gone)
    return tuple(sorted((n for n in left if n), reverse=True))

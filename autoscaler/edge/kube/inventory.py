"""Accelerators that can be used, class by class: what the cluster holds less what others take of it.

usable(class) = sum over the nodes that it selects of
                max(held by our pods there, allocatable - requests of others' pods where new pods may go)

New pods may not go to nodes that are not Ready, cordoned, about to be removed, listed as excluded or with a
failed device. What our pods hold counts until they are deleted, wherever they are: a limit below it would
scale down. So a cordon, a device plugin that restarts (allocatable is 0 meanwhile) or nodes that the control
plane cannot reach for a minute cost no replica; a drain or an eviction deletes pods, and the number follows.
What is not known has no number (the caller then counts what is in use) and a sentence why.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.edge.kube.dra import device_class_of, in_slices
from autoscaler.edge.kube.facts import ClusterFacts, Counted, Source, UnknownInventory
from autoscaler.edge.kube.kueue import in_cluster_queue
from autoscaler.edge.kube.nodes import matches, why_excluded
from autoscaler.edge.kube.pods import PodRecord
from autoscaler.edge.kube.quantities import KubeObjectError
from autoscaler.edge.kube.warm import is_placeholder
from autoscaler.policy.schema import AcceleratorClassSpec, AcceleratorPool

__all__ = ["ClusterFacts", "Inventory", "usable"]
Ours = Callable[[PodRecord], bool]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the pools' classes can use.

    usable: class -> accelerators, ours in use included; absent: not known, or no quota declared.
    problems: class -> one sentence: why it is not known or, if it is in `usable`, what is odd about it.
    excluded_nodes: pool -> node -> why nothing new is counted on it.
    """

    usable: Mapping[str, int]
    problems: Mapping[str, str]
    excluded_nodes: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Use:
    """Accelerators taken on nodes: (node, resource) -> count."""

    others: Mapping[tuple[str, str], int]
    ours: Mapping[tuple[str, str], int]  # without what is being deleted


def usable(pools: Sequence[AcceleratorPool], facts: ClusterFacts, ours: Ours) -> Inventory:
    """Return what each class of `pools` can use. `ours`: whether a pod belongs to a policy's target.

    Placeholder pods are nobody's: they make way.
    """
    counts: dict[str, int] = {}
    problems: dict[str, str] = {}
    excluded: dict[str, dict[str, str]] = {}
    claimed: dict[Source, str] = {}
    use = _use(facts.pods or (), ours)
    for pool in pools:
        reasons = _reasons(pool, facts)
        for c in pool.spec.classes:
            if left_out := _excluded_of(c, reasons, facts):
                excluded.setdefault(pool.metadata.name, {}).update(left_out)
            try:
                counted = _count(c, reasons, facts, use, ours)
            except UnknownInventory as why:
                problems[c.name] = f"{why}."
                continue
            except (KubeObjectError, KeyError) as error:  # of one class; the others go on
                problems[c.name] = f"what the API says of it cannot be read ({error!r})."
                continue
            if counted is None:
                continue
            counts[c.name] = counted.accelerators
            if counted.problem:
                problems[c.name] = f"{counted.problem}."
            _refuse_twice(c.name, counted.sources, claimed, problems)
    return Inventory(counts, problems, excluded)


def _count(
    c: AcceleratorClassSpec,
    reasons: Mapping[str, str],
    facts: ClusterFacts,
    use: _Use,
    ours: Ours,
) -> Counted | None:
    if c.quota is None:
        return None
    if c.quota.count is not None:
        return Counted(c.quota.count, frozenset())
    if c.quota.kueue_cluster_queue is not None:
        return in_cluster_queue(c, facts, ours)
    if device_class_of(c.resource_name) is not None:
        return in_slices(c, reasons, facts, lambda pod: ours(pod) or is_placeholder(pod))
    return _on_nodes(c, reasons, facts, use)


def _on_nodes(
    c: AcceleratorClassSpec, reasons: Mapping[str, str], facts: ClusterFacts, use: _Use
) -> Counted:
    if not facts.nodes:
        raise UnknownInventory("no node was seen yet, or nodes may not be read")
    if facts.pods is None:
        raise UnknownInventory("pods of the cluster were not seen yet, or may not be read")
    selected = [n for n in facts.nodes if matches(c.node_selector, n.labels)]
    total = 0
    sources: set[Source] = set()
    for node in selected:
        at = (node.name, c.resource_name)
        there = node.allocatable.get(c.resource_name, 0)
        held = use.ours.get(at, 0)
        free = 0 if reasons[node.name] else there - use.others.get(at, 0)
        total += max(held, free, 0)
        if there or held:
            sources.add(at)
    problem = ""
    if not selected:
        wanted = ", ".join(f"{k}={v}" for k, v in c.node_selector.items())
        problem = f"no node has the labels {wanted}"
    elif not sources:
        problem = (
            f"{len(selected)} nodes are selected, none of them offers {c.resource_name} "
            "(is its device plugin running?)"
        )
    return Counted(total, frozenset(sources), problem)


def _use(pods: Iterable[PodRecord], ours: Ours) -> _Use:
    others: dict[tuple[str, str], int] = {}
    held: dict[tuple[str, str], int] = {}
    for pod in pods:
        if pod.node is None or pod.ended or not pod.requests or is_placeholder(pod):
            continue
        mine = ours(pod)
        if mine and pod.deleting:
            continue
        taken = held if mine else others
        for resource, count in pod.requests.items():
            at = (pod.node, resource)
            taken[at] = taken.get(at, 0) + count
    return _Use(others, held)


def _reasons(pool: AcceleratorPool, facts: ClusterFacts) -> dict[str, str]:
    """Return why nothing new is counted on a node, "" where it is, for every node."""
    listed = frozenset(pool.spec.excluded)
    return {n.name: why_excluded(n, listed, facts.xids) for n in facts.nodes or ()}


def _excluded_of(
    c: AcceleratorClassSpec, reasons: Mapping[str, str], facts: ClusterFacts
) -> dict[str, str]:
    if c.quota is None or not c.quota.from_nodes:
        return {}
    return {
        n.name: reasons[n.name]
        for n in facts.nodes or ()
        if reasons[n.name] and matches(c.node_selector, n.labels)
    }


def _refuse_twice(
    name: str, sources: Iterable[Source], claimed: dict[Source, str], problems: dict[str, str]
) -> None:
    """Report, on both classes, accelerators that two of them count."""
    for source in sorted(sources):
        other = claimed.setdefault(source, name)
        if other != name:
            for one, two in ((name, other), (other, name)):
                problems.setdefault(
                    one, f"{' '.join(source)} is counted by class {two}, too: select it once."
                )
            return

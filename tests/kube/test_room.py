"""What is free on nodes that are there."""

from collections.abc import Sequence
from typing import Any

import pytest
from cluster_objects import OTHERS, OURS, from_nodes, node, pod, pool

from autoscaler.edge.kube.facts import ClusterFacts
from autoscaler.edge.kube.nodes import NodeRecord
from autoscaler.edge.kube.pods import PodRecord
from autoscaler.edge.kube.room import free_on_nodes
from autoscaler.edge.kube.warm import PLACEHOLDER

GOING = {"deletionTimestamp": "2026-11-27T06:00:00Z"}


def free(
    nodes: Sequence[NodeRecord] | None, pods: Sequence[PodRecord] | None = (), **more: Any
) -> dict[str, tuple[int, ...]]:
    return free_on_nodes([pool(from_nodes(**more))], ClusterFacts(nodes=nodes, pods=pods))


def test_allocatable_less_what_anybody_holds_node_by_node() -> None:
    nodes = [node("n1"), node("n2"), node("n3"), node("other", labels={"gpu": "l40s"})]
    pods = [
        pod("mine", gpus=8, labels=OURS),
        pod("theirs", gpus=3, labels=OTHERS, node="n2"),
        pod("going", gpus=1, labels=OURS, node="n3", metadata=GOING),  # holds it until it is gone
        pod("done", gpus=4, labels=OTHERS, node="n3", phase="Succeeded"),
        pod("warm", gpus=4, labels={PLACEHOLDER: "h100"}, node="n3"),  # makes way
    ]
    assert free(nodes, pods) == {"h100": (7, 5)}


def test_pods_that_wait_for_a_node_come_first() -> None:
    waits = pod("waits", gpus=4, labels=OURS, node=None, phase="Pending")
    assert free([node("n1", gpus=4), node("n2", gpus=2)], [waits]) == {"h100": (2,)}
    held = pod(
        "held", gpus=4, node=None, phase="Pending", spec={"schedulingGates": [{"name": "q"}]}
    )
    assert free([node("n1", gpus=4)], [held]) == {"h100": (4,)}


@pytest.mark.parametrize("bad", [{"ready": False}, {"cordoned": True}])
def test_nothing_new_goes_to_a_bad_node(bad: dict[str, bool]) -> None:
    assert free([node("n1", **bad)]) == {"h100": ()}


def test_what_is_not_known_is_absent() -> None:
    assert free(None) == {}
    assert free([]) == {}
    assert free([node()], None) == {}
    assert free([node()], resourceName="gpu.nvidia.com") == {}  # devices of DRA
    # a class with a fixed quota runs on nodes all the same
    assert free([node()], quota={"count": 16}) == {"h100": (8,)}

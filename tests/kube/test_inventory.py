"""What the cluster can hold: nodes less what others use, failed nodes, what is not known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from cluster_objects import GPU, OTHERS, OURS, from_nodes, node, ours, pod, pool
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.edge.kube.inventory import ClusterFacts, Inventory, usable
from autoscaler.edge.kube.nodes import NodeRecord
from autoscaler.edge.kube.pods import PodRecord
from autoscaler.edge.kube.warm import PLACEHOLDER


def count(
    nodes: Sequence[NodeRecord],
    pods: Sequence[PodRecord] = (),
    *,
    excluded: Sequence[str] = (),
    xids: Mapping[str, int] | None = None,
    **more: Any,
) -> Inventory:
    facts = ClusterFacts(nodes=nodes, pods=pods, xids=xids or {})
    return usable([pool(from_nodes(**more), excluded=excluded)], facts, ours)


def test_allocatable_less_what_others_request() -> None:
    nodes = [node("n1"), node("n2"), node("other", labels={"gpu": "l40s"})]
    pods = [
        pod("mine", gpus=4, labels=OURS),
        pod("theirs", gpus=3, labels=OTHERS, node="n2"),
        pod("elsewhere", gpus=8, labels=OTHERS, node="other"),
    ]
    inventory = count(nodes, pods)
    assert inventory == Inventory({"h100": 13}, {}, {})  # 8 + 8 - 3; ours are part of it


def test_pods_that_hold_nothing_do_not_subtract() -> None:
    pods = [
        pod("evicted", gpus=8, labels=OTHERS, phase="Failed"),
        pod("done", gpus=8, labels=OTHERS, phase="Succeeded"),
        pod("pending", gpus=8, labels=OTHERS, node=None, phase="Pending"),
        pod("placeholder", gpus=8, labels={PLACEHOLDER: "h100"}),
    ]
    assert count([node()], pods).usable == {"h100": 8}


def test_a_pod_that_is_being_deleted_still_holds_its_devices() -> None:
    going = pod("g", gpus=2, labels=OTHERS, metadata={"deletionTimestamp": "2026-11-27T06:00:00Z"})
    assert count([node()], [going]).usable == {"h100": 6}


@pytest.mark.parametrize(
    ("bad", "more", "reason"),
    [
        (node("bad", ready=False), {}, "not Ready"),
        (node("bad", cordoned=True), {}, "cordoned"),
        (node("bad"), {"excluded": ["bad"]}, "listed as excluded in the pool"),
        (node("bad"), {"xids": {"bad": 79}}, "a device reported XID 79"),
        (
            node("bad", taints=[("node.kubernetes.io/out-of-service", "NoExecute")]),
            {},
            "taint node.kubernetes.io/out-of-service:NoExecute",
        ),
        (
            node("bad", taints=[("ToBeDeletedByClusterAutoscaler", "NoSchedule")]),
            {},
            "taint ToBeDeletedByClusterAutoscaler:NoSchedule",
        ),
    ],
    ids=["not ready", "cordoned", "listed", "xid", "tainted", "about to be removed"],
)
def test_a_bad_node_does_not_count(bad: NodeRecord, more: dict[str, Any], reason: str) -> None:
    theirs = [pod(f"t{i}", gpus=1, labels=OTHERS, node="bad") for i in range(2)]
    inventory = count([node("n1"), bad], theirs, **more)
    assert inventory.usable == {"h100": 8}  # their two pods on the bad node subtract nothing
    assert inventory.excluded_nodes == {"fleet": {"bad": reason}}


@pytest.mark.parametrize(
    "taint",
    [
        (GPU, "NoSchedule"),  # every serving pod tolerates it
        ("node.kubernetes.io/memory-pressure", "PreferNoSchedule"),
    ],
)
def test_a_taint_that_serving_pods_get_past_excludes_nothing(taint: tuple[str, str]) -> None:
    assert count([node("n1", taints=[taint])]) == Inventory({"h100": 8}, {}, {})


GOING = {"deletionTimestamp": "2026-11-27T06:00:00Z"}


def test_a_cordon_is_no_reason_to_scale_down() -> None:
    """What ours hold on a cordoned node counts until they are deleted; nothing new fits there."""
    nodes = [node("n1"), node("n2", cordoned=True)]
    mine = [
        pod("a", gpus=8, labels=OURS, ready=True),
        pod("b", gpus=4, labels=OURS, ready=True, node="n2"),
        pod("c", gpus=2, labels=OURS, ready=False, node="n2"),
        pod("d", gpus=2, labels=OURS, ready=True, node="n2", metadata=GOING),
    ]
    assert count(nodes, mine).usable == {"h100": 14}  # 8 of n1; 4 and 2 that are not going on n2


def test_neither_is_a_node_that_cannot_be_reached_nor_a_device_plugin_that_restarts() -> None:
    mine = [pod("a", gpus=8, labels=OURS)]
    assert count([node(ready=False)], mine).usable == {"h100": 8}
    assert count([node(gpus=0)], mine).usable == {"h100": 8}
    assert count([node(gpus=7)], mine).usable == {"h100": 8}
    drained = [pod("a", gpus=8, labels=OURS, metadata=GOING)]
    assert count([node(ready=False)], drained).usable == {"h100": 0}
    assert count([node(gpus=7)], drained).usable == {"h100": 7}


def test_a_mig_profile_is_a_resource_of_its_own() -> None:
    profile = "nvidia.com/mig-3g.40gb"
    inventory = count([node(resource=profile, gpus=14)], resourceName=profile)
    assert inventory.usable == {"h100": 14}


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        (ClusterFacts(pods=[]), "no node was seen yet, or nodes may not be read."),
        (ClusterFacts(nodes=[], pods=[]), "no node was seen yet, or nodes may not be read."),
        (
            ClusterFacts(nodes=[node()]),
            "pods of the cluster were not seen yet, or may not be read.",
        ),
    ],
    ids=["nodes unknown", "no node at all", "pods unknown"],
)
def test_what_is_not_known_has_no_number(facts: ClusterFacts, problem: str) -> None:
    assert usable([pool(from_nodes())], facts, ours) == Inventory({}, {"h100": problem}, {})


def test_nodes_that_are_known_to_be_none_are_zero_and_reported() -> None:
    inventory = count([node(labels={"gpu": "l40s"})])
    assert inventory.usable == {"h100": 0}
    assert inventory.problems == {"h100": "no node has the labels gpu=h100."}
    inventory = count([node(gpus=None)])
    assert inventory.usable == {"h100": 0}
    assert "is its device plugin running?" in inventory.problems["h100"]


def test_a_count_is_a_count_and_no_quota_is_no_number() -> None:
    pools = [pool({"name": "a", "quota": {"count": 6}}, {"name": "b"})]
    assert usable(pools, ClusterFacts(), ours) == Inventory({"a": 6}, {}, {})


def test_two_classes_that_count_the_same_accelerators() -> None:
    both = node("n1", labels={"gpu": "h100", "zone": "a"})
    pools = [pool(from_nodes()), pool(from_nodes("zone-a", nodeSelector={"zone": "a"}), name="b")]
    inventory = usable(pools, ClusterFacts(nodes=[both], pods=[]), ours)
    assert inventory.problems == {
        "h100": "n1 nvidia.com/gpu is counted by class zone-a, too: select it once.",
        "zone-a": "n1 nvidia.com/gpu is counted by class h100, too: select it once.",
    }
    mig = from_nodes("mig", resourceName="nvidia.com/mig-1g.10gb")
    facts = ClusterFacts(nodes=[both, node("n2", resource="nvidia.com/mig-1g.10gb")], pods=[])
    assert usable([pool(from_nodes(), mig)], facts, ours).problems == {}


names = st.sampled_from(["n1", "n2", "n3"])
nodes_drawn = st.lists(
    st.builds(
        node,
        names,
        gpus=st.one_of(st.none(), st.integers(0, 16)),
        labels=st.sampled_from([{"gpu": "h100"}, {"gpu": "l40s"}]),
        ready=st.booleans(),
        cordoned=st.booleans(),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda n: n.name,
)
pods_drawn = st.lists(
    st.builds(
        pod,
        st.uuids().map(str),
        gpus=st.integers(0, 9),
        labels=st.sampled_from([OURS, OTHERS, {PLACEHOLDER: "h100"}]),
        node=st.one_of(st.none(), names),
        phase=st.sampled_from(["Pending", "Running", "Failed"]),
        ready=st.booleans(),
    ),
    max_size=6,
)


@given(nodes_drawn, pods_drawn, st.sets(names))
def test_at_least_what_ours_hold_and_beyond_that_at_most_allocatable(
    nodes: list[NodeRecord], pods: list[PodRecord], excluded: set[str]
) -> None:
    found = count(nodes, pods, excluded=sorted(excluded)).usable["h100"]
    selected = [n for n in nodes if n.labels["gpu"] == "h100"]
    held = {n.name: 0 for n in selected}
    for p in pods:
        if p.labels == OURS and p.node in held and not p.ended:
            held[p.node] += p.requests.get(GPU, 0)
    least = sum(held.values())
    most = sum(max(held[n.name], n.allocatable.get(GPU, 0)) for n in selected)
    assert 0 <= least <= found <= most


@given(nodes_drawn, pods_drawn, names, st.integers(1, 9))
def test_a_pod_of_others_never_adds_and_one_of_ours_never_takes(
    nodes: list[NodeRecord], pods: list[PodRecord], at: str, gpus: int
) -> None:
    before = count(nodes, pods).usable["h100"]
    theirs = pod("theirs", gpus=gpus, labels=OTHERS, node=at)
    assert before - gpus <= count(nodes, [*pods, theirs]).usable["h100"] <= before
    mine = replace(theirs, labels=OURS, ready=True)
    assert count(nodes, [*pods, mine]).usable["h100"] >= before


@given(nodes_drawn, pods_drawn, names)
def test_excluding_a_node_never_adds(
    nodes: list[NodeRecord], pods: list[PodRecord], name: str
) -> None:
    assert count(nodes, pods, excluded=[name]).usable["h100"] <= count(nodes, pods).usable["h100"]

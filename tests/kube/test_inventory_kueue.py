"""Accelerators of a Kueue ClusterQueue: nominal quota less what others reserve."""

from collections.abc import Mapping
from typing import Any

import pytest
from cluster_objects import GPU, OTHERS, OURS, node, ours, pod, pool
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.edge.kube.inventory import ClusterFacts, Inventory, usable

QUEUED = {"kueue.x-k8s.io/queue-name": "serving"}
LOCAL = {("prod", "serving"): "team", ("dev", "serving"): "other"}
GATE = {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}


def queue(
    nominal: Mapping[str, int], reserved: Mapping[str, int] | None, stop: str | None = None
) -> dict[str, Any]:
    """Return ClusterQueue team: quota of GPUs by flavor, and what is reserved (None: no status yet)."""
    flavors = [
        {
            "name": name,
            "resources": [
                {"name": "cpu", "nominalQuota": "100"},
                {"name": GPU, "nominalQuota": str(n)},
            ],
        }
        for name, n in nominal.items()
    ]
    spec: dict[str, Any] = {
        "resourceGroups": [{"coveredResources": ["cpu", GPU], "flavors": flavors}]
    }
    if stop:
        spec["stopPolicy"] = stop
    status = {} if reserved is None else {
        "flavorsReservation": [
            {"name": name, "resources": [{"name": GPU, "total": str(n), "borrowed": "0"}]}
            for name, n in reserved.items()
        ]
    }  # fmt: skip
    return {"metadata": {"name": "team"}, "spec": spec, "status": status}


def count(of: dict[str, Any] | None, pods: Any = (), **facts: Any) -> Inventory:
    cls = {
        "name": "h100",
        "nodeSelector": facts.pop("selector", {}),
        "quota": {"kueueClusterQueue": "team"},
    }
    queues = None if of is None else {"team": of}
    facts = {"local_queues": LOCAL, "pods": pods, "cluster_queues": queues, **facts}
    return usable([pool(cls)], ClusterFacts(**facts), ours)


def mine(name: str, gpus: int, **more: Any) -> Any:
    return pod(name, gpus=gpus, labels=OURS | QUEUED, **more)


def test_nominal_less_what_others_reserve() -> None:
    pods = [
        mine("a", 4),
        mine("waits", 4, node=None, spec=GATE),  # reserves nothing yet
        mine("other-queue", 4, namespace="dev"),
        pod("no-queue", gpus=4, labels=OURS),  # Kueue does not know it
        pod("theirs", gpus=6, labels=OTHERS | QUEUED),
    ]
    # 32 nominal, 10 reserved: 4 of it is ours, so others have 6
    assert count(queue({"h100": 32}, {"h100": 10}), pods) == Inventory({"h100": 26}, {}, {})


def test_what_we_hold_stays_ours_borrowed_or_not() -> None:
    # we hold 12 of a quota of 8 (4 borrowed): no more, and no less while nobody wants it back
    assert count(queue({"h100": 8}, {"h100": 12}), [mine("a", 12)]).usable == {"h100": 12}
    # others hold 10 of 8 beside our 4: nothing is left, and nothing of ours is given up
    assert count(queue({"h100": 8}, {"h100": 14}), [mine("a", 4)]).usable == {"h100": 4}


def test_others_may_hold_more_than_the_quota() -> None:
    assert count(queue({"h100": 8}, {"h100": 12})).usable == {"h100": 0}


def test_a_held_queue_keeps_what_runs_and_a_drained_one_nothing() -> None:
    held = count(queue({"h100": 8}, {"h100": 4}, "Hold"), [mine("a", 4)])
    assert held.usable == {"h100": 4}
    assert "admits nothing new" in held.problems["h100"]
    assert count(queue({"h100": 8}, {"h100": 0}, "Hold")).usable == {"h100": 0}
    drained = count(queue({"h100": 8}, {"h100": 4}, "HoldAndDrain"), [mine("a", 4)])
    assert drained.usable == {"h100": 0}
    assert count(queue({"h100": 8}, {"h100": 0}, "None")).usable == {"h100": 8}


def test_of_several_flavors_those_on_the_nodes_of_the_class() -> None:
    of = queue({"h100": 8, "l40s": 32}, {"h100": 2, "l40s": 30})
    flavors = {"h100": {"gpu": "h100"}, "l40s": {"gpu": "l40s"}}
    found = count(of, selector={"gpu": "h100"}, flavors=flavors)
    assert found == Inventory({"h100": 6}, {}, {})
    assert count(of).usable == {"h100": 8}  # no nodeSelector: 40 - 32


def test_our_pods_on_nodes_of_another_flavor_are_not_of_this_class() -> None:
    of = queue({"h100": 8, "l40s": 8}, {"h100": 6, "l40s": 4})
    flavors = {"h100": {"gpu": "h100"}, "l40s": {"gpu": "l40s"}}
    nodes = [node("n1"), node("n2", labels={"gpu": "l40s"})]
    pods = [mine("a", 2), mine("b", 4, node="n2")]
    found = count(of, pods, selector={"gpu": "h100"}, flavors=flavors, nodes=nodes)
    assert found.usable == {"h100": 4}  # 8 - (6 - 2)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (count(None), "Kueue is not installed, or its queues may not be read"),
        (count(queue({"h100": 8}, None), cluster_queues={}), "ClusterQueue team does not exist"),
        (count(queue({"h100": 8}, None)), "does not say yet how much of flavor h100 is reserved"),
        (count(queue({}, {})), "has no quota of nvidia.com/gpu"),
        (
            count(queue({"h100": 8}, {"h100": 0}), [mine("a", 1)], local_queues=None),
            "LocalQueues are not known yet",
        ),
        (count(queue({"h100": 8}, {"h100": 0}), pods=None), "pods are not known yet"),
        (
            count(queue({"a": 8, "b": 8}, {"a": 0, "b": 0}), selector={"gpu": "h100"}),
            "ResourceFlavor a is not known",
        ),
        (
            count(
                queue({"a": 8, "b": 8}, {"a": 0, "b": 0}),
                selector={"gpu": "h100"},
                flavors={"a": {"zone": "z"}, "b": {"gpu": "h100"}},
            ),
            "ResourceFlavor a of ClusterQueue team does not say whether its nodes have gpu=h100",
        ),
    ],
)
def test_what_is_not_known_has_no_number(found: Inventory, problem: str) -> None:
    assert found.usable == {}
    assert problem in found.problems["h100"]


def test_a_queue_that_cannot_be_read_is_one_class_that_is_not_known() -> None:
    broken = {"metadata": {"name": "team"}, "spec": {"resourceGroups": [{"coveredResources": []}]}}
    classes = (
        {"name": "a", "quota": {"kueueClusterQueue": "team"}},
        {"name": "b", "quota": {"count": 3}},
    )
    facts = ClusterFacts(cluster_queues={"team": broken}, pods=[])
    found = usable([pool(*classes)], facts, ours)
    assert found.usable == {"b": 3}
    assert found.problems == {"a": "what the API says of it cannot be read (KeyError('flavors'))."}


@given(st.integers(0, 64), st.integers(0, 64), st.integers(0, 64))
def test_never_less_than_held_never_more_than_nominal_or_held(
    nominal: int, reserved: int, held: int
) -> None:
    found = count(queue({"h100": nominal}, {"h100": reserved}), [mine("a", held)]).usable["h100"]
    assert held <= found <= max(nominal, held)
    more = count(queue({"h100": nominal}, {"h100": reserved + 1}), [mine("a", held)])
    assert more.usable["h100"] <= found

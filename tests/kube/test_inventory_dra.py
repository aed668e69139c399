"""Accelerators of a DRA device class: devices of ResourceSlices less those that others hold."""

from typing import Any

import pytest
from cluster_objects import OTHERS, OURS, from_nodes, node, ours, pod, pool

from autoscaler.edge.kube.dra import choice_of
from autoscaler.edge.kube.facts import UnknownInventory
from autoscaler.edge.kube.inventory import ClusterFacts, Inventory, usable
from autoscaler.edge.kube.warm import PLACEHOLDER

DRIVER = "gpu.example.com"
Json = dict[str, Any]


def device_class(*expressions: str) -> Json:
    expressions = expressions or (f'device.driver == "{DRIVER}"',)
    return {"spec": {"selectors": [{"cel": {"expression": e}} for e in expressions]}}


def devices(count: int, **more: Any) -> list[Json]:
    return [{"name": f"gpu-{i}", **more} for i in range(count)]


def piece(at: str | None, of: list[Json], *, generation: int = 1, slices: int = 1) -> Json:
    spec: Json = {
        "driver": DRIVER,
        "pool": {
            "name": at or "fabric",
            "generation": generation,
            "resourceSliceCount": slices,
        },
        "devices": of,
    }
    spec |= {"nodeName": at} if at else {"allNodes": True}
    return {"metadata": {"name": f"slice-{at}-{generation}"}, "spec": spec}


def claim(*held: str, uids: tuple[str, ...], at: str = "n1", **result: Any) -> Json:
    results = [{"driver": DRIVER, "pool": at, "device": d, **result} for d in held]
    return {
        "metadata": {"name": "c"},
        "status": {
            "allocation": {"devices": {"results": results}},
            "reservedFor": [{"resource": "pods", "name": u, "uid": u} for u in uids],
        },
    }


def count(slices: list[Json], claims: Any = (), **more: Any) -> Inventory:
    cls = from_nodes("h100", resourceName=DRIVER, **more.pop("spec", {}))
    facts = {
        "nodes": [node(gpus=None)],
        "pods": [MINE, THEIRS],
        "device_classes": {DRIVER: device_class()},
        "resource_slices": slices,
        "resource_claims": claims,
        **more,
    }
    return usable([pool(cls)], ClusterFacts(**facts), ours)


MINE = pod("mine", labels=OURS, ready=True)
THEIRS = pod("theirs", labels=OTHERS, ready=True)
WARM = pod("warm", labels={PLACEHOLDER: "h100"})


def test_devices_less_those_that_others_hold() -> None:
    claims = [
        claim("gpu-0", "gpu-1", uids=(THEIRS.uid,)),
        claim("gpu-2", uids=(MINE.uid,)),
        claim("gpu-3", uids=("uid-unknown",)),  # a pod that nobody knows is not ours
        claim("gpu-4", uids=(MINE.uid, THEIRS.uid)),  # shared with others
        claim("gpu-5", uids=(THEIRS.uid,), adminAccess=True),  # monitoring holds nothing
        claim("gpu-6", uids=()),  # allocated and nobody's yet
        {"metadata": {"name": "unallocated"}},
    ]
    # of 8: 0, 1, 3, 4 and 6 are held by others
    assert count([piece("n1", devices(8))], claims) == Inventory({"h100": 3}, {}, {})


def test_a_claim_that_was_made_for_a_pod_is_that_pods() -> None:
    made = claim("gpu-0", uids=())
    made["metadata"]["ownerReferences"] = [{"kind": "Pod", "uid": MINE.uid}]
    assert count([piece("n1", devices(2))], [made]).usable == {"h100": 2}


def test_a_placeholder_makes_way() -> None:
    found = count([piece("n1", devices(2))], [claim("gpu-0", uids=(WARM.uid,))], pods=[MINE, WARM])
    assert found.usable == {"h100": 2}


def test_only_devices_of_selected_nodes_without_taints() -> None:
    slices = [
        piece("n1", devices(4)),
        piece("l40s", devices(4)),
        piece("bad", devices(4)),
    ]
    slices[0]["spec"]["devices"][0]["taints"] = [{"key": "health", "effect": "NoExecute"}]
    nodes = [node(gpus=None), node("l40s", labels={"gpu": "l40s"}), node("bad", cordoned=True)]
    found = count(slices, [claim("gpu-1", uids=(MINE.uid,), at="bad")], nodes=nodes)
    assert found.usable == {
        "h100": 4
    }  # 3 of n1 without the tainted one, and ours that serves on bad
    assert found.excluded_nodes == {"fleet": {"bad": "cordoned"}}


def test_the_newest_generation_counts() -> None:
    slices = [piece("n1", devices(8), generation=1), piece("n1", devices(7), generation=2)]
    assert count(slices).usable == {"h100": 7}


def test_a_pool_that_is_not_whole_is_not_known() -> None:
    found = count([piece("n1", devices(4), slices=2)])
    assert found.usable == {}
    assert found.problems["h100"] == (
        "pool n1 of driver gpu.example.com is being published: 1 of 2 ResourceSlices are there."
    )


def test_a_device_in_use_that_no_slice_has_is_not_known() -> None:
    found = count([piece("n1", devices(1))], [claim("gpu-1", uids=(MINE.uid,))])
    assert found.usable == {}
    assert "device gpu-1 of pool n1 is in use but in no ResourceSlice" in found.problems["h100"]


def test_v1beta1_has_attributes_one_level_deeper() -> None:
    full = f'device.driver == "{DRIVER}" && device.attributes["{DRIVER}"].type == "gpu"'
    gpu = {"basic": {"attributes": {"type": {"string": "gpu"}}}}
    mig = {"attributes": {"type": {"string": "mig"}}}  # as in v1beta2 and v1
    slices = [piece("n1", [{"name": "a", **gpu}, {"name": "b", **mig}, {"name": "c"}])]
    found = count(slices, device_classes={DRIVER: device_class(full)})
    assert found == Inventory({"h100": 1}, {}, {})


def test_attributes_of_other_domains_and_types() -> None:
    expressions = (
        f"device.driver == '{DRIVER}'",
        'device.attributes["topology.example.com"].numa == 1 && '
        f'device.attributes["{DRIVER}"].ecc == true',
    )
    one = {"attributes": {"topology.example.com/numa": {"int": 1}, "ecc": {"bool": True}}}
    two = {"attributes": {"numa": {"int": 1}, "ecc": {"bool": True}}}  # numa of another domain
    slices = [piece("n1", [{"name": "a", **one}, {"name": "b", **two}])]
    found = count(slices, device_classes={DRIVER: device_class(*expressions)})
    assert found.usable == {"h100": 1}


@pytest.mark.parametrize(
    "expression",
    [
        'device.driver == "x" || device.driver == "y"',
        'device.driver.startsWith("x")',
        'device.driver == "x" && device.capacity["x"].memory.isGreaterThan(quantity("10Gi"))',
        'device.driver == "x" && !device.attributes["x"].broken',
    ],
)
def test_a_selector_that_is_not_understood_is_reported(expression: str) -> None:
    with pytest.raises(UnknownInventory, match="which is not understood"):
        choice_of("c", device_class(expression))


def test_a_class_names_one_driver() -> None:
    with pytest.raises(UnknownInventory, match="names 0 drivers"):
        choice_of("c", {"spec": {}})


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"device_classes": None}, "may not be read"),
        ({"resource_claims": None}, "may not be read"),
        ({"nodes": None}, "not known yet"),
        ({"device_classes": {}}, "DeviceClass gpu.example.com does not exist"),
        ({"nodes": [node("n2")]}, "node n1 of a ResourceSlice is not known yet"),
    ],
)
def test_what_is_not_known_has_no_number(more: dict[str, Any], problem: str) -> None:
    found = count([piece("n1", devices(8))], **more)
    assert found.usable == {}
    assert problem in found.problems["h100"]


def test_devices_that_cannot_be_counted_are_reported() -> None:
    parts = count([piece("n1", devices(2, consumesCounters=[{"counterSet": "gpu-0"}]))])
    assert "shares counters with others" in parts.problems["h100"]
    fabric = count([piece(None, devices(2))])
    assert "is not of one node" in fabric.problems["h100"]
    assert parts.usable == fabric.usable == {}
    everywhere = pool({"name": "any", "resourceName": DRIVER, "quota": {"fromNodes": True}})
    facts = ClusterFacts(
        nodes=[node()],
        pods=[],
        device_classes={DRIVER: device_class()},
        resource_slices=[piece(None, devices(2))],
        resource_claims=[],
    )
    assert usable([everywhere], facts, ours).usable == {"any": 2}


def test_no_device_there_is_zero_and_reported() -> None:
    found = count([])
    assert found.usable == {"h100": 0}
    assert "no ResourceSlice holds a device of DeviceClass" in found.problems["h100"]

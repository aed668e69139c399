"""LeaderWorkerSet, Kueue and DRA as a server serves them: read and scaled with the shipped rights."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from apiserver import ApiServer
from foreign_crds import KUEUE, LEADER_WORKER_SET
from operating import OWN_NAMESPACE, Json, Rig, Script, Time, Workloads, policy
from test_manifests_applied import install, remove

from autoscaler.edge.clock import wall_seconds
from autoscaler.operate.turn import Turn

GPUS_A_POD = 8
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LWS = "leaderworkerset.sigs.k8s.io"
GROUPS = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/{}/leaderworkersets"
QUEUES = "/apis/kueue.x-k8s.io/v1beta2"
DRA = "/apis/resource.k8s.io/v1"
MERGE = "application/merge-patch+json"
READY_SINCE = "2026-11-20T10:00:00Z"


@pytest.fixture
def account(kube: ApiServer) -> Iterator[str]:
    """The token of the shipped ServiceAccount with the rights of the overlay `scale`."""
    paths = install(kube, "scale")
    yield kube.service_account_token(OWN_NAMESPACE, "foreserve")
    remove(kube, paths)


@pytest.fixture
def put(kube: ApiServer) -> Iterator[Any]:
    """Puts objects on the server, and takes cluster-wide ones away in the end."""
    made: list[str] = []

    def one(collection: str, body: Json, status: Json | None = None) -> None:
        code, answer = kube.request("POST", collection, body)
        assert code == 201, answer.get("message")
        path = f"{collection}/{body['metadata']['name']}"
        if "/namespaces/" not in collection:
            made.append(path)
        if status is not None:
            code, answer = kube.request(
                "PATCH", f"{path}/status", {"status": status}, content_type=MERGE
            )
            assert code == 200, answer

    yield one
    for path in reversed(made):
        kube.request("DELETE", path)


def serve(kube: ApiServer, path: str, *crds: Json) -> None:
    """Install CRDs, which stay, and wait until the path is served."""
    for body in crds:
        assert kube.request("POST", CRDS, body)[0] in {201, 409}
    end = time.monotonic() + 30.0
    while kube.request("GET", path)[0] != 200:
        assert time.monotonic() < end, f"{path} is not served"
        time.sleep(0.05)


def container() -> Json:
    gpus = {"nvidia.com/gpu": str(GPUS_A_POD)}
    return {"name": "vllm", "image": "vllm", "resources": {"limits": gpus, "requests": gpus}}


def ready_status(*, ready: bool = True) -> Json:
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": READY_SINCE}
        for kind in ("PodScheduled", "Initialized")
    ]
    state = {"type": "Ready", "status": str(ready), "lastTransitionTime": READY_SINCE}
    return {"phase": "Running", "conditions": [*conditions, state]}


def group_pod(namespace: str, group: int, worker: int, node: str) -> Json:
    """One pod of LeaderWorkerSet big, as its controller makes them."""
    return {
        "metadata": {
            "name": f"big-{group}-{worker}" if worker else f"big-{group}",
            "namespace": namespace,
            "annotations": {f"{LWS}/size": "2"},
            "labels": {
                f"{LWS}/name": "big",
                f"{LWS}/group-index": str(group),
                f"{LWS}/worker-index": str(worker),
                "kueue.x-k8s.io/queue-name": "serving",
            },
        },
        "spec": {"nodeName": node, "containers": [container()]},
    }


def lws_policy(namespace: str) -> Json:
    made = policy(namespace, "big")
    made["spec"]["variants"][0] |= {
        "targetRef": {
            "apiVersion": "leaderworkerset.x-k8s.io/v1",
            "kind": "LeaderWorkerSet",
            "name": "big",
        },
        "acceleratorsPerReplica": 2 * GPUS_A_POD,
    }
    return made


def a_pool(quota: Json, **more: Any) -> Json:
    gpu = {"name": "any", "resourceName": "nvidia.com/gpu", "usdPerHour": 2.0, "quota": quota}
    return {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": "AcceleratorPool",
        "metadata": {"name": "foreign"},
        "spec": {"classes": [gpu | more]},
    }


def groups(kube: ApiServer, namespace: str) -> int:
    return int(kube.request("GET", f"{GROUPS.format(namespace)}/big")[1]["spec"]["replicas"])


def make_groups(kube: ApiServer, put: Any, namespace: str, node: str) -> None:
    """Two groups of two pods; the worker of the second one is not made yet."""
    serve(kube, GROUPS.format(namespace), LEADER_WORKER_SET)
    template = {"metadata": {"labels": {"app": "vllm"}}, "spec": {"containers": [container()]}}
    body = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "big", "namespace": namespace},
        "spec": {"replicas": 2, "leaderWorkerTemplate": {"size": 2, "workerTemplate": template}},
    }
    leaders = f"{LWS}/name=big,{LWS}/worker-index=0"
    put(GROUPS.format(namespace), body, {"replicas": 2, "hpaPodSelector": leaders})
    for group, worker in ((0, 0), (0, 1), (1, 0)):
        pods = f"/api/v1/namespaces/{namespace}/pods"
        put(pods, group_pod(namespace, group, worker, node), ready_status())


def taken(rig: Rig, seconds: float = 31.0) -> Turn:
    turn = rig.turn(1, seconds)
    assert turn is not None
    assert turn.facts.problems == {}
    return turn


def test_groups_of_a_leader_worker_set_are_read_and_scaled(
    kube: ApiServer, namespace: str, account: str, put: Any
) -> None:
    make_groups(kube, put, namespace, "nowhere")
    Workloads(kube, namespace).put(lws_policy(namespace))
    service = f"{namespace}/big"
    rig = Rig(kube, Script({service: 16.0}), Time(wall_seconds()), token=account)
    seen = taken(rig).step.observation.services[service].variants["default"]
    assert (seen.desired, seen.ready, seen.starting) == (2, 1, 1)  # one lacks its worker
    pods = f"/api/v1/namespaces/{namespace}/pods"
    put(pods, group_pod(namespace, 1, 1, "nowhere"), ready_status())
    rig.script.running[service] = 40.0
    seen = taken(rig).step.observation.services[service].variants["default"]
    assert (seen.desired, seen.ready, seen.starting) == (2, 2, 0)
    assert groups(kube, namespace) == 5  # 40 / 8


def cluster_queue(nominal: int) -> Json:
    others = [{"name": "cpu", "nominalQuota": "900m"}, {"name": "memory", "nominalQuota": "36Gi"}]
    gpus = {"name": "nvidia.com/gpu", "nominalQuota": nominal, "borrowingLimit": "64"}
    flavor = {"name": "foreign-h100", "resources": [*others, gpus]}
    group = {"coveredResources": ["cpu", "memory", "nvidia.com/gpu"], "flavors": [flavor]}
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "ClusterQueue",
        "metadata": {"name": "foreign-team"},
        "spec": {"cohortName": "all", "namespaceSelector": {}, "resourceGroups": [group]},
    }


def used(total: int, borrowed: int) -> Json:
    """A ClusterQueue's status: reservations are made before pods are admitted, so both are alike."""
    rows = [
        {"name": name, "total": str(t), "borrowed": str(b)}
        for name, t, b in (("cpu", 0, 0), ("memory", 0, 0), ("nvidia.com/gpu", total, borrowed))
    ]
    flavors = [{"name": "foreign-h100", "resources": rows}]
    return {"flavorsReservation": flavors, "flavorsUsage": flavors, "admittedWorkloads": 3}


def test_a_cluster_queue_is_read_and_what_we_borrow_is_left_to_us(
    kube: ApiServer, namespace: str, account: str, put: Any
) -> None:
    serve(kube, f"{QUEUES}/clusterqueues", *KUEUE)
    put("/api/v1/nodes", {"metadata": {"name": f"node-{namespace}", "labels": {"gpu": "h100"}}})
    make_groups(kube, put, namespace, f"node-{namespace}")
    flavor = {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "ResourceFlavor",
        "metadata": {"name": "foreign-h100"},
        "spec": {"nodeLabels": {"gpu": "h100"}},
    }
    put(f"{QUEUES}/resourceflavors", flavor)
    put(f"{QUEUES}/clusterqueues", cluster_queue(48), used(32, 0))
    local = {"metadata": {"name": "serving"}, "spec": {"clusterQueue": "foreign-team"}}
    local |= {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue"}
    put(f"{QUEUES}/namespaces/{namespace}/localqueues", local)
    pools = "/apis/foreserve.dev/v1alpha1/acceleratorpools"
    put(pools, a_pool({"kueueClusterQueue": "foreign-team"}, nodeSelector={"gpu": "h100"}))
    Workloads(kube, namespace).put(lws_policy(namespace))
    service = f"{namespace}/big"
    rig = Rig(kube, Script({service: 16.0}), Time(wall_seconds()), token=account)
    # 48 nominal; of the 32 reserved three pods of ours hold 24
    assert taken(rig, 61.0).facts.inventory.usable == {"any": 40}
    queue = f"{QUEUES}/clusterqueues/foreign-team"
    status = {"status": used(80, 32)}  # others took 56, borrowing 32
    assert kube.request("PATCH", f"{queue}/status", status, content_type=MERGE)[0] == 200
    assert taken(rig, 61.0).facts.inventory.usable == {"any": 24}  # what our pods hold
    stop = {"spec": {"stopPolicy": "HoldAndDrain"}}
    assert kube.request("PATCH", queue, stop, content_type=MERGE)[0] == 200
    assert taken(rig, 61.0).facts.inventory.usable == {"any": 0}


def device(name: str, model: str) -> Json:
    attributes = {
        "productName": {"string": model},
        "index": {"int": 0},
        "healthy": {"bool": True},
        "driverVersion": {"version": "1.2.3"},
    }
    return {
        "name": name,
        "attributes": attributes,
        "capacity": {"memory": {"value": "80Gi"}},
    }


def resource_slice(node: str, generation: int, *devices: Json) -> Json:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-gpu-{generation}"},
        "spec": {
            "driver": "gpu.example.com",
            "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
            "nodeName": node,
            "devices": list(devices),
        },
    }


def claim(namespace: str, name: str, held: str, node: str, pod: Json) -> tuple[Json, Json]:
    """A ResourceClaim and its status as the scheduler writes it."""
    request = {"deviceClassName": "foreign-gpu", "allocationMode": "ExactCount", "count": 1}
    body = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": request}]}},
    }
    result = {"request": "gpu", "driver": "gpu.example.com", "pool": node, "device": held}
    owner = {"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    status = {"allocation": {"devices": {"results": [result]}}, "reservedFor": [owner]}
    return body, status


def test_devices_of_real_resource_slices_are_counted(
    kube: ApiServer, namespace: str, account: str, put: Any
) -> None:
    """Two nodes with three H100 each and an A10; others hold one, ours two, one is in an old slice."""
    if kube.kind == "double":
        pytest.skip("the double has no ResourceClaims; see tests/kube/test_inventory_dra.py")
    expression = (
        'device.driver == "gpu.example.com" && '
        'device.attributes["gpu.example.com"].productName == "H100"'
    )
    selectors = [{"cel": {"expression": expression}}]
    device_class = {"metadata": {"name": "foreign-gpu"}, "spec": {"selectors": selectors}}
    put(f"{DRA}/deviceclasses", device_class)
    nodes = [f"{namespace}-{i}" for i in range(2)]
    for node in nodes:
        labels = {"gpu": "dra"}
        put(
            "/api/v1/nodes",
            {"metadata": {"name": node, "labels": labels}},
            {"conditions": ready_node()},
        )
        # which admission sets on a new node, and a controller that is not here takes away
        path = f"/api/v1/nodes/{node}"
        kube.request("PATCH", path, {"spec": {"taints": None}}, content_type=MERGE)
        own = [device(f"gpu-{i}", "H100") for i in range(3)]
        put(f"{DRA}/resourceslices", resource_slice(node, 2, *own, device("gpu-3", "A10")))
    put(f"{DRA}/resourceslices", resource_slice(nodes[0], 1, device("gone", "H100")))
    world = Workloads(kube, namespace)
    made = policy(namespace, "chat")
    target = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "chat", "namespace": namespace},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "chat"}},
            "template": {
                "metadata": {"labels": {"app": "chat"}},
                "spec": {"containers": [{"name": "vllm", "image": "vllm"}]},
            },
        },
    }
    world.put(target, made)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    claims = f"{DRA}/namespaces/{namespace}/resourceclaims"
    for i, app in enumerate(("chat", "chat", "other")):
        body = {
            "metadata": {"name": f"{app}-{i}", "labels": {"app": app}},
            "spec": {
                "nodeName": nodes[0],
                "containers": [{"name": "vllm", "image": "vllm"}],
                "resourceClaims": [{"name": "gpu", "resourceClaimName": f"claim-{i}"}],
            },
        }
        put(pods, body, ready_status())
        pod = kube.request("GET", f"{pods}/{app}-{i}")[1]
        put(claims, *claim(namespace, f"claim-{i}", f"gpu-{i}", nodes[0], pod))
    pools = "/apis/foreserve.dev/v1alpha1/acceleratorpools"
    put(pools, a_pool({"fromNodes": True}, resourceName="foreign-gpu", nodeSelector={"gpu": "dra"}))
    rig = Rig(kube, Script({f"{namespace}/chat": 16.0}), Time(wall_seconds()), token=account)
    turn = taken(rig, 61.0)
    assert turn.facts.inventory.problems == {}
    assert turn.facts.inventory.usable == {"any": 5}  # six H100, one of them is another's


def ready_node() -> list[Json]:
    return [{"type": "Ready", "status": "True", "lastTransitionTime": READY_SINCE}]

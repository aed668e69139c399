"""What the operator does on an API server: writes what is decided, and only what it may."""

from collections.abc import Iterator

import pytest
from apiserver import ApiServer
from crd_setup import install
from operating import (
    OWN_NAMESPACE,
    PER_REPLICA,
    Always,
    FailingHistory,
    Rig,
    Script,
    Time,
    Workloads,
    deployment,
    policy,
)


@pytest.fixture(scope="module", autouse=True)
def _crds(kube: ApiServer) -> None:
    install(kube)
    kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": OWN_NAMESPACE}})


@pytest.fixture
def world(kube: ApiServer, namespace: str) -> Iterator[Workloads]:
    kube.request("DELETE", f"/api/v1/namespaces/{OWN_NAMESPACE}/configmaps/foreserve-checkpoint")
    kube.request("DELETE", f"/api/v1/namespaces/{OWN_NAMESPACE}/configmaps/foreserve")
    yield Workloads(kube, namespace)
    for collection in ("scalingpolicies", "deployments"):
        group = "foreserve.dev/v1alpha1" if collection == "scalingpolicies" else "apps/v1"
        kube.request("DELETE", f"/apis/{group}/namespaces/{namespace}/{collection}")


def test_scale_mode_writes_what_the_load_needs_and_says_so(
    kube: ApiServer, world: Workloads, namespace: str
) -> None:
    world.put(deployment(namespace, "chat", 2), policy(namespace, "chat"))
    world.run_pods("chat")
    rig = Rig(kube, Script({f"{namespace}/chat": 5 * PER_REPLICA}), Time())
    rig.turn(2)
    assert world.replicas("chat") == 5  # 40 requests in flight, 8 a replica
    status = world.status("chat")
    assert status["desiredReplicas"] == 5
    assert world.condition("chat", "Ready")[:2] == ("True", "Scaling")
    events = [e for e in world.events() if e["reason"] == "ScaledUp"]
    assert len(events) == 1
    assert "2 to 5 replicas" in events[0]["message"]


def test_recommend_mode_shows_and_never_writes(
    kube: ApiServer, world: Workloads, namespace: str
) -> None:
    world.put(deployment(namespace, "chat", 2), policy(namespace, "chat", mode="Recommend"))
    world.run_pods("chat")
    rig = Rig(kube, Script({f"{namespace}/chat": 5 * PER_REPLICA}), Time())
    rig.turn(3)
    assert world.replicas("chat") == 2
    assert world.status("chat")["desiredReplicas"] == 5
    assert world.condition("chat", "Ready")[1] == "Recommending"


def test_a_scale_down_waits_for_its_window(
    kube: ApiServer, world: Workloads, namespace: str
) -> None:
    world.put(deployment(namespace, "chat", 6), policy(namespace, "chat"))
    world.run_pods("chat")
    script = Script({f"{namespace}/chat": 48.0})
    rig = Rig(kube, script, Time())
    rig.turn(2)
    script.running[f"{namespace}/chat"] = 8.0
    rig.turn(3)  # 93 s: the window of 120 s still holds 6
    assert world.replicas("chat") == 6
    rig.turn(4)
    assert world.replicas("chat") < 6


def test_switching_from_recommend_to_scale_never_jumps(
    kube: ApiServer, world: Workloads, namespace: str
) -> None:
    world.put(deployment(namespace, "chat", 9), policy(namespace, "chat", mode="Recommend"))
    world.run_pods("chat")
    rig = Rig(kube, Script({f"{namespace}/chat": 8.0}), Time())
    rig.turn(8)  # long enough for every window to agree that one is enough
    assert world.status("chat")["desiredReplicas"] < 9
    world.edit("chat", {"spec": {"behavior": {"mode": "Scale"}}})
    rig.turn(1)
    assert world.replicas("chat") == 9
    rig.turn(3)  # the window began anew with the switch
    assert world.replicas("chat") == 9
    rig.turn(2)
    assert world.replicas("chat") < 9


def test_silence_holds_and_a_lost_workload_is_told(
    kube: ApiServer, world: Workloads, namespace: str
) -> None:
    world.put(deployment(namespace, "chat", 4), policy(namespace, "chat"))
    world.run_pods("chat")
    script = Script({f"{namespace}/chat": 32.0})
    rig = Rig(kube, script, Time())
    rig.turn(2)
    script.running.clear()
    rig.turn(6)
    assert world.replicas("chat") == 4
    assert world.condition("chat", "TelemetryFresh")[0] == "False"
    world.put(policy(namespace, "ghost"))
    rig.turn(1)
    assert world.condition("ghost", "Ready")[1] == "TargetNotFound"


@pytest.mark.parametrize("where", ["policy", "namespace", "everything", "everything, annotated"])
def test_a_pause_writes_nothing_and_its_end_does_not_jump(
    kube: ApiServer, world: Workloads, namespace: str, where: str
) -> None:
    world.put(deployment(namespace, "chat", 6), policy(namespace, "chat"))
    world.run_pods("chat")
    script = Script({f"{namespace}/chat": 48.0})
    rig = Rig(kube, script, Time())
    rig.turn(2)
    _pause(kube, namespace, where, on=True)
    script.running[f"{namespace}/chat"] = 80.0
    rig.turn(2)
    assert world.replicas("chat") == 6
    assert world.condition("chat", "Ready")[1] == "Paused"
    assert world.status("chat")["desiredReplicas"] == 10  # decided and shown all the same
    script.running[f"{namespace}/chat"] = 8.0
    rig.turn(6)
    _pause(kube, namespace, where, on=False)
    rig.turn(2)
    assert world.replicas("chat") == 6
    assert world.condition("chat", "Ready")[1] == "Scaling"


def _pause(kube: ApiServer, namespace: str, where: str, *, on: bool) -> None:
    annotation = {"metadata": {"annotations": {"foreserve.dev/paused": "true" if on else None}}}
    path = {
        "policy": f"/apis/foreserve.dev/v1alpha1/namespaces/{namespace}/scalingpolicies/chat",
        "namespace": f"/api/v1/namespaces/{namespace}",
    }.get(where)
    if path is not None:
        code, answer = kube.request(
            "PATCH", path, annotation, content_type="application/merge-patch+json"
        )
        assert code == 200, answer
        return
    maps = f"/api/v1/namespaces/{OWN_NAMESPACE}/configmaps"
    if on:
        body: dict[str, object] = {"metadata": {"name": "foreserve"}, "data": {"paused": "true"}}
        if where == "everything, annotated":
            body = {"metadata": {"name": "foreserve", **annotation["metadata"]}}
        assert kube.request("POST", maps, body)[0] == 201
    else:
        assert kube.request("DELETE", f"{maps}/foreserve")[0] == 200


def test_an_hpa_on_the_target_is_a_conflict_and_no_fight(
    kube: ApiServer, world: Workloads, namespace: str
) -> None:
    world.put(deployment(namespace, "chat", 2), policy(namespace, "chat"))
    world.run_pods("chat")
    hpa = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "chat", "namespace": namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"},
            "maxReplicas": 5,
        },
    }
    world.put(hpa)
    rig = Rig(kube, Script({f"{namespace}/chat": 48.0}), Time())
    rig.turn(2)
    assert world.replicas("chat") == 2
    status, reason, message = world.condition("chat", "Ready")
    assert (status, reason) == ("False", "Conflict")
    assert f"HorizontalPodAutoscaler {namespace}/chat" in message
    kube.request(
        "DELETE", f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers/chat"
    )
    rig.turn(2)
    assert world.replicas("chat") == 6


def test_the_older_of_two_policies_keeps_the_target(
    kube: ApiServer, world: Workloads, namespace: str
) -> None:
    world.put(deployment(namespace, "chat", 2), policy(namespace, "chat"))
    world.run_pods("chat")
    import time

    time.sleep(1.1)  # creation times are whole seconds
    world.put(policy(namespace, "usurper", target="chat"))
    rig = Rig(kube, Script({f"{namespace}/chat": 24.0, f"{namespace}/usurper": 80.0}), Time())
    rig.turn(2)
    assert world.replicas("chat") == 3
    assert world.condition("usurper", "Ready")[1] == "Conflict"
    assert f"{namespace}/chat" in world.condition("usurper", "Ready")[2]


def test_the_idlest_pods_are_marked_before_a_scale_down(
    kube: ApiServer, world: Workloads, namespace: str
) -> None:
    world.put(deployment(namespace, "chat", 3), policy(namespace, "chat"))
    world.run_pods("chat")
    names = sorted(p["metadata"]["name"] for p in world.pods("chat"))
    loads = {(namespace, names[0]): 9.0, (namespace, names[1]): 0.0, (namespace, names[2]): 7.0}
    rig = Rig(kube, Script({f"{namespace}/chat": 16.0}), Time(), loads=loads)
    rig.turn(6)
    assert world.replicas("chat") == 2
    costs = {
        p["metadata"]["name"]: p["metadata"]
        .get("annotations", {})
        .get("controller.kubernetes.io/pod-deletion-cost")
        for p in world.pods("chat")
    }
    assert costs == {names[0]: None, names[1]: "-1", names[2]: None}


def test_a_follower_decides_and_writes_nothing(
    kube: ApiServer, world: Workloads, namespace: str
) -> None:
    world.put(deployment(namespace, "chat", 2), policy(namespace, "chat"))
    world.run_pods("chat")
    lease = Always(held=False)
    rig = Rig(kube, Script({f"{namespace}/chat": 40.0}), Time(), lease)
    turn = rig.turn(2)
    assert turn is not None
    assert turn.step.decisions.services[f"{namespace}/chat"].variants == {"default": 5}
    assert world.replicas("chat") == 2
    assert world.status("chat") == {}
    lease.held = True
    rig.turn(1)
    assert world.replicas("chat") == 5


def test_without_history_a_short_fleet_grows_and_none_is_lowered(
    kube: ApiServer, world: Workloads, namespace: str
) -> None:
    world.put(deployment(namespace, "chat", 2), policy(namespace, "chat"))
    world.put(deployment(namespace, "calm", 6), policy(namespace, "calm"))
    world.run_pods("chat")
    world.run_pods("calm")
    script = Script({f"{namespace}/chat": 40.0, f"{namespace}/calm": 8.0})
    history = FailingHistory()
    rig = Rig(kube, script, Time(), history=history)
    rig.turn(8)  # long enough for the window of every scale-down
    assert history.asked >= 1
    assert world.replicas("chat") == 5
    assert world.replicas("calm") == 6

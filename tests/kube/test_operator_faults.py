"""The operator among faults: whatever breaks, no wrong scale happens and nothing is lost."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from apidouble import ApiDouble
from apiserver import ApiServer
from crd_setup import CRDS, GROUP, install
from operating import (
    EVERY_SECONDS,
    OWN_NAMESPACE,
    PER_REPLICA,
    POLICIES,
    Always,
    Rig,
    Script,
    Time,
    Workloads,
    deployment,
    policy,
)

from autoscaler.core.types import Policies
from autoscaler.edge.clock import SteadyTime
from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.kube.lease import Lease
from autoscaler.edge.reading import Reading
from autoscaler.operate.turn import Operator

MERGE = "application/merge-patch+json"
CHECKPOINT = f"/api/v1/namespaces/{OWN_NAMESPACE}/configmaps/foreserve-checkpoint"
SCALES = "deployments/[^/]+/scale$"
Json = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _crds(kube: ApiServer) -> None:
    begin(kube)


def begin(kube: ApiServer) -> None:
    install(kube)
    kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": OWN_NAMESPACE}})


@pytest.fixture
def world(kube: ApiServer, namespace: str) -> Iterator[Workloads]:
    yield from _world(kube, namespace)


@pytest.fixture
def fragile(double: ApiDouble) -> Iterator[Workloads]:
    """A world on a double: for faults that only it can make."""
    begin(double)
    double.request("POST", "/api/v1/namespaces", {"metadata": {"name": "prod"}})
    yield from _world(double, "prod")


def _world(kube: ApiServer, namespace: str) -> Iterator[Workloads]:
    kube.request("DELETE", CHECKPOINT)
    kube.request("DELETE", f"/api/v1/namespaces/{OWN_NAMESPACE}/configmaps/foreserve")
    yield Workloads(kube, namespace)
    for collection in ("scalingpolicies", "deployments"):
        group = "foreserve.dev/v1alpha1" if collection == "scalingpolicies" else "apps/v1"
        kube.request("DELETE", f"/apis/{group}/namespaces/{namespace}/{collection}")


def chat(world: Workloads, replicas: int, name: str = "chat") -> str:
    """Put a workload with ready pods and its policy; return the service's name."""
    world.put(deployment(world.namespace, name, replicas), policy(world.namespace, name))
    world.run_pods(name)
    return f"{world.namespace}/{name}"


def history_of_counts(double: ApiDouble) -> list[tuple[str, int]]:
    """Return (method, status) of every write of a scale that reached the double."""
    return [(c.method, c.status) for c in double.calls if c.is_write and c.path.endswith("/scale")]


# -- the API server ----------------------------------------------------------


def test_an_outage_changes_nothing_and_its_end_goes_on(kube: ApiServer, world: Workloads) -> None:
    service = chat(world, 4)
    script = Script({service: 4 * PER_REPLICA})
    rig = Rig(kube, script, Time(), timeout_seconds=0.3)
    rig.turn(2)
    version = world.version("chat")
    kube.stop()
    try:
        script.running[service] = 9 * PER_REPLICA
        turn = rig.turn(2)
        assert turn is None or turn.step.decisions.services[service].variants == {"default": 4}
    finally:
        kube.start()
    assert world.version("chat") == version  # nobody wrote
    rig.turn(2)
    assert world.replicas("chat") == 9


def test_a_server_that_answers_5xx_for_a_while_loses_nothing(fragile: Workloads) -> None:
    double = _double(fragile)
    service = chat(fragile, 4)
    rig = Rig(double, Script({service: 6 * PER_REPLICA}), Time(), timeout_seconds=0.3)
    double.fail("GET|PUT|PATCH|POST", "", 503, times=10_000)
    assert rig.turn(1) is None
    assert "503" in rig.process.readiness()
    double.heal()
    assert fragile.replicas("chat") == 4
    rig.turn(2)
    assert fragile.replicas("chat") == 6
    assert rig.process.readiness() == ""


def test_a_storm_of_conflicts_ends_with_the_right_count(fragile: Workloads) -> None:
    double = _double(fragile)
    service = chat(fragile, 2)
    rig = Rig(double, Script({service: 5 * PER_REPLICA}), Time())
    double.conflict_storm(SCALES, times=4)  # somebody else touches the object before every write
    rig.turn(1)
    assert fragile.replicas("chat") == 2  # written, refused, read again, refused: the next turn
    assert fragile.condition("chat", "Ready")[1] == "WriteFailed"
    rig.turn(2)
    assert fragile.replicas("chat") == 5
    assert [s for _, s in history_of_counts(double)] == [409, 409, 409, 409, 200]


def test_somebody_who_scales_in_between_wins_the_turn(kube: ApiServer, world: Workloads) -> None:
    service = chat(world, 2)
    rig = Rig(kube, Script({service: 5 * PER_REPLICA}), Time())
    act = rig.process._operator._act

    def acted(*arguments: Any, **named: Any) -> Any:
        world.scale("chat", 7)
        return act(*arguments, **named)

    rig.process._operator._act = acted  # type: ignore[method-assign]
    turn = rig.turn(1)
    assert turn is not None
    assert [o.conflict for o in turn.outcomes] == [True]
    assert world.replicas("chat") == 7


@pytest.mark.parametrize("status", [0, 504])
def test_a_scale_whose_answer_is_lost_is_written_once(fragile: Workloads, status: int) -> None:
    double = _double(fragile)
    service = chat(fragile, 2)
    rig = Rig(double, Script({service: 5 * PER_REPLICA}), Time())
    double.fail("PUT", SCALES, status, after=True)
    rig.turn(1)
    assert fragile.replicas("chat") == 5
    rig.turn(3)
    assert fragile.replicas("chat") == 5
    assert len(history_of_counts(double)) == 1


def test_a_scale_that_never_arrived_is_written_by_the_next_turn(fragile: Workloads) -> None:
    double = _double(fragile)
    service = chat(fragile, 2)
    rig = Rig(double, Script({service: 5 * PER_REPLICA}), Time())
    double.fail("PUT", SCALES, 0)
    rig.turn(1)
    assert fragile.replicas("chat") == 2
    rig.turn(1)
    assert fragile.replicas("chat") == 5


def test_statuses_and_events_that_fail_stop_no_scale(fragile: Workloads) -> None:
    double = _double(fragile)
    service = chat(fragile, 2)
    script = Script({service: 5 * PER_REPLICA})
    rig = Rig(double, script, Time(), timeout_seconds=1.0)
    double.fail("PATCH|POST", "/status$|/events", 500, times=10_000)
    rig.turn(1)
    assert fragile.replicas("chat") == 5
    script.running[service] = 8 * PER_REPLICA
    rig.turn(2)
    assert fragile.replicas("chat") == 8
    double.heal()
    rig.turn(1)
    assert fragile.status("chat")["desiredReplicas"] == 8


def test_nothing_is_decided_before_pods_are_known_and_readiness_says_why(
    fragile: Workloads,
) -> None:
    double = _double(fragile)
    service = chat(fragile, 4)
    rig = Rig(double, Script({service: 8.0}), Time())
    double.fail("GET", "/api/v1/pods$", 403, times=10_000)
    assert rig.turn(5) is None
    assert "pods" in rig.process.readiness()
    assert "403" in rig.process.readiness()
    assert history_of_counts(double) == []
    double.heal()
    assert rig.turn(1) is not None
    assert fragile.replicas("chat") == 4


def test_without_a_list_of_pools_nothing_is_decided(fragile: Workloads) -> None:
    """No pools mean no limits: that they could not be read must not be taken for that."""
    double = _double(fragile)
    fragile.put(pool(4))
    service = chat(fragile, 2)
    fragile.edit("chat", {"spec": {"variants": [variant("h100")]}})
    rig = Rig(double, Script({service: 20 * PER_REPLICA}), Time(), timeout_seconds=0.3)
    double.fail("GET", "acceleratorpools$", 500, times=10_000)
    assert rig.turn(2) is None
    assert "acceleratorpools" in rig.process.readiness()
    assert fragile.replicas("chat") == 2
    double.heal()
    rig.turn(2)
    assert fragile.replicas("chat") == 4  # as many as there are


def test_while_namespaces_are_unknown_all_count_as_paused(fragile: Workloads) -> None:
    double = _double(fragile)
    service = chat(fragile, 2)
    annotation = {"metadata": {"annotations": {"foreserve.dev/paused": "true"}}}
    double.request("PATCH", "/api/v1/namespaces/prod", annotation, content_type=MERGE)
    rig = Rig(double, Script({service: 5 * PER_REPLICA}), Time(), timeout_seconds=0.3)
    rig.process._parts.finder._watching = lambda: True  # what failed is due before ten minutes
    double.fail("GET", "/api/v1/namespaces$", 500, times=10_000)
    rig.turn(2)
    assert fragile.replicas("chat") == 2
    reason, message = fragile.condition("chat", "Ready")[1:]
    assert (reason, "namespaces cannot be read" in message) == ("Paused", True)
    double.heal()
    rig.turn(2)
    assert fragile.replicas("chat") == 2
    assert fragile.condition("chat", "Ready")[2] == "namespace prod is paused by its annotation"


def test_while_rivals_are_unknown_nothing_is_written(fragile: Workloads) -> None:
    double = _double(fragile)
    service = chat(fragile, 2)
    rig = Rig(double, Script({service: 5 * PER_REPLICA}), Time(), timeout_seconds=0.3)
    double.fail("GET", "horizontalpodautoscalers$", 500, times=10_000)
    rig.turn(2)
    assert fragile.replicas("chat") == 2
    assert "nobody knows who else scales" in fragile.condition("chat", "Ready")[2]
    double.heal()
    rig.turn(2)
    assert fragile.replicas("chat") == 5


# -- rights ------------------------------------------------------------------


def test_a_forbidden_namespace_stops_nobody_else(kube: ApiServer, world: Workloads) -> None:
    own = world.namespace
    others = {"unreadable": f"{own}-a", "unwritable": f"{own}-b"}
    for name in others.values():
        kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    worlds = {name: Workloads(kube, namespace) for name, namespace in others.items()}
    try:
        services = [chat(w, 2) for w in (world, *worlds.values())]
        token = kube.service_account_token(own, "limited")
        account = {"kind": "ServiceAccount", "name": "limited", "namespace": own}
        _grant(kube, account, own, ["get", "update"])
        _grant(kube, account, others["unwritable"], ["get"])
        _grant_reading(kube, account)
        rig = Rig(kube, Script(dict.fromkeys(services, 5 * PER_REPLICA)), Time(), token=token)
        rig.turn(2)
        assert world.replicas("chat") == 5
        assert world.condition("chat", "Ready")[:2] == ("True", "Scaling")
        for name, verb in (("unreadable", "get"), ("unwritable", "update")):
            assert worlds[name].replicas("chat") == 2
            status, reason, message = worlds[name].condition("chat", "Ready")
            assert (status, reason) == ("False", "Forbidden")
            assert f"cannot {verb} resource" in message
    finally:
        kube.request("DELETE", f"{RBAC}/clusterrolebindings/limited")
        kube.request("DELETE", f"{RBAC}/clusterroles/limited")
        for name in others.values():
            kube.drop_namespace(name)


RBAC = "/apis/rbac.authorization.k8s.io/v1"
RBAC_GROUP = "rbac.authorization.k8s.io"


def _grant(kube: ApiServer, account: Json, namespace: str, verbs: list[str]) -> None:
    rule = {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": verbs}
    _bind(kube, account, "Role", f"{RBAC}/namespaces/{namespace}", [rule])


def _grant_reading(kube: ApiServer, account: Json) -> None:
    kinds = ["pods", "nodes", "namespaces", "configmaps", "events", "resourcequotas"]
    rules = [
        {"apiGroups": ["foreserve.dev"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": kinds, "verbs": ["*"]},
        {"apiGroups": ["autoscaling"], "resources": ["*"], "verbs": ["list"]},
    ]
    _bind(kube, account, "ClusterRole", RBAC, rules)


def _bind(kube: ApiServer, account: Json, kind: str, base: str, rules: list[Json]) -> None:
    plural = f"{kind.lower()}s"
    role = {"metadata": {"name": "limited"}, "rules": rules}
    assert kube.request("POST", f"{base}/{plural}", role)[0] == 201
    binding = {
        "metadata": {"name": "limited"},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": kind, "name": "limited"},
        "subjects": [account],
    }
    assert kube.request("POST", f"{base}/{kind.lower()}bindings", binding)[0] == 201


# -- targets and policies ----------------------------------------------------


def test_a_target_made_anew_begins_with_what_runs(kube: ApiServer, world: Workloads) -> None:
    service = chat(world, 8)
    script = Script({service: 8 * PER_REPLICA})
    rig = Rig(kube, script, Time())
    rig.turn(2)
    script.running[service] = PER_REPLICA
    kube.request("DELETE", f"/apis/apps/v1/namespaces/{world.namespace}/deployments/chat")
    rig.turn(6)  # longer than the window of 120 s
    assert world.condition("chat", "Ready")[1] == "TargetNotFound"
    world.put(deployment(world.namespace, "chat", 6))
    world.run_pods("chat")
    rig.turn(4)
    assert world.replicas("chat") == 6  # not 8, which ran once, and not 1 at once
    rig.turn(3)
    assert world.replicas("chat") < 6


def test_a_target_made_anew_between_two_turns_begins_with_what_runs(
    kube: ApiServer, world: Workloads
) -> None:
    service = chat(world, 8)
    script = Script({service: 8 * PER_REPLICA})
    rig = Rig(kube, script, Time())
    rig.turn(2)
    kube.request("DELETE", f"/apis/apps/v1/namespaces/{world.namespace}/deployments/chat")
    world.put(deployment(world.namespace, "chat", 3))
    world.run_pods("chat")
    script.running[service] = PER_REPLICA
    rig.turn(3)
    assert world.replicas("chat") == 3  # the window of the one that is gone is gone with it


def test_the_turn_that_sees_a_target_made_anew_writes_nothing(
    kube: ApiServer, world: Workloads
) -> None:
    service = chat(world, 2)
    script = Script({service: 2 * PER_REPLICA})
    rig = Rig(kube, script, Time())
    rig.turn(2)
    kube.request("DELETE", f"/apis/apps/v1/namespaces/{world.namespace}/deployments/chat")
    world.put(deployment(world.namespace, "chat", 3))
    world.run_pods("chat")
    script.running[service] = 8 * PER_REPLICA
    rig.turn(1)
    assert world.replicas("chat") == 3
    rig.turn(1)
    assert world.replicas("chat") == 8


def test_a_target_that_comes_after_its_policy_begins_with_what_runs(
    kube: ApiServer, world: Workloads
) -> None:
    world.put(policy(world.namespace, "chat"))
    script = Script({f"{world.namespace}/chat": PER_REPLICA})
    rig = Rig(kube, script, Time())
    rig.turn(6)
    assert world.condition("chat", "Ready")[1] == "TargetNotFound"
    world.put(deployment(world.namespace, "chat", 6))
    world.run_pods("chat")
    rig.turn(4)
    assert world.replicas("chat") == 6
    rig.turn(3)
    assert world.replicas("chat") < 6


def test_a_target_that_does_not_exist_takes_nothing_from_others(
    kube: ApiServer, world: Workloads
) -> None:
    world.put(pool(8), policy(world.namespace, "ghost"))
    service = chat(world, 2)
    world.edit("chat", {"spec": {"variants": [variant("h100")]}})
    world.edit("ghost", {"spec": {"variants": [variant("h100", "ghost")]}})
    running = {service: 6 * PER_REPLICA, f"{world.namespace}/ghost": 50 * PER_REPLICA}
    rig = Rig(kube, Script(running), Time())
    rig.turn(2)
    assert world.replicas("chat") == 6
    assert world.condition("chat", "Constrained")[0] == "False"
    assert world.condition("ghost", "Ready")[1] == "TargetNotFound"
    kube.request("DELETE", f"{GROUP}/acceleratorpools/fleet")


def test_nonsense_leaves_the_last_valid_generation_in_force(
    kube: ApiServer, world: Workloads
) -> None:
    service = chat(world, 2)
    script = Script({service: 2 * PER_REPLICA})
    rig = Rig(kube, script, Time())
    rig.turn(1)
    with _lax_crd(kube):
        window = {
            "name": "night",
            "days": ["Mon"],
            "start": "20:00",
            "end": "22:00",
            "timeZone": "Europe/Atlantis",
            "minReplicas": 40,
        }
        world.edit("chat", {"spec": {"schedule": [window]}})
        script.running[service] = 5 * PER_REPLICA
        rig.turn(2)
        assert world.replicas("chat") == 5  # as the generation before says
        status, reason, message = world.condition("chat", "Ready")
        assert (status, reason) == ("False", "InvalidSpec")
        assert "spec.schedule[0].timeZone" in message
        assert "generation 1 stays in force" in message
        world.edit("chat", {"spec": {"variants": "all", "model": 7, "schedule": None}})
        script.running[service] = 7 * PER_REPLICA
        rig.turn(2)
        assert world.replicas("chat") == 7
        assert "spec.variants" in world.condition("chat", "Ready")[2]
        after = Rig(kube, script, rig.time)  # a restart knows of no generation before
        script.running[service] = 9 * PER_REPLICA
        after.turn(2)
        assert world.replicas("chat") == 7
        assert world.condition("chat", "Ready")[1] == "InvalidSpec"
        kube.request("DELETE", f"{POLICIES.format(world.namespace)}/chat")


class _lax_crd:  # noqa: N801 - a context manager, as those of contextlib
    """The CRD of ScalingPolicies, while open, lets everything through."""

    def __init__(self, kube: ApiServer) -> None:
        self.kube = kube

    def __enter__(self) -> None:
        path = f"{CRDS}/scalingpolicies.foreserve.dev"
        crd = self.kube.request("GET", path)[1]
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        for version in crd["spec"]["versions"]:
            schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
            version["schema"] = {"openAPIV3Schema": schema}
        assert self.kube.request("PUT", path, crd)[0] == 200
        probe = {**policy("default", "probe"), "spec": {"variants": "all"}}
        where = f"{GROUP}/namespaces/default/scalingpolicies"
        for _ in range(200):
            if self.kube.request("POST", where, probe, params={"dryRun": "All"})[0] == 201:
                return
        raise AssertionError("the schema is not lax yet")

    def __exit__(self, *_: object) -> None:
        install(self.kube)


def test_a_crd_removed_and_applied_again_scales_nothing_and_loses_nothing(
    double: ApiDouble,
) -> None:
    _crd_round_trip(double)


def test_a_crd_removed_from_the_real_server_and_applied_again(real_kube: ApiServer) -> None:
    _crd_round_trip(real_kube)


class Missing(Script):
    """Telemetry of requests of which a tenth misses its objective."""

    def read(self, policies: Policies, now_seconds: float) -> Reading:
        reading = super().read(policies, now_seconds)
        services = {
            name: replace(
                seen,
                variants={
                    v: replace(o, finished_requests=100.0, slo_attainment_ratio=0.9)
                    for v, o in seen.variants.items()
                },
            )
            for name, seen in reading.observation.services.items()
        }
        return replace(reading, observation=replace(reading.observation, services=services))


def _crd_round_trip(kube: ApiServer) -> None:
    begin(kube)
    name = "test-crds"
    kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    world = Workloads(kube, name)
    service = chat(world, 6)
    script = Missing({service: 6 * PER_REPLICA})
    rig = Rig(kube, script, Time())
    rig.turn(3)
    (hour,) = rig.controller.state.services[service].budget
    assert hour.missed > 0
    kube.request("DELETE", f"{CRDS}/scalingpolicies.foreserve.dev")
    for _ in range(500):
        if kube.request("GET", f"{GROUP}/scalingpolicies")[0] == 404:
            break
    script.running[service] = PER_REPLICA
    assert rig.turn(8) is None
    assert "scalingpolicies" in rig.process.readiness().lower()
    assert world.replicas("chat") == 6
    world.scale("chat", 9)  # by hand, while no policy says anything
    install(kube)
    world.put(policy(name, "chat"))
    rig.turn(4)
    assert world.replicas("chat") == 9  # a window of 120 s begins with what runs
    assert world.condition("chat", "Ready")[:2] == ("True", "Scaling")
    assert sum(h.missed for h in rig.controller.state.services[service].budget) > hour.missed
    rig.turn(3)
    assert world.replicas("chat") < 9
    kube.drop_namespace(name)


@pytest.mark.parametrize(("load", "after"), [(30, 8), (1, 4)])
def test_a_vanished_accelerator_class_leaves_replicas_as_they_are(
    kube: ApiServer, world: Workloads, load: int, after: int
) -> None:
    world.put(pool(8))
    service = chat(world, 4)
    world.edit("chat", {"spec": {"variants": [variant("h100")]}})
    script = Script({service: 4 * PER_REPLICA})
    rig = Rig(kube, script, Time())
    rig.turn(2)
    kube.request("DELETE", f"{GROUP}/acceleratorpools/fleet")
    script.running[service] = load * PER_REPLICA
    rig.turn(6)
    assert world.replicas("chat") == 4
    status, reason, message = world.condition("chat", "Ready")
    assert (status, reason) == ("False", "InvalidSpec")
    assert "no AcceleratorPool has the class 'h100'" in message
    world.put(pool(8))
    rig.turn(3)
    assert world.replicas("chat") == after  # eight are all there are; a window holds the four
    kube.request("DELETE", f"{GROUP}/acceleratorpools/fleet")


def pool(count: int) -> Json:
    classes = [
        {
            "name": "h100",
            "resourceName": "nvidia.com/gpu",
            "usdPerHour": 3.5,
            "quota": {"count": count},
        }
    ]
    return {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": "AcceleratorPool",
        "metadata": {"name": "fleet"},
        "spec": {"classes": classes},
    }


def variant(accelerator_class: str, target: str = "chat") -> Json:
    return {
        "name": "default",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
        "acceleratorClass": accelerator_class,
        "minReplicas": 1,
        "maxReplicas": 50,
    }


# -- restarts and leaders ----------------------------------------------------


@pytest.mark.parametrize("down_seconds", [5.0, 90.0, 3600.0])
def test_a_restart_changes_no_count(kube: ApiServer, world: Workloads, down_seconds: float) -> None:
    service = chat(world, 6)
    script, time = Script({service: 6 * PER_REPLICA}), Time()
    Rig(kube, script, time).turn(3)
    time.seconds += down_seconds
    script.running[service] = PER_REPLICA  # quiet since the restart
    version = world.version("chat")
    after = Rig(kube, script, time)
    after.turn(1)
    assert world.version("chat") == version
    after.turn(2)
    assert world.replicas("chat") == 6
    after.turn(4)  # 217 s: every window agrees
    assert world.replicas("chat") < 6


def test_a_restart_goes_on_with_the_window_that_was_open(kube: ApiServer, world: Workloads) -> None:
    service = chat(world, 6)
    script, time = Script({service: 6 * PER_REPLICA}), Time()
    first = Rig(kube, script, time)
    first.turn(2)
    script.running[service] = PER_REPLICA
    first.turn(2)  # at 62 s and 93 s: six were last needed at 31 s
    assert first.memory.write(first.controller, now=True) == ""
    after = Rig(kube, script, time)
    after.turn(1)  # 124 s: 6 is 93 s old and holds
    assert world.replicas("chat") == 6
    after.turn(1)  # 155 s: 124 s old; without a checkpoint it would hold until 244 s
    assert world.replicas("chat") < 6


def test_a_checkpoint_follows_each_scale_and_is_else_due_once_a_minute(
    kube: ApiServer, world: Workloads
) -> None:
    service = chat(world, 2)
    script, time = Script({service: 2 * PER_REPLICA}), Time()
    rig = Rig(kube, script, time)

    def version() -> str:
        return str(kube.request("GET", CHECKPOINT)[1]["metadata"]["resourceVersion"])

    rig.process.once()
    first = version()
    time.seconds += 15.0
    rig.process.once()
    assert version() == first
    time.seconds += 15.0
    script.running[service] = 5 * PER_REPLICA
    rig.process.once()
    assert world.replicas("chat") == 5
    assert version() != first


def test_killed_between_a_scale_and_its_checkpoint(kube: ApiServer, world: Workloads) -> None:
    service = chat(world, 2)
    script, time = Script({service: 2 * PER_REPLICA}), Time()
    first = Rig(kube, script, time)
    first.turn(2)
    script.running[service] = 7 * PER_REPLICA
    first.memory.write = _killed  # type: ignore[method-assign,assignment]
    with pytest.raises(KilledError):
        first.turn(1)
    assert world.replicas("chat") == 7
    script.running[service] = PER_REPLICA  # the peak is over when the next one starts
    after = Rig(kube, script, time)
    after.turn(4)  # 93 s: the checkpoint knows nothing of 7, but 7 run
    assert world.replicas("chat") == 7
    after.turn(3)
    assert world.replicas("chat") < 7


class KilledError(BaseException):
    """SIGKILL, as far as a thread can be killed."""


def _killed(*_: object, **__: object) -> str:
    raise KilledError


@pytest.mark.parametrize("damage", ["bytes", "format", "truncated"])
def test_a_damaged_checkpoint_is_told_and_begins_anew(
    kube: ApiServer, world: Workloads, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = chat(world, 6)
    script, time = Script({service: 6 * PER_REPLICA}), Time()
    first = Rig(kube, script, time)
    first.turn(2)
    assert first.memory.write(first.controller, now=True) == ""
    found = kube.request("GET", CHECKPOINT)[1]
    part = found["binaryData"]["part"]
    change: Json = {
        "bytes": {"binaryData": {"part": "AAAA" + part[4:]}},
        "format": {"data": {"format": "foreserve.dev/checkpoint/9"}},
        "truncated": {"binaryData": {"part": part[: len(part) // 8 * 4]}},
    }[damage]
    assert kube.request("PATCH", CHECKPOINT, change, content_type=MERGE)[0] == 200
    script.running[service] = PER_REPLICA
    after = Rig(kube, script, time)
    with caplog.at_level("ERROR"):
        after.turn(3)
    assert "all windows begin anew" in caplog.text
    assert world.replicas("chat") == 6
    script.running[service] = 8 * PER_REPLICA
    after.turn(2)
    assert world.replicas("chat") == 8
    third = Rig(kube, script, time)  # and what is written now can be read again
    caplog.clear()
    third.turn(1)
    assert "checkpoint" not in caplog.text
    assert world.replicas("chat") == 8


def test_a_checkpoint_that_cannot_be_read_lets_nothing_be_written(fragile: Workloads) -> None:
    double = _double(fragile)
    service = chat(fragile, 2)
    rig = Rig(double, Script({service: 5 * PER_REPLICA}), Time(), timeout_seconds=0.3)
    double.fail("GET", "configmaps/foreserve-checkpoint$", 500, times=10_000)
    rig.turn(2)
    assert fragile.replicas("chat") == 2
    double.heal()
    rig.turn(2)
    assert fragile.replicas("chat") == 5


def test_a_leader_that_was_away_reads_what_the_other_one_remembered(
    kube: ApiServer, world: Workloads
) -> None:
    service = chat(world, 4)
    script, time = Script({service: 4 * PER_REPLICA}), Time()
    leases = [Always(), Always(held=False, tenure="second")]
    rigs = [Rig(kube, script, time, lease) for lease in leases]
    for rig in rigs:
        rig.process.once()
    time.seconds += EVERY_SECONDS
    leases[0].held, leases[1].held = False, True
    script.running[service] = 9 * PER_REPLICA
    for _ in range(2):
        for rig in rigs:
            rig.process.once()
        time.seconds += EVERY_SECONDS
    assert world.replicas("chat") == 9
    leases[0].held, leases[0].tenure, leases[1].held = True, "third", False
    script.running[service] = PER_REPLICA
    rigs[0].turn(2)
    assert world.replicas("chat") == 9
    assert rigs[0].controller.state.services[service].desired == {"default": 9}


@pytest.mark.parametrize("seed", range(3))
def test_of_two_operators_never_both_write(fragile: Workloads, seed: int) -> None:
    """Real Leases on the tests' clock; turns and renewals in any order, with pauses of any length."""
    double, rng, time = _double(fragile), np.random.default_rng(seed), Time()
    service = chat(fragile, 2)
    script = Script({service: 2 * PER_REPLICA})
    leases, rigs = [], []
    for name in ("a", "b"):
        api = KubeApi(double.admin(), 1.0)
        clock = time.clock()
        leases.append(Lease(api, OWN_NAMESPACE, "two", name, clock.monotonic, clock.wall))
        rigs.append(Rig(double, script, time, leases[-1], timeout_seconds=1.0))
    led = set()
    for n in range(120):
        i = (0, 1, int(rng.integers(2)))[n // 15 % 3]  # in turns one of them sleeps
        if rng.random() < 0.6:
            leases[i].step()
        else:
            script.running[service] = int(rng.integers(1, 9)) * PER_REPLICA
            before = len(history_of_counts(double))
            turn = rigs[i].process.once()
            wrote = len(history_of_counts(double)) > before
            assert not wrote or (turn is not None and turn.led)
            led |= {i} if turn is not None and turn.led else set()
        held = [lease.is_held() for lease in leases]
        assert not all(held)
        time.seconds += float(rng.choice((0.5, 1.0, 2.0, 4.0)))
    assert led == {0, 1}, "a test in which one never acts shows nothing"


# -- telemetry ---------------------------------------------------------------


class Broken(Script):
    """Telemetry that fails, as `how` says."""

    how = ""

    def read(self, policies: Policies, now_seconds: float) -> Reading:
        if self.how == "raises":
            raise RuntimeError("a reader that breaks its word")
        return super().read(policies, now_seconds)


@pytest.mark.parametrize("how", ["raises", "silent", "nan", "zero"])
def test_one_bad_answer_of_telemetry_changes_nothing(
    kube: ApiServer, world: Workloads, how: str
) -> None:
    service = chat(world, 5)
    script = Broken({service: 5 * PER_REPLICA})
    rig = Rig(kube, script, Time())
    rig.turn(6)
    version = world.version("chat")
    good = dict(script.running)
    script.how = how
    script.running = {
        "raises": good, "silent": {}, "nan": {service: float("nan")}, "zero": {service: 0.0},
    }[how]  # fmt: skip
    rig.turn(1)
    script.how, script.running = "", good
    rig.turn(3)
    assert world.version("chat") == version


@pytest.mark.parametrize("wrong_seconds", [-300.0, 300.0])
def test_a_clock_five_minutes_off_is_put_right_within_the_first_turn(
    kube: ApiServer, world: Workloads, wrong_seconds: float
) -> None:
    service = chat(world, 5)
    script, time = Dated({service: 5 * PER_REPLICA}), Time()
    rig = Rig(kube, script, time)
    steady = SteadyTime(time.clock(), lambda: time.seconds - wrong_seconds)
    rig.process._operator = Operator(replace(rig.process._parts, time=steady))
    turn = rig.process.once()
    assert turn is not None
    truth = time.seconds - wrong_seconds
    assert script.asked == [time.seconds, truth]
    assert turn.now_seconds == turn.step.observation.now_seconds == truth
    script.running[service] = 7 * PER_REPLICA
    time.seconds += EVERY_SECONDS
    rig.turn(1)
    assert script.asked[2:] == [truth + EVERY_SECONDS]
    assert world.replicas("chat") == 7


class Dated(Script):
    """Telemetry that remembers for which times it was asked."""

    def read(self, policies: Policies, now_seconds: float) -> Reading:
        self.asked = [*getattr(self, "asked", ()), now_seconds]
        return super().read(policies, now_seconds)


def test_nan_for_ever_holds(kube: ApiServer, world: Workloads) -> None:
    service = chat(world, 5)
    script = Script({service: 5 * PER_REPLICA})
    rig = Rig(kube, script, Time())
    rig.turn(2)
    script.running[service] = float("nan")
    rig.turn(12)
    assert world.replicas("chat") == 5
    assert world.condition("chat", "TelemetryFresh")[0] == "False"


def test_probes_say_what_is_wrong(kube: ApiServer, world: Workloads) -> None:
    service = chat(world, 5)
    script, time = Broken({service: 5 * PER_REPLICA}), Time()
    rig = Rig(kube, script, time)
    assert rig.process.readiness() == "no turn has been taken yet"
    rig.turn(1)
    assert (rig.process.health(), rig.process.readiness()) == ("", "")
    script.how = "raises"
    rig.process.once()
    assert rig.process.readiness() == ""  # one turn that fails is no reason to be taken away
    rig.turn(2)
    assert rig.process.readiness() == "RuntimeError: a reader that breaks its word"
    time.seconds += 60.0
    assert rig.process.health().startswith("the loop has stood still")


# -- many --------------------------------------------------------------------


def test_two_hundred_policies_of_which_each_tenth_is_broken(fragile: Workloads) -> None:
    double = _double(fragile)
    names = [f"chat-{i:03}" for i in range(200)]
    broken = set(names[::10])
    for name in names:
        if name not in broken:
            fragile.put(deployment("prod", name, 2))
        fragile.put(policy("prod", name))
    running = {f"prod/{n}": 3 * PER_REPLICA for n in names}
    rig = Rig(double, Script(running), Time())
    turn = rig.turn(1)
    assert turn is not None
    assert len(turn.outcomes) == 180
    assert {fragile.replicas(n) for n in names if n not in broken} == {3}
    assert {fragile.condition(n, "Ready")[1] for n in broken} == {"TargetNotFound"}
    rig.turn(1)
    assert len(history_of_counts(double)) == 180  # what is right is not written again


def _double(world: Workloads) -> ApiDouble:
    assert isinstance(world.kube, ApiDouble)
    return world.kube

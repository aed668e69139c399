import time
from collections.abc import Iterator
from typing import Any

import pytest
from apidouble import ApiDouble
from apiserver import ApiServer

from autoscaler.core.types import TargetRef
from autoscaler.edge.kube.api import (
    KubeApi,
    KubeConflict,
    KubeForbidden,
    KubeInvalid,
    KubeNotFound,
    KubeUnavailable,
)
from autoscaler.edge.kube.scale import ScaleView, read_scale, read_scales, write_scale

GROUPS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workergroups.test.foreserve.dev"},
    "spec": {
        "group": "test.foreserve.dev",
        "names": {"kind": "WorkerGroup", "plural": "workergroups", "singular": "workergroup"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.groups",
                        "statusReplicasPath": ".status.groups",
                        "labelSelectorPath": ".status.podSelector",
                    },
                },
            }
        ],
    },
}
KINDS = [("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "ReplicaSet")]
GROUP = ("test.foreserve.dev/v1", "WorkerGroup")


@pytest.fixture
def api(kube: ApiServer) -> Iterator[KubeApi]:
    api = KubeApi(kube.admin())
    yield api
    api.close()


@pytest.fixture
def groups(api: KubeApi, namespace: str) -> str:
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    try:
        api.create(path, GROUPS)
    except KubeConflict:
        return namespace
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        status = api.get(f"{path}/{GROUPS['metadata']['name']}").get("status") or {}
        rows = status.get("conditions") or []
        if any(row["type"] == "Established" and row["status"] == "True" for row in rows):
            return namespace
        time.sleep(0.05)
    raise AssertionError("the CRD is not served")


def workload(kind: str, name: str, replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    pod = {"containers": [{"name": "c", "image": "i"}]}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            **({"serviceName": name} if kind == "StatefulSet" else {}),
        },
    }


def make(api: KubeApi, namespace: str, name: str, replicas: int = 1) -> TargetRef:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    api.create(path, workload("Deployment", name, replicas))
    return TargetRef("apps/v1", "Deployment", name)


@pytest.mark.parametrize(("api_version", "kind"), KINDS)
def test_a_built_in_workload_is_scaled(
    api: KubeApi, namespace: str, api_version: str, kind: str
) -> None:
    made = api.create(api.path_of(api_version, kind, namespace), workload(kind, "w", 3))
    target = TargetRef(api_version, kind, "w")
    view = read_scale(api, namespace, target)
    version = made["metadata"]["resourceVersion"]
    assert view == ScaleView(3, 0, "app=w", version, made["metadata"]["uid"])
    written = write_scale(api, namespace, target, view, 5)
    assert (written.replicas, written.uid) == (5, view.uid)
    assert written.resource_version != view.resource_version
    assert write_scale(api, namespace, target, written, 0).replicas == 0
    assert read_scale(api, namespace, target).replicas == 0  # left out of the JSON
    assert api.get(api.path_of(api_version, kind, namespace, "w"))["spec"]["replicas"] == 0


def test_anything_with_a_scale_is_scaled(api: KubeApi, groups: str) -> None:
    target = TargetRef(*GROUP, "g")
    body = {
        "apiVersion": GROUP[0],
        "kind": GROUP[1],
        "metadata": {"name": "g"},
        "spec": {"groups": 2, "size": 8},
    }
    made = api.create(api.path_of(*GROUP, groups), body)
    made["status"] = {"groups": 1, "podSelector": "leader=g"}
    api.replace(api.path_of(*GROUP, groups, "g", "status"), made)
    view = read_scale(api, groups, target)
    assert (view.replicas, view.status_replicas, view.selector) == (2, 1, "leader=g")
    assert write_scale(api, groups, target, view, 4).replicas == 4
    assert api.get(api.path_of(*GROUP, groups, "g"))["spec"] == {"groups": 4, "size": 8}
    with pytest.raises(KubeConflict, match="409"):
        write_scale(api, groups, target, view, 7)


def test_a_change_by_somebody_else_is_a_conflict(api: KubeApi, namespace: str) -> None:
    target = make(api, namespace, "w")
    view = read_scale(api, namespace, target)
    path = api.path_of("apps/v1", "Deployment", namespace, "w")
    api.patch(path, {"spec": {"replicas": 9}})
    with pytest.raises(
        KubeConflict, match=rf"^PUT deployments/w scale in {namespace}: 409 Conflict"
    ):
        write_scale(api, namespace, target, view, 2)
    assert read_scale(api, namespace, target).replicas == 9


def test_a_target_that_was_made_anew_is_a_conflict(api: KubeApi, namespace: str) -> None:
    target = make(api, namespace, "w")
    view = read_scale(api, namespace, target)
    path = api.path_of("apps/v1", "Deployment", namespace, "w")
    api.delete(path)
    with pytest.raises(KubeNotFound):
        write_scale(api, namespace, target, view, 2)
    make(api, namespace, "w")
    with pytest.raises(KubeConflict):
        write_scale(api, namespace, target, view, 2)
    fresh = read_scale(api, namespace, target)
    assert (fresh.replicas, fresh.uid == view.uid) == (1, False)


@pytest.mark.parametrize("replicas", [-1, 2**31])
def test_a_count_that_is_none_is_not_sent(api: KubeApi, namespace: str, replicas: int) -> None:
    target = make(api, namespace, "w")
    view = read_scale(api, namespace, target)
    with pytest.raises(KubeInvalid, match=f"{replicas} replicas; allowed: 0 to 2147483647"):
        write_scale(api, namespace, target, view, replicas)
    assert read_scale(api, namespace, target) == view


def test_one_bad_target_spoils_nobody_else(kube: ApiServer, api: KubeApi, namespace: str) -> None:
    good = [(namespace, make(api, namespace, f"w{i}", i)) for i in range(20)]
    missing = (namespace, TargetRef("apps/v1", "Deployment", "nope"))
    unknown = (namespace, TargetRef("no.such/v1", "Thing", "x"))
    unscalable = (namespace, TargetRef("v1", "Pod", "x"))
    found = read_scales(api, [missing, *good, unknown, unscalable, *good], 8, 5.0)
    assert len(found) == 23
    counts = [found[target].replicas for target in good]  # type: ignore[union-attr]
    assert counts == list(range(20))
    assert isinstance(found[missing], KubeNotFound)
    assert "no such kind" in str(found[unknown])
    assert "no scale subresource" in str(found[unscalable])
    assert read_scales(api, [], 8, 5.0) == {}
    nobody = KubeApi(kube.as_service_account(namespace, "nobody"))
    refused = read_scales(nobody, good[:3], 8, 5.0)
    assert all(isinstance(answer, KubeForbidden) for answer in refused.values())
    nobody.close()


# -- faults ------------------------------------------------------------------------------------------


@pytest.fixture
def at_double(double: ApiDouble) -> Iterator[KubeApi]:
    api = KubeApi(double.admin())
    api.create("/api/v1/namespaces", {"metadata": {"name": "ns"}})
    yield api
    api.close()


def test_a_storm_of_conflicts_writes_nothing(at_double: KubeApi, double: ApiDouble) -> None:
    target = make(at_double, "ns", "w")
    double.conflict_storm("/scale", 3)
    for _ in range(3):
        view = read_scale(at_double, "ns", target)
        with pytest.raises(KubeConflict):
            write_scale(at_double, "ns", target, view, 7)
        assert read_scale(at_double, "ns", target).replicas == 1
    view = read_scale(at_double, "ns", target)
    assert write_scale(at_double, "ns", target, view, 7).replicas == 7


def test_a_write_whose_answer_is_lost_is_sent_once(at_double: KubeApi, double: ApiDouble) -> None:
    target = make(at_double, "ns", "w")
    view = read_scale(at_double, "ns", target)
    double.calls.clear()
    double.fail("PUT", "/scale", 0, after=True)
    with pytest.raises(KubeUnavailable, match="whether it was done is unknown"):
        write_scale(at_double, "ns", target, view, 7)
    assert [c.method for c in double.calls] == ["PUT"]
    assert read_scale(at_double, "ns", target).replicas == 7  # the next tick sees what is true


def test_the_deadline_is_for_all_together(at_double: KubeApi, double: ApiDouble) -> None:
    targets = [("ns", make(at_double, "ns", f"w{i}")) for i in range(30)]
    double.slow(1.5, "/scale")
    begun = time.monotonic()
    found = read_scales(at_double, targets, 4, 0.6)
    assert time.monotonic() - begun < 1.4  # one after another they would take 11 s
    assert all(isinstance(answer, KubeUnavailable) for answer in found.values())
    assert any(
        "scale of Deployment ns/w29: not read within 0.6 s" in str(e) for e in found.values()
    )
    double.heal()
    found = read_scales(at_double, targets, 4, 5.0)
    assert all(isinstance(answer, ScaleView) for answer in found.values())


def test_what_is_no_scale_is_refused(at_double: KubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    target = make(at_double, "ns", "w")
    read_scale(at_double, "ns", target)  # from here on only the scale is asked for
    good = {
        "kind": "Scale",
        "metadata": {"resourceVersion": "1", "uid": "u"},
        "spec": {"replicas": 2},
        "status": {"replicas": 1},
    }
    answers: dict[str, dict[str, Any]] = {
        "another kind": {**good, "kind": "Deployment"},
        "no version": {**good, "metadata": {"uid": "u"}},
        "text": {**good, "spec": {"replicas": "2"}},
        "nothing": {},
    }
    for answer in answers.values():
        monkeypatch.setattr(at_double, "get", lambda *_, said=answer: said)
        with pytest.raises(KubeUnavailable, match="no Scale"):
            read_scale(at_double, "ns", target)
    monkeypatch.setattr(at_double, "get", lambda *_: good)
    assert read_scale(at_double, "ns", target) == ScaleView(2, 1, "", "1", "u")

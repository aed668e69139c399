"""The manifests on an API server: they are accepted as they stand, and the ServiceAccount can do this much.

Everything is applied as a user would (server-side, unknown fields refused); what the shipped
ServiceAccount may do is asked with its own token. On the double, kinds that it does not serve are left out.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from apiserver import ApiServer
from manifest_files import (
    CLUSTER_KINDS,
    MANIFESTS,
    OVERLAYS,
    Object,
    documents,
    kubectl,
    overlay,
)

NAMESPACE = "foreserve-system"
ELSEWHERE = "default"
LWS = "leaderworkerset.x-k8s.io"
PATIENCE_SECONDS = 30.0
APPLY = "application/apply-patch+yaml"  # JSON is YAML


def collection(kube: ApiServer, found: Object) -> str | None:
    """The path of an object's kind; None where the double does not serve it."""
    version = found["apiVersion"]
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    code, answer = kube.request("GET", base)
    rows = answer.get("resources", []) if code == 200 else []
    plurals = [r["name"] for r in rows if r["kind"] == found["kind"] and "/" not in r["name"]]
    if not plurals:
        assert kube.kind == "double", f"{found['kind']} of {version} is not served"
        return None
    namespace = found["metadata"].get("namespace", ELSEWHERE)
    middle = (
        "" if found["kind"] in CLUSTER_KINDS | {"AcceleratorPool"} else f"namespaces/{namespace}/"
    )
    return f"{base}/{middle}{plurals[0]}"


def apply(kube: ApiServer, found: Object) -> str | None:
    """Apply one object strictly; return its path."""
    path = collection(kube, found)
    if path is None:
        return None
    own = f"{path}/{found['metadata']['name']}"
    if kube.kind == "double":  # which has no server-side apply
        code, answer = kube.request("POST", path, found, params={"fieldValidation": "Strict"})
        assert code in {201, 409}, answer
        return own
    asked = {"fieldManager": "test", "force": "true", "fieldValidation": "Strict"}
    code, answer = kube.request("PATCH", own, found, params=asked, content_type=APPLY)
    assert code in {200, 201}, answer
    return own


def served(kube: ApiServer, path: str) -> bool:
    return kube.request("GET", path)[0] == 200


def install(kube: ApiServer, name: str) -> list[str]:
    """Apply an overlay; return what to delete again: all but the CRDs, which other tests share."""
    paths = []
    for found in overlay(name):
        path = apply(kube, found)
        if path is not None and found["kind"] not in {"CustomResourceDefinition", "Namespace"}:
            paths.append(path)
    wait_for(kube, "/apis/foreserve.dev/v1alpha1")
    return paths


def wait_for(kube: ApiServer, path: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not served(kube, path):
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.05)


def remove(kube: ApiServer, paths: list[str]) -> None:
    for path in reversed(paths):
        kube.request("DELETE", path)
    kube.drop_namespace(NAMESPACE)


@pytest.fixture(scope="module", params=OVERLAYS)
def installed(kube: ApiServer, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """(overlay, token of the ServiceAccount), with the overlay applied."""
    paths = install(kube, request.param)
    yield request.param, kube.service_account_token(NAMESPACE, "foreserve")
    remove(kube, paths)


# verb, API group, resource, namespace ("": the whole cluster); who may
ALL, SCALE_ONLY, NOBODY = set(OVERLAYS), {"scale"}, set[str]()
ACCESS: list[tuple[str, str, str, str, set[str]]] = [
    ("list", "foreserve.dev", "scalingpolicies", "", ALL),
    ("watch", "foreserve.dev", "acceleratorpools", "", ALL),
    ("watch", "", "pods", "", ALL),
    ("list", "", "nodes", "", ALL),
    ("watch", "", "namespaces", "", ALL),
    ("list", "", "resourcequotas", "", ALL),
    ("list", "autoscaling", "horizontalpodautoscalers", "", ALL),
    ("list", "keda.sh", "scaledobjects", "", ALL),
    ("list", "kueue.x-k8s.io", "clusterqueues", "", ALL),
    ("list", "kueue.x-k8s.io", "localqueues", "", ALL),
    ("list", "kueue.x-k8s.io", "resourceflavors", "", ALL),
    ("list", "resource.k8s.io", "resourceslices", "", ALL),
    ("list", "resource.k8s.io", "deviceclasses", "", ALL),
    ("list", "resource.k8s.io", "resourceclaims", "", ALL),
    ("list", "apiextensions.k8s.io", "customresourcedefinitions", "", ALL),
    ("watch", "apiextensions.k8s.io", "customresourcedefinitions", "", ALL),
    ("get", "apps", "deployments/scale", ELSEWHERE, ALL),
    ("get", "apps", "statefulsets/scale", ELSEWHERE, ALL),
    ("get", LWS, "leaderworkersets/scale", ELSEWHERE, ALL),
    ("patch", "foreserve.dev", "scalingpolicies/status", ELSEWHERE, ALL),
    ("patch", "foreserve.dev", "acceleratorpools/status", "", ALL),
    ("create", "", "events", ELSEWHERE, ALL),
    ("patch", "", "events", ELSEWHERE, ALL),
    ("create", "coordination.k8s.io", "leases", NAMESPACE, ALL),
    ("update", "coordination.k8s.io", "leases", NAMESPACE, ALL),
    ("get", "", "configmaps", NAMESPACE, ALL),
    ("create", "", "configmaps", NAMESPACE, ALL),
    ("update", "", "configmaps", NAMESPACE, ALL),
    ("delete", "", "configmaps", NAMESPACE, ALL),
    ("list", "apps", "deployments", NAMESPACE, ALL),
    ("create", "apps", "deployments", NAMESPACE, ALL),
    ("patch", "apps", "deployments", NAMESPACE, ALL),
    ("delete", "apps", "deployments", NAMESPACE, ALL),
    ("update", "apps", "deployments/scale", ELSEWHERE, SCALE_ONLY),
    ("update", "apps", "statefulsets/scale", ELSEWHERE, SCALE_ONLY),
    ("update", LWS, "leaderworkersets/scale", ELSEWHERE, SCALE_ONLY),
    ("patch", "", "pods", ELSEWHERE, SCALE_ONLY),
    ("get", "", "secrets", NAMESPACE, NOBODY),
    ("list", "", "secrets", ELSEWHERE, NOBODY),
    ("update", "foreserve.dev", "scalingpolicies", ELSEWHERE, NOBODY),
    ("patch", "foreserve.dev", "scalingpolicies", ELSEWHERE, NOBODY),
    ("update", "apps", "deployments", ELSEWHERE, NOBODY),
    ("patch", "apps", "deployments", ELSEWHERE, NOBODY),
    ("patch", "apps", "deployments/scale", ELSEWHERE, NOBODY),
    ("update", "apps", "replicasets/scale", ELSEWHERE, NOBODY),
    ("delete", "", "pods", ELSEWHERE, NOBODY),
    ("create", "", "pods", NAMESPACE, NOBODY),
    ("create", "", "pods/exec", ELSEWHERE, NOBODY),
    ("patch", "", "nodes", "", NOBODY),
    ("get", "", "configmaps", ELSEWHERE, NOBODY),
    ("list", "", "configmaps", NAMESPACE, NOBODY),
    ("list", "apps", "deployments", ELSEWHERE, NOBODY),
    ("watch", "keda.sh", "scaledobjects", "", NOBODY),
    ("update", "coordination.k8s.io", "leases", ELSEWHERE, NOBODY),
    ("update", "autoscaling", "horizontalpodautoscalers", ELSEWHERE, NOBODY),
    ("create", "rbac.authorization.k8s.io", "clusterrolebindings", "", NOBODY),
    ("create", "", "serviceaccounts/token", NAMESPACE, NOBODY),
]


def may(kube: ApiServer, token: str, verb: str, group: str, resource: str, namespace: str) -> bool:
    name, _, subresource = resource.partition("/")
    asked = {
        "verb": verb,
        "group": group,
        "resource": name,
        "subresource": subresource,
        "namespace": namespace,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    code, answer = kube.request("POST", path, body, token=token)
    assert code == 201, answer
    return bool(answer["status"]["allowed"])


def test_the_service_account_may_do_this_and_no_more(
    kube: ApiServer, installed: tuple[str, str]
) -> None:
    name, token = installed
    end = time.monotonic() + PATIENCE_SECONDS  # the authorizer reads roles from a watch
    while not may(kube, token, *ACCESS[0][:4]) and time.monotonic() < end:
        time.sleep(0.05)
    wrong = [
        (row[:4], "is allowed" if allowed else "is not allowed")
        for row in ACCESS
        if (allowed := may(kube, token, *row[:4])) != (name in row[4])
    ]
    assert wrong == []


def test_training_may_do_nothing(kube: ApiServer, installed: tuple[str, str]) -> None:
    del installed
    token = kube.service_account_token(NAMESPACE, "foreserve-training")
    assert [row[:4] for row in ACCESS if may(kube, token, *row[:4])] == []


def test_applied_again_it_changes_nothing(real_kube: ApiServer, installed: tuple[str, str]) -> None:
    def content() -> dict[str, Object]:
        found = {}
        for each in overlay(installed[0]):
            path = f"{collection(real_kube, each)}/{each['metadata']['name']}"
            whole = real_kube.request("GET", path)[1]
            for changing in ("resourceVersion", "managedFields"):
                whole["metadata"].pop(changing, None)
            found[path] = whole
        return found

    before = content()
    for each in overlay(installed[0]):
        apply(real_kube, each)
    assert content() == before


POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "vllm",
        "namespace": ELSEWHERE,
        "labels": {"a": "b"},
        "annotations": {"team": "x"},
    },
    "spec": {"containers": [{"name": "c", "image": "vllm"}]},
}
COST = "controller.kubernetes.io/pod-deletion-cost"
MARK = "foreserve.dev/deletion-cost"
PATCHES: list[tuple[str, Object, bool]] = [
    ("cost", {"metadata": {"annotations": {COST: "-1", MARK: "true"}}}, True),
    ("cost taken back", {"metadata": {"annotations": {COST: None, MARK: None}}}, True),
    ("another annotation", {"metadata": {"annotations": {"team": "y"}}}, False),
    ("an annotation removed", {"metadata": {"annotations": {"team": None}}}, False),
    ("all annotations removed", {"metadata": {"annotations": None}}, False),
    ("label", {"metadata": {"labels": {"a": "c"}}}, False),
    ("finalizer", {"metadata": {"finalizers": ["example.com/stuck"]}}, False),
    ("image", {"spec": {"containers": [{"name": "c", "image": "evil"}]}}, False),
]


def test_patching_pods_is_cut_down_to_the_deletion_cost(real_kube: ApiServer) -> None:
    paths = install(real_kube, "scale")
    token = real_kube.service_account_token(NAMESPACE, "foreserve")
    pods = f"/api/v1/namespaces/{ELSEWHERE}/pods"
    code, answer = real_kube.request("POST", pods, POD)
    assert code == 201, answer

    def patch(body: Object, token: str | None) -> tuple[int, str]:
        kind = "application/strategic-merge-patch+json"
        code, answer = real_kube.request(
            "PATCH", f"{pods}/vllm", body, content_type=kind, token=token
        )
        return code, str(answer.get("message", ""))

    try:
        end = (
            time.monotonic() + PATIENCE_SECONDS
        )  # the policy is compiled some time after it is stored
        while patch(PATCHES[2][1], token)[0] == 200 and time.monotonic() < end:
            assert patch({"metadata": {"annotations": {"team": "x"}}}, None)[0] == 200
            time.sleep(0.2)
        for what, body, allowed in PATCHES:
            code, message = patch(body, token)
            assert (code == 200) == allowed, (what, code, message)
            if not allowed:
                assert "Foreserve may change no" in message, (what, message)
        assert patch({"metadata": {"labels": {"a": "else"}}}, None)[0] == 200
    finally:
        real_kube.request("DELETE", f"{pods}/vllm", {"gracePeriodSeconds": 0})
        remove(real_kube, paths)


def examples() -> list[Path]:
    return sorted((MANIFESTS / "examples").rglob("*.yaml"))


@pytest.mark.parametrize("path", examples(), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_an_example_is_accepted(kube: ApiServer, namespace: str, path: Path) -> None:
    for found in overlay("recommend"):
        if found["kind"] == "CustomResourceDefinition":
            apply(kube, found)
    wait_for(kube, "/apis/foreserve.dev/v1alpha1")
    for found in [part for whole in documents(path) for part in checkable(whole)]:
        if found["kind"] != "AcceleratorPool":
            found["metadata"]["namespace"] = namespace
        own = apply(kube, found)
        assert own is not None or kube.kind == "double"
        if found["kind"] == "AcceleratorPool":
            kube.request("DELETE", str(own))


def checkable(found: Object) -> Iterator[Object]:
    """The object; the pods of a LeaderWorkerSet, whose own CRD is not ours, as templates.

    Nothing of KEDA's, whose CRDs are not ours either: tests/keda/test_keda_manifests.py.
    """
    if found["apiVersion"].startswith("keda.sh/"):
        return
    if found["kind"] != "LeaderWorkerSet":
        yield found
        return
    group = found["spec"]["leaderWorkerTemplate"]
    for role in ("leaderTemplate", "workerTemplate"):
        name = f"{found['metadata']['name']}-{role.lower()}"
        yield {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": name},
            "template": group[role],
        }


@pytest.mark.parametrize("name", OVERLAYS)
def test_kubectl_applies_an_overlay(real_kube: ApiServer, name: str, tmp_path: Path) -> None:
    program = kubectl()
    if program is None:
        pytest.skip("no kubectl of 1.24 or newer on PATH or in KUBEBUILDER_ASSETS")
    folder = str(MANIFESTS / "overlays" / name)
    # Fields are checked strictly above, by the server; kubectl's own schema download is not ours to test.
    command = [program, "apply", "--validate=false", "-k", folder]
    config = str(real_kube.kubeconfig(tmp_path / "config"))
    answer = subprocess.run(
        [*command, "--kubeconfig", config], capture_output=True, text=True, timeout=180, check=False
    )
    try:
        assert answer.returncode == 0, answer.stderr
        lines = answer.stdout.splitlines()
        assert len(lines) == len(overlay(name))
        assert all(line.split()[-1] in {"created", "configured", "unchanged"} for line in lines)
    finally:
        paths = [
            f"{collection(real_kube, o)}/{o['metadata']['name']}"
            for o in overlay(name)
            if o["kind"] not in {"CustomResourceDefinition", "Namespace"}
        ]
        remove(real_kube, paths)

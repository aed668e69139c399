"""Who may do what, outages, and clients: of the double and of the real API server."""

import time
from pathlib import Path

import kubernetes.client
import kubernetes.config
import pytest
import urllib3
from apiserver import ApiServer
from behaviour_steps import Object, configmap, deployment, scale, wait_until

RBAC = "/apis/rbac.authorization.k8s.io/v1"


def grant(server: ApiServer, space: str, account: str, rules: list[Object], where: str) -> None:
    """Bind `rules` to a ServiceAccount of `space`: in the namespace `where`, "" for all."""
    base, kind = (f"{RBAC}/namespaces/{where}/", "Role") if where else (f"{RBAC}/", "ClusterRole")
    name = f"{space}-{account}"
    role = {"metadata": {"name": name}, "rules": rules}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": space}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
    assert server.request("POST", f"{base}{kind.lower()}s", role)[0] == 201
    assert server.request("POST", f"{base}{kind.lower()}bindings", binding)[0] == 201


def test_rbac_refuses_in_the_servers_words(server: ApiServer, space: str) -> None:
    token = server.service_account_token(space, "someone")
    user = f"system:serviceaccount:{space}:someone"
    core, apps = f"/api/v1/namespaces/{space}/configmaps", f"/apis/apps/v1/namespaces/{space}"

    def refusal(method: str, path: str, body: object = None) -> Object:
        code, answer = server.request(method, path, body, token=token)
        assert (code, answer["reason"]) == (403, "Forbidden"), answer
        return answer

    where = f'in the namespace "{space}"'
    assert refusal("GET", core)["message"] == (
        f'configmaps is forbidden: User "{user}" cannot list resource "configmaps" in API group ""'
        f" {where}"
    )
    answer = refusal("GET", f"{core}/a")
    assert answer["details"] == {"name": "a", "kind": "configmaps"}
    assert answer["message"] == (
        f'configmaps "a" is forbidden: User "{user}" cannot get resource "configmaps" in API group'
        f' "" {where}'
    )
    assert refusal("PUT", f"{apps}/deployments/d/scale", scale("d", 1))["message"] == (
        f'deployments.apps "d" is forbidden: User "{user}" cannot update resource'
        f' "deployments/scale" in API group "apps" {where}'
    )
    assert refusal("GET", "/api/v1/nodes?watch=true")["message"] == (
        f'nodes is forbidden: User "{user}" cannot watch resource "nodes" in API group ""'
        " at the cluster scope"
    )
    code, answer = server.request("GET", core, token="nobody")  # noqa: S106 (not a secret)
    assert (code, answer["reason"], answer["message"]) == (401, "Unauthorized", "Unauthorized")


def test_rbac_allows_what_roles_say(server: ApiServer, space: str) -> None:
    token = server.service_account_token(space, "someone")
    maps, apps = f"/api/v1/namespaces/{space}/configmaps", f"/apis/apps/v1/namespaces/{space}"
    rules: list[Object] = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["mine"],
            "verbs": ["get", "update"],
        },
        {"apiGroups": ["apps"], "resources": ["*/scale"], "verbs": ["*"]},
    ]
    grant(server, space, "someone", rules, space)
    nodes = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]
    grant(server, space, "someone", nodes, "")
    server.request("POST", f"{apps}/deployments", deployment("d"))

    def code(method: str, path: str, body: object = None) -> int:
        return server.request(method, path, body, token=token)[0]

    wait_until(lambda: code("GET", "/api/v1/nodes") == 200)  # the real one learns of roles by watch
    assert code("POST", maps, configmap("mine")) == 201
    assert code("POST", maps, configmap("other")) == 201
    assert code("GET", f"{maps}/mine") == 200
    assert code("GET", f"{maps}/other") == 403
    assert code("GET", maps) == 403
    assert code("PUT", f"{maps}/mine", configmap("mine", k="v")) == 200
    assert code("GET", f"{apps}/deployments/d") == 403
    assert code("PUT", f"{apps}/deployments/d/scale", {"spec": {"replicas": 2}}) in {200, 400, 422}
    assert code("GET", f"{apps}/deployments/d/scale") == 200
    assert code("GET", "/api/v1/namespaces/default/configmaps/mine") == 403
    assert code("GET", "/apis") == 200

    def may(verb: str, **what: str) -> bool:
        review = {"spec": {"resourceAttributes": {"verb": verb, "namespace": space, **what}}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        status, answer = server.request("POST", path, review, token=token)
        assert status == 201
        return bool(answer["status"]["allowed"])

    assert may("update", group="apps", resource="deployments", subresource="scale")
    assert not may("update", group="apps", resource="deployments")
    assert may("get", resource="configmaps", name="mine")
    assert not may("get", resource="configmaps")
    for kind in ("clusterroles", "clusterrolebindings"):
        server.request("DELETE", f"{RBAC}/{kind}/{space}-someone")


def test_a_restart_keeps_what_is_stored(server: ApiServer, space: str) -> None:
    path = f"/api/v1/namespaces/{space}/configmaps"
    server.request("POST", path, configmap("a", k="v"))
    server.stop()
    with pytest.raises(urllib3.exceptions.HTTPError):
        server.request("GET", path)
    server.start()
    assert server.request("GET", f"{path}/a")[1]["data"] == {"k": "v"}


def test_a_pause_hangs_and_ends(server: ApiServer) -> None:
    started = time.monotonic()
    server.pause(1.0)
    assert time.monotonic() - started < 0.5  # it returns at once
    assert server.request("GET", "/readyz")[0] == 200
    assert 0.9 < time.monotonic() - started < 10.0


def test_the_client_and_a_kubeconfig_reach_it(
    server: ApiServer, space: str, tmp_path: Path
) -> None:
    core = kubernetes.client.CoreV1Api(server.admin())
    body = kubernetes.client.V1ConfigMap(
        metadata=kubernetes.client.V1ObjectMeta(name="a"), data={"k": "v"}
    )
    core.create_namespaced_config_map(space, body)
    assert core.read_namespaced_config_map("a", space).data == {"k": "v"}
    file = server.kubeconfig(tmp_path / "kubeconfig")
    client = kubernetes.config.new_client_from_config(str(file))  # type: ignore[no-untyped-call]
    found = kubernetes.client.CoreV1Api(client).list_namespaced_config_map(space).items
    assert [item.data for item in found] == [{"k": "v"}]
    client.rest_client.pool_manager.clear()
    own = kubernetes.client.CoreV1Api(server.as_service_account(space, "someone"))
    with pytest.raises(kubernetes.client.ApiException) as refused:
        own.list_namespaced_config_map(space)
    assert refused.value.status == 403

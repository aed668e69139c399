import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apidouble import ApiDouble
from apiserver import ApiServer, free_ports
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import incluster_config
from scripted import Act, ScriptedServer, answer, hang, trickle

from autoscaler.edge.kube import api as api_module
from autoscaler.edge.kube.api import (
    KubeApi,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeGone,
    KubeInvalid,
    KubeNotFound,
    KubeUnauthorized,
    KubeUnavailable,
)
from autoscaler.edge.kube.discovery import ASK_AGAIN_SECONDS, Discovery
from autoscaler.edge.kube.errors import described, resource_in

CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap"}


@pytest.fixture
def api(kube: ApiServer) -> Iterator[KubeApi]:
    api = KubeApi(kube.admin())
    yield api
    api.close()


@pytest.fixture
def at_double(double: ApiDouble) -> Iterator[KubeApi]:
    api = KubeApi(double.admin())
    api.create("/api/v1/namespaces", {"metadata": {"name": "ns"}})
    api.create(maps("ns"), config_map("a"))
    double.calls.clear()
    yield api
    api.close()


@pytest.fixture
def scripted() -> Iterator[Callable[..., tuple[KubeApi, ScriptedServer]]]:
    made: list[Any] = []

    def make(*acts: Act, timeout_seconds: float = 2.0) -> tuple[KubeApi, ScriptedServer]:
        server = ScriptedServer(*acts)
        api = KubeApi(ApiClient(Configuration(host=server.url)), timeout_seconds)
        made.extend((api, server))
        return api, server

    yield make
    for thing in made:
        thing.close()


def maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {**CONFIG_MAP, "metadata": {"name": name}, "data": data}


# -- against the API server -------------------------------------------------------------------------


def test_an_object_from_birth_to_death(api: KubeApi, namespace: str) -> None:
    made = api.create(maps(namespace), config_map("a", x="1"))
    path = api.path_of("v1", "ConfigMap", namespace, "a")
    assert path == f"{maps(namespace)}/a"
    assert api.get(path)["data"] == {"x": "1"}
    made["data"] = {"x": "2"}
    assert api.replace(path, made)["data"] == {"x": "2"}
    assert api.patch(path, {"data": {"x": None, "y": "3"}})["data"] == {"y": "3"}
    add = [{"op": "add", "path": "/data/z", "value": "4"}]
    assert api.patch(path, add, "json")["data"] == {"y": "3", "z": "4"}
    assert api.patch(path, {"data": {"w": "5"}}, "strategic")["data"]["w"] == "5"
    api.delete(path)
    with pytest.raises(KubeNotFound, match=rf"^GET configmaps/a in {namespace}: 404 NotFound: "):
        api.get(path)


def test_a_list_of_several_pages_is_whole(api: KubeApi, namespace: str) -> None:
    names = [f"m{i}" for i in range(7)]
    for name in names:
        api.create(maps(namespace), config_map(name))
    found = api.list(maps(namespace), {"limit": 3})  # pages of 3, 3, 1
    assert [m["metadata"]["name"] for m in found] == names
    assert api.list(maps(namespace), {"labelSelector": "none=such"}) == []


def test_a_stale_write_is_a_conflict(api: KubeApi, namespace: str) -> None:
    old = api.create(maps(namespace), config_map("a"))
    path = f"{maps(namespace)}/a"
    api.patch(path, {"data": {"x": "1"}})
    with pytest.raises(
        KubeConflict, match=f"^PUT configmaps/a in {namespace}: 409 Conflict: .*a"
    ) as e:
        api.replace(path, old)
    assert (e.value.status, e.value.reason) == (409, "Conflict")
    with pytest.raises(KubeConflict, match="409 AlreadyExists") as e:
        api.create(maps(namespace), config_map("a"))
    assert e.value.reason == "AlreadyExists"


def test_nonsense_is_invalid(api: KubeApi, namespace: str) -> None:
    with pytest.raises(KubeInvalid, match=r"422 Invalid: .*X_") as e:
        api.create(maps(namespace), config_map("X_"))
    assert e.value.status == 422


def test_an_account_without_rights_is_forbidden(kube: ApiServer, namespace: str) -> None:
    nobody = KubeApi(kube.as_service_account(namespace, "nobody"))
    with pytest.raises(KubeForbidden, match=f"403 Forbidden: .*{namespace}:nobody") as e:
        nobody.get(f"{maps(namespace)}/a")
    assert e.value.status == 403
    nobody.close()


def test_a_wrong_token_is_unauthorized_and_never_shown(kube: ApiServer) -> None:
    stranger = KubeApi(kube.client("no-such-token"))
    with pytest.raises(KubeUnauthorized, match="401") as e:
        stranger.list("/api/v1/nodes")
    assert "no-such-token" not in str(e.value)
    stranger.close()


def test_a_rotated_token_is_taken_up(kube: ApiServer) -> None:
    client = kube.client("expired")
    fresh = iter(["expired", kube.token, kube.token])

    def hook(settings: Configuration) -> None:
        settings.api_key["authorization"] = f"Bearer {next(fresh)}"

    client.configuration.refresh_api_key_hook = hook
    api = KubeApi(client)
    with pytest.raises(KubeUnauthorized):
        api.list("/api/v1/nodes")
    assert isinstance(api.list("/api/v1/nodes"), list)
    api.close()


def test_twenty_threads_share_the_connections(
    api: KubeApi, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    for i in range(20):
        api.create(maps(namespace), config_map(f"m{i}", own=str(i)))
    seen: list[tuple[int, str]] = []

    def read(i: int) -> None:
        path = f"{maps(namespace)}/m{i}"
        seen.extend((i, api.get(path)["data"]["own"]) for _ in range(10))

    threads = [threading.Thread(target=read, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 200
    assert all(own == str(i) for i, own in seen)
    assert "pool is full" not in caplog.text


def test_every_try_that_fails_is_counted(at_double: KubeApi, double: ApiDouble) -> None:
    seen: list[tuple[str, str, str]] = []
    at_double.count_errors(lambda *what: seen.append(what))
    scale = "/apis/apps/v1/namespaces/prod/deployments/chat/scale"
    with pytest.raises(KubeNotFound):
        at_double.get(scale)
    double.fail("GET", "pods", 503, times=2)
    at_double.list("/api/v1/pods")
    double.fail("PATCH", "nodes", 403, times=1)
    with pytest.raises(KubeForbidden):
        at_double.within(1.0).patch("/api/v1/nodes/n1", {})
    assert seen == [
        ("get", "deployments/scale", "404"),
        ("list", "pods", "503"),  # twice: the third try is answered
        ("list", "pods", "503"),
        ("patch", "nodes", "403"),
    ]


def test_no_answer_is_counted_by_a_word() -> None:
    (port,) = free_ports(1)
    api = KubeApi(ApiClient(Configuration(host=f"http://127.0.0.1:{port}")), timeout_seconds=0.2)
    seen: list[tuple[str, str, str]] = []
    api.count_errors(lambda *what: seen.append(what))
    with pytest.raises(KubeUnavailable):
        api.create("/api/v1/namespaces/prod/events", {})
    assert seen == [("create", "events", "NoConnection")]


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/api/v1/nodes", "nodes"),
        ("/api/v1/namespaces/a", "namespaces"),
        ("/api/v1/namespaces/a/pods/p", "pods"),
        (
            "/apis/foreserve.dev/v1alpha1/namespaces/a/scalingpolicies/p/status",
            "scalingpolicies/status",
        ),
        ("/apis/apps/v1", "discovery"),
        ("/api", "discovery"),
    ],
)
def test_a_path_is_of_a_resource(path: str, resource: str) -> None:
    assert resource_in(path) == resource


def test_an_outage_ends_by_itself(at_double: KubeApi, double: ApiDouble) -> None:
    double.stop()
    with pytest.raises(
        KubeUnavailable, match=f"^GET configmaps/a in ns: cannot connect to {double.url}"
    ):
        at_double.get(f"{maps('ns')}/a")
    with pytest.raises(KubeUnavailable, match="cannot connect") as e:
        at_double.delete(f"{maps('ns')}/a")
    assert (e.value.status, e.value.reason) == (0, "NoConnection")
    double.start()
    assert at_double.get(f"{maps('ns')}/a")["metadata"]["name"] == "a"


def test_a_server_that_stands_still_is_left_in_time(
    kube: ApiServer, api: KubeApi, namespace: str
) -> None:
    api.create(maps(namespace), config_map("a"))
    kube.pause(2.0)
    begun = time.monotonic()
    with pytest.raises(KubeUnavailable, match=r"no whole answer within 0\.5 s"):
        api.within(0.5).get(f"{maps(namespace)}/a")
    with pytest.raises(KubeUnavailable, match=r"within 0\.5 s"):  # on a new connection
        api.within(0.5).get(f"{maps(namespace)}/a")
    assert 0.9 < time.monotonic() - begun < 1.8
    assert api.get(f"{maps(namespace)}/a")["metadata"]["name"] == "a"


# -- repeating ----------------------------------------------------------------------------------------


def test_a_read_outlives_two_failures(at_double: KubeApi, double: ApiDouble) -> None:
    double.fail("GET", "/configmaps/a", 500)
    double.fail("GET", "/configmaps/a", 0)
    assert at_double.get(f"{maps('ns')}/a")["metadata"]["name"] == "a"
    assert len(double.calls) == 3


def test_a_read_gives_up_in_the_end(at_double: KubeApi, double: ApiDouble) -> None:
    double.fail("GET", "/configmaps/a", 503, times=100)
    with pytest.raises(KubeUnavailable, match="503 ServiceUnavailable: planned failure") as e:
        at_double.get(f"{maps('ns')}/a")
    assert e.value.status == 503
    assert len(double.calls) == api_module.MAX_ATTEMPTS


@pytest.mark.parametrize("status", [500, 503, 0])
def test_a_write_is_never_repeated_by_itself(
    at_double: KubeApi, double: ApiDouble, status: int
) -> None:
    double.fail("PUT", "/configmaps/a", status, times=2, after=True)
    with pytest.raises(KubeUnavailable) as e:
        at_double.replace(f"{maps('ns')}/a", config_map("a", x="1"))
    assert len(double.calls) == 1
    assert ("whether it was done is unknown" in str(e.value)) == (status == 0)
    double.heal()
    assert at_double.get(f"{maps('ns')}/a")["data"] == {"x": "1"}  # it had been done


def test_a_write_that_was_turned_away_waits_as_told(at_double: KubeApi, double: ApiDouble) -> None:
    double.fail("PUT", "/configmaps/a", 429, headers={"Retry-After": "1"})
    begun = time.monotonic()
    at_double.replace(f"{maps('ns')}/a", config_map("a", x="1"))
    assert 1.0 <= time.monotonic() - begun < 3.0
    assert [c.status for c in double.calls] == [429, 200]


def test_a_wait_beyond_the_time_limit_is_not_begun(at_double: KubeApi, double: ApiDouble) -> None:
    double.fail("GET|PUT", "/configmaps/a", 429, times=100, headers={"Retry-After": "60"})
    begun = time.monotonic()
    with pytest.raises(KubeUnavailable, match="429 TooManyRequests"):
        at_double.get(f"{maps('ns')}/a")
    with pytest.raises(KubeUnavailable, match="429 TooManyRequests") as e:
        at_double.replace(f"{maps('ns')}/a", config_map("a"))
    assert time.monotonic() - begun < 1.0
    assert e.value.retry_after_seconds == 60.0
    assert len(double.calls) == 2


def test_a_list_begins_again_when_its_pages_expire(at_double: KubeApi, double: ApiDouble) -> None:
    for name in "bcd":
        at_double.create(maps("ns"), config_map(name))
    double.calls.clear()
    pages = itertools.count()
    call = at_double._call

    def second_fails(method: str, path: str, *rest: Any, **more: Any) -> dict[str, Any]:
        if next(pages) == 1:
            raise KubeGone("the token is too old", 410, "Expired")
        return call(method, path, *rest, **more)

    at_double._call = second_fails  # type: ignore[method-assign]
    found = at_double.list(maps("ns"), {"limit": 2})
    assert [m["metadata"]["name"] for m in found] == ["a", "b", "c", "d"]  # nobody twice
    del at_double._call
    double.fail("GET", "/configmaps$", 410, times=100)
    with pytest.raises(KubeGone, match="410 Expired"):
        at_double.list(maps("ns"))


# -- answers that no API server should send ------------------------------------------------------------

PATH = "/api/v1/namespaces/ns/pods/p"


@pytest.mark.parametrize(
    "broken",
    [
        answer(b'{"kind": "Po', length=500),  # cut off: shorter than promised
        answer(b'{"kind": "Po'),  # as long as promised, and half
        answer(b""),
        answer(b"[1, 2]"),
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"\x16\x03\x01\x02\x00",  # TLS to plain HTTP
        b"",
    ],
)
def test_half_an_answer_is_no_answer(scripted: Any, broken: bytes) -> None:
    api, server = scripted(broken, answer(b'{"kind": "Pod"}'))
    assert api.get(PATH) == {"kind": "Pod"}  # the second time
    assert len(server.requests) == 2
    api, server = scripted(broken)
    with pytest.raises(
        KubeUnavailable, match=r"^PUT pods/p in ns: .*; whether it was done is unknown"
    ):
        api.replace(PATH, {})
    assert len(server.requests) == 1


@pytest.mark.parametrize("act", [hang, trickle])
def test_the_time_limit_holds(scripted: Any, act: Act) -> None:
    api, _ = scripted(act, timeout_seconds=0.5)
    begun = time.monotonic()
    with pytest.raises(KubeUnavailable, match=r"no whole answer within 0\.5 s"):
        api.get(PATH)
    with pytest.raises(KubeUnavailable, match="whether it was done is unknown"):
        api.replace(PATH, {})
    assert 0.9 < time.monotonic() - begun < 2.1
    begun = time.monotonic()
    with pytest.raises(KubeUnavailable, match=r"within 0\.2 s"):
        api.within(0.2).get(PATH)
    assert time.monotonic() - begun < 0.5


def test_an_answer_without_end_is_cut(scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "MAX_ANSWER_BYTES", 1 << 20)
    api, server = scripted(answer(b" " * (3 << 20)), answer(b"{}"))
    with pytest.raises(KubeInvalid, match=r"^GET pods/p in ns: more than 1 MiB$"):
        api.get(PATH)
    assert len(server.requests) == 1
    assert api.get(PATH) == {}  # nothing of the long one is left in the connection


def test_what_a_proxy_says_is_told_in_one_line(scripted: Any) -> None:
    page = b"<html>\n  <b>blocked</b>\n</html>" + b"x" * 5000
    api, _ = scripted(
        answer(page, "403 Forbidden"), answer(b"", "302 Found", extra="Location: /x\r\n")
    )
    with pytest.raises(KubeForbidden, match=r"^GET pods/p in ns: 403: <html> <b>blocked") as e:
        api.get(PATH)
    assert len(str(e.value)) < 500
    assert "\n" not in str(e.value)
    with pytest.raises(KubeError, match="302"):
        api.replace(PATH, {})


# -- paths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "path"),
    [
        (("v1", "Node", None), "/api/v1/nodes"),
        (("v1", "Node", None, "n1"), "/api/v1/nodes/n1"),
        (("apps/v1", "Deployment", None), "/apis/apps/v1/deployments"),
        (("apps/v1", "Deployment", "ns", "d"), "/apis/apps/v1/namespaces/ns/deployments/d"),
        (
            ("apps/v1", "StatefulSet", "ns", "s", "scale"),
            "/apis/apps/v1/namespaces/ns/statefulsets/s/scale",
        ),
    ],
)
def test_paths(api: KubeApi, args: tuple[Any, ...], path: str) -> None:
    assert api.path_of(*args) == path


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        (("v1", "Pod", "ns", "p", "scale"), KubeNotFound, "v1 Pod: has no scale subresource"),
        (
            ("apps/v1", "Deplyment", "ns", "d"),
            KubeNotFound,
            "Deplyment: the API server has no such",
        ),
        (
            ("no.such/v1", "X", "ns", "d"),
            KubeNotFound,
            "no.such/v1 X: the API server has no such kind",
        ),
        (("../v1", "X", "ns", "d"), KubeInvalid, r"'\.\./v1': is none; allowed: v1 or group/v1"),
        (("v1", "Pod", "ns", "../../x"), KubeInvalid, "allowed: a name without"),
        (("v1", "Pod", "ns", ".."), KubeInvalid, "allowed: a name without"),
        (("v1", "Pod", "ns", "%2e%2e"), KubeInvalid, "allowed: a name without"),
        (("v1", "Pod", "", "p"), KubeInvalid, "namespace ''"),
        (("v1", "Pod", None, "p"), KubeInvalid, "needs a namespace"),
        (("v1", "Node", "ns", "n"), KubeInvalid, "is not namespaced"),
    ],
)
def test_paths_that_are_none(
    api: KubeApi, args: tuple[Any, ...], error: type[KubeError], words: str
) -> None:
    with pytest.raises(error, match=words) as e:
        api.path_of(*args)
    assert e.value.status == 0


def test_discovery_is_asked_once_and_again_for_what_is_unknown() -> None:
    now = 100.0
    asked: list[str] = []
    kinds = [{"kind": "A", "name": "as", "namespaced": True}, {"kind": "Scale", "name": "bs/scale"}]

    def get(path: str) -> dict[str, Any]:
        asked.append(path)
        return {"resources": list(kinds)}

    discovery = Discovery(lambda: now)
    for _ in range(3):
        assert discovery.resource(get, "g/v1", "A").plural == "as"
    assert asked == ["/apis/g/v1"]
    with pytest.raises(KubeNotFound):
        discovery.resource(get, "g/v1", "B")
    assert len(asked) == 1  # 200 policies of an unknown kind are no storm
    now += ASK_AGAIN_SECONDS
    kinds.append({"kind": "B", "name": "bs", "namespaced": False})
    found = discovery.resource(get, "g/v1", "B", scalable=True)
    assert (found.plural, found.namespaced, found.scalable) == ("bs", False, True)
    assert len(asked) == 2
    with pytest.raises(KubeNotFound, match="no scale"):
        discovery.resource(get, "g/v1", "A", scalable=True)
    now += ASK_AGAIN_SECONDS
    kinds.append({"kind": "Scale", "name": "as/scale"})  # the CRD got its scale later
    assert discovery.resource(get, "g/v1", "A", scalable=True).scalable


def test_discovery_that_fails_is_not_remembered() -> None:
    answers = iter([KubeUnavailable("down"), {"resources": [{"kind": "A", "name": "as"}]}])

    def get(_: str) -> dict[str, Any]:
        if isinstance(answer := next(answers), KubeError):
            raise answer
        return answer

    discovery = Discovery(lambda: 0.0)
    with pytest.raises(KubeUnavailable, match="down"):
        discovery.resource(get, "v1", "A")
    assert discovery.resource(get, "v1", "A").plural == "as"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/apis/apps/v1/namespaces/ns/deployments/x/scale", "PUT deployments/x scale in ns"),
        ("/api/v1/namespaces/ns/pods", "PUT pods in ns"),
        ("/api/v1/namespaces/ns", "PUT namespaces/ns"),
        ("/api/v1/nodes/n", "PUT nodes/n"),
        ("/apis/foreserve.dev/v1alpha1/acceleratorpools/p/status", "PUT acceleratorpools/p status"),
        ("/apis/apps/v1", "PUT /apis/apps/v1"),
        ("/version", "PUT /version"),
    ],
)
def test_a_request_is_named_as_kubectl_would(path: str, words: str) -> None:
    assert described("PUT", path) == words


# -- who we are ---------------------------------------------------------------------------------------


def test_a_kubeconfig_is_enough(kube: ApiServer, tmp_path: Path) -> None:
    api = KubeApi.from_environment(kube.kubeconfig(tmp_path / "config"), "test")
    assert isinstance(api.list("/api/v1/nodes"), list)
    api.close()


def test_a_missing_or_broken_kubeconfig_is_one_sentence(tmp_path: Path, kube: ApiServer) -> None:
    with pytest.raises(KubeInvalid, match=r"no way to the API server: .*nowhere"):
        KubeApi.from_environment(tmp_path / "nowhere")
    (tmp_path / "broken").write_text("clusters: [")
    with pytest.raises(KubeInvalid, match="no way to the API server"):
        KubeApi.from_environment(tmp_path / "broken")
    with pytest.raises(KubeInvalid, match="other"):
        KubeApi.from_environment(kube.kubeconfig(tmp_path / "config"), "other")


def test_in_a_pod_the_account_is_the_pods_own(
    kube: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kube.ca_file is None:
        pytest.skip("a pod speaks TLS; the double does not")
    token = tmp_path / "token"
    token.write_text("expired")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(kube.ca_file))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", kube.url.rpartition(":")[2])
    api = KubeApi.from_environment()
    with pytest.raises(KubeUnauthorized):
        api.list("/api/v1/nodes")
    token.write_text(kube.token)  # kubelet rotates it; the client reads it once a minute
    hook = api._client.configuration.refresh_api_key_hook
    loader = next(c.cell_contents for c in hook.__closure__ if hasattr(c.cell_contents, "token"))
    loader.token_expires_at = loader.token_expires_at.min
    assert isinstance(api.list("/api/v1/nodes"), list)
    api.close()


def test_neither_a_pod_nor_a_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none")
    )
    with pytest.raises(KubeInvalid, match=r"^no way to the API server: not in a pod \(.*\), and "):
        KubeApi.from_environment()

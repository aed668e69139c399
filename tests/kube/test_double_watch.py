"""Watches of the double and of the real API server."""

import json
import threading
import time

from apidouble import ApiDouble
from apiserver import ApiServer
from behaviour_steps import CRDS, GROUP, MERGE, WIDGETS, configmap, wait_until, widget


def watched(server: ApiServer, path: str, **params: str) -> list[tuple[str, str]]:
    """Return (type, name) of a watch of one second."""
    events = server.watch(path, {"timeoutSeconds": "1", **params})
    return [(e["type"], e["object"]["metadata"].get("name", "")) for e in events]


def test_a_watch_tells_all_changes_in_order(server: ApiServer, space: str) -> None:
    path = f"/apis/{GROUP}/v1/namespaces/{space}/widgets"
    server.request("POST", path, widget("old"))
    since = server.request("GET", path)[1]["metadata"]["resourceVersion"]
    server.request("POST", path, widget("a"))
    server.request("PATCH", f"{path}/a", {"spec": {"size": 2}}, content_type=MERGE)
    server.request("PATCH", f"{path}/a/status", {"status": {"note": "n"}}, content_type=MERGE)
    server.request("DELETE", f"{path}/a")
    events = list(server.watch(path, {"timeoutSeconds": "1", "resourceVersion": since}))
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))  # the deletion has a version of its own
    assert versions[0] > int(since)
    assert events[-1]["object"]["status"] == {"note": "n"}
    assert {event["object"]["kind"] for event in events} == {"Widget"}


def test_a_watch_without_a_version_begins_with_what_is(server: ApiServer, space: str) -> None:
    path = f"/api/v1/namespaces/{space}/configmaps"
    for name in "ab":
        server.request("POST", path, configmap(name))
    assert watched(server, path) == [("ADDED", "a"), ("ADDED", "b")]


def test_a_bookmark_tells_how_far_a_quiet_watch_is(server: ApiServer, space: str) -> None:
    path = f"/api/v1/namespaces/{space}/configmaps"
    since = server.request("GET", path)[1]["metadata"]["resourceVersion"]
    later = threading.Timer(0.5, lambda: server.request("POST", path, configmap("unlabelled")))
    later.start()
    asked = {"timeoutSeconds": "4", "resourceVersion": since, "allowWatchBookmarks": "true"}
    events = list(server.watch(path, {**asked, "labelSelector": "some=label"}))
    later.join()
    assert {event["type"] for event in events} == {"BOOKMARK"}
    last = events[-1]["object"]
    assert (last["kind"], last["apiVersion"]) == ("ConfigMap", "v1")
    assert int(last["metadata"]["resourceVersion"]) > int(since)


def test_a_watch_of_a_selector_adds_and_deletes_at_its_edge(server: ApiServer, space: str) -> None:
    path = f"/api/v1/namespaces/{space}/configmaps"
    since = server.request("POST", path, configmap("a"))[1]["metadata"]["resourceVersion"]
    for labels in ({"l": "x"}, {"m": "y"}, {"l": None}):
        server.request("PATCH", f"{path}/a", {"metadata": {"labels": labels}}, content_type=MERGE)
    events = watched(server, path, labelSelector="l=x", resourceVersion=since)
    assert events == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_a_watch_of_long_ago_is_gone(server: ApiServer, space: str) -> None:
    path = f"/apis/{GROUP}/v1/namespaces/{space}/widgets"
    server.request("POST", path, widget("a"))
    if isinstance(server, ApiDouble):
        server.expire_watches()
    (event,) = server.watch(path, {"timeoutSeconds": "5", "resourceVersion": "1"})
    assert event["type"] == "ERROR"
    assert {"code": 410, "reason": "Expired"}.items() <= event["object"].items()
    assert event["object"]["message"].startswith("too old resource version: 1 (")


def test_a_watch_ends_with_its_definition(server: ApiServer, space: str) -> None:
    text = json.dumps(WIDGETS).replace("widgets", "gizmos").replace("Widget", "Gizmo")
    gizmos = json.loads(text.replace('"wd"', '"gz"'))
    assert server.request("POST", CRDS, gizmos)[0] == 201
    path = f"/apis/{GROUP}/v1/namespaces/{space}/gizmos"
    wait_until(lambda: server.request("GET", path)[0] == 200)
    gizmo = {**widget("a"), "kind": "Gizmo"}
    wait_until(lambda: server.request("POST", path, gizmo)[0] in {201, 409})
    events = server.watch(path, {"timeoutSeconds": "20"})
    assert next(events)["type"] == "ADDED"
    started = time.monotonic()
    assert server.request("DELETE", f"{CRDS}/gizmos.{GROUP}")[0] == 200
    assert "DELETED" in [event["type"] for event in events]
    assert time.monotonic() - started < 15
    wait_until(lambda: server.request("GET", path)[0] == 404)
    assert server.request("GET", f"{CRDS}/gizmos.{GROUP}")[0] == 404


def test_a_slow_reader_misses_nothing(server: ApiServer, space: str) -> None:
    path = f"/api/v1/namespaces/{space}/configmaps"
    events = server.watch(path, {"timeoutSeconds": "20"})
    names = [f"m{number:02}" for number in range(40)]
    server.request("POST", path, configmap(names[0], k="x" * 300_000))
    assert next(events)["object"]["metadata"]["name"] == names[0]
    for name in names[1:]:  # far more than the buffers between hold
        server.request("POST", path, configmap(name, k="x" * 300_000))
    seen = [next(events)["object"]["metadata"]["name"] for _ in names[1:]]
    assert seen == names[1:]

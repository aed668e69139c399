"""The double behaves as the real API server: the table of behaviours, pages, discovery."""

from collections.abc import Iterator
from typing import Any

import pytest
from apiserver import ApiServer
from behaviour_steps import ABSENT, GROUP, Object, configmap
from behaviours import BEHAVIOURS
from double_kinds import BUILT_IN

PREFIXES = {
    "deployments": "/apis/apps/v1",
    "widgets": f"/apis/{GROUP}/v1",
    "leases": "/apis/coordination.k8s.io/v1",
}


def address(path: str) -> str:
    if path.startswith("/"):
        return path
    return f"{PREFIXES.get(path.split('/', 1)[0], '/api/v1')}/namespaces/{{ns}}/{path}"


def filled(value: Any, space: str) -> Any:
    """Return a value with {ns} replaced everywhere."""
    if isinstance(value, dict):
        return {key: filled(item, space) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, space) for item in value]
    return value.replace("{ns}", space) if isinstance(value, str) else value


def differences(found: Any, wanted: Any, path: str = "") -> Iterator[str]:
    """Yield where an answer lacks what is wanted of it."""
    if wanted is ABSENT:
        if found not in (None, {}, ""):
            yield f"{path} is there: {found!r}"
    elif isinstance(wanted, dict) and isinstance(found, dict):
        for key, value in wanted.items():
            if key not in found and value is not ABSENT:
                yield f"{path}.{key} is missing"
            else:
                yield from differences(found.get(key), value, f"{path}.{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from differences(one, other, f"{path}[{index}]")
    elif wanted is not ... and found != wanted:
        yield f"{path}: {found!r} instead of {wanted!r}"


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_behaviour(server: ApiServer, space: str, name: str) -> None:
    seen: list[Object] = []
    for step in BEHAVIOURS[name]:
        method, _, path = step.request.partition(" ")
        body = step.body(seen) if callable(step.body) else step.body
        code, answer = server.request(
            method,
            filled(address(path), space),
            filled(body, space),
            params=dict(step.params),
            content_type=f"application/{step.patch}+json"
            if method == "PATCH"
            else "application/json",
        )
        assert code == step.code, f"{step.request}: {answer}"
        wrong = list(differences(answer, filled(step.has, space))) if step.has else []
        assert not wrong, f"{step.request}: {wrong} in {answer}"
        seen.append(answer)


def test_pages_are_of_one_moment(server: ApiServer, space: str) -> None:
    path = f"/api/v1/namespaces/{space}/configmaps"
    for name in "abcde":
        server.request("POST", path, configmap(name))
    code, first = server.request("GET", path, params={"limit": "2"})
    assert code == 200
    assert first["metadata"]["remainingItemCount"] == 3
    server.request("POST", path, configmap("late"))
    rest: list[str] = []
    page = first
    while token := page["metadata"].get("continue"):
        _, page = server.request("GET", path, params={"limit": "2", "continue": token})
        rest += [item["metadata"]["name"] for item in page["items"]]
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert [item["metadata"]["name"] for item in first["items"]] == ["a", "b"]
    assert rest == ["c", "d", "e"]  # not "late": it came after the first page


def test_discovery_tells_of_custom_resources(server: ApiServer) -> None:
    groups = {g["name"]: g for g in server.request("GET", "/apis")[1]["groups"]}
    assert groups[GROUP]["preferredVersion"] == {"groupVersion": f"{GROUP}/v1", "version": "v1"}
    rows = {r["name"]: r for r in server.request("GET", f"/apis/{GROUP}/v1")[1]["resources"]}
    assert set(rows) == {"widgets", "widgets/status", "widgets/scale"}
    wanted = {"kind": "Widget", "namespaced": True, "singularName": "widget", "shortNames": ["wd"]}
    assert wanted.items() <= rows["widgets"].items()
    assert rows["widgets/scale"]["kind"] == "Scale"
    assert "watch" in rows["widgets"]["verbs"]
    for version in ("/api/v1", "/apis/apps/v1", "/apis/coordination.k8s.io/v1", "/version", "/api"):
        assert server.request("GET", version)[0] == 200


def test_built_in_kinds_are_described_as_by_the_real_one(server: ApiServer) -> None:
    for line in BUILT_IN.strip().splitlines():
        api_version, plural, kind, short, traits = line.split()
        path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        rows = {r["name"]: r for r in server.request("GET", path)[1]["resources"]}
        row = rows[plural]
        assert (row["kind"], row["namespaced"]) == (kind, "cluster" not in traits), line
        assert row["singularName"] == kind.lower(), line
        assert short == "-" or short in row["shortNames"], line
        assert {f"{plural}/{t}" for t in ("status", "scale") if t in traits} <= set(rows), line

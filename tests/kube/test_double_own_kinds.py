"""The project's own resources fare on the double as on the real API server."""

import copy
import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from apidouble import ApiDouble
from apiserver import ApiServer
from behaviour_steps import ABSENT, CRDS, Object, wait_until

MANIFESTS = Path(__file__).parents[2] / "manifests"
CASES = 400


def documents(folder: str) -> list[Object]:
    files = sorted((MANIFESTS / folder).rglob("*.yaml"))
    found = [doc for file in files for doc in yaml.safe_load_all(file.read_text())]
    return [d for d in found if d and "metadata" in d and "foreserve.dev" in json.dumps(d)]


def leaves(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    for key, item in inner:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from leaves(item, (*path, key))


def mutants() -> list[Object]:
    """Return each example, and variants of which one field is missing or something else."""
    examples = [d for d in documents("examples") if d["apiVersion"].startswith("foreserve.dev/")]
    found: list[Object] = []
    for example in examples:
        for path in leaves(example["spec"]):
            for value in (ABSENT, None, "text", -1, 0, 10**10, True, [], {}, ["a"], {"a": 1}):
                found.append(copy.deepcopy(example))
                target = found[-1]["spec"]
                for key in path[:-1]:
                    target = target[key]
                if value is ABSENT:
                    del target[path[-1]]
                else:
                    target[path[-1]] = value
    return examples + random.Random(1).sample(found, CASES)  # noqa: S311 (not a secret)


def undefine(server: ApiServer, name: str) -> None:
    server.request("DELETE", f"{CRDS}/{name}")
    wait_until(lambda: server.request("GET", f"{CRDS}/{name}")[0] == 404)


def test_the_projects_objects_fare_alike(
    request: pytest.FixtureRequest, real_kube: ApiServer, double: ApiDouble
) -> None:
    """What either stores is the same; what the double refuses, the real one refuses."""
    definitions = {d["spec"]["names"]["kind"]: d for d in documents("crds")}
    for definition in definitions.values():
        assert double.request("POST", CRDS, definition)[0] == 201
        if real_kube.request("POST", CRDS, definition)[0] == 201:  # else another test needs it too
            request.addfinalizer(partial(undefine, real_kube, definition["metadata"]["name"]))

    def outcome(server: ApiServer, body: Object) -> tuple[int, Object]:
        spec = definitions[body["kind"]]["spec"]
        scope = "/namespaces/default" if spec["scope"] == "Namespaced" else ""
        path = f"/apis/{body['apiVersion']}{scope}/{spec['names']['plural']}"
        body = {**body, "metadata": {"name": body["metadata"]["name"]}}
        code, answer = server.request("POST", path, body, params={"dryRun": "All"})
        return code, answer

    bodies = mutants()
    wait_until(lambda: {outcome(real_kube, body)[0] for body in bodies[:6]} == {201})
    refused = 0
    for body in bodies:
        (real_code, real), (code, answer) = outcome(real_kube, body), outcome(double, body)
        if code == 201 and real_code == 422:  # by a CEL rule, which the double does not know
            assert "in body" not in real["message"]
            continue
        assert (code, answer.get("spec")) == (real_code, real.get("spec")), (body, answer, real)
        refused += code == 422
    assert CASES / 4 < refused < CASES

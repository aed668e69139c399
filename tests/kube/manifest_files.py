"""The manifests as plain objects: what kustomize would gather, without its labels and patches."""

import copy
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = ("recommend", "scale", "keda")
OLDEST_KUBECTL = (1, 24)
CLUSTER_KINDS = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


def documents(path: Path) -> list[Object]:
    return copy.deepcopy(_parsed(path))


@functools.cache
def _parsed(path: Path) -> list[Object]:
    return [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d]


def overlay(name: str) -> list[Object]:
    return list(gathered(MANIFESTS / "overlays" / name))


def gathered(folder: Path) -> Iterator[Object]:
    (kustomization,) = documents(folder / "kustomization.yaml")
    namespace = kustomization.get("namespace")
    for entry in [*kustomization.get("resources", []), *kustomization.get("components", [])]:
        path = folder / entry
        for found in gathered(path) if path.is_dir() else documents(path):
            if namespace and found["kind"] not in CLUSTER_KINDS:
                found["metadata"]["namespace"] = namespace
            yield found


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name]
    return found


def pod_specs(found: Object) -> list[Object]:
    """The pod templates of an object, at any depth."""
    specs: list[Object] = []
    rest: list[Any] = [found]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            specs += [value] if "containers" in value else []
            rest += value.values()
        elif isinstance(value, list):
            rest += value
    return specs


@functools.cache
def kubectl() -> str | None:
    """A kubectl that knows components and Strict validation; None where there is none."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    candidates = [str(Path(assets) / "kubectl")] if assets else []
    for candidate in [*candidates, "/usr/local/kubebuilder/bin/kubectl", "kubectl"]:
        path = shutil.which(candidate)
        if path and _version(path) >= OLDEST_KUBECTL:
            return path
    return None


def _version(path: str) -> tuple[int, int]:
    command = [path, "version", "--client", "-o", "json"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if answer.returncode:
        return 0, 0
    version = json.loads(answer.stdout)["clientVersion"]
    return int(version["major"]), int(version["minor"].rstrip("+"))

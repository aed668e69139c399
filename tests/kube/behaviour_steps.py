"""Behaviours of an API server as steps: a request, and what its answer must hold."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
ABSENT = object()  # in an expectation: the key must be missing; `...` means any value
MERGE = "application/merge-patch+json"

GROUP = "behaviour.foreserve.dev"
WIDGET_SPEC: Object = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10},
        "mode": {"type": "string", "enum": ["Fast", "Slow"], "default": "Fast"},
        "code": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
        "ratio": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
        "replicas": {"type": "integer", "default": 1},
        "nested": {
            "type": "object",
            "properties": {"deep": {"type": "boolean", "default": True}},
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "port": {"x-kubernetes-int-or-string": True},
        "parts": {
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "weight": {"type": "integer"}},
            },
        },
    },
}
WIDGETS: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"widgets.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.replicas",
                        "statusReplicasPath": ".status.replicas",
                        "labelSelectorPath": ".status.selector",
                    },
                },
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "required": ["spec"],
                        "properties": {
                            "spec": WIDGET_SPEC,
                            "status": {
                                "type": "object",
                                "properties": {
                                    "replicas": {"type": "integer"},
                                    "selector": {"type": "string"},
                                    "note": {"type": "string"},
                                },
                            },
                        },
                    }
                },
            }
        ],
    },
}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def wait_until(is_so: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.02)


@dataclass(frozen=True)
class Step:
    """One request and what its answer must hold. `body` may be made from the answers before."""

    request: str  # "PUT widgets/a/status"
    body: object = None
    code: int = 200
    has: object = None
    patch: str = "merge-patch"
    params: tuple[tuple[str, str], ...] = ()


def configmap(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def widget(name: str, **spec: object) -> Object:
    head = {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": {"name": name}}
    return {**head, "spec": {"size": 1, **spec}}


def deployment(name: str, replicas: int | None = None) -> Object:
    labels = {"app": name}
    spec: Object = {
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "main", "image": "x"}]},
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def pod(name: str, node: str = "") -> Object:
    spec: Object = {"containers": [{"name": "main", "image": "x"}]}
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def scale(name: str, replicas: int, resource_version: str = "") -> Object:
    metadata = {"name": name, "namespace": "{ns}"}
    if resource_version:
        metadata["resourceVersion"] = resource_version
    head = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata}
    return {**head, "spec": {"replicas": replicas}}


def lease(name: str, seconds: int = 10) -> Object:
    head = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    return {**head, "spec": {"holderIdentity": "me", "leaseDurationSeconds": seconds}}


def failure(code: int, reason: str, message: str, **more: object) -> Object:
    head = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
    return {**head, "code": code, "reason": reason, "message": message, **more}


def version(answers: list[Object], index: int = -1) -> str:
    return str(answers[index]["metadata"]["resourceVersion"])


def changed(answer: Object, **spec: object) -> Object:
    return {**answer, "spec": {**answer["spec"], **spec}}


def bare(answer: Object) -> Object:
    """Return an answer without its resourceVersion."""
    return {
        **answer,
        "metadata": {k: v for k, v in answer["metadata"].items() if k != "resourceVersion"},
    }


def invalid_widget(name: str, *causes: tuple[str, str]) -> Object:
    texts = [f"{field}: {message}" for field, message in causes]
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    message = f'Widget.{GROUP} "{name}" is invalid: {text}'
    rows = [{"field": field, "message": message} for field, message in causes]
    about = {"name": name, "group": GROUP, "kind": "Widget", "causes": rows}
    return failure(422, "Invalid", message, details=about)


MODIFIED = (
    "the object has been modified; please apply your changes to the latest version and try again"
)

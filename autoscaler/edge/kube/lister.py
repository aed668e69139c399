"""Lists that put the cache right: at the start, from time to time, and whenever nobody watches."""

from collections.abc import Iterable, Mapping
from typing import Any

from autoscaler.edge.kube.api import KubeApi, KubeError, KubeGone, KubeNotFound
from autoscaler.edge.kube.cluster import Cluster

PAGE = 500
MAX_PAGES = 1000  # half a million objects: more is a server that never ends its list

KINDS: Mapping[str, tuple[str, str]] = {
    "policies": ("foreserve.dev/v1alpha1", "ScalingPolicy"),
    "pools": ("foreserve.dev/v1alpha1", "AcceleratorPool"),
    "pods": ("v1", "Pod"),
    "nodes": ("v1", "Node"),
    "namespaces": ("v1", "Namespace"),
}


def list_all(api: KubeApi, api_version: str, kind: str) -> tuple[list[dict[str, Any]], str]:
    """Return every object of a kind in all namespaces and the list's version; KubeError."""
    path = api.path_of(api_version, kind, None)
    for _ in range(3):
        try:
            return _pages(api, path, api_version, kind)
        except KubeGone:  # the list was too slow for its own version: begin again
            continue
    return _pages(api, path, api_version, kind)


def _pages(
    api: KubeApi, path: str, api_version: str, kind: str
) -> tuple[list[dict[str, Any]], str]:
    objects: list[dict[str, Any]] = []
    token = ""
    for _ in range(MAX_PAGES):
        params: dict[str, str | int] = {"limit": PAGE} | ({"continue": token} if token else {})
        answer = api.get(path, params)
        objects += answer.get("items") or []
        metadata = answer.get("metadata") or {}
        token = metadata.get("continue") or ""
        if not token:
            break
    for o in objects:  # items of a list carry neither
        o.setdefault("apiVersion", api_version)
        o.setdefault("kind", kind)
    return objects, str(metadata.get("resourceVersion", ""))


def sync(api: KubeApi, cluster: Cluster, kinds: Iterable[str]) -> dict[str, str]:
    """List these kinds into the cache; return kind -> why it could not be, for those that could not."""
    problems = {}
    for kind in kinds:
        try:
            objects, version = list_all(api, *KINDS[kind])
        except KubeNotFound as error:  # the CRD is gone, and its objects with it
            cluster.forget(kind)
            problems[kind] = str(error)
        except KubeError as error:
            problems[kind] = str(error)
        else:
            cluster.replace(kind, objects, version)
    return problems


def optional(api: KubeApi, api_version: str, kind: str) -> tuple[list[dict[str, Any]] | None, str]:
    """Return the objects of a kind that need not be installed ([]: it is not), or None and why."""
    try:
        return list_all(api, api_version, kind)[0], ""
    except KubeNotFound:
        return [], ""
    except KubeError as error:
        return None, str(error)

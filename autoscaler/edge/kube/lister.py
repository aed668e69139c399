"""Lists that put the cache right: at the start, from time to time, and whenever nobody watches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from autoscaler.edge.kube.api import KubeApi, KubeError, KubeGone, KubeNotFound, KubeUnavailable
from autoscaler.edge.kube.cluster import Cluster, Fact

Result = TypeVar("Result")
PAGE = 500
MAX_PAGES = 1000  # half a million objects: more is a server that never ends its list

KINDS: Mapping[str, tuple[str, str]] = {
    "policies": ("foreserve.dev/v1alpha1", "ScalingPolicy"),
    "pools": ("foreserve.dev/v1alpha1", "AcceleratorPool"),
    "pods": ("v1", "Pod"),
    "nodes": ("v1", "Node"),
    "namespaces": ("v1", "Namespace"),
}


def list_all(api: KubeApi, api_version: str, kind: str) -> list[dict[str, Any]]:
    """Return every object of a kind in all namespaces; KubeError."""
    pages = _again_if_gone(lambda: list(_pages(api, api_version, kind)))
    return [o for objects, _ in pages for o in objects]


def _listed(api: KubeApi, cluster: Cluster, kind: str) -> tuple[dict[str, Fact], str]:
    """Return what the cache keeps of every object and the list's version; one page is held at a time."""

    def read() -> tuple[dict[str, Fact], str]:
        facts: dict[str, Fact] = {}
        made = ""
        for objects, version in _pages(api, *KINDS[kind]):
            facts |= cluster.reduced(kind, objects)
            made = version
        return facts, made

    return _again_if_gone(read)


def _again_if_gone(read: Callable[[], Result]) -> Result:
    for _ in range(3):
        try:
            return read()
        except KubeGone:  # the list was too slow for its own version: begin again
            continue
    return read()


def _pages(api: KubeApi, api_version: str, kind: str) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """Yield the objects of each page and the list's version."""
    path = api.path_of(api_version, kind, None)
    token = ""
    for _ in range(MAX_PAGES):
        params: dict[str, str | int] = {"limit": PAGE} | ({"continue": token} if token else {})
        answer = api.get(path, params)
        objects: list[dict[str, Any]] = answer.get("items") or []
        for o in objects:  # items of a list carry neither
            o.setdefault("apiVersion", api_version)
            o.setdefault("kind", kind)
        metadata = answer.get("metadata") or {}
        yield objects, str(metadata.get("resourceVersion", ""))
        token = metadata.get("continue") or ""
        if not token:
            break


def sync(api: KubeApi, cluster: Cluster, kinds: Iterable[str]) -> dict[str, str]:
    """List these kinds into the cache; return kind -> why it could not be, for those that could not.

    Where nobody answers the other kinds are not waited for as well.
    """
    problems: dict[str, str] = {}
    unanswered = ""
    for kind in kinds:
        if unanswered:
            problems[kind] = unanswered
            continue
        try:
            facts, version = _listed(api, cluster, kind)
        except KubeNotFound as error:  # the CRD is gone, and its objects with it
            cluster.forget(kind)
            problems[kind] = str(error)
        except KubeError as error:
            problems[kind] = str(error)
            if isinstance(error, KubeUnavailable) and not error.status:
                unanswered = str(error)
        else:
            cluster.take_over(kind, facts, version)
    return problems


def optional(api: KubeApi, api_version: str, kind: str) -> tuple[list[dict[str, Any]] | None, str]:
    """Return the objects of a kind that need not be installed ([]: it is not), or None and why."""
    try:
        return list_all(api, api_version, kind), ""
    except KubeNotFound:
        return [], ""
    except KubeError as error:
        return None, str(error)

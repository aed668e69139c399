"""Where a kind lives in the API: plural, scope, scale subresource. Asked once per group and version."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from autoscaler.edge.kube.errors import KubeInvalid, KubeNotFound

Get = Callable[[str], dict[str, Any]]

API_VERSION = re.compile(r"^(?:[a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?v[a-z0-9]+$")
ASK_AGAIN_SECONDS = 5.0  # at most that often for a kind that is unknown: 200 policies may name it


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of a group and version, as discovery lists it."""

    plural: str
    namespaced: bool
    scalable: bool


@dataclass(frozen=True, slots=True)
class _Listing:
    asked_seconds: float  # monotonic
    kinds: Mapping[str, Resource]


class Discovery:
    """What discovery said, kept. Safe to use from several threads; two may ask the same at once."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._listings: dict[str, _Listing] = {}

    def resource(
        self, get: Get, api_version: str, kind: str, *, scalable: bool = False
    ) -> Resource:
        """Return where `kind` lives; KubeNotFound if nowhere, or without the scale asked for.

        What is unknown is asked again, so that a CRD applied later is found.
        """
        now = self._monotonic()
        listing = self._listings.get(api_version)
        found = listing.kinds.get(kind) if listing is not None else None
        missing = found is None or (scalable and not found.scalable)
        if missing and (listing is None or now - listing.asked_seconds >= ASK_AGAIN_SECONDS):
            found = self._ask(get, api_version).get(kind)
        if found is None:
            raise KubeNotFound(
                f"{api_version} {kind}: the API server has no such kind; is its CRD installed?",
                reason="NotFound",
            )
        if scalable and not found.scalable:
            raise KubeNotFound(
                f"{api_version} {kind}: has no scale subresource; allowed: a kind that has one",
                reason="NotFound",
            )
        return found

    def _ask(self, get: Get, api_version: str) -> Mapping[str, Resource]:
        try:
            listed = get(_root(api_version)).get("resources")
        except KubeNotFound:
            listed = []  # no such group or version (yet)
        rows = [row for row in listed or () if isinstance(row, dict)]
        names = {row.get("name") for row in rows}
        kinds = {
            str(row["kind"]): Resource(
                str(row["name"]), row.get("namespaced") is True, f"{row['name']}/scale" in names
            )
            for row in rows
            if "kind" in row and "/" not in str(row.get("name", "/"))
        }
        self._listings[api_version] = _Listing(self._monotonic(), kinds)
        return kinds


def path_of(
    api_version: str,
    resource: Resource,
    kind: str,
    namespace: str | None,
    name: str | None,
    subresource: str,
) -> str:
    """Return the path of an object, or of a collection without `name`; KubeInvalid."""
    if namespace is not None and not resource.namespaced:
        raise KubeInvalid(
            f"{api_version} {kind}: is not namespaced, {namespace!r} was given; "
            "allowed: a namespaced kind",
            reason="Invalid",
        )
    if resource.namespaced and namespace is None and name is not None:
        raise KubeInvalid(f"{api_version} {kind} {name!r}: needs a namespace", reason="Invalid")
    path = _root(api_version)
    if namespace is not None:
        path += f"/namespaces/{_segment(namespace, 'namespace')}"
    path += f"/{resource.plural}"
    if name is not None:
        path += f"/{_segment(name, 'name')}"
    return path + (f"/{subresource}" if subresource else "")


def _root(api_version: str) -> str:
    if not API_VERSION.match(api_version):
        raise KubeInvalid(
            f"apiVersion {api_version!r}: is none; allowed: v1 or group/v1", reason="Invalid"
        )
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _segment(text: str, what: str) -> str:
    """Return a path segment; the API's own rule, so that a name can never lead elsewhere."""
    if not text or text in {".", ".."} or "/" in text or "%" in text:
        raise KubeInvalid(
            f"{what} {text!r}: allowed: a name without '/' and '%' that is not '.' or '..'",
            reason="Invalid",
        )
    return quote(text, safe="")

"""What the cluster was last seen to hold: a cache that watches fill and a list puts right.

Watch events arrive from kopf's thread, the tick reads from its own: one lock, and values that are never
changed in place. An event that is older than what is known (a list was faster) changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

JsonObject = Mapping[str, Any]
GONE = "DELETED"


@dataclass(frozen=True, slots=True)
class Fact:
    """One object, reduced to what is needed of it, and how new it is."""

    version: int
    value: Any


@dataclass(slots=True)
class _Kind:
    facts: dict[str, Fact] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)  # uid -> version at which it vanished
    listed: bool = False
    doubted: bool = False  # a stream began again: what vanished meanwhile it does not tell


class Cluster:
    """Objects by kind and uid. `reduce` says what is kept of an object of each kind."""

    def __init__(self, reduce: Mapping[str, Callable[[JsonObject], Any]]) -> None:
        self._reduce = reduce
        self._kinds = {kind: _Kind() for kind in reduce}
        self._lock = Lock()

    def apply(self, kind: str, event: str | None, obj: JsonObject) -> None:
        """Take in a watch event: ADDED, MODIFIED, DELETED, or None for what was there before."""
        metadata = obj.get("metadata", {})
        uid, version = metadata.get("uid", ""), _version(metadata)
        value = None if event == GONE else self._reduce[kind](obj)
        with self._lock:
            own = self._kinds[kind]
            own.doubted = own.doubted or event is None
            known = own.facts.get(uid)
            if known is not None and known.version > version:
                return
            if event == GONE:
                own.facts.pop(uid, None)
                own.removed[uid] = version
                return
            if own.removed.get(uid, -1) < version:
                own.facts[uid] = Fact(version, value)

    def replace(self, kind: str, objects: Iterable[JsonObject], list_version: str) -> None:
        """Take in a whole list, made at `list_version`: what it does not name is gone.

        Objects that a watch has shown since the list was made stay.
        """
        self.take_over(kind, self.reduced(kind, objects), list_version)

    def reduced(self, kind: str, objects: Iterable[JsonObject]) -> dict[str, Fact]:
        """Return what is kept of these objects, by uid: so that a long list need not be held whole."""
        return {
            o["metadata"]["uid"]: Fact(_version(o["metadata"]), self._reduce[kind](o))
            for o in objects
        }

    def take_over(self, kind: str, listed: Mapping[str, Fact], list_version: str) -> None:
        """Take in a whole list that was `reduced`."""
        made = _number(list_version)
        with self._lock:
            own = self._kinds[kind]
            newer = {u: f for u, f in own.facts.items() if f.version > made}
            kept = {u: f for u, f in listed.items() if own.removed.get(u, -1) < f.version}
            own.facts = kept | newer
            own.removed = {u: v for u, v in own.removed.items() if v > made}
            own.listed = True

    def doubted(self) -> list[str]:
        """Return the kinds whose streams have begun anew since this was asked last: to be listed again."""
        with self._lock:
            kinds = [kind for kind, own in self._kinds.items() if own.doubted]
            for kind in kinds:
                self._kinds[kind].doubted = False
            return kinds

    def forget(self, kind: str) -> None:
        """Take in that the server has no such kind any more: nothing is known of it."""
        with self._lock:
            self._kinds[kind] = _Kind()

    def values(self, kind: str) -> list[Any] | None:
        """Return what is known of a kind, or None if it was never listed: unknown is not empty."""
        with self._lock:
            own = self._kinds[kind]
            return [f.value for f in own.facts.values()] if own.listed else None


def _version(metadata: Mapping[str, Any]) -> int:
    return _number(str(metadata.get("resourceVersion", "")))


def _number(version: str) -> int:
    """Return a resourceVersion as a number: comparable since Kubernetes 1.35, and in etcd ever since."""
    return int(version) if version.isdigit() else 0

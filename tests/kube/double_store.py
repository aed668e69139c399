"""What the double keeps: objects by revision, and the history that watches and pages read."""

import asyncio
import itertools
import re
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from double_kinds import ApiError, bad_request

Object = dict[str, Any]
Key = tuple[str, str]  # namespace ("" for cluster scope), name
Matcher = Callable[[Object], bool]
HISTORY = 20_000  # changes; a watch from before them gets 410


@dataclass(frozen=True)
class Change:
    revision: int
    type: str  # ADDED, MODIFIED, DELETED
    storage: str
    key: Key
    object: Object
    before: Object | None


class Store:
    """Objects are never changed in place: each write stores a new dictionary."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0  # changes up to this revision are forgotten
        self.objects: defaultdict[str, dict[Key, Object]] = defaultdict(dict)
        self.history: deque[Change] = deque()
        self.watchers: set[asyncio.Event] = set()
        self.pages: dict[str, tuple[int, list[Object]]] = {}  # by continue token
        self._tokens = 0

    def get(self, storage: str, key: Key) -> Object | None:
        return self.objects[storage].get(key)

    def items(self, storage: str, namespace: str) -> list[Object]:
        found = self.objects[storage]
        return [found[key] for key in sorted(found) if namespace in {"", key[0]}]

    def write(self, storage: str, key: Key, new: Object | None) -> Object:
        """Store `new` (None deletes) under the next revision; return what was stored."""
        before = self.get(storage, key)
        self.revision += 1
        last = new if new is not None else before
        assert last is not None
        last = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.revision)}}
        if new is None:
            del self.objects[storage][key]
        else:
            self.objects[storage][key] = last
        kind = "DELETED" if new is None else "ADDED" if before is None else "MODIFIED"
        self.history.append(Change(self.revision, kind, storage, key, last, before))
        if len(self.history) > HISTORY:
            self.compacted = self.history.popleft().revision
        self.wake()
        return last

    def wake(self) -> None:
        for watcher in self.watchers:
            watcher.set()

    def since(self, revision: int, storage: str) -> list[Change]:
        """Return what came after a revision, oldest first."""
        newer = itertools.takewhile(lambda c: c.revision > revision, reversed(self.history))
        return [change for change in newer if change.storage == storage][::-1]

    def forget(self) -> None:
        """Compact: no watch and no page of before can go on."""
        self.revision += 1
        self.compacted = self.revision
        self.history.clear()
        self.pages.clear()
        self.wake()

    def page(self, items: list[Object], revision: int, limit: int) -> tuple[list[Object], str]:
        """Return the first `limit` items and the token for the rest ("" where none is left)."""
        if not limit or len(items) <= limit:
            return items, ""
        self._tokens += 1
        token = f"page-{self._tokens}"
        self.pages[token] = (revision, items[limit:])
        return items[:limit], token


def label_matcher(text: str) -> Matcher:
    """Parse a label selector: a=b, a!=b, a in (b,c), a notin (b), a, !a.

    Raises ApiError 400.
    """
    tests: list[Callable[[dict[str, str]], bool]] = []
    for part in re.findall(r"(?:[^,(]|\([^)]*\))+", text):
        tests.append(_label_test(part.strip()))  # noqa: PERF401 (a comprehension hides the refusal)
    return lambda item: all(test(item["metadata"].get("labels") or {}) for test in tests)


def _label_test(part: str) -> Callable[[dict[str, str]], bool]:
    name = r"[A-Za-z0-9]([-\w./]*[A-Za-z0-9])?"
    value = r"[-\w.]*"
    if match := re.fullmatch(rf"({name})\s*(==?|!=)\s*({value})", part):
        key, wanted, negated = match[1], match[4], match[3] == "!="
        return lambda labels: (labels.get(key) == wanted) != negated
    if match := re.fullmatch(rf"({name})\s+(in|notin)\s+\(([^)]*)\)", part):
        key, negated = match[1], match[3] == "notin"
        values = {v.strip() for v in match[4].split(",")}
        return lambda labels: (labels.get(key) in values) != negated
    if match := re.fullmatch(rf"(!?)\s*({name})", part):
        key, negated = match[2], match[1] == "!"
        return lambda labels: (key in labels) != negated
    raise bad_request(f'unable to parse requirement: found "{part}"')


def field_matcher(text: str, *, is_custom: bool) -> Matcher:
    """Parse a field selector: metadata.name=x, spec.nodeName!=y.

    Raises ApiError 400.
    """
    tests: list[tuple[list[str], str, bool]] = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([\w.]+)(==?|!=)(.*)", part)
        if not match:
            raise bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if is_custom and match[1] not in {"metadata.name", "metadata.namespace"}:
            raise bad_request(f"field label not supported: {match[1]}")
        tests.append((match[1].split("."), match[3], match[2] == "!="))
    return lambda item: all((str(dig(item, p) or "") == v) != n for p, v, n in tests)


def dig(item: object, path: list[str]) -> Any:
    """Return the value at a path of keys, None where it is missing."""
    for key in path:
        item = item.get(key) if isinstance(item, dict) else None
    return item


def merge_patch(target: object, patch: object) -> object:
    """RFC 7386: null removes, objects merge, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(target: Any, operations: object) -> Any:
    """RFC 6902 on a deep copy. Raises ApiError 400 or 422."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into []")
    for operation in operations:
        try:
            _apply(target, operation)
        except (KeyError, IndexError, ValueError, TypeError):
            message = "the server rejected our request due to an error in our request"
            raise ApiError(422, "Invalid", message, {}) from None
    return target


def _apply(target: Any, operation: Object) -> None:
    parts = [p.replace("~1", "/").replace("~0", "~") for p in operation["path"].split("/")[1:]]
    parent, last = _walk(target, parts[:-1]), parts[-1]
    spot: Any = last if isinstance(parent, dict) else len(parent) if last == "-" else int(last)
    verb = operation["op"]
    if verb == "test":
        if parent[spot] != operation["value"]:
            raise ValueError(f"test failed at {operation['path']}")
    elif verb == "remove":
        del parent[spot]
    elif verb == "replace":
        _walk(target, parts)  # refuses what is not there
        parent[spot] = operation["value"]
    elif verb == "add" and isinstance(parent, list):
        parent.insert(spot, operation["value"])
    elif verb == "add":
        parent[spot] = operation["value"]
    else:
        raise ValueError(f"the double has no JSON patch operation {verb!r}")


def _walk(target: Any, parts: list[str]) -> Any:
    for part in parts:
        target = target[int(part)] if isinstance(target, list) else target[part]
    return target

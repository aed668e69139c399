"""How the double shows what it stores: versions, lists, pages, watches."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from double_kinds import Kind, bad_request, expired
from double_objects import Objects
from double_store import Change, Matcher, field_matcher, label_matcher

Object = dict[str, Any]
Query = Mapping[str, str]
BOOKMARK_SECONDS = 60.0
# events.k8s.io/v1 and v1 are one object by two names
EVENT_FIELDS = {
    "involvedObject": "regarding",
    "message": "note",
    "count": "deprecatedCount",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "source": "deprecatedSource",
    "reportingComponent": "reportingController",
}


@dataclass(frozen=True)
class Target:
    """The object or collection that a path names."""

    kind: Kind
    namespace: str
    name: str
    part: str  # subresource


def number(query: Query, name: str) -> int:
    """Return a parameter that is a number, 0 where it is missing. Raises ApiError 400."""
    text = query.get(name) or "0"
    if not text.isdecimal():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def shown(kind: Kind, item: Object) -> Object:
    """Return a stored object, kept as it was last written, as this version of its kind shows it."""
    if item["apiVersion"] == kind.api_version:
        return item
    if kind.kind == "Event":
        names = EVENT_FIELDS if kind.group else {new: old for old, new in EVENT_FIELDS.items()}
        item = {names.get(key, key): value for key, value in item.items()}
    return {**item, "apiVersion": kind.api_version}


def matcher(query: Query, kind: Kind) -> Matcher:
    """Return the test of labelSelector and fieldSelector. Raises ApiError 400."""
    labels = label_matcher(query.get("labelSelector", ""))
    fields = field_matcher(query.get("fieldSelector", ""), is_custom=kind.is_custom)
    return lambda item: labels(item) and fields(item)


def listed(objects: Objects, query: Query, target: Target) -> Object:
    """Return one page. Raises ApiError 400, 410."""
    store = objects.store
    matches = matcher(query, target.kind)
    token = query.get("continue", "")
    if token:
        if token not in store.pages:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result."
                " You can start a new list without the continue parameter."
            )
        revision, items = store.pages[token]
    else:
        revision = store.revision
        items = store.items(target.kind.storage, target.namespace)
        items = [item for item in items if matches(item)]
    page, token = store.page(items, revision, number(query, "limit"))
    metadata: Object = {"resourceVersion": str(revision)}
    if token:
        metadata |= {"continue": token, "remainingItemCount": len(items) - len(page)}
    return {
        "kind": f"{target.kind.kind}List",
        "apiVersion": target.kind.api_version,
        "metadata": metadata,
        "items": [shown(target.kind, item) for item in page],
    }


async def events(
    objects: Objects, query: Query, target: Target
) -> AsyncIterator[tuple[str, Object]]:
    """Yield (type, object) until timeoutSeconds, the end of the kind, or 410."""
    loop, store = asyncio.get_running_loop(), objects.store
    matches = matcher(query, target.kind)
    end = loop.time() + (number(query, "timeoutSeconds") or 1800)
    bookmarks = query.get("allowWatchBookmarks") == "true"
    since = number(query, "resourceVersion")
    if not since:
        since = store.revision
        for item in store.items(target.kind.storage, target.namespace):
            if matches(item):
                yield "ADDED", shown(target.kind, item)
    told = since
    woken = asyncio.Event()
    store.watchers.add(woken)
    try:
        while loop.time() < end:
            woken.clear()
            if since < store.compacted:
                why = f"too old resource version: {since} ({store.compacted})"
                yield "ERROR", expired(why).body()
                return
            until = store.revision  # what is written while these are sent comes next time
            for change in store.since(since, target.kind.storage):
                since = change.revision
                event = _event(change, target, matches)
                if event:
                    told = since
                    yield event
            since = max(since, until)
            if target.kind not in objects.kinds.values():
                return  # its definition was removed or replaced
            try:
                pause = min(end - loop.time(), BOOKMARK_SECONDS)
                await asyncio.wait_for(woken.wait(), max(pause, 0.0))
            except TimeoutError:
                if bookmarks and since > told:
                    told = since
                    yield "BOOKMARK", _bookmark(target.kind, since)
    finally:
        store.watchers.discard(woken)


def _bookmark(kind: Kind, revision: int) -> Object:
    metadata = {"resourceVersion": str(revision), "creationTimestamp": None}
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}


def _event(change: Change, target: Target, matches: Matcher) -> tuple[str, Object] | None:
    """Return what one watch sees of a change: entering a selector is ADDED, leaving DELETED."""
    if target.namespace not in {"", change.key[0]}:
        return None
    was = change.before is not None and matches(change.before)
    stays = change.type != "DELETED" and matches(change.object)
    if not was and not stays:
        return None
    kind = "MODIFIED" if was and stays else "ADDED" if stays else "DELETED"
    return kind, shown(target.kind, change.object)

"""The double's HTTP side: paths to verbs, discovery, lists, watches, tokens."""

import asyncio
import copy
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from double_access import ADMINISTRATORS, User, Wish, is_allowed, refuse, service_account
from double_kinds import ApiError, Kind, bad_request, expired
from double_objects import Objects, now, with_envelope
from double_schema import prune
from double_store import (
    Change,
    Matcher,
    Store,
    field_matcher,
    json_patch,
    label_matcher,
    merge_patch,
)

Object = dict[str, Any]
MAX_BODY_BYTES = 3 * 1024 * 1024
BOOKMARK_SECONDS = 60.0
SHOWN_WHEN_DELETED = {"Pod", "Service", "ServiceAccount", "ResourceQuota"}  # others: a Status
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


class Api:
    """Answers requests; owns the store. All of it runs in one event loop, hence no locks."""

    def __init__(self, admin_token: str) -> None:
        self.store = Store()
        self.objects = Objects(self.store)
        admin = User("admin", (ADMINISTRATORS, "system:authenticated"))
        self.users: dict[str, User] = {admin_token: admin}
        self.accounts: dict[str, str] = {}  # token -> uid of its ServiceAccount

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; a refusal is a Status."""
        try:
            return await self._answer(request)
        except ApiError as error:
            return json_response(error.body(), error.code, error.headers)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        user = self._user(request)
        parts = request.path.strip("/").split("/")
        found = self._discovery(parts)
        if found is not None:
            return json_response(found)
        if request.path in {"/healthz", "/readyz", "/livez"}:
            return web.Response(text="ok")
        target = self._target(parts)
        if target is None:
            return self._unknown(parts)
        self._authorize(request, user, target)
        if request.method == "GET" and not target.name:
            if request.query.get("watch") in {"true", "1"}:
                return await self._watch(request, target)
            return json_response(self._list(request, target))
        return await self._verb(request, user, target)

    def touch(self, path: str) -> None:
        """Write the object that a path names, as somebody else would."""
        target = self._target(path.strip("/").split("/"))
        key = (target.namespace, target.name) if target else ("", "")
        found = target and self.store.get(target.kind.storage, key)
        if target and found:
            self.store.write(target.kind.storage, key, found)

    # -- who and what --------------------------------------------------------

    def _user(self, request: web.Request) -> User:
        header = request.headers.get("Authorization", "")
        if not header:
            return User("system:anonymous", ("system:unauthenticated",))
        token = header.removeprefix("Bearer ")
        user = self.users.get(token)
        uid = self.accounts.get(token)
        accounts = self.store.objects["serviceaccounts."].values()
        if user is None or (uid and all(a["metadata"]["uid"] != uid for a in accounts)):
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    def _target(self, parts: list[str]) -> Target | None:
        if parts[:2] == ["api", "v1"]:
            group, version, rest = "", "v1", parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            return None
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in {"status", "finalize"}:
            namespace, rest = rest[1], rest[2:]
        kind = self.objects.kinds.get((group, version, rest[0])) if rest else None
        if kind is None or len(rest) > 3 or (namespace and not kind.namespaced):
            return None
        name, part = (*rest[1:], "", "")[:2]
        if (part and part not in kind.traits) or (name and kind.namespaced and not namespace):
            return None
        return Target(kind, namespace, name, part)

    def _unknown(self, parts: list[str]) -> web.Response:
        """Built-in versions refuse with a Status, what is not served at all without."""
        versions = {k.api_version for k in self.objects.kinds.values() if not k.is_custom}
        if "/".join(parts[1:3] if parts[0] == "apis" else parts[1:2]) not in versions:
            return web.Response(text="404 page not found\n", status=404)
        raise ApiError(404, "NotFound", "the server could not find the requested resource", {})

    def _authorize(self, request: web.Request, user: User, target: Target) -> None:
        verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        verb = verbs.get(request.method, "get")
        name = target.name
        if not name and verb == "get":
            verb = "watch" if request.query.get("watch") in {"true", "1"} else "list"
            selector = request.query.get("fieldSelector", "")
            name = selector.removeprefix("metadata.name=") if "metadata.name=" in selector else ""
        if not name and verb == "delete":
            verb = "deletecollection"
        kind = target.kind
        resource = f"{kind.plural}/{target.part}" if target.part else kind.plural
        wish = Wish(verb, kind.group, resource, target.namespace, name)
        if not is_allowed(self.store, user, wish):
            raise refuse(user, wish, kind)

    def _discovery(self, parts: list[str]) -> Object | None:
        kinds = self.objects.kinds.values()
        if parts == ["version"]:
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0-double", "platform": "test"}
        if parts == ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        if parts == ["apis"]:
            groups = [_group(g, list(kinds)) for g in dict.fromkeys(k.group for k in kinds) if g]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if parts[0] == "apis" and len(parts) == 2:
            known = any(k.group == parts[1] for k in kinds)
            return {**_group(parts[1], list(kinds)), **META_GROUP} if known else None
        group, version = ("", parts[1]) if parts[0] == "api" and len(parts) == 2 else ("-", "")
        if parts[0] == "apis" and len(parts) == 3:
            group, version = parts[1], parts[2]
        rows = [row for k in kinds if (k.group, k.version) == (group, version) for row in k.rows()]
        if not rows:
            return None
        name = f"{group}/{version}" if group else version
        meta = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name}
        return {**meta, "resources": rows}

    # -- reading -------------------------------------------------------------

    def _matchers(self, request: web.Request, kind: Kind) -> Matcher:
        labels = label_matcher(request.query.get("labelSelector", ""))
        fields = field_matcher(request.query.get("fieldSelector", ""), is_custom=kind.is_custom)
        return lambda item: labels(item) and fields(item)

    def _list(self, request: web.Request, target: Target) -> Object:
        matches = self._matchers(request, target.kind)
        token = request.query.get("continue", "")
        if token:
            if token not in self.store.pages:
                raise expired(
                    "The provided continue parameter is too old to display a consistent list result."
                    " You can start a new list without the continue parameter."
                )
            revision, items = self.store.pages[token]
        else:
            revision = self.store.revision
            items = self.store.items(target.kind.storage, target.namespace)
            items = [item for item in items if matches(item)]
        page, token = self.store.page(items, revision, _number(request, "limit"))
        metadata: Object = {"resourceVersion": str(revision)}
        if token:
            metadata |= {"continue": token, "remainingItemCount": len(items) - len(page)}
        return {
            "kind": f"{target.kind.kind}List",
            "apiVersion": target.kind.api_version,
            "metadata": metadata,
            "items": [shown(target.kind, item) for item in page],
        }

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        _number(request, "resourceVersion")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        if "sendInitialEvents" in request.query:
            words = "is forbidden for watch unless the WatchList feature gate is enabled"
            raise ApiError(
                422, "Invalid", f"sendInitialEvents: Forbidden: sendInitialEvents {words}"
            )
        self._matchers(request, target.kind)  # a bad selector is refused before the stream begins
        await response.prepare(request)
        try:
            async for kind, item in self._events(request, target):
                await response.write(orjson.dumps({"type": kind, "object": item}) + b"\n")
        except ConnectionError:
            return response  # the client went away
        await response.write_eof()
        return response

    async def _events(
        self, request: web.Request, target: Target
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield (type, object) until timeoutSeconds, the end of the kind, or 410."""
        loop, query, store = asyncio.get_running_loop(), request.query, self.store
        matches = self._matchers(request, target.kind)
        end = loop.time() + (_number(request, "timeoutSeconds") or 1800)
        bookmarks = query.get("allowWatchBookmarks") == "true"
        since = _number(request, "resourceVersion")
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
                    yield (
                        "ERROR",
                        expired(f"too old resource version: {since} ({store.compacted})").body(),
                    )
                    return
                for change in store.since(since, target.kind.storage):
                    since = change.revision
                    event = _event(change, target, matches)
                    if event:
                        told = since
                        yield event
                since = max(since, store.revision)
                if target.kind not in self.objects.kinds.values():
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

    # -- writing -------------------------------------------------------------

    async def _verb(self, request: web.Request, user: User, target: Target) -> web.StreamResponse:
        kind, name = target.kind, target.name
        body = await _body(request)
        dry_run = request.query.get("dryRun") == "All"
        if request.method in {"POST", "PUT"} and not isinstance(body, dict):
            words = f"the object provided is unrecognized (must be of type {kind.kind})"
            raise bad_request(f"{words}: couldn't get version/kind; json parse error")
        if request.method == "POST":
            return self._post(user, target, body, dry_run=dry_run, query=request.query)
        if request.method == "DELETE":
            return json_response(self._delete(request, target, body or {}))
        if request.method not in {"GET", "PUT", "PATCH"}:
            raise not_allowed()
        old = shown(kind, self.objects.get(kind, target.namespace, name))
        is_scale = target.part == "scale"
        if request.method in {"GET", "PATCH"}:
            view = self.objects.scale(kind, old) if is_scale else old
            if request.method == "GET":
                return json_response(view)
            body = _patched(request.content_type, kind, view, body)
        if is_scale:
            return json_response(self.objects.replace_scale(kind, name, old, body))
        warning = _unknown_fields(kind, body, request.query)
        new = self.objects.replace(kind, name, old, body, target.part, dry_run=dry_run)
        return json_response(shown(kind, new), 200, warning)

    def _post(
        self, user: User, target: Target, body: Any, *, dry_run: bool, query: Any
    ) -> web.StreamResponse:
        kind = target.kind
        if target.part == "token":
            account = self.objects.get(kind, target.namespace, target.name)
            token = secrets.token_urlsafe(24)
            self.users[token] = service_account(target.namespace, target.name)
            self.accounts[token] = account["metadata"]["uid"]
            status = {"token": token, "expirationTimestamp": now(3600.0)}
            request = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
            return json_response({**request, **body, "status": status}, 201)
        if kind.kind == "SelfSubjectAccessReview":
            asked = body["spec"].get("resourceAttributes") or {}
            resource = "/".join(filter(None, (asked.get("resource"), asked.get("subresource"))))
            more = (asked.get("namespace", ""), asked.get("name", ""))
            wish = Wish(asked.get("verb", ""), asked.get("group", ""), resource, *more)
            allowed = is_allowed(self.store, user, wish)
            return json_response({**body, "status": {"allowed": allowed}}, 201)
        if target.name:
            raise not_allowed()
        warning = _unknown_fields(kind, body, query)
        new = self.objects.create(kind, target.namespace, body, dry_run=dry_run)
        return json_response(shown(kind, new), 201, warning)

    def _delete(self, request: web.Request, target: Target, options: Object) -> Object:
        kind = target.kind
        if "gracePeriodSeconds" in request.query:
            options["gracePeriodSeconds"] = _number(request, "gracePeriodSeconds")
        if not target.name:
            if kind.plural == "namespaces":
                raise not_allowed()
            matches = self._matchers(request, kind)
            gone = [i for i in self.store.items(kind.storage, target.namespace) if matches(i)]
            for item in gone:
                self.objects.delete(kind, item, options)
            return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "items": gone}
        old = self.objects.get(kind, target.namespace, target.name)
        new = self.objects.delete(kind, old, options)
        is_left = self.store.get(kind.storage, (target.namespace, target.name)) is not None
        if is_left or kind.kind in SHOWN_WHEN_DELETED:
            return shown(kind, new)
        about = {"name": target.name, "kind": kind.plural, "uid": old["metadata"]["uid"]}
        about |= {"group": kind.group} if kind.group else {}
        answer = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        return {**answer, "details": about}


META_GROUP = {"kind": "APIGroup", "apiVersion": "v1"}


def json_response(
    body: object, code: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=code, headers=headers, content_type="application/json"
    )


def not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


def _number(request: web.Request, name: str) -> int:
    text = request.query.get(name) or "0"
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


def _group(group: str, kinds: list[Kind]) -> Object:
    versions = list(dict.fromkeys(k.version for k in kinds if k.group == group))
    rows = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": rows, "preferredVersion": rows[0]}


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


async def _body(request: web.Request) -> Any:
    data = await request.read()
    if len(data) > MAX_BODY_BYTES:
        message = f"Request entity too large: limit is {MAX_BODY_BYTES}"
        raise ApiError(413, "RequestEntityTooLarge", message)
    try:
        return orjson.loads(data) if data else None
    except orjson.JSONDecodeError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None


def _patched(content_type: str, kind: Kind, view: Object, patch: Any) -> Object:
    view = copy.deepcopy(view)
    if content_type == "application/json-patch+json":
        result = json_patch(view, patch)
    elif content_type == "application/merge-patch+json":
        result = merge_patch(view, patch)
    elif content_type == "application/strategic-merge-patch+json" and not kind.is_custom:
        if _has_list(patch):  # which the real one merges by key
            raise bad_request("the double has no strategic merge of lists: use a merge patch")
        result = merge_patch(view, patch)
    else:
        words = "the body of the request was in an unknown format - accepted media types include:"
        types = "application/json-patch+json, application/merge-patch+json"
        raise ApiError(415, "UnsupportedMediaType", f"{words} {types}", {})
    if not isinstance(result, dict):
        raise bad_request("the patch does not give an object")
    return result


def _has_list(patch: object) -> bool:
    if isinstance(patch, dict):
        return any(map(_has_list, patch.values()))
    return isinstance(patch, list)


def _unknown_fields(kind: Kind, body: Object, query: Any) -> dict[str, str]:
    """Return the warning about fields that will be pruned; with fieldValidation=Strict refuse."""
    if kind.schema is None:
        return {}
    unknown = [
        f'unknown field "{path}"' for path in prune(with_envelope(kind.schema), copy.deepcopy(body))
    ]
    if not unknown or query.get("fieldValidation") == "Ignore":
        return {}
    if query.get("fieldValidation") == "Strict":
        words = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
        raise bad_request(f"{words}: strict decoding error: {', '.join(unknown)}")
    return {"Warning": ", ".join(f"299 - {orjson.dumps(u).decode()}" for u in unknown)}

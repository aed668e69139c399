"""The double's HTTP side: paths to verbs, users, discovery, writes."""

import copy
import secrets
from typing import Any

import orjson
from aiohttp import web
from double_access import ADMINISTRATORS, User, Wish, is_allowed, refuse, service_account
from double_kinds import ApiError, Kind, bad_request
from double_objects import Objects, now, with_envelope
from double_read import Target, events, listed, matcher, number, shown
from double_schema import prune
from double_store import Store, json_patch, merge_patch

Object = dict[str, Any]
MAX_BODY_BYTES = 3 * 1024 * 1024
SHOWN_WHEN_DELETED = {"Pod", "Service", "ServiceAccount", "ResourceQuota"}  # others: a Status


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
            return json_response(listed(self.objects, request.query, target))
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

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        query = request.query
        if "sendInitialEvents" in query:
            words = "is forbidden for watch unless the WatchList feature gate is enabled"
            message = f"sendInitialEvents: Forbidden: sendInitialEvents {words}"
            raise ApiError(422, "Invalid", message)
        matcher(query, target.kind)  # what is nonsense is refused before the stream begins
        number(query, "resourceVersion")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await response.prepare(request)
            async for kind, item in events(self.objects, query, target):
                await response.write(orjson.dumps({"type": kind, "object": item}) + b"\n")
        except ConnectionError:
            return response  # the client went away
        await response.write_eof()
        return response

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
            options["gracePeriodSeconds"] = number(request.query, "gracePeriodSeconds")
        if not target.name:
            if kind.plural == "namespaces":
                raise not_allowed()
            matches = matcher(request.query, kind)
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


def _group(group: str, kinds: list[Kind]) -> Object:
    versions = list(dict.fromkeys(k.version for k in kinds if k.group == group))
    rows = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": rows, "preferredVersion": rows[0]}


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

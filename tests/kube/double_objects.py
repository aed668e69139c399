"""Create, update, delete: what the API server does to an object between request and storage."""

import copy
import dataclasses
import json
import random
import time
import uuid
from typing import Any

from double_kinds import (
    ApiError,
    Kind,
    already_exists,
    bad_request,
    built_in,
    conflict,
    custom,
    invalid,
    invalid_value,
    not_found,
)
from double_rules import built_in_causes, built_in_defaults, metadata_causes
from double_schema import default, prune, validate
from double_store import Store, dig

Object = dict[str, Any]
CRDS = "customresourcedefinitions.apiextensions.k8s.io"
SCALE = Kind("autoscaling", "v1", "scales", "Scale", frozenset())
SERVER_SETS = {
    *("name", "namespace", "generateName", "uid", "resourceVersion", "generation"),
    *("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
}
NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # apiserver's storage/names, apimachinery's util/rand
NAME_DRAWS = 8  # KEP-4420: seven tries after a name that is taken


class Objects:
    """The verbs on every kind. Bodies passed in belong to this class and may be changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.kinds = built_in()
        for name in ("default", "kube-system"):
            namespaces = self.kinds["", "v1", "namespaces"]
            self.create(namespaces, "", {"metadata": {"name": name}})

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        found = self.store.get(kind.storage, (namespace, name))
        if found is None:
            raise not_found(kind, name)
        return found

    def create(self, kind: Kind, namespace: str, body: Object, *, dry_run: bool = False) -> Object:
        metadata = self._envelope(kind, namespace, body)
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = self._generated(kind, namespace, metadata["generateName"])
        name = metadata.get("name", "")
        if namespace:
            self._check_namespace(namespace)
        if metadata.get("resourceVersion"):
            message = "resourceVersion should not be set on objects to be created"
            raise ApiError(500, "InternalError", message)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        metadata.pop("deletionTimestamp", None)
        if "generation" in kind.traits:
            metadata["generation"] = 1
        if "status" in kind.traits and kind.plural != "nodes":  # a kubelet registers with status
            body.pop("status", None)
        self._complete(kind, body)
        if self.store.get(kind.storage, (namespace, name)) is not None:
            raise already_exists(kind, name)
        return body if dry_run else self._keep(kind, (namespace, name), body)

    def _generated(self, kind: Kind, namespace: str, prefix: str) -> str:
        """Return a name that is free; the API server too draws again, up to NAME_DRAWS times."""
        for _ in range(NAME_DRAWS):
            name = prefix + "".join(random.choices(NAME_LETTERS, k=5))  # noqa: S311
            if self.store.get(kind.storage, (namespace, name)) is None:
                break
        return name

    def replace(
        self, kind: Kind, name: str, old: Object, body: Object, part: str, *, dry_run: bool = False
    ) -> Object:
        """Put `body` in place of `old`; `part` is "", "status" or "finalize"."""
        namespace = old["metadata"].get("namespace", "")
        metadata = self._envelope(kind, namespace, body)
        if metadata.get("name", name) != name:
            words = (
                f"the name of the object ({metadata['name']}) does not match the name on the URL"
            )
            raise bad_request(f"{words} ({name})")
        self._check_version(kind, name, metadata, old["metadata"])
        new = _part(kind, old, body, part)
        new["metadata"] = _owned(new["metadata"], old["metadata"])
        self._complete(kind, new)
        if new == old:  # a write that changes nothing is no write
            return old
        if "generation" in kind.traits and _changes_generation(kind, old, new):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        return new if dry_run else self._keep(kind, (namespace, name), new)

    def delete(self, kind: Kind, old: Object, options: Object) -> Object:
        """Delete, or mark for deletion what has finalizers or must first be stopped."""
        metadata = old["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        wanted = options.get("preconditions") or {}
        for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
            if wanted.get(field) not in {None, metadata[field]}:
                words = f"{label} in precondition: {wanted[field]}, {label} in object meta: "
                raise conflict(kind, key[1], f"Precondition failed: {words}{metadata[field]}")
        grace_seconds = _grace_seconds(kind, old, options)
        is_held = metadata.get("finalizers") or dig(old, ["spec", "finalizers"])
        if not is_held and not grace_seconds:
            return self._remove(kind, key)
        if "deletionTimestamp" in metadata:
            return old
        marks = {
            "deletionTimestamp": now(grace_seconds),
            "deletionGracePeriodSeconds": grace_seconds,
        }
        marked: Object = {**old, "metadata": {**metadata, **marks}}
        if "generation" in kind.traits:
            marked["metadata"]["generation"] += 1
        if kind.plural == "namespaces":
            marked["status"] = {"phase": "Terminating"}
        return self.store.write(kind.storage, key, marked)

    def scale(self, kind: Kind, old: Object) -> Object:
        """Return the autoscaling/v1 Scale of an object."""
        paths = kind.scale or {}
        selector = dig(old, _path(paths.get("labelSelectorPath", ""))) or ""
        replicas = dig(old, _path(paths["specReplicasPath"]))
        if replicas is None:
            where = paths["specReplicasPath"]
            message = f'Internal error occurred: the spec replicas field "{where}" does not exist'
            raise ApiError(500, "InternalError", message)
        wanted = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        status = {"replicas": dig(old, _path(paths["statusReplicasPath"])) or 0}
        if selector:
            status["selector"] = selector if isinstance(selector, str) else _selector(selector)
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {k: v for k, v in old["metadata"].items() if k in wanted},
            "spec": {"replicas": replicas} if replicas else {},  # as in Go: zero is left out
            "status": status,
        }

    def replace_scale(self, kind: Kind, name: str, old: Object, scale: Object) -> Object:
        metadata = self._envelope(SCALE, old["metadata"]["namespace"], scale)
        _check_name(metadata, name)
        free = dataclasses.replace(kind, traits=kind.traits - {"strict"})  # a version is optional
        self._check_version(free, name, metadata, old["metadata"])
        replicas = dig(scale, ["spec", "replicas"]) or 0
        if not isinstance(replicas, int) or replicas < 0:
            why = "must be greater than or equal to 0"
            raise invalid(SCALE, name, [invalid_value("spec.replicas", replicas, why)])
        new = copy.deepcopy(old)
        *parents, last = _path((kind.scale or {})["specReplicasPath"])
        target = new
        for key in parents:
            target = target.setdefault(key, {})
        target[last] = replicas
        return self.scale(kind, self.replace(kind, name, old, new, ""))

    # -- steps ---------------------------------------------------------------

    def _envelope(self, kind: Kind, namespace: str, body: Object) -> Object:
        """Check what kind of thing a body says it is; return its metadata."""
        for field, wanted in (("kind", kind.kind), ("apiVersion", kind.api_version)):
            given = body.get(field, "" if kind.is_custom else wanted)
            if given == wanted or kind.kind == "Event":
                continue
            if not given:
                words = f"the object provided is unrecognized (must be of type {kind.kind})"
                raise bad_request(f"{words}: Object '{field.capitalize()}' is missing")
            if field == "kind" and kind.is_custom:
                why = invalid_value("kind", given, f"must be {wanted}")
                other = dataclasses.replace(kind, kind=given)
                raise invalid(other, (body.get("metadata") or {}).get("name", ""), [why])
            words = f"the API version in the data ({given}) does not match the expected API version"
            raise bad_request(f"{words} ({wanted})")
        body |= {"apiVersion": kind.api_version, "kind": kind.kind}
        metadata: Object = body.setdefault("metadata", {})
        metadata.pop("managedFields", None)
        if namespace and metadata.setdefault("namespace", namespace) != namespace:
            words = "the namespace of the provided object does not match the namespace sent on the"
            raise bad_request(f"{words} request")
        return metadata

    def _check_namespace(self, namespace: str) -> None:
        found = self.get(self.kinds["", "v1", "namespaces"], "", namespace)
        if "deletionTimestamp" in found["metadata"]:
            words = f"unable to create new content in namespace {namespace} because it is being"
            raise ApiError(403, "Forbidden", f"{words} terminated")

    def _check_version(self, kind: Kind, name: str, new: Object, old: Object) -> None:
        given = new.get("resourceVersion")
        if not given and "strict" in kind.traits:
            why = "must be specified for an update"
            title = dataclasses.replace(kind, kind=kind.plural) if kind.is_custom else kind
            raise invalid(title, name, [invalid_value("metadata.resourceVersion", 0, why)])
        if given and given != old["resourceVersion"]:
            raise conflict(kind, name)
        if new.get("uid", old["uid"]) != old["uid"]:
            words = f"UID in precondition: {new['uid']}, UID in object meta: {old['uid']}"
            raise conflict(kind, name, f"Precondition failed: {words}")

    def _complete(self, kind: Kind, body: Object) -> None:
        """Prune, default and validate in place. Raises ApiError 422."""
        causes = metadata_causes(body["metadata"])
        if kind.schema is not None:
            schema = with_envelope(kind.schema)
            prune(schema, body)
            default(schema, body)
            causes += validate(schema, body)
        else:
            built_in_defaults(kind, body)
            causes += built_in_causes(kind, body)
        if causes:
            raise invalid(kind, body["metadata"].get("name", ""), causes)

    def _keep(self, kind: Kind, key: tuple[str, str], body: Object) -> Object:
        if "deletionTimestamp" in body["metadata"]:
            held = body["metadata"].get("finalizers") or dig(body, ["spec", "finalizers"])
            if not held and not body["metadata"].get("deletionGracePeriodSeconds"):
                return self._remove(kind, key)
        if kind.storage == CRDS:
            _establish(body)
        stored = self.store.write(kind.storage, key, body)
        if kind.storage == CRDS:
            self._drop_served(stored)
            self.kinds |= {(k.group, k.version, k.plural): k for k in custom(stored)}
        return stored

    def _remove(self, kind: Kind, key: tuple[str, str]) -> Object:
        last = self.store.write(kind.storage, key, None)
        if kind.storage == CRDS:  # its objects go with it
            storage = last["metadata"]["name"]
            for inner in list(self.store.objects[storage]):
                self.store.write(storage, inner, None)
            self._drop_served(last)
        return last

    def _drop_served(self, crd: Object) -> None:
        for key in [k for k, v in self.kinds.items() if v.storage == crd["metadata"]["name"]]:
            if self.kinds[key].is_custom:
                del self.kinds[key]


def _check_name(metadata: Object, name: str) -> None:
    if metadata.get("name", name) != name:
        words = f"the name of the object ({metadata['name']}) does not match the name on the URL"
        raise bad_request(f"{words} ({name})")


def now(later_seconds: float = 0.0) -> str:
    at = time.gmtime(time.time() + later_seconds)  # noqa: TID251 (a server stamps what it makes)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", at)


def _path(text: str) -> list[str]:
    return [part for part in text.split(".") if part]


def _selector(selector: Object) -> str:
    labels = selector.get("matchLabels") or {}
    parts = [f"{key}={labels[key]}" for key in sorted(labels)]
    for expression in selector.get("matchExpressions") or ():
        values = ",".join(sorted(expression.get("values") or ()))
        verb = {"In": f" in ({values})", "NotIn": f" notin ({values})"}.get(expression["operator"])
        absent = "!" if expression["operator"] == "DoesNotExist" else ""
        parts.append(f"{absent}{expression['key']}{verb or ''}")
    return ",".join(parts)


def _part(kind: Kind, old: Object, body: Object, part: str) -> Object:
    """Return `old` with only that taken from `body` which the endpoint may change."""
    if part == "finalize":
        return {**old, "spec": body.get("spec") or {}}
    if part == "status":
        new = dict(old)
        if not kind.is_custom:  # built-in kinds let /status annotate, custom resources do not
            given = body["metadata"].get("annotations")
            new["metadata"] = {**old["metadata"], **({"annotations": given} if given else {})}
        source = body
    elif "status" in kind.traits:
        new, source = dict(body), old
    else:
        return body
    new.pop("status", None)
    return {**new, "status": source["status"]} if "status" in source else new


def _owned(new: Object, old: Object) -> Object:
    """Return the new metadata with what only the server may set."""
    kept = {k: v for k, v in new.items() if k not in SERVER_SETS and v not in (None, {})}
    return {**kept, **{key: old[key] for key in SERVER_SETS if key in old}}


def _changes_generation(kind: Kind, old: Object, new: Object) -> bool:
    if not kind.is_custom:
        notes = [dig(item, ["metadata", "annotations"]) for item in (old, new)]
        counts_notes = kind.kind == "Deployment" and notes[0] != notes[1]
        return old.get("spec") != new.get("spec") or counts_notes
    ignored = {"metadata", "apiVersion"} | ({"status"} & kind.traits)
    return {k: v for k, v in old.items() if k not in ignored} != {
        k: v for k, v in new.items() if k not in ignored
    }


def _grace_seconds(kind: Kind, old: Object, options: Object) -> int:
    """Only a pod on a node waits: for its kubelet."""
    if kind.plural != "pods" or not dig(old, ["spec", "nodeName"]):
        return 0
    if dig(old, ["status", "phase"]) in {"Succeeded", "Failed"}:
        return 0
    given = options.get("gracePeriodSeconds")
    return int(dig(old, ["spec", "terminationGracePeriodSeconds"]) if given is None else given)


def with_envelope(schema: Object) -> Object:
    """Return a schema that knows what every object has."""
    free: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    own = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": free}
    return {**schema, "properties": {**(schema.get("properties") or {}), **own}}


def _establish(crd: Object) -> None:
    """Accept the names of a definition, which in a real server takes a moment."""
    names = json.loads(json.dumps(crd["spec"]["names"]))
    for key, value in (("singular", names["kind"].lower()), ("listKind", f"{names['kind']}List")):
        names.setdefault(key, value)
    crd["spec"]["names"] = names
    at = dig(crd, ["status", "conditions"]) or [{"lastTransitionTime": now()}]
    crd["status"] = {
        "acceptedNames": names,
        "conditions": [
            {"type": kind, "status": "True", "reason": reason, "message": "", **stamp}
            for kind, reason in (
                ("NamesAccepted", "NoConflicts"),
                ("Established", "InitialNamesAccepted"),
            )
            for stamp in ({"lastTransitionTime": at[0]["lastTransitionTime"]},)
        ],
        "storedVersions": [v["name"] for v in crd["spec"]["versions"] if v.get("storage")],
    }

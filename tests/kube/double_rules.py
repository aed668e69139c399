"""What the API server wants of metadata and of built-in kinds, and what it fills in."""

import re
from typing import Any

from double_kinds import Cause, Kind, invalid_value, required
from double_store import dig

Object = dict[str, Any]
CONFIGMAP_BYTES = 1024 * 1024
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
LABEL_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
SUBDOMAIN_WORDS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
    " and must start and end with an alphanumeric character (e.g. 'example.com', regex used for"
    " validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_WORDS = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.',"
    " and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or"
    " '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def metadata_causes(metadata: Object) -> list[Cause]:
    """Return what is wrong with the name and the labels."""
    name = metadata.get("name", "")
    causes = []
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    elif ":" not in name and not re.fullmatch(SUBDOMAIN, name):  # RBAC allows system:...
        causes.append(invalid_value("metadata.name", name, SUBDOMAIN_WORDS))
    labels = (metadata.get("labels") or {}).values()
    wrong = [v for v in labels if not re.fullmatch(LABEL_VALUE, v) or len(v) > 63]
    return causes + [invalid_value("metadata.labels", value, LABEL_WORDS) for value in wrong]


def built_in_defaults(kind: Kind, body: Object) -> None:
    """Fill in place what operators read."""
    spec = body.get("spec")
    if "scale" in kind.traits:
        body.setdefault("status", {})
    if kind.kind == "Namespace":
        body["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = body["metadata"][
            "name"
        ]
        body.setdefault("spec", {"finalizers": ["kubernetes"]})
        body.setdefault("status", {"phase": "Active"})
    elif kind.kind == "Pod":
        body.setdefault("status", {"phase": "Pending", "qosClass": "BestEffort"})
        if isinstance(spec, dict):
            spec.setdefault("terminationGracePeriodSeconds", 30)
            spec.setdefault("restartPolicy", "Always")
    elif "scale" in kind.traits and isinstance(spec, dict):
        spec.setdefault("replicas", 1)
    elif kind.kind == "HorizontalPodAutoscaler" and isinstance(spec, dict):
        spec.setdefault("minReplicas", 1)


def built_in_causes(kind: Kind, body: Object) -> list[Cause]:
    """Return what is wrong, as far as an operator may cause it."""
    if kind.kind == "ConfigMap":
        size = sum(
            len(v.encode()) for p in ("data", "binaryData") for v in (body.get(p) or {}).values()
        )
        if size > CONFIGMAP_BYTES:
            message = f"Too long: may not be more than {CONFIGMAP_BYTES} bytes"
            return [Cause("FieldValueTooLong", "[]", message)]
    if kind.kind == "Lease":
        seconds = dig(body, ["spec", "leaseDurationSeconds"])
        if seconds is not None and seconds <= 0:
            field = "spec.leaseDurationSeconds"
            return [invalid_value(field, seconds, "must be greater than 0")]
    if kind.kind == "Event":
        return _event_causes(kind, body)
    if "scale" in kind.traits:
        labels = dig(body, ["spec", "template", "metadata", "labels"]) or {}
        wanted = dig(body, ["spec", "selector", "matchLabels"])
        if not wanted:
            return [required("spec.selector")]
        if wanted.items() - labels.items():
            why = "`selector` does not match template `labels`"
            return [invalid_value("spec.template.metadata.labels", labels, why)]
    return []


def _event_causes(kind: Kind, body: Object) -> list[Cause]:
    about = "regarding" if kind.group else "involvedObject"
    of = dig(body, [about, "namespace"]) or ""
    causes = []
    if of != body["metadata"].get("namespace") and (
        of or body["metadata"]["namespace"] != "default"
    ):
        causes.append(invalid_value(f"{about}.namespace", of, "does not match event.namespace"))
    if kind.group:
        needed = ("eventTime", "reportingController", "reportingInstance", "action", "reason")
        causes += [required(field) for field in needed if not body.get(field)]
        if body.get("type") not in {"Normal", "Warning"}:
            causes.append(invalid_value("type", body.get("type", ""), "must be Normal or Warning"))
    return causes

"""CustomResourceDefinitions from the models: `schema` says what users write, `status` what they read.

What differs from JSON schema is what the API server asks for: no references, no `anyOf`, no null (null
is absent), bounds as in OpenAPI 3.0, unknown fields refused by `kubectl` itself. Defaults of mappings
are empty: the API server fills the inner ones in, so that `kubectl get -o yaml` shows what holds.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from autoscaler.policy.cel import RULES
from autoscaler.policy.schema import API_VERSION, RESOURCES, TIMESTAMP_PATTERN
from autoscaler.policy.status import AcceleratorPoolStatus, ScalingPolicyStatus
from autoscaler.policy.wording import JsonSchema, allowed, json_schema, resolve

Manifest = dict[str, Any]
GROUP, VERSION = API_VERSION.split("/")

# Lists that are maps: entries merge by their key (server-side apply), and a key appears once.
LIST_KEYS = {
    "spec.slo.objectives": "metric",
    "spec.variants": "name",
    "spec.schedule": "name",
    "spec.classes": "name",
    "status.variants": "name",
    "status.classes": "name",
    "status.conditions": "type",
}
LIST_SETS = ("spec.schedule[].days", "spec.excluded")
COPIED = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "enum")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`; a wide one is shown with `-o wide`."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False

    def manifest(self) -> Manifest:
        """Return the entry of additionalPrinterColumns."""
        out: Manifest = {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.path,
            "description": self.description,
        }
        return {**out, "priority": 1} if self.wide else out


@dataclass(frozen=True, slots=True)
class Definition:
    """What a CRD says beside its schema."""

    plural: str
    short_names: tuple[str, ...]
    scope: str
    description: str
    status: type[BaseModel]
    columns: tuple[Column, ...]


def _condition(kind: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


_AGE = Column("Age", ".metadata.creationTimestamp", "since creation", "date")
DEFINITIONS = {
    "ScalingPolicy": Definition(
        plural="scalingpolicies",
        short_names=("sp", "spol"),
        scope="Namespaced",
        description="How one vLLM service is scaled ahead of its demand: what it must hold (slo), "
        "where it may run (variants), how it may move (behavior). The operator answers in status.",
        status=ScalingPolicyStatus,
        columns=(
            Column("Mode", ".status.mode", "mode in force"),
            Column("Ready", _condition("Ready"), "are decisions made and, in Scale mode, written"),
            Column("Desired", ".status.desiredReplicas", "replicas decided", "integer"),
            Column("Serving", ".status.readyReplicas", "replicas that serve", "integer"),
            Column("Reason", ".status.display.reason", "of the decision, or why not Ready"),
            Column("Budget Left", ".status.display.errorBudgetLeft", "of the SLO's error budget"),
            Column("Cost/h", ".status.display.costPerHour", "of the desired replicas"),
            _AGE,
            Column("Model", ".spec.model", "model that vLLM serves", wide=True),
            Column("Forecast rps", ".status.display.forecast", "at the horizon", wide=True),
            Column("Lead Time", ".status.display.leadTime", "decision to ready", wide=True),
            Column("Model Version", ".status.modelVersion", "of trained models", wide=True),
        ),
    ),
    "AcceleratorPool": Definition(
        plural="acceleratorpools",
        short_names=("ap", "apool"),
        scope="Cluster",
        description="Accelerators that can be had: kinds, prices, quotas, a common budget.",
        status=AcceleratorPoolStatus,
        columns=(
            Column("Ready", _condition("Ready"), "is the inventory known"),
            Column("Exhausted", _condition("Exhausted"), "is a class used up"),
            Column("In Use", ".status.display.inUse", "accelerators by class"),
            Column("Cost/h", ".status.display.costPerHour", "of the accelerators in use"),
            _AGE,
            Column("Why", _condition("Ready", "reason"), "reason of Ready", wide=True),
        ),
    ),
}


def crd_documents() -> list[Manifest]:
    """Return the CustomResourceDefinitions of all kinds, as plain data."""
    return [_crd(kind, definition) for kind, definition in DEFINITIONS.items()]


def _crd(kind: str, definition: Definition) -> Manifest:
    singular = kind.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{definition.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "foreserve"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": definition.plural,
                "singular": singular,
                "shortNames": list(definition.short_names),
                "categories": ["foreserve"],
            },
            "scope": definition.scope,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _resource(kind, definition)},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [c.manifest() for c in definition.columns],
                }
            ],
        },
    }


def _resource(kind: str, definition: Definition) -> Manifest:
    root, status = json_schema(RESOURCES[kind]), json_schema(definition.status)
    spec = _structural(root["properties"]["spec"], root, "spec")
    return {
        "type": "object",
        "description": definition.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION}."},
            "kind": {"type": "string", "description": f"{kind}."},
            "metadata": {"type": "object"},
            "spec": spec | {"description": _sentence(_doc("spec", root))},
            "status": _structural(status, status, "status"),
        },
    }


def _doc(name: str, root: JsonSchema) -> str:
    return str(resolve(root["properties"][name], root)["description"])


def _structural(field: JsonSchema, root: JsonSchema, path: str) -> Manifest:
    """Return the structural schema of one field; `path` as `spec.variants[].name`."""
    node = resolve(field, root)
    out: Manifest = {"type": node["type"]}
    if text := _description(field, node, root, told=path.startswith("spec")):
        out["description"] = text
    match node["type"]:
        case "object":
            out |= _mapping(field, node, root, path)
        case "array":
            out |= {"items": _structural(node["items"], root, f"{path}[]")} | _list_type(path)
        case "integer":
            out["format"] = "int64"
    out |= _bounds(node)
    default = field.get("default")
    if default is not None and default not in ([], {}):
        out["default"] = {} if isinstance(default, dict) else _number(default)
    return out


def _mapping(field: JsonSchema, node: JsonSchema, root: JsonSchema, path: str) -> Manifest:
    """Return what is particular to a mapping: its fields and rules, or what its values may be."""
    if "properties" not in node:
        values = node.get("additionalProperties")
        if isinstance(values, dict):
            return {"additionalProperties": _structural(values, root, f"{path}{{}}")}
        return {"x-kubernetes-preserve-unknown-fields": True}  # free form
    out: Manifest = {
        "properties": {
            name: _structural(inner, root, f"{path}.{name}")
            for name, inner in node["properties"].items()
        }
    }
    if required := node.get("required"):
        out["required"] = list(required)
    if rules := RULES.get(_class_of(field)):
        out["x-kubernetes-validations"] = [rule.manifest() for rule in rules]
    return out


def _class_of(field: JsonSchema) -> str:
    """Return the name of the model that a field refers to, or an empty text."""
    options = (field, *field.get("anyOf", ()))
    return next((str(n["$ref"]).rsplit("/", 1)[1] for n in options if "$ref" in n), "")


def _list_type(path: str) -> Manifest:
    if path in LIST_KEYS:
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [LIST_KEYS[path]]}
    return {"x-kubernetes-list-type": "set" if path in LIST_SETS else "atomic"}


def _bounds(node: JsonSchema) -> Manifest:
    """Return bounds as OpenAPI 3.0 has them: exclusive is a flag, a constant an enum of one."""
    out: Manifest = {key: _number(node[key]) for key in COPIED if key in node}
    for key in ("minimum", "maximum"):
        exclusive = f"exclusive{key.capitalize()}"
        if exclusive in node:
            out |= {key: _number(node[exclusive]), exclusive: True}
    if "const" in node:
        out["enum"] = [node["const"]]
    if node.get("pattern") == TIMESTAMP_PATTERN:
        out["format"] = "date-time"  # a time that exists; CEL compares times, not texts
    elif "format" in node:
        out["format"] = node["format"]
    return out


def _number(value: Any) -> Any:  # noqa: ANN401 - a default or bound of any JSON type
    """Return whole numbers without a decimal point, as the API server writes them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _description(field: JsonSchema, node: JsonSchema, root: JsonSchema, *, told: bool) -> str:
    """Return the meaning, what is allowed and the default; `kubectl explain` shows enums itself.

    `told` False: what is allowed is of no interest, since nobody writes it by hand.
    """
    meaning = field.get("description") or node.get("description")
    parts = [_sentence(str(meaning))] if meaning else []
    bounded = node["type"] in ("number", "integer") or "pattern" in node or "maxItems" in node
    if told and bounded:
        parts.append(f"Allowed: {allowed(node, root)}.")
    default = field.get("default")
    if default is not None and not isinstance(default, dict | list):
        parts.append(f"Default: {_shown(default)}.")
    return " ".join(parts)


def _shown(default: Any) -> str:  # noqa: ANN401 - a default of any JSON type
    return str(default).lower() if isinstance(default, bool) else f"{_number(default)}"


def _sentence(text: str) -> str:
    """Return `text` as a sentence; a value that is explained (ttft: ...) keeps its case."""
    if not text.split(maxsplit=1)[0].endswith(":"):
        text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."

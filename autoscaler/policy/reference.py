"""The reference of both resources, from the models themselves: docs/crd-reference.md is its output."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from autoscaler.policy.crds import DEFINITIONS, Definition, crd_documents
from autoscaler.policy.schema import API_VERSION, RESOURCES
from autoscaler.policy.wording import JsonSchema, allowed, json_schema, resolve

INTRODUCTION = f"""# Resource reference

<!-- Written by `foreserve crds --reference`; a test holds it to the models. -->

API version `{API_VERSION}`. How to use these fields, with examples: [policies.md](policies.md).
The same is in the cluster: `kubectl explain scalingpolicy.spec`.
"""
HEAD = "| field | allowed | default | meaning |\n| --- | --- | --- | --- |\n"


def reference_page() -> str:
    """Return the page: both kinds with columns, fields, rules and status, in Markdown."""
    parts = (_part(kind, definition) for kind, definition in DEFINITIONS.items())
    return "\n".join([INTRODUCTION, *parts])


def _part(kind: str, definition: Definition) -> str:
    names = ", ".join(f"`{n}`" for n in (definition.plural, *definition.short_names))
    columns = "".join(
        f"| {c.name}{' (wide)' if c.wide else ''} | {c.description} |\n" for c in definition.columns
    )
    (document,) = [d for d in crd_documents() if d["spec"]["names"]["kind"] == kind]
    (version,) = document["spec"]["versions"]
    rules = "".join(
        f"| `{path}` | {message} |\n"
        for path, message in _rules("", version["schema"]["openAPIV3Schema"])
    )
    return (
        f"## {kind}\n\n{definition.description} {definition.scope}; {names}.\n\n"
        f"| column of `kubectl get` | meaning |\n| --- | --- |\n{columns}\n"
        f"### {kind}: what you write\n\n{reference_table(kind)}\n"
        f"Refused at `kubectl apply`, beyond single fields:\n\n"
        f"| in | what is wrong, and what is allowed |\n| --- | --- |\n{rules}\n"
        f"### {kind}: status\n\n{status_table(definition.status)}"
    )


def _rules(path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (path, sentence) of every rule on an object of this structural schema, at any depth."""
    for rule in node.get("x-kubernetes-validations", ()):
        yield path, rule["message"]
    for name, inner in node.get("properties", {}).items():
        yield from _rules(f"{path}.{name}" if path else name, inner)
    if "items" in node:
        yield from _rules(f"{path}[]", node["items"])


def status_table(model: type[BaseModel]) -> str:
    """Return a Markdown table with a row for every field of a status."""
    root = json_schema(model)
    rows = (f"| `{path}` | {meaning} |\n" for path, _, _, meaning in _rows("status", root, root))
    return "| field | meaning |\n| --- | --- |\n" + "".join(rows)


def reference_table(kind: str) -> str:
    """Return a Markdown table with a row for every field of `kind` below metadata and spec."""
    root = json_schema(RESOURCES[kind])
    rows = (
        f"| `{path}` | {words} | {default} | {meaning} |\n"
        for path, words, default, meaning in _rows("", root, root)
        if path.startswith(("metadata.", "spec."))
    )
    return HEAD + "".join(rows)


def _rows(path: str, node: JsonSchema, root: JsonSchema) -> Iterator[tuple[str, str, str, str]]:
    required = node.get("required", [])
    for name, field in node.get("properties", {}).items():
        at = f"{path}.{name}" if path else name
        inner = resolve(field, root)
        yield (
            at,
            _allowed(inner, root),
            _default(field, name in required),
            field.get("description", ""),
        )
        if inner.get("type") == "array":
            at, inner = f"{at}[]", resolve(inner["items"], root)
        yield from _rows(at, inner, root)


def _allowed(node: JsonSchema, root: JsonSchema) -> str:
    """Return what is allowed; the fields of a mapping have rows of their own."""
    return "a mapping" if "properties" in node else allowed(node, root)


def _default(field: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    default = field.get("default")
    if isinstance(default, dict) and default:
        return "see below"
    return "none" if default in (None, [], {}) else f"`{json.dumps(default).strip(chr(34))}`"

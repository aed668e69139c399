"""The reference table of every field, from the models themselves; docs/policies.md holds its output."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from autoscaler.policy.schema import RESOURCES
from autoscaler.policy.wording import JsonSchema, allowed, json_schema, resolve

HEAD = "| field | allowed | default | meaning |\n| --- | --- | --- | --- |\n"


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

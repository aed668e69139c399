"""What a field allows, in words, read from the models' JSON schema; pydantic's errors as problems."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from autoscaler.policy.errors import Place, Problem, nearest, refused
from autoscaler.policy.schema import PATTERN_WORDS

JsonSchema = Mapping[str, Any]


def problems_of(error: ValidationError, model: type[BaseModel], place: Place) -> list[Problem]:
    """Return one problem for each of pydantic's errors, in the order of the fields."""
    root = json_schema(model)
    return [_problem(e["type"], e["loc"], e["input"], root, place) for e in error.errors()]


@cache
def json_schema(model: type[BaseModel]) -> JsonSchema:
    """Return the model's JSON schema under its YAML names."""
    return model.model_json_schema(by_alias=True)


def allowed(node: JsonSchema, root: JsonSchema) -> str:
    """Return in words what the schema node allows."""
    node = resolve(node, root)
    if "const" in node:
        return _literal(node["const"])
    if "enum" in node:
        return "one of " + ", ".join(_literal(v) for v in node["enum"])
    match node["type"]:
        case "string":
            words = PATTERN_WORDS.get(node.get("pattern", ""), "a text")
        case "number":
            words = "a number" + _bounds(node)
        case "integer":
            words = "an integer" + _bounds(node)
        case "boolean":
            words = "true or false"
        case "array":
            words = "a list" + _entries(node, root)
        case _:
            words = "a mapping" + _contents(node, root)
    return words


def resolve(node: JsonSchema, root: JsonSchema) -> JsonSchema:
    """Return the node with its reference followed and "or null" taken off (null means absent)."""
    if "anyOf" in node:
        node = next(n for n in node["anyOf"] if n.get("type") != "null")
    if "$ref" in node:
        node = root["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node


def path_text(loc: Sequence[int | str]) -> str:
    """Return a path as `spec.variants[0].targetRef`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _problem(
    kind: str, loc: Sequence[int | str], value: object, root: JsonSchema, place: Place
) -> Problem:
    path = path_text(loc)
    if kind == "extra_forbidden":
        known = list(_node(loc[:-1], root)["properties"])
        text = f"unknown field; {nearest(str(loc[-1]), known)}allowed: {', '.join(known)}"
        return Problem(place, path, text)
    words = allowed(_node(loc, root), root)
    if kind == "missing":
        return Problem(place, path, f"missing; required: {words}")
    return refused(place, path, value, words)


def _node(loc: Sequence[int | str], root: JsonSchema) -> JsonSchema:
    node = resolve(root, root)
    for part in loc:
        if isinstance(part, int):
            node = node["items"]
        else:
            node = node.get("properties", {}).get(part) or node["additionalProperties"]
        node = resolve(node, root)
    return node


def _literal(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bounds(node: JsonSchema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}" if high < 1e5 else f" from {low:g} to {int(high)}"
    words = []
    if above is not None:
        words.append(f"above {above:g}")
    if below is not None:
        words.append(f"below {below:g}")
    if low is not None:
        words.append(f"of at least {low:g}")
    if high is not None:
        words.append(f"up to {int(high)}")
    return f" {' and '.join(words)}" if words else ""


def _entries(node: JsonSchema, root: JsonSchema) -> str:
    low, high = node.get("minItems", 0), node.get("maxItems")
    size = f" of {low} to {high} entries" if high is not None else ""
    item = resolve(node["items"], root)
    return size if "properties" in item else f"{size}, each {allowed(item, root)}"


def _contents(node: JsonSchema, root: JsonSchema) -> str:
    if "properties" in node:
        return " of " + ", ".join(node["properties"])
    values = node.get("additionalProperties")
    return f" from names to {allowed(values, root)}" if isinstance(values, dict) else ""

"""Structural schemas as the API server applies them: prune, default, validate. No CEL."""

import json
import re
from typing import Any

from double_kinds import Cause, invalid_value, required

Object = dict[str, Any]
KEEP = "x-kubernetes-preserve-unknown-fields"
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def prune(schema: Object, value: object, path: str = "") -> list[str]:
    """Remove in place what the schema does not name; return the paths removed."""
    gone: list[str] = []
    if isinstance(value, list):
        for index, item in enumerate(value):
            gone += prune(schema.get("items") or {KEEP: True}, item, f"{path}[{index}]")
    if not isinstance(value, dict):
        return gone
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    for key in list(value):
        inner = f"{path}.{key}" if path else key
        if key in properties:
            gone += prune(properties[key], value[key], inner)
        elif isinstance(extra, dict):
            gone += prune(extra, value[key], inner)
        elif not schema.get(KEEP) and not extra:
            del value[key]
            gone.append(inner)
    return gone


def default(schema: Object, value: object) -> None:
    """Fill defaults in place; a null where none may be counts as missing."""
    if isinstance(value, list):
        for item in value:
            default(schema.get("items") or {}, item)
    if not isinstance(value, dict):
        return
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    for key in [k for k, item in value.items() if item is None]:
        inner = properties.get(key) or (extra if isinstance(extra, dict) else {"nullable": True})
        if not inner.get("nullable"):
            del value[key]
    for key, inner in properties.items():
        if key not in value and "default" in inner:
            value[key] = json.loads(json.dumps(inner["default"]))
        if key in value:
            default(inner, value[key])
    for key in value.keys() - properties.keys():
        default(extra if isinstance(extra, dict) else {}, value[key])


def validate(schema: Object, value: object, path: str = "") -> list[Cause]:
    """Return what is wrong, in the order of the schema."""
    if value is None and schema.get("nullable"):
        return []
    wrong_type = _type_error(schema, value, path)
    if wrong_type:
        return [wrong_type, *(_enum(schema, value, path) if value is not None else [])]
    causes = _enum(schema, value, path) + _limits(schema, value, path)
    if isinstance(value, dict):
        causes += _fields(schema, value, path)
    if isinstance(value, list):
        for index, item in enumerate(value):
            causes += validate(schema.get("items") or {}, item, f"{path}[{index}]")
        causes += _duplicates(schema, value, path)
    return causes + _alternatives(schema, value, path)


def _type_error(schema: Object, value: object, path: str) -> Cause | None:
    if schema.get("x-kubernetes-int-or-string"):
        wanted, fits = "integer,string", isinstance(value, int | str)
        fits = fits and not isinstance(value, bool)
    else:
        wanted = schema.get("type", "")
        if not wanted:
            return None
        fits = isinstance(value, TYPES[wanted])
        fits = fits and (wanted == "boolean" or not isinstance(value, bool))
        if wanted == "integer" and isinstance(value, float):
            fits = value.is_integer()
    if fits:
        return None
    found = "null" if value is None else _type_name(value)
    why = f'{path} in body must be of type {wanted}: "{found}"'
    cause = invalid_value(path, found, why)
    return Cause("FieldValueTypeInvalid", cause.field, cause.message)


def _type_name(value: object) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
    return names.get(type(value), "array")


def _fields(schema: Object, value: Object, path: str) -> list[Cause]:
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    causes = []
    for key in schema.get("required") or ():
        if key not in value:
            causes.append(required(f"{path}.{key}" if path else key))  # noqa: PERF401
    for key, item in value.items():
        inner = properties.get(key) or (extra if isinstance(extra, dict) else None)
        if inner:
            causes += validate(inner, item, f"{path}.{key}" if path else key)
    return causes


def _enum(schema: Object, value: object, path: str) -> list[Cause]:
    if "enum" not in schema or value in schema["enum"]:
        return []
    allowed = ", ".join(
        json.dumps(c if isinstance(c, str) else json.dumps(c)) for c in schema["enum"]
    )
    message = f"Unsupported value: {json.dumps(value)}: supported values: {allowed}"
    return [Cause("FieldValueNotSupported", path, message)]


def _limits(schema: Object, value: Any, path: str) -> list[Cause]:
    causes = []

    def wrong(why: str, shown: object = value) -> None:
        causes.append(invalid_value(path, shown, f"{path} in body {why}"))

    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and (value < low or (schema.get("exclusiveMinimum") and value == low)):
            or_equal = "" if schema.get("exclusiveMinimum") else "or equal to "
            wrong(f"should be greater than {or_equal}{low}")
        if high is not None and (
            value > high or (schema.get("exclusiveMaximum") and value == high)
        ):
            or_equal = "" if schema.get("exclusiveMaximum") else "or equal to "
            wrong(f"should be less than {or_equal}{high}")
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            wrong(f"should be at least {schema['minLength']} chars long")
        if len(value) > schema.get("maxLength", len(value)):
            message = f"Too long: may not be more than {schema['maxLength']} bytes"
            causes.append(Cause("FieldValueTooLong", path, message))
        if "pattern" in schema and not re.search(schema["pattern"], value):
            wrong(f"should match '{schema['pattern']}'")
    if isinstance(value, list | dict):
        causes += _sizes(schema, value, path)
    return causes


def _sizes(schema: Object, value: list[Any] | Object, path: str) -> list[Cause]:
    word = "Items" if isinstance(value, list) else "Properties"
    count, noun = len(value), word.lower()
    if count < schema.get(f"min{word}", 0):
        why = f"{path} in body should have at least {schema[f'min{word}']} {noun}"
        return [invalid_value(path, count, why)]
    if count > schema.get(f"max{word}", count):
        message = f"Too many: {count}: must have at most {schema[f'max{word}']} items"
        return [Cause("FieldValueTooMany", path, message)]
    return []


def _duplicates(schema: Object, value: list[Any], path: str) -> list[Cause]:
    kind = schema.get("x-kubernetes-list-type")
    if kind not in {"map", "set"} or not all(isinstance(i, dict) or kind == "set" for i in value):
        return []
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    seen: set[str] = set()
    causes = []
    for index, item in enumerate(value):
        identity = {key: item.get(key) for key in keys} if kind == "map" else item
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        if text in seen:
            message = f"Duplicate value: {text}"
            causes.append(Cause("FieldValueDuplicate", f"{path}[{index}]", message))
        seen.add(text)
    return causes


def _alternatives(schema: Object, value: object, path: str) -> list[Cause]:
    causes = []
    for part in schema.get("allOf") or ():
        causes += validate(part, value, path)
    fits = {
        word: sum(not validate(part, value, path) for part in schema[word])
        for word in ("anyOf", "oneOf")
        if schema.get(word)
    }
    if fits.get("anyOf") == 0:
        why = f"{path} in body must validate at least one schema (anyOf)"
        causes.append(invalid_value(path, value, why))
    if fits.get("oneOf", 1) != 1:
        why = f"{path} in body must validate one and only one schema (oneOf)"
        causes.append(invalid_value(path, value, why))
    if schema.get("not") and not validate(schema["not"], value, path):
        why = f"{path} in body must not validate the schema (not)"
        causes.append(invalid_value(path, value, why))
    return causes

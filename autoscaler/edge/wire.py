"""JSON lines of observations <-> the core's `Observation`: PROTOCOL.md, section 3.

Hand-written checks instead of models: a line of 1,000 services has 40,000 numbers and is read every
few seconds. A missing number is NaN and a missing service or variant is absent; neither is ever zero.
Keys that the protocol does not know are ignored.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import orjson

from autoscaler.core.types import Observation, ServiceObservation, VariantObservation

MAX_LINE_CHARACTERS = 64 * 1024 * 1024
MAX_COUNT = 2**31 - 1  # replicas, accelerators
MAX_NOW_SECONDS = 1e11  # the year 5138: larger values are milliseconds
MAX_INTERVAL_SECONDS = 86_400.0
MAX_NUMBER = 1e15  # no rate, length or latency is larger; its products stay finite
MAX_SHOWN_CHARACTERS = 80  # of a value echoed in a message
MAX_FIELD_CHARACTERS = 1000  # of a path: names come from outside
DEPTH = 4  # below the line: services, a service, its variants, a variant
GAPS = ('" ', '"\t', '"\n', '"\r')  # between a quote and what follows it
COUNTS = ("ready", "starting", "draining", "desired")
VARIANT_NUMBERS = tuple(f.name for f in fields(VariantObservation) if f.name not in COUNTS)
SERVICE_NUMBERS = ("arrival_rate_rps", "isl_tokens", "osl_tokens")


class WireError(ValueError):
    """A line that cannot be used: `line` from 1, `field` (empty: the whole line), `message`."""

    def __init__(self, line: int, field: str, message: str) -> None:
        self.line = line
        self.field = field = field[:MAX_FIELD_CHARACTERS]
        self.message = message
        super().__init__(f"line {line}: {field}: {message}" if field else f"line {line}: {message}")


class _FieldError(Exception):
    """What is wrong at which field; the line's number is added once, at the top."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = message


def parse_observation(line: str, line_number: int) -> Observation:
    """Return the observation in one JSON line.

    A null or absent number is NaN, a null or absent service is absent, and so is a variant whose
    `ready` is null or absent. `starting` and `draining` default to 0, `desired` to ready + starting.
    Raises WireError naming the field for what is negative, not finite or of another type.
    """
    try:
        return _observation(_decoded(line))
    except _FieldError as error:
        raise WireError(line_number, error.field, error.message) from None


def observation_to_dict(observation: Observation) -> dict[str, Any]:
    """Return what `json.dumps` turns into a line that reads back as the same observation."""
    return {
        "now_seconds": observation.now_seconds,
        "interval_seconds": observation.interval_seconds,
        "services": {
            name: {
                **{key: _null_if_nan(getattr(service, key)) for key in SERVICE_NUMBERS},
                "variants": {n: _variant_to_dict(v) for n, v in service.variants.items()},
            }
            for name, service in observation.services.items()
        },
        "pools": _pools_to_dict(observation),
    }


def _pools_to_dict(observation: Observation) -> dict[str, Any]:
    pools: dict[str, Any] = {name: {"total_gpus": n} for name, n in observation.pools.items()}
    for name, counts in observation.free_on_nodes.items():
        pools.setdefault(name, {})["free_gpus_by_node"] = list(counts)
    return pools


def _variant_to_dict(variant: VariantObservation) -> dict[str, Any]:
    counts = {key: getattr(variant, key) for key in COUNTS}
    return {**counts, **{key: _null_if_nan(getattr(variant, key)) for key in VARIANT_NUMBERS}}


def _null_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _decoded(line: str) -> object:
    if len(line) > MAX_LINE_CHARACTERS:
        raise _FieldError("", f"{len(line)} characters; allowed: up to {MAX_LINE_CHARACTERS}")
    if (plain := _plain(line)) is not None:
        return plain
    constants: list[tuple[str, float]] = []

    def constant(literal: str) -> float:
        constants.append((literal, float(literal)))
        return constants[-1][1]

    try:
        data: object = json.loads(line, object_pairs_hook=_object, parse_constant=constant)
        if constants:  # NaN and Infinity are no JSON, wherever they stand
            literal, value = constants[0]
            field = next(_paths_of(value, data, ""), "")
            raise _FieldError(field, f"{literal} is not JSON; a missing number is null")
    except RecursionError:
        raise _FieldError("", "nested too deeply; allowed: one JSON object") from None
    except ValueError as error:  # not JSON, or an integer of thousands of digits
        raise _FieldError("", f"not JSON: {error}; allowed: one JSON object") from None
    return data


def _plain(line: str) -> dict[str, Any] | None:
    """Return what a line as programs write it holds, in a fourth of the time; None: look more closely.

    orjson keeps the last of two equal keys. Where each key's quote is followed by its colon at once, there
    are as many of these as keys, or something in the line is not plain: a key twice, or text with a quote.
    """
    if any(gap in line for gap in GAPS):
        return None
    try:
        data = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return data if isinstance(data, dict) and line.count('":') == _keys(data) else None


def _keys(data: dict[str, Any]) -> int:
    """Return how many keys the objects of a line have, as deep as the protocol nests them."""
    total, objects = len(data), [data]
    for _ in range(DEPTH):
        objects = [x for each in objects for x in each.values() if type(x) is dict]
        total += sum(map(len, objects))
    return total


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _FieldError(key, "appears twice in one object; allowed: once")
            seen.add(key)
    return data


def _paths_of(wanted: object, data: object, path: str) -> Iterator[str]:
    """Yield the paths in `data` at which the very object `wanted` stands."""
    if isinstance(data, dict):
        for key, entry in data.items():
            yield from _paths_of(wanted, entry, f"{path}.{key}" if path else key)
    elif isinstance(data, list):
        for i, entry in enumerate(data):
            yield from _paths_of(wanted, entry, f"{path}[{i}]")
    elif data is wanted:
        yield path


def _observation(data: object) -> Observation:
    top = _mapping(data, "")
    now = _required(top, "now_seconds", MAX_NOW_SECONDS)
    interval = _required(top, "interval_seconds", MAX_INTERVAL_SECONDS)
    if interval == 0:
        raise _refused("interval_seconds", 0, "a number above 0")
    services = {
        name: _service(service, f"services.{name}")
        for name, service in _mapping(top.get("services"), "services").items()
        if service is not None
    }
    return Observation(now, interval, services, *_pools(top.get("pools")))


def _pools(data: object) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Return accelerators by class, in all and free by node.

    A class without a number has no known limit, one without a list no known nodes: it is absent.
    """
    counts, free = {}, {}
    for name, entry in _mapping(data, "pools", absent={}).items():
        path = f"pools.{name}"
        pool = _mapping(entry, path, absent={})
        total = _count(pool, "total_gpus", path)
        if total is not None:
            counts[name] = total
        if pool.get("free_gpus_by_node") is not None:
            free[name] = _free(pool["free_gpus_by_node"], f"{path}.free_gpus_by_node")
    return counts, free


def _free(data: object, path: str) -> tuple[int, ...]:
    if not isinstance(data, list):
        raise _refused(path, data, "a list of accelerators free on each node")
    counts = (_count({str(n): x}, str(n), path) for n, x in enumerate(data))
    return tuple(count for count in counts if count is not None)


def _service(data: object, path: str) -> ServiceObservation:
    service = _mapping(data, path)
    variants = {}
    for name, entry in _mapping(service.get("variants"), f"{path}.variants", absent={}).items():
        if entry is not None:
            variant = _variant(entry, f"{path}.variants.{name}")
            if variant is not None:
                variants[name] = variant
    rate_rps, isl_tokens, osl_tokens = _numbers(service, SERVICE_NUMBERS, path)
    return ServiceObservation(rate_rps, isl_tokens, osl_tokens, variants)


def _variant(data: object, path: str) -> VariantObservation | None:
    variant = _mapping(data, path)
    ready, starting, draining, desired = [_count(variant, key, path) for key in COUNTS]
    numbers = _numbers(variant, VARIANT_NUMBERS, path)
    if ready is None:
        return None
    starting = starting or 0
    return VariantObservation(
        ready, starting, draining or 0, ready + starting if desired is None else desired, *numbers
    )


def _mapping(data: object, path: str, absent: dict[str, Any] | None = None) -> dict[str, Any]:
    if data is None and absent is not None:
        return absent
    if not isinstance(data, dict):
        raise _refused(path, data, "an object")
    return data


def _count(data: dict[str, Any], key: str, path: str) -> int | None:
    value = data.get(key)
    if type(value) is int and 0 <= value <= MAX_COUNT:  # not a bool, which is an int to isinstance
        return value
    if value is None:
        return None
    if type(value) is float and value.is_integer() and 0 <= value <= MAX_COUNT:
        return int(value)
    raise _refused(f"{path}.{key}", value, f"an integer from 0 to {MAX_COUNT}")


def _numbers(data: dict[str, Any], keys: tuple[str, ...], path: str) -> list[float]:
    """Return the numbers at `keys`; the fast ways out are a float within the limits, and none."""
    get = data.get
    return [
        value
        if type(value := get(key)) is float and 0.0 <= value <= MAX_NUMBER
        else math.nan
        if value is None
        else _other_number(value, f"{path}.{key}")
        for key in keys
    ]


def _other_number(value: object, path: str) -> float:
    """Return an integer as a float; refuse the rest."""
    if type(value) is int and 0 <= value <= MAX_NUMBER:
        return float(value)
    raise _refused(path, value, f"a number from 0 to {MAX_NUMBER:g}, or null where it is missing")


def _required(data: dict[str, Any], key: str, most_seconds: float) -> float:
    value: object = data.get(key)
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value <= most_seconds
    ):
        return float(value)
    raise _refused(key, value, f"seconds from 0 to {most_seconds:.0f} (is it in milliseconds?)")


def _refused(path: str, value: object, allowed: str) -> _FieldError:
    if value is None:
        return _FieldError(path, f"missing; required: {allowed}")
    if isinstance(value, dict | list):
        text = "an object" if isinstance(value, dict) else "a list"
    else:
        text = json.dumps(value)
    if len(text) > MAX_SHOWN_CHARACTERS:
        text = text[: MAX_SHOWN_CHARACTERS - 3] + "..."
    return _FieldError(path, f"{text} is not allowed; allowed: {allowed}")

"""Frozen dataclasses <-> plain JSON, driven by their type hints: strict, without code in the data.

Understands float, int, bool, str, text enums, `X | None`, tuples, mappings with text keys and dataclasses of
these. A dataclass is an object by field name; a field with a default may be missing (written by an older
version), an unknown one is refused. NaN and infinities, which JSON lacks, are the texts "nan", "inf", "-inf".
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache
from operator import index
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

Convert = Callable[[Any], Any]

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


@cache
def encoder(kind: Any) -> Convert:  # noqa: ANN401 - any type hint
    """Return the function value -> JSON for a type hint; it raises TypeError or ValueError."""
    if kind is float:
        return _float_out
    if kind is int:
        return index
    if kind is bool:
        return _flag
    if kind is str:
        return _text
    if dataclasses.is_dataclass(kind):
        return _object_out(kind)
    if _is_enum(kind):
        return lambda value: kind(value).value
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        some = encoder(_besides_none(inner))
        return lambda value: None if value is None else some(value)
    if origin is tuple and len(inner) == 2 and inner[1] is ...:
        item = encoder(inner[0])
        return lambda value: [item(v) for v in value]
    if origin is tuple:
        items = [encoder(k) for k in inner]
        return lambda value: [f(v) for f, v in zip(items, value, strict=True)]
    if origin is Mapping and inner[0] is str:
        entry = encoder(inner[1])
        return lambda value: {_text(k): entry(v) for k, v in value.items()}
    raise TypeError(f"no JSON for {kind}")


@cache
def decoder(kind: Any) -> Convert:  # noqa: ANN401 - any type hint
    """Return the function JSON -> value for a type hint; it raises ValueError in one sentence."""
    if kind is float:
        return _float_in
    if kind is int:
        return _int_in
    if kind is bool:
        return _flag
    if kind is str:
        return _text
    if dataclasses.is_dataclass(kind):
        return _object_in(kind)
    if _is_enum(kind):
        return kind  # type: ignore[no-any-return]  # calling it checks the value
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        some = decoder(_besides_none(inner))
        return lambda value: None if value is None else some(value)
    if origin is tuple and len(inner) == 2 and inner[1] is ...:
        item = decoder(inner[0])
        return lambda value: tuple([item(v) for v in _of(list, value)])
    if origin is tuple:
        items = [decoder(k) for k in inner]
        return lambda value: tuple([f(v) for f, v in zip(items, _of(list, value), strict=True)])
    if origin is Mapping and inner[0] is str:
        entry = decoder(inner[1])
        return lambda value: {_text(k): entry(v) for k, v in _of(dict, value).items()}
    raise TypeError(f"no JSON for {kind}")


def _is_enum(kind: Any) -> bool:  # noqa: ANN401
    return isinstance(kind, type) and issubclass(kind, StrEnum)


def _besides_none(kinds: tuple[Any, ...]) -> Any:  # noqa: ANN401
    some = [k for k in kinds if k is not NoneType]
    if len(some) != 1:
        raise TypeError(f"no JSON for one of {kinds}")
    return some[0]


def _given(kind: Any) -> list[dataclasses.Field[Any]]:  # noqa: ANN401
    """Return the fields that a value is made of; what it works out of them is not told."""
    return [f for f in dataclasses.fields(kind) if f.init]


def _object_out(kind: Any) -> Convert:  # noqa: ANN401
    hints = get_type_hints(kind)
    fields = [(f.name, encoder(hints[f.name])) for f in _given(kind)]
    return lambda value: {name: convert(getattr(value, name)) for name, convert in fields}


def _object_in(kind: Any) -> Convert:  # noqa: ANN401
    hints = get_type_hints(kind)
    fields = {f.name: decoder(hints[f.name]) for f in _given(kind)}
    needed = {
        f.name
        for f in _given(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }

    def convert(value: Any) -> Any:  # noqa: ANN401
        given = _of(dict, value)
        if missing := needed - given.keys():
            raise ValueError(f"{kind.__name__} without {', '.join(sorted(missing))}")
        if unknown := given.keys() - fields.keys():
            raise ValueError(f"{kind.__name__} with unknown {', '.join(sorted(unknown))}")
        return kind(**{name: fields[name](item) for name, item in given.items()})

    return convert


def _float_out(value: Any) -> float | str:  # noqa: ANN401
    number = float(value)
    return number if math.isfinite(number) else str(number)


def _float_in(value: Any) -> float:  # noqa: ANN401
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    raise ValueError(f"{value!r:.40} is no number")


def _int_in(value: Any) -> int:  # noqa: ANN401
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{value!r:.40} is no whole number")


def _flag(value: Any) -> bool:  # noqa: ANN401
    if isinstance(value, bool):
        return value
    raise ValueError(f"{value!r:.40} is neither true nor false")


def _text(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, str):
        return value
    raise ValueError(f"{value!r:.40} is no text")


def _of(kind: type, value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, kind):
        return value
    raise ValueError(f"{value!r:.40} is no {'list' if kind is list else 'object'}")

"""Times and quantities as the API writes them."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

JsonObject = Mapping[str, Any]
SUFFIXES: Mapping[str, int | str] = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
    "m": "1e-3", "u": "1e-6", "n": "1e-9",
}  # fmt: skip
QUANTITY = re.compile(r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)([A-Za-z]*)")


class KubeObjectError(ValueError):
    """An API object that cannot be understood; the message says which, what and what is allowed."""


def seconds_of(timestamp: str | None) -> float:
    """Return seconds since 1970 of an API time; NaN for none. Raises KubeObjectError if it is no time."""
    if not timestamp:
        return math.nan
    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except ValueError as error:
        raise KubeObjectError(
            f"{timestamp!r} is not a time; allowed: RFC 3339 such as 2026-11-27T06:00:00Z"
        ) from error


def whole(quantity: str | float) -> int:
    """Return a quantity ("8", "1k", 8) as a whole number, rounded down: accelerators come whole.

    Raises KubeObjectError if it is none.
    """
    if isinstance(quantity, int):
        return quantity
    found = QUANTITY.fullmatch(str(quantity))
    try:
        if found and found[2] in SUFFIXES:
            return math.floor(Decimal(found[1]) * Decimal(SUFFIXES[found[2]]))
    except InvalidOperation:
        pass  # said below
    raise KubeObjectError(f"{quantity!r} is not a quantity; allowed: a number such as 8 or 1k")


def extended(resources: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the extended resources (domain/name) of a resource list, whole."""
    return {name: whole(q) for name, q in (resources or {}).items() if "/" in name}

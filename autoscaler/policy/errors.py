"""What is wrong with a policy file, in one sentence: file, document, field, value, what is allowed."""

import difflib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_SHOWN_CHARACTERS = 80  # of a value echoed in a message
MAX_PATH_CHARACTERS = 200  # an unknown field may be named anything
MAX_SHOWN_NAMES = 12  # of a list of known names


class PolicyError(ValueError):
    """A policy or pool that cannot be used; one line for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A document in a file; `label` is the kind and name where they could be read."""

    file: str
    document: int  # from 1
    label: str = ""

    def __str__(self) -> str:
        name = f" ({self.label})" if self.label else ""
        return f"{self.file}: document {self.document}{name}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `path` is empty where the whole document is meant."""

    place: Place
    path: str
    message: str

    def __str__(self) -> str:
        parts = (str(self.place), self.path[:MAX_PATH_CHARACTERS], self.message)
        return one_line(": ".join(part for part in parts if part))


def refused(place: Place, path: str, value: object, allowed: str) -> Problem:
    """Return the problem of a value outside what is allowed."""
    return Problem(place, path, f"{shown(value)} is not allowed; allowed: {allowed}")


def first_of(problems: Sequence[Problem]) -> PolicyError:
    """Return the error for `problems` (not empty): the first, and how many more there are."""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return PolicyError(f"{problems[0]}{more}")


def shown(value: object) -> str:
    """Return `value` as it would stand in YAML, shortened; containers only by their kind."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, float):
        return (
            f"{value:.15g}"
            if math.isfinite(value)
            else f"{value}".replace("nan", ".nan").replace("inf", ".inf")
        )
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "did you mean ...? " for the known name most like `name`, or an empty text."""
    by_lower = {k.lower(): k for k in known}
    match = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f"did you mean {by_lower[match[0]]}? " if match else ""


def listed(names: Iterable[str]) -> str:
    """Return names in order, the tail of a long list as a count."""
    ordered = sorted(names)
    rest = len(ordered) - MAX_SHOWN_NAMES
    tail = f" and {rest} more" if rest > 0 else ""
    return ", ".join(ordered[:MAX_SHOWN_NAMES]) + tail


def one_line(text: str) -> str:
    """Return `text` with whatever is not printable (line breaks first of all) escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

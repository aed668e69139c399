"""YAML text -> plain data, bounded and without surprises.

Scalars resolve as they do for `kubectl apply`, not as in YAML 1.1: `10:30` and `2026-01-01` stay text,
`1e3` is a number. A key that appears twice, a document nested deeply or one that aliases blow up is
refused before anything is built from it: libyaml's event stream needs no recursion and no memory.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from autoscaler.policy.errors import Place, PolicyError, Problem, one_line

try:
    from yaml import CSafeLoader as _Base
except ImportError:  # PyYAML built without libyaml: the same result, slower
    from yaml import SafeLoader as _Base  # type: ignore[assignment]

MAX_DEPTH = 32  # a policy needs 7
MAX_NODES = 200_000  # of one document, aliases expanded: a policy has about 100
_PLAIN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


class _Loader(_Base):
    """SafeLoader with the types of JSON only."""


_Loader.yaml_constructors = {
    tag: function
    for tag, function in _Base.yaml_constructors.items()
    if tag is None or tag.removeprefix("tag:yaml.org,2002:") in _PLAIN_TAGS
}
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in pairs
        if tag.rsplit(":", 1)[1] not in ("int", "float", "timestamp", "value")
    ]
    for first, pairs in _Base.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*|0[0-7_]+)|0x[0-9a-fA-F_]+|0b[01_]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)


def read_documents(file: str, text: str) -> Iterator[tuple[int, object]]:
    """Yield (number from 1, data) for every document of `text` that is not empty.

    Raises PolicyError for text that is no YAML, for duplicate keys, and beyond MAX_DEPTH or MAX_NODES.
    """
    try:
        _Scan(file).run(text)
        for number, data in enumerate(yaml.load_all(text, Loader=_Loader), start=1):
            if data is not None:
                yield number, data
    except yaml.YAMLError as error:
        raise PolicyError(f"{file}: {_syntax(error)}") from error
    except UnicodeEncodeError as error:
        raise PolicyError(f"{file}: a character is no Unicode text; allowed: UTF-8") from error
    except ValueError as error:
        if isinstance(error, PolicyError):
            raise
        raise PolicyError(one_line(f"{file}: a value cannot be read: {error}")) from error


def _syntax(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return one_line(f"{where}{problem}; allowed: YAML documents")


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    anchor: str | None
    keys: set[str] | None  # None: a sequence
    nodes: int = 1  # itself and what it holds so far, aliases expanded
    key_next: bool = True


@dataclass(slots=True)
class _Scan:
    """Walk over the events of a stream: depth, size and duplicate keys."""

    file: str
    document: int = 0
    open: list[_Open] = field(default_factory=list)
    anchored_nodes: dict[str, int] = field(default_factory=dict)

    def run(self, text: str) -> None:
        for event in yaml.parse(text, Loader=_Base):
            if isinstance(event, yaml.ScalarEvent):
                self._key_or_value(event, event.value)
                self._close(event.anchor, 1, event)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._key_or_value(event, None)
                keys = set[str]() if isinstance(event, yaml.MappingStartEvent) else None
                self.open.append(_Open(event.anchor, keys))
                if len(self.open) > MAX_DEPTH:
                    self._refuse(event, f"nested deeper than {MAX_DEPTH}")
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                done = self.open.pop()
                self._close(done.anchor, done.nodes, event)
            elif isinstance(event, yaml.AliasEvent):
                self._key_or_value(event, None)
                if any(o.anchor == event.anchor for o in self.open):
                    self._refuse(event, f"alias *{event.anchor} stands inside its own anchor")
                self._close(None, self.anchored_nodes.get(event.anchor or "", 1), event)
            elif isinstance(event, yaml.DocumentStartEvent):
                self.document += 1
                self.anchored_nodes.clear()

    def _key_or_value(self, event: yaml.Event, scalar: str | None) -> None:
        """Note a key of the innermost mapping; `scalar` is None for a collection or an alias."""
        if not self.open or (keys := self.open[-1].keys) is None:
            return
        if self.open[-1].key_next:
            if scalar is None:
                self._refuse(event, "a key is a collection or an alias; allowed: text")
            elif scalar in keys:
                self._refuse(
                    event, f"key {scalar[:80]!r} appears twice; allowed: once in a mapping"
                )
            else:
                keys.add(scalar)
        self.open[-1].key_next = not self.open[-1].key_next

    def _close(self, anchor: str | None, nodes: int, event: yaml.Event) -> None:
        if anchor is not None:
            self.anchored_nodes[anchor] = nodes
        if self.open:
            self.open[-1].nodes += nodes
        if nodes > MAX_NODES or (self.open and self.open[-1].nodes > MAX_NODES):
            self._refuse(event, f"more than {MAX_NODES} values with aliases expanded")

    def _refuse(self, event: yaml.Event, message: str) -> None:
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        raise PolicyError(
            str(Problem(Place(self.file, self.document), "", f"line {line}: {message}"))
        )

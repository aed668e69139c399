"""The shapes of request logs: which column holds what, in which unit.

A shape names the columns of a public trace format; a user's mapping overrides or extends it. Shapes
whose rows are windows of time, not requests, say so: `rate` (requests per second of a client in a
window, mean lengths: ServeGen) and `totals` (requests and tokens of an interval).

Sources: Azure/AzurePublicDataset (AzureLLMInferenceDataset2023.md), HPMLL/BurstGPT (README, Schema),
kvcache-ai/Mooncake (FAST25-release), alibaba/ServeGen (README).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

from models.frames import FrameError

RowKind = Literal["request", "rate", "totals"]
FORMATS = ("azure", "burstgpt", "mooncake", "servegen", "generic")
MILLI = 1e-3
MAX_COLUMNS = 1000
SHOWN_COLUMNS, SHOWN_CHARACTERS = 12, 40  # of a header, in an error
# every field that a log can give: name in a mapping -> (canonical field, factor to its unit)
FIELDS: dict[str, tuple[str, float]] = {
    "timestamp": ("timestamp", 1.0),
    "timestamp_ms": ("timestamp", MILLI),
    "service": ("service", 1.0),
    "variant": ("variant", 1.0),
    "requests": ("requests", 1.0),
    "input_tokens": ("input_tokens", 1.0),
    "output_tokens": ("output_tokens", 1.0),
    "rate_rps": ("rate_rps", 1.0),
    "mean_input_tokens": ("mean_input_tokens", 1.0),
    "mean_output_tokens": ("mean_output_tokens", 1.0),
    "gap": ("gap", 1.0),
    "ttft_seconds": ("ttft_seconds", 1.0),
    "ttft_ms": ("ttft_seconds", MILLI),
    "tpot_seconds": ("tpot_seconds", 1.0),
    "tpot_ms": ("tpot_seconds", MILLI),
    "e2e_seconds": ("e2e_seconds", 1.0),
    "e2e_ms": ("e2e_seconds", MILLI),
}
NAMES = ("service", "variant")  # fields that hold names, not numbers
ALIASES = {  # generic only: what such columns are also called, first match wins
    "timestamp": ("timestamp", "ts", "t_s", "timestamp_seconds"),
    "input_tokens": ("input_tokens", "prompt_tokens"),
    "output_tokens": ("output_tokens", "completion_tokens"),
}
RATE_FIELDS = ("rate_rps", "mean_input_tokens", "mean_output_tokens")
REQUEST_FIELDS = ("input_tokens", "output_tokens")
FIXED = {
    "azure": {
        "timestamp": "TIMESTAMP",
        "input_tokens": "ContextTokens",
        "output_tokens": "GeneratedTokens",
    },
    "burstgpt": {
        "timestamp": "Timestamp",
        "input_tokens": "Request tokens",
        "output_tokens": "Response tokens",
    },
    "mooncake": {
        "timestamp_ms": "timestamp",
        "input_tokens": "input_length",
        "output_tokens": "output_length",
    },
}


# Zones taken for times without one. Azure: the publisher's text names no zone. Its rows of 2024 carry
# +00:00 (as its notebook shows them), those of 2023 carry nothing: that they too are UTC is assumed.
# They are an hour in all, so no daily pattern hangs on it; --time-zone overrules.
ZONES = {"azure": "UTC"}


class TraceError(FrameError):
    """A request log that cannot be used; the message says where, what and what is allowed."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the log and the factor that brings its numbers to the field's unit."""

    name: str
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each canonical field of a log stands."""

    shape: str
    rows: RowKind
    columns: Mapping[str, Column]

    @property
    def names(self) -> tuple[str, ...]:
        """Columns to read, each once."""
        return tuple(dict.fromkeys(c.name for c in self.columns.values()))

    @property
    def zone(self) -> ZoneInfo | None:
        """Zone assumed for times without one, where the shape has one (see ZONES)."""
        return ZoneInfo(ZONES[self.shape]) if self.shape in ZONES else None

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that hold names and are never numbers."""
        return tuple(self.columns[f].name for f in NAMES if f in self.columns)


def parse_mapping(text: str) -> dict[str, str]:
    """Read `field=column,field=column`. Raises TraceError on an unknown field or a missing name."""
    mapping: dict[str, str] = {}
    for part in text.split(","):
        field, equals, column = (x.strip() for x in part.partition("="))
        if not equals or not column or field not in FIELDS:
            raise TraceError(
                f"--columns: {part.strip()!r}; allowed: FIELD=COLUMN with a field of {', '.join(FIELDS)}"
            )
        if field in mapping:
            raise TraceError(f"--columns: field {field} is given twice; allowed: once")
        mapping[field] = column
    return mapping


def find_layout(
    header: Sequence[str],
    where: str,
    *,
    shape: str = "auto",
    mapping: Mapping[str, str] | None = None,
) -> Layout:
    """Return where the fields stand in a log with these columns.

    Raises TraceError where a column that the shape (or the mapping) needs is missing or ambiguous.
    """
    if shape != "auto" and shape not in FORMATS:
        raise TraceError(f"--format: {shape!r}; allowed: auto, {', '.join(FORMATS)}")
    if len(header) > MAX_COLUMNS:
        raise TraceError(f"{where}: {len(header)} columns; allowed: {MAX_COLUMNS}")
    twice = sorted({c for c in header if list(header).count(c) > 1})
    mapping = dict(mapping or {})
    for column in mapping.values():
        if column not in header:
            raise TraceError(
                f"{where}: column {column!r} of --columns is missing; there are: {_shown(header)}"
            )
    found = _detect(header) if shape == "auto" else shape
    wanted = {**_default_columns(found, header), **mapping}
    columns: dict[str, Column] = {}
    for field, column in wanted.items():  # a mapped field comes last and replaces the shape's
        canonical, factor = FIELDS[field]
        columns[canonical] = Column(column, factor)
    clash = [c.name for c in columns.values() if c.name in twice]
    if clash:
        raise TraceError(f"{where}: column {clash[0]!r} occurs twice; allowed: once")
    rows = _row_kind(found, columns)
    needed = ("timestamp", *(RATE_FIELDS if rows == "rate" else REQUEST_FIELDS))
    missing = [f for f in needed if f not in columns or columns[f].name not in header]
    if missing:
        raise TraceError(
            f"{where}: column {', '.join(_label(f, columns) for f in missing)} is missing "
            f"(format {found}); there are: {_shown(header)}; "
            "allowed: the columns of a format (`foreserve ingest trace` takes --columns FIELD=COLUMN)"
        )
    return Layout(found, rows, columns)


def _shown(header: Sequence[str]) -> str:
    """Return the header for people: short, and nothing that would upset a terminal."""
    names = ["".join(c if c.isprintable() else "?" for c in n)[:SHOWN_CHARACTERS] for n in header]
    more = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    return (", ".join(names[:SHOWN_COLUMNS]) or "none") + more


def _label(field: str, columns: Mapping[str, Column]) -> str:
    return columns[field].name if field in columns else field


def _detect(header: Sequence[str]) -> str:
    """Return the shape whose columns are all there; `generic` where none is."""
    for shape, columns in FIXED.items():
        if all(c in header for c in columns.values()):
            return shape
    columns = _servegen(header)
    return "servegen" if all(f in columns for f in RATE_FIELDS) else "generic"


def _default_columns(shape: str, header: Sequence[str]) -> dict[str, str]:
    if shape in FIXED:
        return dict(FIXED[shape])
    return _servegen(header) if shape == "servegen" else _generic(header)


def _servegen(header: Sequence[str]) -> dict[str, str]:
    names = {
        "timestamp": ("timestamp", "t_s"),
        "rate_rps": ("rate_rps", "rate"),
        **{f: (f,) for f in ("mean_input_tokens", "mean_output_tokens", "service", "gap")},
    }
    return _first(names, header)


def _generic(header: Sequence[str]) -> dict[str, str]:
    plain = {f: (f,) for f in FIELDS if f not in (*RATE_FIELDS, "gap", *ALIASES)}
    if any(a in header for a in ALIASES["timestamp"]):
        plain.pop("timestamp_ms")
    return _first({**ALIASES, **plain}, header)


def _first(names: Mapping[str, Sequence[str]], header: Sequence[str]) -> dict[str, str]:
    out = {}
    for field, candidates in names.items():
        there = [c for c in candidates if c in header]
        if there:
            out[field] = there[0]
    return out


def _row_kind(shape: str, columns: Mapping[str, Column]) -> RowKind:
    if shape == "servegen":
        return "rate"
    return "totals" if "requests" in columns else "request"

"""A chunk of a request log -> checked columns in the units of the telemetry folder.

Every row is either good or bad, never repaired: the first bad one is described, all are counted.
"""

from dataclasses import dataclass
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.frames import MAX_LATENCY_SECONDS, MAX_TPOT_SECONDS
from models.trace_shapes import Layout
from models.trace_times import ALLOWED_TIMES, FloatArray, epoch_seconds

BoolArray = NDArray[np.bool_]
MAX_TOKENS = 1e8  # of one request: far above any context window
MAX_TOTAL = 1e15  # of an interval: exact in a float64
MAX_NAME_CHARACTERS = 512  # namespace/name of Kubernetes is at most 507
LATENCIES = {
    "ttft_seconds": MAX_LATENCY_SECONDS,
    "tpot_seconds": MAX_TPOT_SECONDS,
    "e2e_seconds": MAX_LATENCY_SECONDS,
}
CONTROL = r"[\x00-\x1f]"  # in a name: damage, not a name
TRUE_WORDS = ("true", "1", "1.0", "yes")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the caller knows that the log does not say.

    start_seconds: epoch seconds that numeric timestamps count from. zone: of times without a zone.
    service, variant: whose log it is; they replace what the columns say.
    """

    start_seconds: float = 0.0
    zone: ZoneInfo | None = None
    service: str | None = None
    variant: str | None = None


@dataclass(frozen=True, slots=True)
class Bad:
    """The first bad row of a chunk: its position in the chunk, and what is wrong."""

    row: int
    column: str
    value: str
    allowed: str


@dataclass(frozen=True, slots=True)
class Rows:
    """The good rows of a chunk, columns of shape (N,), in the order of the log.

    `requests` is 1 in a log of requests, requests per second where rows are rates; tokens are of the
    row (means where rows are rates). Latencies are None where the log has none, NaN where a row has
    none. `gap` marks windows that the source knows to be missing.
    """

    seconds: FloatArray
    service: NDArray[np.object_]
    variant: NDArray[np.object_] | None
    requests: FloatArray
    input_tokens: FloatArray
    output_tokens: FloatArray
    gap: BoolArray | None
    ttft_seconds: FloatArray | None
    tpot_seconds: FloatArray | None
    e2e_seconds: FloatArray | None
    bad_rows: int
    first_bad: Bad | None


class _Chunk:
    """Collects, column by column, which rows are bad and why the first one is."""

    def __init__(self, frame: pd.DataFrame, layout: Layout) -> None:
        self.frame = frame
        self.layout = layout
        self.bad = np.zeros(len(frame), dtype=bool)
        self.first: Bad | None = None

    def refuse(self, field: str, bad: BoolArray, allowed: str) -> None:
        self.bad |= bad
        if not bad.any():
            return
        row = int(np.argmax(bad))
        if self.first is None or row < self.first.row:
            name = self.layout.columns[field].name
            self.first = Bad(row, name, _shown(self.frame[name].iloc[row]), allowed)

    def has(self, field: str) -> bool:
        return field in self.layout.columns

    def numbers(self, field: str, top: float, *, may_be_empty: bool = False) -> FloatArray:
        """Return a field's numbers in [0, top]; NaN where the row is bad or, if allowed, empty."""
        column = self.layout.columns[field]
        series = self.frame[column.name]
        raw = _to_numbers(series)
        empty = _is_empty(series) if may_be_empty else np.zeros(len(raw), dtype=bool)
        out: FloatArray = raw * column.factor
        with np.errstate(invalid="ignore"):
            bad = ~((out >= 0) & (out <= top)) & ~empty
        limit = f"{top / column.factor:g}"
        self.refuse(field, bad, f"a number from 0 to {limit}" + (" or empty" * may_be_empty))
        return out

    def names(self, field: str, given: str | None) -> NDArray[np.object_]:
        if given is not None:
            return np.full(len(self.frame), given, dtype=object)
        series = self.frame[self.layout.columns[field].name]
        text = series.astype("str").str.strip()
        odd = (text.str.len() > MAX_NAME_CHARACTERS) | text.str.contains(CONTROL, regex=True)
        bad = (series.isna() | (text.str.len() == 0) | odd).to_numpy(dtype=bool)
        self.refuse(field, bad, f"a name of 1 to {MAX_NAME_CHARACTERS} printable characters")
        out: NDArray[np.object_] = text.to_numpy(dtype=object)
        return out


def canonical(frame: pd.DataFrame, layout: Layout, reading: Reading, where: str) -> Rows:
    """Check a chunk of a log and bring it to the folder's units.

    Raises TraceError for what concerns the whole log (no time zone); bad rows are left out and told.
    """
    chunk = _Chunk(frame, layout)
    column = layout.columns["timestamp"]
    seconds = epoch_seconds(
        frame[column.name],
        f"{where}: column {column.name}",
        factor=column.factor,
        start_seconds=reading.start_seconds,
        zone=reading.zone,
    )
    chunk.refuse("timestamp", np.isnan(seconds), ALLOWED_TIMES)
    service = chunk.names("service", reading.service)
    has_variant = reading.variant is not None or chunk.has("variant")
    variant = chunk.names("variant", reading.variant) if has_variant else None
    requests, tokens_in, tokens_out, gap = _amounts(chunk)
    latency = {
        f: chunk.numbers(f, top, may_be_empty=True) if chunk.has(f) else None
        for f, top in LATENCIES.items()
    }
    _check_latencies(chunk, latency)
    good = ~chunk.bad
    return Rows(
        seconds=seconds[good],
        service=service[good],
        variant=None if variant is None else variant[good],
        requests=requests[good],
        input_tokens=tokens_in[good],
        output_tokens=tokens_out[good],
        gap=None if gap is None else gap[good],
        **{f: None if v is None else v[good] for f, v in latency.items()},
        bad_rows=int(chunk.bad.sum()),
        first_bad=chunk.first,
    )


def _amounts(chunk: _Chunk) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray | None]:
    """Return requests, tokens in, tokens out and the gaps, each of shape (N,)."""
    if chunk.layout.rows == "request":
        tokens = [chunk.numbers(f, MAX_TOKENS) for f in ("input_tokens", "output_tokens")]
        return np.ones(len(chunk.frame)), tokens[0], tokens[1], None
    # windows: an empty amount is a window that was not measured, not one without requests
    if chunk.layout.rows == "totals":
        fields, top = ("requests", "input_tokens", "output_tokens"), MAX_TOTAL
    else:
        fields, top = ("rate_rps", "mean_input_tokens", "mean_output_tokens"), MAX_TOKENS
    amounts = [chunk.numbers(f, top, may_be_empty=True) for f in fields]
    gap = np.isnan(amounts[0])
    if chunk.has("gap"):
        gap |= _flags(chunk.frame[chunk.layout.columns["gap"].name])
    return amounts[0], amounts[1], amounts[2], gap


def _check_latencies(chunk: _Chunk, latency: dict[str, FloatArray | None]) -> None:
    ttft, e2e = latency["ttft_seconds"], latency["e2e_seconds"]
    if ttft is not None and e2e is not None:
        with np.errstate(invalid="ignore"):
            early = e2e < ttft * (1 - 1e-9)
        chunk.refuse("e2e_seconds", early, "at least the time to the first token")


def _to_numbers(series: pd.Series) -> FloatArray:
    kind = series.dtype
    if pd.api.types.is_bool_dtype(kind) or pd.api.types.is_datetime64_any_dtype(kind):
        return np.full(len(series), np.nan)
    if not pd.api.types.is_numeric_dtype(kind):
        series = pd.to_numeric(series, errors="coerce")
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _is_empty(series: pd.Series) -> BoolArray:
    empty = series.isna()
    if not pd.api.types.is_numeric_dtype(series.dtype):
        text = series.astype("str").str.strip().str.lower()
        empty |= text.isin(["", "nan", "null"])
    out: BoolArray = empty.to_numpy(dtype=bool)
    return out


def _flags(series: pd.Series) -> BoolArray:
    out: BoolArray = (
        series.astype("str").str.strip().str.lower().isin(TRUE_WORDS).to_numpy(dtype=bool)
    )
    return out


def _shown(value: object) -> str:
    text = str(value)
    if text in ("", "nan", "None", "<NA>", "NaT"):
        return "empty"
    text = "".join(c if c.isprintable() else "?" for c in text)
    return repr(text if len(text) <= 60 else text[:57] + "...")

"""What an answer of the Prometheus HTTP API means: rows of numbers, or one sentence of what is wrong.

Pure: the client (autoscaler/edge/prometheus_api.py) brings JSON, ingest and the online reader take rows.
"""

import gc
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.histograms import native_cumulative

FloatArray = NDArray[np.float64]
WARNINGS = b'"warnings":['
PART = "__part__"  # label of the rows that hold a native histogram's sum and count


class ApiError(OSError):
    """The server did not answer with usable data; the message is one sentence with what to do."""


class RefusedError(ApiError):
    """Asking again would not help: wrong address, no permission, a query it does not understand."""


class TooMuchError(ApiError):
    """The range is beyond the server's limits: ask for less at once."""


class UnavailableError(ApiError):
    """Overloaded, unreachable, too slow or cut off: asking again later may help."""


@dataclass(frozen=True, slots=True)
class Row:
    """One series of an answer: its labels and its samples, times in seconds since the epoch."""

    labels: Mapping[str, str]
    times: FloatArray
    values: FloatArray


class QueryApi(Protocol):
    """A server that answers PromQL. Both methods raise ApiError."""

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        """Return one sample a series."""
        ...

    def range(
        self, query: str, start_seconds: float, end_seconds: float, step_seconds: float
    ) -> list[Row]:
        """Return samples at start, start + step, ..., end (inclusive) as far as there are any."""
        ...


@contextmanager
def no_cycle_search() -> Iterator[None]:
    """Switch the search for reference cycles off: half of the time of parsing, and JSON has none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def rows_of(result: Any, where: str) -> list[Row]:  # noqa: ANN401 - parsed JSON
    """Return the rows of `data.result` (vector, matrix or scalar).

    A native histogram becomes the rows of a classic one: cumulative ones with `le`, and one each with
    PART "sum" and "count". Raises RefusedError for a shape that the API does not have, and for two
    series with the same labels.
    """
    if isinstance(result, list) and len(result) == 2 and not isinstance(result[0], Mapping):
        result = [{"metric": {}, "value": result}]  # a scalar
    if not isinstance(result, list):
        raise RefusedError(
            f"{where}: the answer holds {type(result).__name__}, not a list of series; "
            "is it a Prometheus API?"
        )
    rows = _matrix(result) or _vector(result)
    if rows is None:
        rows = [row for entry in result for row in _rows(entry, where)]
    if twice := _twice(rows):
        raise RefusedError(
            f"{where}: two series with the same labels {dict(twice)} in one answer; "
            "the server deduplicates wrongly, ask one replica"
        )
    return rows


def _twice(rows: Sequence[Row]) -> Mapping[str, str] | None:
    """Return labels that two rows share, None if no two do. Servers name labels in one order: cheap."""
    if len({tuple(row.labels.items()) for row in rows}) == len(rows):
        orders = {tuple(row.labels) for row in rows}
        if len({frozenset(order) for order in orders}) == len(orders):
            return None
    seen: set[frozenset[tuple[str, str]]] = set()
    for row in rows:
        key = frozenset(row.labels.items())
        if key in seen:
            return row.labels
        seen.add(key)
    return None


def _vector(result: list[Any]) -> list[Row] | None:
    """Return the rows of a vector of plain numbers, as `_matrix`; None if it is anything else."""
    try:
        samples = [entry["value"] for entry in result]
        times = np.array([at for at, _ in samples], dtype=np.float64)
        texts = pa.array([text for _, text in samples], pa.string())
        values = texts.cast(pa.float64()).to_numpy(zero_copy_only=False)
        labels = [entry["metric"] for entry in result]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    if not all(type(own) is dict for own in labels):
        return None
    return [Row(own, times[i : i + 1], values[i : i + 1]) for i, own in enumerate(labels)]


def _matrix(result: list[Any]) -> list[Row] | None:
    """Return the rows of a matrix of plain numbers, all parsed at once; None if it is anything else.

    Arrow reads a number in a sixth of the time that Python takes, and history is numbers.
    """
    try:
        counts = [len(entry["values"]) for entry in result]
        texts = [sample[1] for entry in result for sample in entry["values"]]
        seconds = [sample[0] for entry in result for sample in entry["values"]]
        values = pa.array(texts, pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False)
        times = np.array(seconds, dtype=np.float64)
        labels = [dict(entry["metric"].items()) for entry in result]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None  # the slow way says which series is wrong, or takes what is there
    edges = np.cumsum([0, *counts]).tolist()
    return [
        Row(label, times[a:b], values[a:b])
        for label, a, b in zip(labels, edges[:-1], edges[1:], strict=True)
    ]


def _rows(entry: Any, where: str) -> list[Row]:  # noqa: ANN401 - parsed JSON
    try:
        labels = dict(entry["metric"].items())
        if "histogram" in entry:
            at, native = entry["histogram"]
            return _native_rows(labels, float(at), native)
        if "histograms" in entry:
            raise RefusedError(
                f"{where}: native histograms at many times for {labels}: ask for a quantile or a mean"
            )
        if "value" in entry:
            at, value = entry["value"]
            times, values = np.array([float(at)]), np.array([float(value)])
        else:
            samples = entry["values"]
            times = np.array([s[0] for s in samples], dtype=np.float64)
            values = np.fromiter(map(float, [s[1] for s in samples]), np.float64, len(samples))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        shown = str(entry)[:120]
        raise RefusedError(
            f"{where}: a series that is not one of the Prometheus API: {shown}"
        ) from error
    return [Row(labels, times, values)]


def _native_rows(labels: Mapping[str, str], at: float, native: Mapping[str, Any]) -> list[Row]:
    """Return a native histogram as classic rows; buckets are [which ends count, lower, upper, count]."""
    count = float(native["count"])
    cells = [(float(b[1]), float(b[2]), float(b[3])) for b in native.get("buckets", ())]
    rows = [
        ({**labels, "le": f"{bound!r}" if np.isfinite(bound) else "+Inf"}, value)
        for bound, value in native_cumulative(cells, count)
    ]
    rows += [({**labels, PART: "sum"}, float(native["sum"])), ({**labels, PART: "count"}, count)]
    return [Row(own, np.array([at]), np.array([value])) for own, value in rows]


def native_means(rows: Sequence[Row]) -> list[Row]:
    """Return sum over count of native histograms: a row each, as histogram_sum / histogram_count."""
    parts: dict[str, dict[frozenset[tuple[str, str]], Row]] = {"sum": {}, "count": {}}
    for row in rows:
        if PART in row.labels:
            plain = frozenset((k, v) for k, v in row.labels.items() if k != PART)
            parts[row.labels[PART]][plain] = row
    return [
        Row(dict(plain), row.times, parts["sum"][plain].values / row.values)
        for plain, row in parts["count"].items()
        if plain in parts["sum"] and row.values[-1] > 0
    ]


def warnings_of(body: bytes) -> list[str]:
    """Return the `warnings` of an answer, such as Thanos' of a store that is missing from it.

    They stand at the end; inside a label's value the quotes would be escaped.
    """
    at = body.rfind(WARNINGS)
    if at < 0:
        return []
    try:
        told, _ = json.JSONDecoder().raw_decode(body[at + len(WARNINGS) - 1 :].decode("utf-8"))
    except ValueError:
        return []  # cut off: whoever reads the answer says so
    return [" ".join(str(text).split())[:300] for text in told]


def without_infinity(values: FloatArray) -> tuple[FloatArray, int]:
    """Return values with infinities as NaN, and how many there were."""
    bad = np.isinf(values)
    return np.where(bad, np.nan, values), int(bad.sum())


def clock_skew_sentence(server_seconds: float, now_seconds: float, limit_seconds: float) -> str:
    """Return a sentence if the server's clock is off by more than the limit, else the empty text."""
    skew = server_seconds - now_seconds
    if not math.isfinite(skew) or abs(skew) <= limit_seconds:
        return ""
    word = "ahead of" if skew > 0 else "behind"
    return (
        f"the server's clock is {abs(skew):.0f} s {word} this machine's; "
        "set both by NTP, or intervals are attributed to the wrong time"
    )


def error_of(status: int, body: str, where: str) -> ApiError:
    """Return the error that an HTTP status other than 200 means, with the server's words."""
    said = _said(body)
    if status in {401, 403} and any(word in said.lower() for word in TENANT_WORDS):
        return RefusedError(f"{where}: answered {status} ({said}); give the right --tenant")
    if status in {401, 403}:
        return RefusedError(
            f"{where}: answered {status} ({said}); give --user and --password-file, or --bearer-token-file"
        )
    if status in {404, 405} or status // 100 == 3:
        return RefusedError(
            f"{where}: answered {status}; give the address before /api/v1, "
            "such as http://prometheus:9090 or https://mimir/prometheus"
        )
    if status in {413, 414} or (status in {400, 422} and _too_many(said)):
        return TooMuchError(f"{where}: answered {status} ({said})")
    if status in {408, 425, 429} or status >= 500:
        return UnavailableError(f"{where}: answered {status} ({said})")
    return RefusedError(f"{where}: answered {status} ({said})")


TENANT_WORDS: Sequence[str] = ("org id", "orgid", "tenant")  # Mimir, Cortex: X-Scope-OrgID
LIMIT_WORDS: Sequence[str] = (
    "maximum resolution",
    "too many points",
    "too many samples",
    "query processing would load too many",
    "exceeds the limit",
    "exceeded maximum",
    "exceeded the maximum",
    "exceeded series limit",
    "err-mimir-max-",
    "maxpointspertimeseries",
    "too many time series",
    "max-query-length",
    "the query time range exceeds",
)


def _too_many(said: str) -> bool:
    low = said.lower()
    return any(word in low for word in LIMIT_WORDS)


def _said(body: str) -> str:
    try:
        content = json.loads(body)
        text = str(content["error"])
    except (ValueError, KeyError, TypeError):
        text = body
    text = " ".join(text.split())
    return text[:200] or "no words"

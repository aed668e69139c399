"""Read a request log in chunks of bounded memory, whatever its size: CSV, JSONL, Parquet, gzip.

Text is read in blocks of whole lines. A block is parsed at once; where that fails, line by line, so
that a bad line is counted and named instead of losing its block.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from models.trace_columns import Bad
from models.trace_shapes import Layout, TraceError, find_layout

BLOCK_BYTES = 4 * 1024 * 1024
MAX_LINE_BYTES = 16 * 1024 * 1024  # a request is one line; hash_ids of a long prompt are 100 kB
BATCH_ROWS = 65_536
SAMPLE_LINES = 100  # of JSONL: where the fields and their types are taken from
KINDS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
ALLOWED_FILES = ".csv, .csv.gz, .jsonl, .jsonl.gz, .ndjson, .ndjson.gz, .parquet"


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a log: the layout's columns, and where each row stands in the file.

    `line` numbers rows as an editor does (Parquet: rows from 1). `bad` are lines that are no rows at
    all, `first_bad` the first of them with `row` being its line. `window_seconds`: length of the windows
    that rows are, where the file tells it.
    """

    layout: Layout
    frame: pd.DataFrame
    line: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    bytes_read: int
    bad: int = 0
    first_bad: Bad | None = None
    window_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Parsed:
    """Rows of a block with the index of each one's line in it, and the lines that are none."""

    frame: pd.DataFrame
    at: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    bad: int = 0
    first_bad: Bad | None = None


def read_chunks(path: Path, *, shape: str, mapping: Mapping[str, str]) -> Iterator[Chunk]:
    """Yield the chunks of a log. Raises TraceError on a file that is no log, OSError unreadable."""
    kind = _kind(path)
    with _readable(path):
        if kind == "parquet":
            yield from _parquet(path, shape, mapping)
            return
        with path.open("rb") as raw:
            packed = path.suffix == ".gz"
            stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
            read = _csv if kind == "csv" else _jsonl
            yield from read(path, stream, raw, shape, mapping)


def _kind(path: Path) -> str:
    name = path.with_suffix("") if path.suffix == ".gz" else path
    kind = KINDS.get(name.suffix.lower())
    if kind is None or (kind == "parquet" and path.suffix == ".gz"):
        raise TraceError(f"{path}: not a request log by its name; allowed: {ALLOWED_FILES}")
    if not path.is_file():
        raise TraceError(f"{path}: no such file; allowed: {ALLOWED_FILES}")
    return kind


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"{path}: damaged or incomplete gzip ({error})") from error
    except pa.ArrowInvalid as error:
        raise TraceError(f"{path}: not readable ({' '.join(str(error).split())})") from error


def _parquet(path: Path, shape: str, mapping: Mapping[str, str]) -> Iterator[Chunk]:
    size, line, done = path.stat().st_size, 1, 0
    with pq.ParquetFile(path, pre_buffer=False) as file:
        layout = find_layout(file.schema_arrow.names, str(path), shape=shape, mapping=mapping)
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(layout.names)):
            frame = batch.to_pandas()
            done += len(frame)
            share = done / max(file.metadata.num_rows, 1)
            yield Chunk(layout, frame, line + np.arange(len(frame)), int(size * share))
            line += len(frame)


def _blocks(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """Yield blocks of whole lines."""
    rest = b""
    while data := stream.read(BLOCK_BYTES):
        cut = data.rfind(b"\n") + 1
        if cut:
            yield rest + data[:cut]
            rest = data[cut:]
        else:
            rest += data
        if len(rest) > MAX_LINE_BYTES:
            raise TraceError(
                f"{path}: a line of more than {MAX_LINE_BYTES} bytes; allowed: a request a line"
            )
    if rest:
        yield rest


def _csv(
    path: Path, stream: IO[bytes], raw: IO[bytes], shape: str, mapping: Mapping[str, str]
) -> Iterator[Chunk]:
    layout: Layout | None = None
    header: list[str] = []
    line = 1
    for block in _blocks(stream, path):
        body = block
        if layout is None:
            first, _, body = block.partition(b"\n")
            header = [c.strip() for c in _fields(first.decode("utf-8-sig", errors="replace"))]
            layout = find_layout(header, str(path), shape=shape, mapping=mapping)
            line = 2
        parsed = _parse_csv(body, header, layout)
        yield _chunk(layout, parsed, line, raw.tell())
        line += body.count(b"\n")
    if layout is None:
        raise TraceError(f"{path}: empty; allowed: a header and a row a request")


def _parse_csv(body: bytes, header: list[str], layout: Layout) -> _Parsed:
    at = _line_indexes(body)
    try:
        table = pa_csv.read_csv(
            io.BytesIO(body),
            read_options=pa_csv.ReadOptions(
                column_names=header, use_threads=False, block_size=max(len(body), 1)
            ),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(layout.names),
                column_types=dict.fromkeys(layout.text_columns, pa.string()),
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return _careful_csv(body, at, header, layout)
    if table.num_rows != len(at):  # a quoted line break: rows and lines differ
        return _careful_csv(body, at, header, layout)
    return _Parsed(table.to_pandas(), at)


def _careful_csv(
    body: bytes, at: "np.ndarray[tuple[int], np.dtype[np.int64]]", header: list[str], layout: Layout
) -> _Parsed:
    lines = body.split(b"\n")
    rows, good, bad = [], [], []
    for index in at.tolist():
        text = lines[index].decode("utf-8", errors="replace")
        fields = _fields(text)
        if len(fields) == len(header):
            rows.append(dict(zip(header, fields, strict=True)))
            good.append(index)
        else:
            bad.append((index, f"{len(fields)} fields: {text.strip()}"))
    columns = {name: [row[name] for row in rows] for name in layout.names}
    return _parsed(columns, good, bad, f"{len(header)} fields")


def _fields(text: str) -> list[str]:
    try:
        return next(csv.reader([text.rstrip("\r\n")]), [])
    except csv.Error:  # a NUL byte or a field beyond csv's limit
        return []


def _jsonl(
    path: Path, stream: IO[bytes], raw: IO[bytes], shape: str, mapping: Mapping[str, str]
) -> Iterator[Chunk]:
    layout: Layout | None = None
    schema = pa.schema([])
    line = 1
    for block in _blocks(stream, path):
        if layout is None:
            sample = _sample(block)
            header = list(dict.fromkeys(key for row in sample for key in row))
            layout = find_layout(header, str(path), shape=shape, mapping=mapping)
            schema = _json_schema(sample, layout)
        yield _chunk(layout, _parse_jsonl(block, layout, schema), line, raw.tell())
        line += block.count(b"\n")
    if layout is None:
        raise TraceError(f"{path}: empty; allowed: a JSON object a line")


def _sample(block: bytes) -> list[dict[str, Any]]:
    rows = (_object(line) for line in block.split(b"\n", SAMPLE_LINES)[:SAMPLE_LINES])
    return [row for row in rows if row is not None]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _json_schema(sample: list[dict[str, Any]], layout: Layout) -> Any:  # noqa: ANN401 - untyped
    """Types by what the sample holds; texts stay texts, else times would lose their zone."""
    fields = []
    for name in layout.names:
        value = next((row[name] for row in sample if row.get(name) is not None), None)
        if name in layout.text_columns or isinstance(value, str):
            fields.append(pa.field(name, pa.string()))
        elif isinstance(value, bool):
            fields.append(pa.field(name, pa.bool_()))
        else:
            fields.append(pa.field(name, pa.float64()))
    return pa.schema(fields)


def _parse_jsonl(block: bytes, layout: Layout, schema: Any) -> _Parsed:  # noqa: ANN401 - untyped
    at = _line_indexes(block)
    try:
        table = pa_json.read_json(
            io.BytesIO(block),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=pa_json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior="ignore"
            ),
        )
    except pa.ArrowInvalid:
        return _careful_jsonl(block, at, layout)
    if table.num_rows != len(at):
        return _careful_jsonl(block, at, layout)
    return _Parsed(table.to_pandas(), at)


def _careful_jsonl(
    block: bytes, at: "np.ndarray[tuple[int], np.dtype[np.int64]]", layout: Layout
) -> _Parsed:
    lines = block.split(b"\n")
    rows, good, bad = [], [], []
    for index in at.tolist():
        row = _object(lines[index])
        if row is None:
            bad.append((index, lines[index].decode("utf-8", errors="replace").strip()))
        else:
            rows.append(row)
            good.append(index)
    columns = {name: [_scalar(row.get(name)) for row in rows] for name in layout.names}
    return _parsed(columns, good, bad, "a JSON object a line")


def _scalar(value: object) -> str | None:
    """Return a JSON value as text; true and false are no numbers, lists and objects no values."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def _parsed(
    columns: Mapping[str, list[Any]], good: list[int], bad: list[tuple[int, str]], allowed: str
) -> _Parsed:
    frame = pd.DataFrame({name: pd.Series(v, dtype="str") for name, v in columns.items()})
    first = None
    if bad:
        text = "".join(c if c.isprintable() else "?" for c in bad[0][1][:60])
        first = Bad(int(bad[0][0]), "(line)", repr(text), allowed)
    return _Parsed(frame, np.array(good, dtype=np.int64), len(bad), first)


def _line_indexes(body: bytes) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the indexes of lines that are not blank."""
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if b"\n\n" not in body and b"\n\r\n" not in body and body[:1] not in (b"\n", b"\r"):
        return np.arange(len(lines), dtype=np.int64)
    return np.array([n for n, line in enumerate(lines) if line.strip(b"\r")], dtype=np.int64)


def _chunk(layout: Layout, parsed: _Parsed, line: int, bytes_read: int) -> Chunk:
    first = parsed.first_bad
    if first is not None:
        first = Bad(line + first.row, first.column, first.value, first.allowed)
    return Chunk(layout, parsed.frame, line + parsed.at, bytes_read, parsed.bad, first)

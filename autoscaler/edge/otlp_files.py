"""Files of the collector's file exporter into a store.

Its forms: a JSON export a line; or (`format: proto`, `compression: zstd`) records, each after its length
in four bytes. Plain or .gz. Read one by one, so a file of any length needs little memory. A last line or
record that is cut off is left out: the collector may still be writing it. Any other that cannot be read
is an error with its number.
"""

import gzip
import io
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from autoscaler.edge.otlp_receiver import MAX_JSON_DEPTH, REQUESTS, Signals, fold_export
from autoscaler.edge.otlp_store import OtlpStore
from models.frames import FrameError
from models.otlp_fold import Fold, FoldLimits
from models.otlp_increments import NS
from models.otlp_names import IDENTITY_ATTRIBUTES

MAX_EXPORT_BYTES = 64 * 2**20  # of one line or record, inflated
LENGTH_BYTES = 4
PROTOBUF_STARTS = (b"\x0a", b"")  # the tag of an export's first field; no line begins so
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
FLUSH_CELLS = 10_000
FLUSH_BUCKETS = 200_000
# the past is no reason to refuse anything here
LIMITS = FoldLimits(late_seconds=float("inf"), early_seconds=float("inf"))
_KEYS: dict[str, Signals] = {"resourceMetrics": "metrics", "resourceSpans": "traces"}
_ALLOWED = "a line of OTLP JSON: resourceMetrics, resourceSpans or resourceLogs"


@dataclass(slots=True)
class FilesRead:
    """What became of the files."""

    lines: int = 0
    refused: int = 0
    reasons: set[str] = field(default_factory=set)  # some of them
    late: int = 0  # points older than ones before: files in the wrong order
    points: int = 0
    requests: int = 0


def store_files(
    paths: Sequence[Path],
    store: OtlpStore,
    *,
    identity: tuple[str, ...] = IDENTITY_ATTRIBUTES,
    progress: Callable[[int], None] = lambda _: None,
) -> FilesRead:
    """Fold the files into `store`, in the order given; cumulative series need the order of time.

    `progress` gets the bytes read (of compressed files: compressed). Raises FrameError naming file and
    line for what is no OTLP JSON, OSError for what cannot be read.
    """
    fold = Fold(bin_seconds=store.bin_seconds, limits=LIMITS)
    store.restore(fold)
    done = FilesRead()
    for path in paths:
        for where, data in _exports(path, progress):
            done.lines += 1
            _fold_export(fold, data, where, identity, done)
            if len(fold.cells) > FLUSH_CELLS or fold.pending_buckets > FLUSH_BUCKETS:
                _flush(store, fold)
    _flush(store, fold)
    done.points, done.requests = fold.counts["points"], fold.counts["requests"]
    done.late = fold.counts["late_points"] + fold.counts["late_requests"]
    return done


def _flush(store: OtlpStore, fold: Fold) -> None:
    store.flush(fold)
    newest = max((s.state.time_ns for s in fold.series.values()), default=0)
    store.forget(fold.forget_idle(newest / NS))


def _fold_export(
    fold: Fold, data: bytes, where: str, identity: tuple[str, ...], done: FilesRead
) -> None:
    read = _from_protobuf if data[:1] in PROTOBUF_STARTS else _from_json
    for signals, request in read(data, where):
        answer: Any = fold_export(fold, signals, request, 0.0, identity)
        partial = answer.partial_success
        done.refused += (
            partial.rejected_data_points if signals == "metrics" else partial.rejected_spans
        )
        if partial.error_message and len(done.reasons) < 10:
            done.reasons.add(partial.error_message)


def _from_json(data: bytes, where: str) -> Iterator[tuple[Signals, Any]]:
    try:
        content = json.loads(data.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"{where}: not JSON ({error}); allowed: {_ALLOWED}") from error
    if not isinstance(content, dict) or not {*_KEYS, "resourceLogs"} & set(content):
        raise FrameError(f"{where}: no OTLP export; allowed: {_ALLOWED}")
    for key, signals in _KEYS.items():
        if key not in content:
            continue
        request = REQUESTS[signals]()
        try:
            json_format.ParseDict(
                content, request, ignore_unknown_fields=True, max_recursion_depth=MAX_JSON_DEPTH
            )
        except (json_format.ParseError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise FrameError(f"{where}: {reason}; allowed: {_ALLOWED}") from error
        yield signals, request


def _from_protobuf(data: bytes, where: str) -> Iterator[tuple[Signals, Any]]:
    """Yield the one export in `data`: nothing in it says of which kind, but only spans have ids."""
    requests: dict[Signals, Any] = {}
    for signals in ("traces", "metrics"):
        request = REQUESTS[signals]()
        try:
            request.ParseFromString(data)
        except DecodeError:
            continue
        requests[signals] = request
    if "traces" in requests and _has_spans(requests["traces"]):
        yield "traces", requests["traces"]
    elif "metrics" in requests:
        yield "metrics", requests["metrics"]
    else:
        raise FrameError(f"{where}: no OTLP protobuf; allowed: an export of metrics or traces")


def _has_spans(request: Any) -> bool:  # noqa: ANN401 - a generated message
    spans = [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
    return bool(spans) and all(
        len(s.trace_id) == 16 and len(s.span_id) == 8 and s.start_time_unix_nano for s in spans
    )


def _exports(path: Path, progress: Callable[[int], None]) -> Iterator[tuple[str, bytes]]:
    """Yield where it stands and the bytes of each export, inflated."""
    with path.open("rb") as raw:
        stream = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
        seen = 0
        try:
            # a line begins with a brace or white space, a length below 64 MiB with less
            records = stream.peek(1)[:1] < b"\t" and stream.peek(1) != b""
            pieces = _records(stream, path) if records else _lines(stream, path)
            for piece in pieces:
                progress(raw.tell() - seen)
                seen = raw.tell()
                yield piece
            progress(raw.tell() - seen)
        except (OSError, EOFError, zlib.error) as error:
            raise FrameError(f"{path}: {error}; allowed: a whole gzip file") from error


def _lines(stream: "IO[bytes]", path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield lines that are not blank; a last one without its end only if it is whole."""
    for number in itertools.count(1):
        line = stream.readline(MAX_EXPORT_BYTES + 1)
        if not line:
            return
        where = f"{path}: line {number}"
        if len(line) > MAX_EXPORT_BYTES:
            raise FrameError(f"{where}: allowed: up to {MAX_EXPORT_BYTES} bytes")
        if not line.endswith(b"\n") and not line.rstrip().endswith(b"}"):
            return
        if line.strip():
            yield where, line


def _records(stream: "IO[bytes]", path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what stands after each length; a last record that is cut off is left out."""
    for number in itertools.count(1):
        head = stream.read(LENGTH_BYTES)
        size = int.from_bytes(head, "big")
        where = f"{path}: record {number}"
        if size > MAX_EXPORT_BYTES:
            raise FrameError(f"{where}: {size} bytes; allowed: up to {MAX_EXPORT_BYTES}")
        data = stream.read(size)
        if len(head) < LENGTH_BYTES or len(data) < size:
            return
        yield where, _inflated(data, where) if data.startswith(ZSTD_MAGIC) else data


def _inflated(data: bytes, where: str) -> bytes:
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            plain = bytes(stream.read(MAX_EXPORT_BYTES + 1))
    except (OSError, pa.ArrowException) as error:
        raise FrameError(f"{where}: {error}; allowed: one zstd frame") from error
    if len(plain) > MAX_EXPORT_BYTES:
        raise FrameError(f"{where}: allowed: up to {MAX_EXPORT_BYTES} bytes after zstd")
    return plain

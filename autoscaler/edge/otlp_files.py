"""Files of the collector's file exporter (a JSON export a line, plain or .gz) into a store.

Read line by line, so a file of any length needs little memory. A last line that is cut off is left out:
the collector may still be writing it. Any other line that cannot be read is an error with its number.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from google.protobuf import json_format

from autoscaler.edge.otlp_receiver import MAX_JSON_DEPTH, REQUESTS, Signals, fold_export
from autoscaler.edge.otlp_store import OtlpStore
from models.frames import FrameError
from models.otlp_fold import Fold, FoldLimits
from models.otlp_increments import NS
from models.otlp_names import IDENTITY_ATTRIBUTES

MAX_LINE_BYTES = 64 * 2**20
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
        for number, text in _lines(path, progress):
            done.lines += 1
            _fold_line(fold, text, f"{path}: line {number}", identity, done)
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


def _fold_line(
    fold: Fold, text: str, where: str, identity: tuple[str, ...], done: FilesRead
) -> None:
    content = _parse_line(text, where)
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
        answer: Any = fold_export(fold, signals, request, 0.0, identity)
        partial = answer.partial_success
        done.refused += (
            partial.rejected_data_points if signals == "metrics" else partial.rejected_spans
        )
        if partial.error_message and len(done.reasons) < 10:
            done.reasons.add(partial.error_message)


def _parse_line(text: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"{where}: not JSON ({error}); allowed: {_ALLOWED}") from error
    if not isinstance(content, dict) or not {*_KEYS, "resourceLogs"} & set(content):
        raise FrameError(f"{where}: no OTLP export; allowed: {_ALLOWED}")
    return content


def _lines(path: Path, progress: Callable[[int], None]) -> Iterator[tuple[int, str]]:
    """Yield numbered lines that are not blank; a last one without its end only if it is whole."""
    with path.open("rb") as raw:
        stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw)
        number, seen = 0, 0
        while True:
            try:
                line = stream.readline(MAX_LINE_BYTES + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise FrameError(f"{path}: {error}; allowed: a whole gzip file") from error
            number += 1
            progress(raw.tell() - seen)
            seen = raw.tell()
            if not line:
                return
            if len(line) > MAX_LINE_BYTES:
                raise FrameError(f"{path}: line {number}: allowed: up to {MAX_LINE_BYTES} bytes")
            if not line.endswith(b"\n") and not line.rstrip().endswith(b"}"):
                return
            if line.strip():
                yield number, line.decode("utf-8", errors="replace")

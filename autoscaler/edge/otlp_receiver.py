"""What both OTLP transports share: bytes in, answer out; bounded decompression, parsing, folding, flushing.

Every export is handled in one worker thread, one after the other: the fold and the store need no
lock, and at most one message at a time is inflated and parsed, whatever clients send in parallel.
"""

import asyncio
import gc
import hmac
import logging
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from autoscaler.edge.otlp_store import OtlpStore
from models.otlp_fold import Fold, FoldFullError
from models.otlp_names import IDENTITY_ATTRIBUTES
from models.otlp_points import MAX_PARTS, metric_points, span_requests, too_many_parts
from models.otlp_schema import StoreError

Signals = Literal["metrics", "traces"]
REQUESTS: dict[Signals, type[Any]] = {
    "metrics": ExportMetricsServiceRequest,
    "traces": ExportTraceServiceRequest,
}
MAX_JSON_PARTS = 400_000  # 8,000 points with 20 attributes; some seconds to parse
MAX_JSON_DEPTH = 64  # OTLP itself needs 20
REASONS_SHOWN = 3  # of the refusals in one answer
PRUNE_SECONDS = 60.0
COLLECT_BYTES = 64 * 2**20

log = logging.getLogger("foreserve")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Certificate chain and key, PEM."""

    certificate: Path
    key: Path


class BadExportError(ValueError):
    """Not an export: the client must not send it again."""


class TooLargeError(BadExportError):
    """More bytes than allowed, before or after decompression."""


class BusyError(RuntimeError):
    """Too much at once: the client may send it again."""


RejectedKind = Literal["bad", "large", "busy"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a whole export is not taken; only `busy` may be sent again."""

    kind: RejectedKind
    reason: str


@dataclass(frozen=True, slots=True)
class ReceiverLimits:
    """What one client, or all together, may cost."""

    message_bytes: int = 4 * 2**20  # as it arrives; also the collector's default limit
    inflated_bytes: int = (
        8 * 2**20
    )  # after gzip; parsing needs up to 32 times as much, for a moment
    concurrent_requests: int = 32  # each may hold message_bytes
    receive_seconds: float = 10.0  # to deliver one message
    drain_seconds: float = 5.0  # at shutdown
    flush_seconds: float = 5.0  # what a crash may lose


@dataclass(slots=True)
class Receiver:
    """Takes exports from the transports and folds them into the store."""

    store: OtlpStore
    fold: Fold
    limits: ReceiverLimits = field(default_factory=ReceiverLimits)
    identity: tuple[str, ...] = IDENTITY_ATTRIBUTES
    token: str | None = None  # what clients must send as `Authorization: Bearer ...`; None: nothing
    clock: Callable[[], float] = time.time  # noqa: TID251 - the edge reads time, here only
    refusals: Counter[str] = field(default_factory=Counter)  # of whole exports, by kind
    _worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "otlp"))
    _inside: int = 0
    _pruned_seconds: float = 0.0
    _arrived_bytes: int = 0  # since the last collection

    def admits(self, authorization: str | None) -> bool:
        """Whether a request with this header (None: without it) may go on."""
        if self.token is None:
            return True
        expected = f"Bearer {self.token}".encode()
        if hmac.compare_digest((authorization or "").encode("utf-8", "replace"), expected):
            return True
        self.refusals["unauthorized"] += 1
        return False

    def enter(self) -> None:
        """Count one request in, before its body is read; raises BusyError beyond the limit."""
        if self._inside >= self.limits.concurrent_requests:
            self.refusals["busy"] += 1
            raise BusyError(f"{self.limits.concurrent_requests} requests at once are allowed")
        self._inside += 1

    def leave(self) -> None:
        """Count it out."""
        self._inside -= 1

    async def export(
        self, signals: Signals, body: bytes, *, compressed: bool, as_json: bool = False
    ) -> Message | Rejected:
        """Take one export and return its response message, or why it is not taken.

        A value, not an exception: a traceback would keep the body and what was parsed from it alive.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._worker, self._export, signals, body, compressed, as_json
        )

    async def flush_forever(self) -> None:
        """Write to the store every few seconds, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.limits.flush_seconds)
            await loop.run_in_executor(self._worker, self._flush)

    async def close(self) -> None:
        """Write what is left and close the store."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._worker, self._flush)
        self._worker.shutdown()
        self.store.close()

    def _export(
        self, signals: Signals, body: bytes, compressed: bool, as_json: bool
    ) -> Message | Rejected:
        self._collect(len(body))
        try:
            data = inflate(body, self.limits.inflated_bytes) if compressed else body
            request = parse(signals, data, as_json=as_json)
        except TooLargeError as error:
            return self._reject("large", str(error))
        except BadExportError as error:
            return self._reject("bad", str(error))
        if too_many_parts(request):
            return self._reject("large", f"more than {MAX_PARTS} resources, metrics and points")
        try:
            return fold_export(self.fold, signals, request, self.clock(), self.identity)
        except FoldFullError as error:
            return self._reject("busy", str(error))

    def _collect(self, arrived_bytes: int) -> None:
        """Collect garbage for every so many bytes: gRPC's finished calls keep their message in a cycle."""
        self._arrived_bytes += arrived_bytes
        if self._arrived_bytes > COLLECT_BYTES:
            self._arrived_bytes = 0
            gc.collect()

    def _reject(self, kind: RejectedKind, reason: str) -> Rejected:
        self.refusals[kind] += 1
        return Rejected(kind, reason)

    def _flush(self) -> None:
        try:
            self.store.flush(self.fold)
            now = self.clock()
            if now - self._pruned_seconds > PRUNE_SECONDS:
                self._pruned_seconds = now
                self.store.forget(self.fold.forget_idle(now))
                self.store.prune(now)
            self.store.merge_one(now)
        except (OSError, StoreError):
            log.exception("the store cannot be written; what waits is kept, within its limit")


def fold_export(
    fold: Fold,
    signals: Signals,
    request: Any,  # noqa: ANN401 - a generated message
    now_seconds: float,
    identity: tuple[str, ...],
) -> Message:
    """Fold one parsed export and return the response that tells what was refused."""
    if signals == "metrics":
        refused = fold.add_points(metric_points(request, identity), now_seconds)
        metrics = ExportMetricsServiceResponse()
        if refused:
            metrics.partial_success.rejected_data_points = len(refused)
            metrics.partial_success.error_message = _reasons(refused)
        return metrics
    refused = fold.add_requests(span_requests(request, identity), now_seconds)
    traces = ExportTraceServiceResponse()
    if refused:
        traces.partial_success.rejected_spans = len(refused)
        traces.partial_success.error_message = _reasons(refused)
    return traces


def parse(signals: Signals, data: bytes, *, as_json: bool) -> Any:  # noqa: ANN401
    """Return the export message in `data`. Raises BadExportError if it is none."""
    request = REQUESTS[signals]()
    if as_json and data.count(b"{") + data.count(b"[") > MAX_JSON_PARTS:
        raise TooLargeError(f"JSON of too many parts; allowed: {MAX_JSON_PARTS} objects and lists")
    try:
        if not as_json:
            request.ParseFromString(data)
            return request
        # ids are hex in OTLP's JSON and base64 in protobuf's: both parse, and nobody reads their bits
        return json_format.Parse(
            data, request, ignore_unknown_fields=True, max_recursion_depth=MAX_JSON_DEPTH
        )
    except (DecodeError, json_format.ParseError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        kind = "JSON" if as_json else "protobuf"
        raise BadExportError(f"not an OTLP {signals} export in {kind}: {text}") from error


def inflate(body: bytes, max_bytes: int) -> bytes:
    """Return the gzip body inflated, never holding more than `max_bytes` of it.

    Raises TooLargeError beyond that, BadExportError if it is not gzip or is cut off.
    """
    engine = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        data = engine.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise BadExportError(f"not gzip ({error})") from error
    if len(data) > max_bytes:
        raise TooLargeError(f"more than {max_bytes} bytes after gzip; allowed: that many")
    if not engine.eof or engine.unused_data:
        raise BadExportError("gzip that is cut off, or followed by more; allowed: one member")
    return data


def _reasons(refused: list[str]) -> str:
    most = Counter(refused).most_common(REASONS_SHOWN)
    return "; ".join(f"{reason} ({n})" for reason, n in most)

import gzip
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from autoscaler.edge.tracing import QUEUED_SPANS, EndpointError, TickTraces, traces_to


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """An exporter that gives up late must not run into the next test."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(30.0)
        assert not thread.is_alive(), thread.name


def one_tick(traces: TickTraces) -> None:
    with traces.tick({"tick.number": 1}):
        for phase in ("collect", "decide", "actuate"):
            with traces.phase(phase, {"phase.name": phase}):
                pass
        traces.note({"policies": 2})


def finished(exporter: InMemorySpanExporter, traces: TickTraces) -> dict[str, ReadableSpan]:
    assert traces.shutdown()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_tick_has_a_child_for_each_phase() -> None:
    exporter = InMemorySpanExporter()
    traces = TickTraces(exporter, version="1.2")
    one_tick(traces)
    spans = finished(exporter, traces)
    assert set(spans) == {"tick", "collect", "decide", "actuate"}
    tick = spans["tick"]
    assert tick.parent is None
    assert dict(tick.attributes or {}) == {"tick.number": 1, "policies": 2}
    assert tick.resource.attributes["service.name"] == "foreserve"
    assert tick.resource.attributes["service.version"] == "1.2"
    for phase in ("collect", "decide", "actuate"):
        parent = spans[phase].parent
        assert parent is not None
        assert parent.span_id == tick.get_span_context().span_id


def test_two_ticks_are_two_traces() -> None:
    exporter = InMemorySpanExporter()
    traces = TickTraces(exporter)
    one_tick(traces)
    one_tick(traces)
    assert traces.shutdown()
    ids = {s.get_span_context().trace_id for s in exporter.get_finished_spans()}
    assert len(ids) == 2


def test_an_exception_marks_its_spans_and_goes_on() -> None:
    exporter = InMemorySpanExporter()
    traces = TickTraces(exporter)
    with pytest.raises(RuntimeError, match="no answer"), traces.tick(), traces.phase("collect"):
        raise RuntimeError("no answer")
    one_tick(traces)  # the next tick is not affected
    assert traces.shutdown()
    spans = exporter.get_finished_spans()
    assert [s.status.description for s in spans[:2]] == ["RuntimeError: no answer"] * 2
    assert all(s.status.description is None for s in spans[2:])


def test_off_without_an_endpoint() -> None:
    traces = traces_to(None)
    one_tick(traces)
    assert traces.shutdown(0.0)


class Stuck(SpanExporter):
    """Hangs in every export until released."""

    def __init__(self) -> None:
        self.release = Event()
        self.batches = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        assert spans
        self.batches += 1
        self.release.wait(30)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        pass


def test_a_stuck_exporter_costs_spans_and_no_time() -> None:
    exporter = Stuck()
    traces = TickTraces(exporter)
    ticks = QUEUED_SPANS  # four spans each: four times what is queued
    begin = time.thread_time()
    for _ in range(ticks):
        one_tick(traces)
    spent = time.thread_time() - begin
    assert exporter.batches == 1  # the one it hangs in: nobody else called it
    assert spent / ticks < 0.005  # of processor time a tick; about 0.1 ms measured
    begin = time.monotonic()
    assert not traces.shutdown(0.2)
    assert time.monotonic() - begin < 2.0
    exporter.release.set()


class Broken(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise OSError(f"{len(spans)} spans lost")

    def shutdown(self) -> None:
        pass


def test_a_failing_exporter_is_logged_and_never_raised(caplog: pytest.LogCaptureFixture) -> None:
    traces = TickTraces(Broken())
    one_tick(traces)
    assert traces.shutdown()
    assert "Exception while exporting" in caplog.text


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, ExportTraceServiceRequest]]]]:
    """A small OTLP/HTTP collector; yields its address and what it received, by path."""
    received: list[tuple[str, ExportTraceServiceRequest]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("suffix", "path"), [("", "/v1/traces"), ("/", "/v1/traces"), ("/t", "/t")]
)
def test_otlp_over_http(suffix: str, path: str) -> None:
    with collector() as (address, received):
        traces = traces_to(address + suffix, version="3")
        one_tick(traces)
        assert traces.shutdown(10.0)
    assert [p for p, _ in received] == [path]
    (resource,) = received[0][1].resource_spans
    names = {s.name for scope in resource.scope_spans for s in scope.spans}
    assert names == {"tick", "collect", "decide", "actuate"}
    assert ("service.name", "foreserve") in {
        (a.key, a.value.string_value) for a in resource.resource.attributes
    }


def test_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:  # bound and never listening: refused
        free.bind(("127.0.0.1", 0))
        traces = traces_to(f"http://127.0.0.1:{free.getsockname()[1]}")
        one_tick(traces)
        begin = time.monotonic()
        traces.shutdown(1.0)
        assert time.monotonic() - begin < 5.0
    assert caplog.records  # said, by the exporter


@pytest.mark.parametrize("scheme", ["grpc", "grpcs"])
def test_grpc_endpoints_are_taken(scheme: str) -> None:
    traces = traces_to(f"{scheme}://127.0.0.1:1")
    assert traces.shutdown(5.0)


@pytest.mark.parametrize(
    "endpoint", ["", "collector:4317", "ftp://c:1", "http://", "grpc://c", "http://c:port"]
)
def test_an_address_that_is_none(endpoint: str) -> None:
    with pytest.raises(EndpointError, match=r"is not allowed; allowed: http://HOST:PORT"):
        traces_to(endpoint)

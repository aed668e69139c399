"""Traces of ticks over OTLP: one span a tick with a child for each phase. Off without an endpoint.

Spans go into a bounded queue that a thread of its own empties: a collector that is slow or gone costs
spans, never time. Nothing is global: the tracer provider belongs to the `TickTraces` that made it.
"""

import contextlib
from collections.abc import Iterator, Mapping
from threading import Thread
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context

SERVICE_NAME = "foreserve"
QUEUED_SPANS = 2048  # beyond it new spans are dropped
BATCH_SPANS = 256
EXPORT_EVERY_SECONDS = 5.0
EXPORT_TIMEOUT_SECONDS = 5.0
SHUTDOWN_SECONDS = 3.0
TRACES_PATH = "/v1/traces"

Attributes = Mapping[str, str | int | float | bool]


class EndpointError(ValueError):
    """An address that traces cannot be sent to; the message says what is allowed."""


class TickTraces:
    """Spans of ticks. Without an exporter, everything here does nothing."""

    def __init__(self, exporter: SpanExporter | None = None, *, version: str = "") -> None:
        """Send to `exporter`; every span says that it is of this `version` of the program."""
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        self._open: Span | None = None  # the tick's span
        if exporter is None:
            return
        resource = Resource({"service.name": SERVICE_NAME, "service.version": version})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=QUEUED_SPANS,
                max_export_batch_size=BATCH_SPANS,
                schedule_delay_millis=EXPORT_EVERY_SECONDS * 1000,
                export_timeout_millis=EXPORT_TIMEOUT_SECONDS * 1000,
            )
        )
        self._tracer = self._provider.get_tracer(SERVICE_NAME, version)

    @contextlib.contextmanager
    def tick(self, attributes: Attributes | None = None) -> Iterator[None]:
        """Trace one tick: everything inside belongs to it. An exception marks it and goes on."""
        if self._tracer is None:
            yield
            return
        self._open = self._tracer.start_span("tick", attributes=attributes)
        try:
            with _ended(self._open):
                yield
        finally:
            self._open = None

    @contextlib.contextmanager
    def phase(self, name: str, attributes: Attributes | None = None) -> Iterator[None]:
        """Trace a phase (collect, decide, actuate) of the tick that is open."""
        if self._tracer is None:
            yield
            return
        parent = None if self._open is None else set_span_in_context(self._open)
        with _ended(self._tracer.start_span(name, context=parent, attributes=attributes)):
            yield

    def note(self, attributes: Attributes) -> None:
        """Add what became known during the tick (policies, writes, plan status) to its span."""
        if self._open is not None:
            self._open.set_attributes(attributes)

    def shutdown(self, timeout_seconds: float = SHUTDOWN_SECONDS) -> bool:
        """Send what is queued and stop; return False if that took longer than `timeout_seconds`.

        What cannot be sent in time is dropped: a process that ends does not wait for its traces.
        """
        provider, self._provider, self._tracer = self._provider, None, None
        if provider is None:
            return True
        # The SDK's own limits do not bound an exporter that hangs, hence a thread that may be left.
        ending = Thread(target=provider.shutdown, name="traces-shutdown", daemon=True)
        ending.start()
        ending.join(timeout_seconds)
        return not ending.is_alive()


def traces_to(endpoint: str | None, *, version: str = "") -> TickTraces:
    """Return traces sent to `endpoint`, or none if it is None.

    http://host:4318 and https:// speak OTLP/HTTP (protobuf; /v1/traces is added to an address without
    path), grpc://host:4317 and grpcs:// speak OTLP/gRPC. Raises EndpointError on anything else.
    """
    return TickTraces(None if endpoint is None else _exporter(endpoint), version=version)


def _exporter(endpoint: str) -> SpanExporter:
    try:
        parts = urlsplit(endpoint)
        known = parts.scheme in {"http", "https", "grpc", "grpcs"} and parts.hostname
        port = parts.port
    except ValueError:
        known, port = None, None
    if not known or (parts.scheme.startswith("grpc") and port is None):
        raise EndpointError(
            f"OTLP endpoint {endpoint!r} is not allowed; allowed: http://HOST:PORT, https://HOST:PORT, "
            "grpc://HOST:PORT, grpcs://HOST:PORT"
        )
    if parts.scheme.startswith("grpc"):
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc(
            endpoint=parts.netloc,
            insecure=parts.scheme == "grpc",
            timeout=EXPORT_TIMEOUT_SECONDS,
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    address = endpoint if parts.path.strip("/") else endpoint.rstrip("/") + TRACES_PATH
    return Http(endpoint=address, timeout=EXPORT_TIMEOUT_SECONDS)


@contextlib.contextmanager
def _ended(span: Span) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        raise
    finally:
        span.end()

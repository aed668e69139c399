"""OTLP over gRPC: the metrics and trace collector services.

Two things differ from generated code, both for safety. gRPC's own inflation is switched off, because it
has no limit: messages come as they were sent and gzip shows in their first bytes (no protobuf message
starts so). And the unary methods are served as streams of one message, which is the same on the wire,
because only then can the wait for a slow sender's message be limited.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from autoscaler.edge.otlp_receiver import (
    BusyError,
    Receiver,
    Rejected,
    RejectedKind,
    Signals,
    TlsFiles,
)

GZIP_MAGIC = b"\x1f\x8b"
MAX_CONNECTIONS = 256
STREAMS_PER_CONNECTION = 16
STATUS: dict[RejectedKind, grpc.StatusCode] = {
    "bad": grpc.StatusCode.INVALID_ARGUMENT,
    "large": grpc.StatusCode.INVALID_ARGUMENT,
    "busy": grpc.StatusCode.RESOURCE_EXHAUSTED,  # the one of these that OTLP clients retry
}
SERVICES: dict[Signals, str] = {
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
}


async def start_grpc(
    receiver: Receiver, host: str, port: int, tls: TlsFiles | None
) -> tuple[grpc.aio.Server, int]:
    """Listen and return the server and its port (chosen by the system for port 0).

    Raises OSError if the address cannot be had or the TLS files cannot be read.
    """
    limits = receiver.limits
    server = grpc.aio.server(
        maximum_concurrent_rpcs=limits.concurrent_requests,
        options=[
            ("grpc.max_receive_message_length", limits.message_bytes),
            ("grpc.per_message_decompression", 0),
            ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
            ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
            ("grpc.so_reuseport", 0),
        ],
    )
    server.add_generic_rpc_handlers([_handler(receiver, s) for s in SERVICES])
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if tls is None:
            bound = server.add_insecure_port(address)
        else:
            pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
            bound = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    except RuntimeError as error:
        raise OSError(f"{address}: {error}") from error
    await server.start()
    return server, bound


def _handler(receiver: Receiver, signals: Signals) -> "grpc.GenericRpcHandler[Any, Any]":
    async def export(
        messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> Message:
        if not receiver.admits(_authorization(context)):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid bearer token")
        try:
            receiver.enter()
        except BusyError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        try:
            answer = await _answer(receiver, signals, messages, context)
        finally:
            receiver.leave()
        if not isinstance(answer, Rejected):
            return answer
        await context.abort(STATUS[answer.kind], answer.reason)
        raise AssertionError("abort always raises")

    method = grpc.stream_unary_rpc_method_handler(
        export,
        request_deserializer=None,
        response_serializer=lambda m: m.SerializeToString(),
    )
    return grpc.method_handlers_generic_handler(SERVICES[signals], {"Export": method})


def _authorization(context: "grpc.aio.ServicerContext[Any, Any]") -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return value if isinstance(value, str) else None
    return None


async def _answer(
    receiver: Receiver,
    signals: Signals,
    messages: AsyncIterator[bytes],
    context: "grpc.aio.ServicerContext[Any, Any]",
) -> Message | Rejected:
    body = await _receive(receiver, messages, context)
    return await receiver.export(signals, body, compressed=body.startswith(GZIP_MAGIC))


async def _receive(
    receiver: Receiver,
    messages: AsyncIterator[bytes],
    context: "grpc.aio.ServicerContext[Any, Any]",
) -> bytes:
    """Return the call's one message, or abort when it does not come in time."""
    seconds = receiver.limits.receive_seconds
    try:
        async with asyncio.timeout(seconds):
            return await anext(aiter(messages))
    except TimeoutError:
        receiver.refusals["slow"] += 1
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no message within {seconds:g} s")
    except StopAsyncIteration:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a call without a message")
    raise AssertionError("abort always raises")

"""Clients that mean harm: the process' memory is read before, during and after."""

import contextlib
import socket
import threading
import time
import zlib
from collections.abc import Iterator

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from otlp_builders import POD, counter, export
from receiver_process import Running, running

METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
ALLOWED_MIB = 400.0  # beyond what it needs at rest, at any moment


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = tmp_path_factory.mktemp("hostile")
    options = ("--max-series", "5000", "--receive-seconds", "3", "--flush-seconds", "0.5")
    with running(store, *options) as process:
        yield process


@pytest.fixture(autouse=True)
def bounded(receiver: Running) -> Iterator[None]:
    """Whatever a test does, the most that the process has ever held stays bounded, and it answers."""
    before = receiver.rss_mib()
    yield
    assert receiver.process.poll() is None
    grown = receiver.peak_mib() - before
    print(f"at rest {before:.0f} MiB, at most {receiver.peak_mib():.0f} MiB")  # noqa: T201
    assert grown < ALLOWED_MIB
    with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
        channel.unary_unary(METRICS)(b"", timeout=10)


def channel_to(receiver: Running) -> grpc.Channel:
    options = [("grpc.max_send_message_length", -1)]
    return grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}", options=options)


def code_of(channel: grpc.Channel, body: bytes, compression: grpc.Compression | None = None) -> str:
    try:
        channel.unary_unary(METRICS)(body, timeout=30, compression=compression)
    except grpc.RpcError as error:
        return str(error.code().name)  # type: ignore[attr-defined]
    return "OK"


def zip_bomb(mib: int) -> bytes:
    engine = zlib.compressobj(9, wbits=31)
    return b"".join([engine.compress(b"\0" * 2**20) for _ in range(mib)]) + engine.flush()


def wrap(content: bytes, *tags: int) -> bytes:
    """Put `content` into protobuf fields of these tags, the innermost first."""
    for tag in tags:
        size, length = len(content), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        content = bytes([tag]) + length + bytes([size]) + content
    return content


def test_zip_bombs(receiver: Running) -> None:
    # 1 MiB on the wire, 1 GiB inflated: as a message, and as gRPC's own compression sends it
    bomb = zip_bomb(1000)
    with channel_to(receiver) as channel:
        assert code_of(channel, bomb) == "INVALID_ARGUMENT"
        assert code_of(channel, b"\0" * 100 * 2**20, grpc.Compression.Gzip) == "INVALID_ARGUMENT"
    with socket.create_connection(("127.0.0.1", receiver.http_port), timeout=20) as client:
        client.sendall(
            b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
        )
        client.sendall(bomb)
        assert b" 413 " in client.recv(100)


def test_messages_that_unfold_in_the_parser(receiver: Running) -> None:
    # two bytes each, millions of empty messages: 4 MiB as they come, 8 MiB after gzip
    with channel_to(receiver) as channel:
        assert code_of(channel, b"\x0a\x00" * (2**21 - 10)) == "INVALID_ARGUMENT"
        big = zlib.compressobj(9, wbits=31)
        body = big.compress(b"\x0a\x00" * (2**22 - 10)) + big.flush()
        assert code_of(channel, body) == "INVALID_ARGUMENT"
        # the same one, two and three levels further down: scopes, metrics, points of a gauge
        empty = b"\x12\x00" * (2**21 - 40)
        points = b"\x0a\x00" * (2**21 - 40)
        for message in (
            wrap(empty, 0x0A),
            wrap(empty, 0x12, 0x0A),
            wrap(points, 0x2A, 0x12, 0x12, 0x0A),
        ):
            assert code_of(channel, message) == "INVALID_ARGUMENT"


def test_unbounded_cardinality(receiver: Running) -> None:
    accepted = refused = 0
    now = time.time_ns()
    with channel_to(receiver) as channel:
        call = channel.unary_unary(
            METRICS,
            request_serializer=ExportMetricsServiceRequest.SerializeToString,
            response_deserializer=ExportMetricsServiceResponse.FromString,
        )
        for batch in range(6):
            message = export(counter("vllm:request_success_total", 1, 0, None))
            points = message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points
            template = points[0]
            template.time_unix_nano, template.start_time_unix_nano = now, now - 10**9
            for i in range(4000):
                point = points.add()
                point.CopyFrom(template)
                point.attributes.add(key="x").value.string_value = f"{batch}-{i}" + "y" * 200
            answer = call(message, timeout=30)
            refused += answer.partial_success.rejected_data_points
            accepted += 4001 - answer.partial_success.rejected_data_points
            if answer.partial_success.rejected_data_points:
                assert "too many series; allowed: 5000" in answer.partial_success.error_message
    # 24,001 series were sent: the first of each batch is the same one, known all the time
    assert accepted == 5000 + 5
    assert refused == 6 * 4001 - accepted


def test_sources_without_end(receiver: Running) -> None:
    now = time.time_ns()
    message = ExportMetricsServiceRequest()
    for i in range(3000):
        one = export(
            counter("vllm:prompt_tokens_total", 1, 0, None), resource={**POD, "pod": str(i)}
        )
        point = one.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
        point.time_unix_nano = now
        message.MergeFrom(one)
    with channel_to(receiver) as channel:
        assert code_of(channel, message.SerializeToString()) == "OK"


def test_many_large_messages_at_once(receiver: Running) -> None:
    body = b"\x0a\x00" * (2**21 - 10)
    codes: list[str] = []

    def send() -> None:
        with channel_to(receiver) as channel:
            codes.append(code_of(channel, body))

    for _ in range(3):  # what one round leaves behind must not add up
        threads = [threading.Thread(target=send) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(codes) == 120
    assert set(codes) <= {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}


def test_connections_that_never_speak(receiver: Running) -> None:
    with contextlib.ExitStack() as stack:
        for port in (receiver.http_port, receiver.grpc_port):
            for _ in range(400):
                with contextlib.suppress(OSError):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5))
        time.sleep(5)  # longer than a connection may be silent
        with socket.create_connection(("127.0.0.1", receiver.http_port), timeout=5) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" in client.recv(100)

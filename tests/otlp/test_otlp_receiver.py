"""The real receiver process and the real SDK exporters, on loopback."""

import contextlib
import gzip
import json
import math
import signal
import socket
import sqlite3
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
    OTLPMetricExporter as GrpcExporter,
)
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcSpanExporter,
)
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
    OTLPMetricExporter as HttpExporter,
)
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind
from otlp_builders import POD, counter, export, gauge, policy
from receiver_process import Running, running

from autoscaler.cli.otlp import read_token
from autoscaler.core.types import Policies
from autoscaler.edge.otlp_reader import OtlpReader
from models.frames import FrameError
from models.otlp_block import CODED_SIGNALS, from_bytes
from models.otlp_cells import Amount
from models.otlp_identity import Identity
from models.otlp_schema import FILE_NAME, READ_SOURCES, sources_from_rows

POD_NAME = "a"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
EVERY_INSTRUMENT = {
    Counter: AggregationTemporality.DELTA,
    Histogram: AggregationTemporality.DELTA,
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def receiver(shared_store: Path) -> Iterator[Running]:
    """Return one process for all tests that do not end it; their sources have names of their own."""
    with running(shared_store, "--receive-seconds", "2", "--flush-seconds", "0.2") as process:
        yield process
        assert "'points'" in process.stop()


def written(store: Path, pod: str, signal_name: str, wanted: float) -> dict[str, Amount]:
    """Everything in the store of one pod, once `signal_name` has reached the total wanted."""
    for _ in range(600):  # a minute: a busy machine is slow, not wrong
        found = totals(store, pod)
        # a block holds 32-bit floats: a sum of halves of cells is right to some 1e-7 of itself
        if signal_name in found and found[signal_name].total >= wanted * (1.0 - 1e-6) - 1e-6:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{signal_name} of {pod} never reached {wanted}")


def totals(store: Path, pod: str = POD_NAME) -> dict[str, Amount]:
    """Everything in the store of one pod, by signal."""
    out: dict[str, Amount] = {}
    with sqlite3.connect(store / FILE_NAME) as db:
        sources = sources_from_rows(db.execute(READ_SOURCES))
        for (content,) in db.execute("SELECT content FROM block").fetchall():
            block = from_bytes(content)
            for row in range(len(block)):
                if sources[int(block.sources[row])].get("k8s.pod.name") == pod:
                    numbers = (block.totals[row], block.counts[row], block.changes[row])
                    amount = Amount(math.nan, math.nan, *map(float, numbers))
                    first = int(block.sizes[:row].sum())
                    for i in range(first, first + int(block.sizes[row])):
                        low, up = block.bounds[block.edges[i]].tolist()
                        amount.buckets[low, up] = float(block.amounts[i])
                    out.setdefault(CODED_SIGNALS[block.signals[row]], Amount()).add(amount)
    db.close()
    return out


def post(receiver: Running, path: str, body: bytes, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{receiver.http_port}{path}", body, dict(headers), method="POST"
    )
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        return answer.status, answer.read()


def refused(receiver: Running, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(receiver, "/v1/metrics", body, headers)
    with caught.value as error:
        return error.code, error.read().decode()


def named(pod: str) -> dict[str, str]:
    return {**POD, "k8s.pod.name": pod}


def health(receiver: Running) -> dict[str, Any]:
    url = f"http://127.0.0.1:{receiver.http_port}/healthz"
    with urllib.request.urlopen(url, timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def measure(exporter: Any, pod: str = POD_NAME, views: list[View] | None = None) -> None:
    """Use the SDK as an instrumented server would: 3 exports of 10 requests each."""
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
    provider = MeterProvider([reader], Resource.create(named(pod)), views=views or ())
    meter = provider.get_meter("test")
    done = meter.create_counter("vllm.request_success")
    inside = meter.create_up_down_counter("vllm.num_requests_running")
    ttft = meter.create_histogram(
        "gen_ai.server.time_to_first_token",
        "s",
        explicit_bucket_boundaries_advisory=[0.1, 0.25, 0.5, 1.0],
    )
    for _ in range(3):
        done.add(10)
        inside.add(1)
        for i in range(10):
            ttft.record(0.2 + 0.01 * i)
        assert provider.force_flush()
        time.sleep(0.05)
    provider.shutdown()


@pytest.mark.parametrize("how", ["grpc", "grpc-gzip", "http", "http-gzip", "grpc-delta"])
def test_the_sdk_s_exporters_are_understood(
    how: str, receiver: Running, shared_store: Path
) -> None:
    if how.startswith("grpc"):
        exporter: Any = GrpcExporter(
            f"127.0.0.1:{receiver.grpc_port}",
            insecure=True,
            compression=grpc.Compression.Gzip if how == "grpc-gzip" else None,
            preferred_temporality=EVERY_INSTRUMENT if how == "grpc-delta" else None,
        )
    else:
        exporter = HttpExporter(
            f"http://127.0.0.1:{receiver.http_port}/v1/metrics",
            compression=Compression.Gzip if how == "http-gzip" else Compression.NoCompression,
        )
    measure(exporter, how)
    found = written(shared_store, how, "success", 30.0)
    assert found["success"].total == pytest.approx(30.0)
    assert found["ttft"].count == pytest.approx(30.0)
    assert found["ttft"].total == pytest.approx(3 * (10 * 0.2 + 0.01 * 45))
    assert {k: pytest.approx(v) for k, v in found["ttft"].buckets.items()} == {
        (0.1, 0.25): 18.0,
        (0.25, 0.5): 12.0,
    }
    assert found["running"].change == pytest.approx(2.0)  # seen at 1, 2 and 3


def test_the_sdk_s_exponential_histograms_are_understood(
    receiver: Running, shared_store: Path
) -> None:
    views = [
        View(instrument_name="gen_ai.server.*", aggregation=ExponentialBucketHistogramAggregation())
    ]
    measure(GrpcExporter(f"127.0.0.1:{receiver.grpc_port}", insecure=True), "exponential", views)
    buckets = written(shared_store, "exponential", "success", 30.0)["ttft"].buckets
    assert math.fsum(buckets.values()) == pytest.approx(30.0)
    assert all(up / low == pytest.approx(2 ** (1 / 32)) for low, up in buckets)
    assert min(low for low, _ in buckets) < 0.2
    assert max(up for _, up in buckets) >= 0.29


def test_the_sdk_s_spans_are_requests(receiver: Running, shared_store: Path) -> None:
    provider = TracerProvider(resource=Resource.create(named("spans")))
    endpoint = f"127.0.0.1:{receiver.grpc_port}"
    provider.add_span_processor(
        SimpleSpanProcessor(GrpcSpanExporter(endpoint=endpoint, insecure=True))
    )
    attributes = {
        "gen_ai.usage.prompt_tokens": 100,
        "gen_ai.usage.completion_tokens": 11,
        "gen_ai.latency.time_to_first_token": 0.5,
        "gen_ai.latency.e2e": 1.5,
    }
    tracer = provider.get_tracer("test")
    for _ in range(4):
        tracer.start_span("llm_request", kind=SpanKind.SERVER, attributes=attributes).end()
    tracer.start_span("something else").end()
    provider.shutdown()
    found = written(shared_store, "spans", "span_finished", 4.0)
    assert found["span_arrivals"].total == 4.0
    assert found["span_tpot"].total == pytest.approx(4 * 0.1)  # (1.5 - 0.5) / 10


def test_json_as_a_collector_sends_it(receiver: Running, shared_store: Path) -> None:
    now = time.time_ns()
    point = {
        "startTimeUnixNano": str(now - 10**10),
        "timeUnixNano": str(now),
        "asInt": "7",
        "attributes": [{"key": "finished_reason", "value": {"stringValue": "stop"}}],
        "exemplars": [{"spanId": "00f067aa0ba902b7", "timeUnixNano": str(now), "asInt": "1"}],
    }
    total = {"dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": True}
    metric = {"name": "vllm:request_success_total", "sum": total, "field_of_the_future": 1}
    resource = {"attributes": [{"key": "k8s.pod.name", "value": {"stringValue": "json"}}]}
    body = {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}]}
    headers = {"Content-Type": "application/json; charset=utf-8", "Content-Encoding": "gzip"}
    answer = post(receiver, "/v1/metrics", gzip.compress(json.dumps(body).encode()), headers)
    assert answer == (200, b"{}")
    assert written(shared_store, "json", "success", 7.0)["success"].total == pytest.approx(7.0)


def test_a_receiver_killed_and_restarted_neither_loses_nor_doubles(store: Path) -> None:
    began = time.time_ns()

    def send(receiver: Running, value: int) -> None:
        message = export(
            counter("vllm:request_success_total", value, 0, 0), resource=named(POD_NAME)
        )
        point = message.resource_metrics[0].scope_metrics[0].metrics[0].sum.data_points[0]
        point.start_time_unix_nano, point.time_unix_nano = began - 10**9, time.time_ns()
        body = message.SerializeToString()
        assert (
            post(receiver, "/v1/metrics", body, {"Content-Type": "application/x-protobuf"})[0]
            == 200
        )

    with running(store, "--flush-seconds", "0.2") as first:
        send(first, 10)
        written(store, POD_NAME, "success", 10.0)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    with running(store) as second:
        send(second, 25)
        second.stop()
    assert totals(store)["success"].total == pytest.approx(25.0)


def test_tls(tmp_path: Path, store: Path) -> None:
    key, certificate = tmp_path / "k.pem", tmp_path / "c.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    with running(store, "--tls-cert", str(certificate), "--tls-key", str(key)) as receiver:
        trust = grpc.ssl_channel_credentials(certificate.read_bytes())
        measure(GrpcExporter(f"https://localhost:{receiver.grpc_port}", credentials=trust))
        url = f"https://localhost:{receiver.http_port}/healthz"
        context = ssl.create_default_context(cafile=str(certificate))
        with urllib.request.urlopen(url, timeout=20, context=context) as answer:
            assert answer.status == 200
        receiver.stop()
    assert totals(store)["success"].total == pytest.approx(30.0)


def test_a_second_writer_is_refused(receiver: Running, shared_store: Path) -> None:  # noqa: ARG001
    with (
        pytest.raises(AssertionError, match="another receiver writes there"),
        running(shared_store),
    ):
        pass


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"\xff\xff\xff", {}, 400, "protobuf"),
        (b"{", {"Content-Type": "application/json"}, 400, "JSON"),
        (b'{"resourceMetrics": 5}', {"Content-Type": "application/json"}, 400, "JSON"),
        (b"[" * 100_000, {"Content-Type": "application/json"}, 400, "JSON"),
        (b"hello", {"Content-Encoding": "gzip"}, 400, "not gzip"),
        (gzip.compress(b"x" * 99, mtime=0)[:-9], {"Content-Encoding": "gzip"}, 400, "cut off"),
        (b"", {"Content-Encoding": "br"}, 415, "allowed: gzip"),
        (b"", {"Content-Type": "text/plain"}, 415, "allowed: application/x-protobuf"),
        (b"x" * (5 * 2**20), {}, 413, "allowed: 4194304"),
        (
            gzip.compress(b"\0" * (9 * 2**20), mtime=0),
            {"Content-Encoding": "gzip"},
            413,
            "after gzip",
        ),
    ],
)
def test_what_is_no_export_is_refused_with_the_reason(
    body: bytes, headers: dict[str, str], status: int, says: str, receiver: Running
) -> None:
    code, text = refused(receiver, body, {"Content-Type": "application/x-protobuf", **headers})
    assert code == status
    assert says in text
    assert health(receiver)["status"] == "ok"


def test_wrong_messages_by_grpc_are_refused(receiver: Running) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
        call = channel.unary_unary(METRICS)
        for body, code in (
            (b"\xff\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
            (b"\x1f\x8b and no gzip", grpc.StatusCode.INVALID_ARGUMENT),
            (b"x" * (5 * 2**20), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(body, timeout=10)
            assert caught.value.code() == code  # type: ignore[attr-defined]
    assert health(receiver)["status"] == "ok"


def test_slow_clients_are_cut_off(receiver: Running) -> None:
    def never() -> Iterator[bytes]:
        time.sleep(5)
        yield b""

    with grpc.insecure_channel(f"127.0.0.1:{receiver.grpc_port}") as channel:
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(METRICS)(never(), timeout=20)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
        assert time.monotonic() - began < 4
    slow_head = socket.create_connection(("127.0.0.1", receiver.http_port))
    slow_head.sendall(b"POST /v1/metrics HTTP/1.1\r\nX-A: ")
    slow_body = socket.create_connection(("127.0.0.1", receiver.http_port))
    slow_body.sendall(
        b"POST /v1/metrics HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
        b"Content-Length: 1000\r\n\r\nabc"
    )
    slow_head.settimeout(8)
    slow_body.settimeout(8)
    with slow_head, slow_body:
        assert b"408" in slow_body.recv(4096)
        with contextlib.suppress(ConnectionResetError):
            assert slow_head.recv(4096) == b""
    assert health(receiver)["slow"] >= 3


def test_a_token_is_asked_of_both_transports(tmp_path: Path, store: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cret-token\n")
    body = export(counter("vllm:request_success_total", 1, 0, 0)).SerializeToString()
    with running(store, "--token-file", str(secret)) as receiver:
        plain = {"Content-Type": "application/x-protobuf"}
        for header in ({}, {"Authorization": "Bearer s3cret"}, {"Authorization": "s3cret-token"}):
            status, text = refused(receiver, body, {**plain, **header})
            assert (status, "no valid token" in text) == (401, True)
        address = f"127.0.0.1:{receiver.grpc_port}"
        with grpc.insecure_channel(address) as channel:
            call = channel.unary_unary(
                "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
            )
            with pytest.raises(grpc.RpcError) as caught:
                call(body, timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        measure(
            GrpcExporter(
                f"http://{address}",
                insecure=True,
                headers=(("authorization", "Bearer s3cret-token"),),
            )
        )
        with urllib.request.urlopen(
            f"http://127.0.0.1:{receiver.http_port}/healthz", timeout=20
        ) as answer:
            assert json.loads(answer.read())["unauthorized"] == 4
        receiver.stop()
    assert totals(store)["success"].total == pytest.approx(30.0)


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff", b"x" * 5000])
def test_a_token_file_that_holds_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    secret = tmp_path / "token"
    secret.write_bytes(content)
    with pytest.raises(FrameError, match="one line of"):
        read_token(secret)


def test_a_tick_reads_while_the_receiver_writes(store: Path) -> None:
    now = time.time_ns()
    with running(store, "--flush-seconds", "0.2") as receiver:
        for seconds in range(180, -1, -15):  # the last three minutes, 4 requests a second
            at = now - seconds * 10**9
            done = (180 - seconds) * 4
            message = export(
                gauge("vllm:num_requests_running", 2.0, 0),
                gauge("vllm:num_requests_waiting", 0.0, 0),
                counter("vllm:request_success_total", done, 0, 0),
                resource={**named(POD_NAME), "service.name": "chat", "k8s.namespace.name": "prod"},
            )
            for metric in message.resource_metrics[0].scope_metrics[0].metrics:
                data = metric.gauge if metric.HasField("gauge") else metric.sum
                data.data_points[0].time_unix_nano = at
                data.data_points[0].start_time_unix_nano = now - 181 * 10**9
            headers = {"Content-Type": "application/x-protobuf"}
            assert post(receiver, "/v1/metrics", message.SerializeToString(), headers)[0] == 200
        written(store, POD_NAME, "success", 720.0)
        policies = Policies({"prod/chat": policy("prod/chat", "h100")}, ())
        with OtlpReader(store, Identity()) as reader:
            reading = reader.read(policies, now / 1e9 + 2.0)
        receiver.stop()
    assert reading.failed == {}
    seen = reading.observation.services["prod/chat"]
    assert seen.arrival_rate_rps == pytest.approx(4.0, rel=1e-4)
    assert seen.variants["h100"].running == pytest.approx(2.0, rel=1e-4)
    assert seen.variants["h100"].ready == 1

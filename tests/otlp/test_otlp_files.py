"""Files of the collector, recorded spans of a real vLLM, and the commands that read them."""

import csv
import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from google.protobuf import json_format
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_builders import POD, counter, export, label
from typer.testing import CliRunner

from autoscaler.cli import app
from models.frames import FrameError
from training.telemetry import read_telemetry

DATA = Path(__file__).parent.parent / "data"
SPANS = DATA / "otlp" / "vllm_spans.jsonl"
HISTOGRAMS = ("time_to_first_token_seconds", "request_time_per_output_token_seconds")
LENGTHS = ("request_prompt_tokens", "request_generation_tokens")


def ingest(*words: "str | Path") -> None:
    result = CliRunner().invoke(app, ["ingest", *map(str, words)])
    if result.exception is not None:
        raise result.exception


def one_line(value: float, at: float) -> str:
    message = export(counter("vllm:request_success_total", value, at, 0))
    return MessageToJson(message, indent=None) + "\n"


def test_requests_of_a_real_vllm_from_its_spans(tmp_path: Path) -> None:
    ingest("otlp-file", SPANS, "--out", tmp_path, "--service", "prod/{service.name}")
    telemetry = read_telemetry(tmp_path)
    # the truth, read from the file by hand
    attributes = [
        {a["key"]: a["value"] for a in span["attributes"]}
        for line in SPANS.read_text().splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
        if span["name"] == "llm_request"
    ]
    ttft = [a["gen_ai.latency.time_to_first_token"]["doubleValue"] for a in attributes]
    got = [int(a["gen_ai.usage.completion_tokens"]["intValue"]) for a in attributes]
    sent = [int(a["gen_ai.usage.prompt_tokens"]["intValue"]) for a in attributes]
    assert telemetry.load.requests.sum() == len(attributes) == 25
    assert telemetry.load.input_tokens.sum() == pytest.approx(sum(sent))
    assert telemetry.load.output_tokens.sum() == pytest.approx(sum(got))
    (row,) = telemetry.serving.to_dict("records")
    for q, name in ((0.5, "ttft_p50_seconds"), (0.95, "ttft_p95_seconds")):
        truth = float(np.quantile(ttft, q, method="inverted_cdf"))
        assert row[name] == pytest.approx(truth, rel=2 ** (1 / 32) - 1)
    assert np.isnan(row["ready_replicas"])  # spans do not tell


def test_a_line_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl.gz"
    text = "".join(one_line(i, i * 30.0) for i in range(1, 9)) + one_line(9, 270)[:-30]
    path.write_bytes(gzip.compress(text.encode()))
    ingest("otlp-file", path, "--out", tmp_path / "t")
    assert read_telemetry(tmp_path / "t").load.requests.sum() == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{broken}\n", "line 2: not JSON"),
        ("[]\n", "line 2: no OTLP export"),
        ('{"resourceMetrics": 7}\n', "line 2:"),
        ("[" * 100_000 + "\n", "line 2: not JSON"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(one_line(1, 30) + line + one_line(2, 60))
    with pytest.raises(FrameError, match=says):
        ingest("otlp-file", path, "--out", tmp_path / "t")
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("form", ["proto", "proto+zstd", "json+zstd", "proto+gz"])
def test_every_form_of_the_file_exporter_is_read(tmp_path: Path, form: str) -> None:
    out = b""
    for at in range(0, 181, 60):
        message = export(counter("vllm:request_success_total", at / 10, at, 0))
        data = message.SerializeToString()
        if "json" in form:
            data = MessageToJson(message, indent=None).encode()
        if "zstd" in form:
            data = pa.compress(data, codec="zstd", asbytes=True)
        out += len(data).to_bytes(4, "big") + data
    for number, line in enumerate(SPANS.read_text().splitlines()):
        message = json_format.Parse(line, ExportTraceServiceRequest())
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for (
                    span
                ) in scope.spans:  # ids are hex in OTLP's JSON, which protobuf's does not know
                    span.trace_id = number.to_bytes(16, "big")
                    span.span_id = (len(out) + span.start_time_unix_nano).to_bytes(8, "big")
        data = message.SerializeToString()
        out += len(data).to_bytes(4, "big") + data
    out += (999).to_bytes(4, "big") + b"cut off"  # still being written
    path = tmp_path / ("export.gz" if "gz" in form else "export")
    path.write_bytes(gzip.compress(out) if "gz" in form else out)
    ingest("otlp-file", path, "--out", tmp_path / "t", "--service", "prod/{service.name}")
    load = read_telemetry(tmp_path / "t").load
    assert load[load.service == "prod/chat"].requests.tolist() == pytest.approx([6.0] * 3)
    assert load[load.service != "prod/chat"].requests.sum() == 25.0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x0a\xff", "record 1: no OTLP protobuf"),
        (b"nonsense", "record 1: not JSON"),
        (b"\x28\xb5\x2f\xfd", "record 1: .*one zstd frame"),
    ],
)
def test_a_record_that_cannot_be_read_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "export"
    path.write_bytes(len(data).to_bytes(4, "big") + data)
    with pytest.raises(FrameError, match=says):
        ingest("otlp-file", path, "--out", tmp_path / "t")


def test_a_file_without_anything_of_use_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"resourceLogs": []}\n')
    with pytest.raises(FrameError, match="nothing of use"):
        ingest("otlp-file", path, "--out", tmp_path / "t")


def test_a_folder_without_a_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match="no such file; allowed: what `foreserve otlp` writes"):
        ingest("otlp-store", "--store", tmp_path, "--out", tmp_path / "t")


def scrapes(path: Path) -> list[tuple[float, dict[str, dict[str, float]]]]:
    """Recorded pages: (seconds, series name -> labels -> value)."""
    out: list[tuple[float, dict[str, dict[str, float]]]] = []
    with gzip.open(path, "rt") as lines:
        for line in lines:
            if line.startswith("## scrape"):
                out.append((float(line.split()[2]), defaultdict(dict)))
                continue
            series, value = line.rsplit(" ", 1)
            name, _, labels = series.partition("{")
            out[-1][1][name][labels.rstrip("}")] = float(value)
    return out


def as_a_collector(at: float, first: float, page: dict[str, dict[str, float]]) -> str:
    """One page as the collector's Prometheus receiver would hand it on."""
    message = ExportMetricsServiceRequest()
    resource = message.resource_metrics.add()
    label(resource.resource, POD)
    metrics = resource.scope_metrics.add().metrics
    moments: dict[str, Any] = {
        "time_unix_nano": int(at * 1e9),
        "start_time_unix_nano": int(first * 1e9),
    }
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        points = metrics.add(name=f"vllm:{name}").gauge.data_points
        points.add(
            time_unix_nano=moments["time_unix_nano"], as_double=sum(page[f"vllm:{name}"].values())
        )
    done = metrics.add(name="vllm:request_success_total").sum
    done.is_monotonic, done.aggregation_temporality = True, 2
    for reason, value in page["vllm:request_success_total"].items():
        label(done.data_points.add(as_double=value, **moments), {"finished_reason": reason})
    for name in (*HISTOGRAMS, *LENGTHS):
        known = metrics.add(name=f"vllm:{name}").histogram
        known.aggregation_temporality = 2
        counts, bounds = [], []
        for labels, value in page.get(f"vllm:{name}_bucket", {}).items():
            bound = labels.split('le="')[1].split('"')[0]
            counts.append(int(value))
            bounds += [] if bound == "+Inf" else [float(bound)]
        known.data_points.add(
            count=int(sum(page[f"vllm:{name}_count"].values())),
            sum=sum(page[f"vllm:{name}_sum"].values()),
            bucket_counts=np.diff(counts, prepend=0).tolist(),
            explicit_bounds=bounds,
            **moments,
        )
    return MessageToJson(message, indent=None) + "\n"


def test_metrics_of_a_real_vllm_agree_with_what_its_clients_saw(tmp_path: Path) -> None:
    pages = scrapes(DATA / "vllm" / "moving_scrapes.txt.gz")
    first = pages[0][0]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(as_a_collector(at, first, page) for at, page in pages))
    ingest("otlp-file", path, "--out", tmp_path / "t")
    telemetry = read_telemetry(tmp_path / "t")
    with gzip.open(DATA / "vllm" / "moving_requests.csv.gz", "rt") as lines:
        truth = pd.DataFrame(list(csv.DictReader(lines)))
    truth = truth[truth.status == "ok"]
    numbers = truth.drop(columns="status").astype(float)
    minute = pd.to_datetime(numbers.arrival_ts // 60 * 60, unit="s", utc=True)
    offered = numbers.groupby(minute).size()
    load = telemetry.load.set_index("ts").requests
    inner = load.index[1:-1]  # whole minutes
    error_rps = (load[inner] - offered.reindex(inner, fill_value=0)) / 60
    assert len(inner) >= 10
    assert error_rps.abs().max() < 0.02
    assert abs(error_rps.mean()) < 0.001
    first_token = pd.to_datetime(
        (numbers.arrival_ts + numbers.ttft_s) // 60 * 60, unit="s", utc=True
    )
    seen = numbers.ttft_s.groupby(first_token).quantile(0.5)
    serving = telemetry.serving.set_index("ts")
    for ts in inner:
        # the error is the bucket's width: at most a factor 2.5, in the middle of the mass much less
        assert serving.ttft_p50_seconds[ts] == pytest.approx(seen[ts], rel=0.15)
    mean_isl = np.average(serving.isl_tokens[inner], weights=serving.finished_requests[inner])
    assert mean_isl == pytest.approx(numbers.input_tokens.mean(), rel=0.05)

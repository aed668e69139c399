"""A real Prometheus with native histograms beside classic ones: history and ticks read both alike."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import remote_write
import samples
import servers
from fleet_policies import policy
from test_real_servers import ingest, minutes

from autoscaler.core.types import Policies
from autoscaler.edge.prometheus import PrometheusReader, ReaderSettings
from autoscaler.edge.prometheus_api import Access, PrometheusApi
from models.contract import Labels
from models.histograms import native_cumulative, quantiles
from training.ingest.plan import Request
from training.telemetry import read_telemetry

MINUTES = 10
SCHEMA = 3
FACTOR = 2 ** (2**-SCHEMA)  # 1.0905: upper bound of a bucket over its lower
SCRAPES = range(0, 60 * MINUTES + 1, samples.SCRAPE)
# what 30 requests between two scrapes take: 24 times 0.2 s, 4 times 0.9 s, 2 times 3 s
TTFT = [0.2] * 24 + [0.9] * 4 + [3.0] * 2
TPOT = [0.03] * 15 + [0.05] * 15
PROMPT = [100.0] * 20 + [700.0] * 10  # mean 300
ANSWER = [40.0] * 30
NATIVE = {
    "vllm:time_to_first_token_seconds": TTFT,
    "vllm:request_time_per_output_token_seconds": TPOT,
    "vllm:request_prompt_tokens": PROMPT,
    "vllm:request_generation_tokens": ANSWER,
}


def parsed(mark: str) -> dict[str, str]:
    return {k: v.strip('"') for k, v in (x.split("=", 1) for x in mark.split(","))}


def points(second: int) -> Iterator[remote_write.Point]:
    """One scrape: `classic` (0.3 s to the first token) and `native`, both 2 requests/s."""
    at, done = float(samples.START + second), 2.0 * second
    for name, mark, when, value in samples.engine(samples.labels("classic", "c-0"), at, done):
        yield {"__name__": name, **parsed(mark)}, when, value
    mark = samples.labels("native", "n-0")
    for name, own, when, value in samples.engine(mark, at, done):
        if not name.startswith(tuple(NATIVE)):
            yield {"__name__": name, **parsed(own)}, when, value
    for name, values in NATIVE.items():
        seen = remote_write.observed(values, SCHEMA, second // samples.SCRAPE)
        yield {"__name__": name, **parsed(mark)}, at, seen


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("native")
    flags = ("--enable-feature=native-histograms", "--web.enable-remote-write-receiver")
    with servers.prometheus(folder, None, "", *flags) as address:
        for second in SCRAPES:
            remote_write.push(address, list(points(second)))
        yield address


def off(estimate: float, truth: float) -> float:
    return max(estimate / truth, truth / estimate)


# rank 0.5 and 0.95 of 30: the 15th and the 28.5th value
TRUTH = {
    "ttft_p50_seconds": 0.2,
    "ttft_p95_seconds": 3.0,
    "ttft_p99_seconds": 3.0,
    "tpot_p95_seconds": 0.05,
}


def test_history_reads_classic_and_native_services_in_the_same_queries(
    url: str, tmp_path: Path
) -> None:
    end = samples.START + 60.0 * MINUTES
    summary = ingest(url, tmp_path, Request("n", float(samples.START), end, 60.0, Labels()))
    assert summary["native_histograms"] == ["input_tokens", "output_tokens", "tpot", "ttft"]
    serving = read_telemetry(tmp_path).serving
    serving = serving.assign(minute=minutes(serving)).set_index(["service", "minute"])
    native, classic = serving.loc[("prod/native", 5)], serving.loc[("prod/classic", 5)]
    for name, truth in TRUTH.items():
        assert off(native[name], truth) <= FACTOR, name
    assert native.isl_tokens == pytest.approx(300)  # sum over count: no bucket error
    assert native.osl_tokens == pytest.approx(40)
    assert native.arrival_rate_rps == pytest.approx(2)
    assert classic.ttft_p50_seconds == pytest.approx(0.375)  # the middle of (0.25, 0.5]
    assert classic.isl_tokens == pytest.approx(100)
    error = summary["bucket_error"]["ttft_p50_seconds"]  # type: ignore[index]
    assert error["native_ratio"] == pytest.approx(FACTOR - 1)
    load = read_telemetry(tmp_path).load
    assert load.input_tokens[load.service == "prod/native"].iloc[5] == pytest.approx(120 * 300)


def test_ticks_read_what_history_reads(url: str, tmp_path: Path) -> None:
    names = ["prod/classic", "prod/native"]
    policies = Policies({n: policy(n, ttft=0.5) for n in names}, ())
    now = samples.START + 360.0  # the end of minute 5
    with (
        PrometheusApi(Access(url)) as api,
        PrometheusReader(api, Labels(), ReaderSettings()) as reader,
    ):
        reading = reader.read(policies, now)
    assert reading.failed == {}
    ingest(url, tmp_path, Request("n", now - 300, now, 60.0, Labels()))
    serving = read_telemetry(tmp_path).serving
    for name in names:
        seen = reading.observation.services[name]
        row = serving[serving.service == name].iloc[-1]
        assert seen.isl_tokens == pytest.approx(row.isl_tokens)
        assert seen.osl_tokens == pytest.approx(row.osl_tokens)
        assert seen.arrival_rate_rps == pytest.approx(row.arrival_rate_rps)
        for what in ("ttft", "tpot"):
            for level in ("p50", "p95", "p99"):
                column = f"{what}_{level}_seconds"
                assert getattr(seen.variants["h100"], column) == pytest.approx(row[column]), column
    native = reading.observation.services["prod/native"].variants["h100"]
    assert native.ttft_within_slo_ratio == pytest.approx(24 / 30)  # 0.5 s is between two buckets


def test_a_native_histogram_as_classic_buckets() -> None:
    # (0.5, 1] holds 3, (2, 4] holds 1; nothing between 1 and 2
    cumulative = native_cumulative([(2.0, 4.0, 1.0), (0.5, 1.0, 3.0)], 4.0)
    assert cumulative == [(0.5, 0), (1.0, 3), (2.0, 3), (4.0, 4), (math.inf, 4)]
    bounds, counts = zip(*cumulative, strict=True)
    assert quantiles(bounds, np.array(counts), 0.5) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert native_cumulative([], 0.0) == [(math.inf, 0.0)]

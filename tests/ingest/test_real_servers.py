"""The same history from a real Prometheus and a real VictoriaMetrics (numbers: samples.fleet)."""

import gzip
import math
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import samples
import servers
from foreserve_process import COLD, run

from autoscaler.edge.prometheus_api import Access, PrometheusApi
from models.contract import Labels
from models.contract_queries import serving_queries
from models.histograms import bucket_of
from training.ingest import IngestError
from training.ingest.plan import Request
from training.ingest.prometheus import ingest_prometheus
from training.telemetry import read_telemetry

CHAT, MAIL, IDLE = "prod/chat", "prod/mail", "prod/idle"


def quiet(_what: str, _done: int, _total: int) -> None:
    pass


def request_of(labels: Labels | None = None, hours: float = 1.0) -> Request:
    end = samples.START + 3600.0 * hours
    targets = ((CHAT, 0.5, 0.25), (MAIL, 0.5, 0.3))
    return Request("fleet", float(samples.START), end, 60.0, labels or Labels(), targets)


def ingest(url: str, out: Path, request: Request, *, resume: bool = False) -> dict[str, object]:
    with PrometheusApi(Access(url)) as api:
        return ingest_prometheus(api, request, out, resume=resume, parallel=4, progress=quiet)


@pytest.fixture(scope="session")
def fleet(
    fleet_url: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, object]]:
    out = tmp_path_factory.mktemp("telemetry")
    return out, ingest(fleet_url, out, request_of())


def minutes(frame: pd.DataFrame) -> pd.Series:
    return (
        (frame.ts - pd.Timestamp(samples.START, unit="s", tz="UTC")) / pd.Timedelta(minutes=1)
    ).astype(int)


def load_of(out: Path, service: str) -> pd.DataFrame:
    load = read_telemetry(out).load
    own = load[load.service == service]
    return own.set_index(minutes(own))


def test_arrivals_survive_a_restart_a_gap_duplicates_and_a_vanishing_pod(
    fleet: tuple[Path, dict[str, object]],
) -> None:
    requests = load_of(fleet[0], CHAT).requests
    assert list(requests.index) == list(range(60))  # a row a minute, no duplicate, no hole
    assert requests[5] == pytest.approx(120)  # 2/s x 60, though two jobs scrape the same pod
    assert requests[25] == pytest.approx(240)  # 4/s after the restart
    assert 60 <= requests[19] <= 240  # the minute of the restart: never negative, never a jump
    assert requests[31:38].isna().all()  # no scrape: unknown, not zero
    assert requests[30:39].isna().sum() >= 8
    assert requests[45] == pytest.approx(300)  # chat-0 4/s and chat-1 1/s
    assert requests[50] == pytest.approx(240)  # chat-1 is gone with 10 in flight: they had arrived
    assert (requests.dropna() >= 0).all()


def test_tokens_are_arrivals_times_mean_lengths(fleet: tuple[Path, dict[str, object]]) -> None:
    row = load_of(fleet[0], CHAT).loc[5]
    assert row.input_tokens == pytest.approx(120 * 100)
    assert row.output_tokens == pytest.approx(120 * 50)


def test_the_gateway_counts_where_it_can_be_told(fleet: tuple[Path, dict[str, object]]) -> None:
    out, summary = fleet
    assert summary["arrivals_from_gateway"] == [MAIL]
    # the gateway saw 3/s; the two variants finished 1.5/s together
    assert load_of(out, MAIL).requests[5] == pytest.approx(180)


def test_a_service_without_traffic_is_zero_not_missing(
    fleet: tuple[Path, dict[str, object]],
) -> None:
    load = load_of(fleet[0], IDLE)
    assert (load.requests == 0).all()
    assert (load.output_tokens == 0).all()


def test_serving_rows(fleet: tuple[Path, dict[str, object]]) -> None:
    serving = read_telemetry(fleet[0]).serving
    serving = serving.assign(minute=minutes(serving)).set_index(["service", "variant", "minute"])
    chat = serving.loc[(CHAT, "h100", 45)]
    assert chat.ready_replicas == pytest.approx(2)
    assert chat.running == pytest.approx(16)  # 8 on each of two pods; the second job adds nothing
    assert chat.waiting == pytest.approx(4)
    assert chat.kv_cache_usage_ratio == pytest.approx(0.25)
    assert chat.prefix_cache_hit_ratio == pytest.approx(0.2)
    assert chat.finished_requests == pytest.approx(300)
    # all TTFT are 0.3 s: in the bucket (0.25, 0.5], the median estimated at its middle
    assert chat.ttft_p50_seconds == pytest.approx(0.25 + 0.5 * 0.25)
    assert chat.ttft_p99_seconds == pytest.approx(0.25 + 0.99 * 0.25)
    assert chat.ttft_within_slo_ratio == pytest.approx(1.0)  # 0.5 s is a bound
    assert chat.tpot_within_slo_ratio == pytest.approx(1.0)
    l4 = serving.loc[(MAIL, "l4", 5)]
    assert l4.arrival_rate_rps == pytest.approx(0.5)
    assert l4.ttft_within_slo_ratio == pytest.approx(0.0)  # 0.7 s, none within 0.5 s
    assert math.isnan(l4.tpot_within_slo_ratio)  # 0.3 s is no bound: not guessed
    assert math.isnan(serving.loc[(IDLE, "h100", 5)].ttft_p95_seconds)  # nothing finished


def test_starts_ready_and_censored(fleet: tuple[Path, dict[str, object]]) -> None:
    starts = read_telemetry(fleet[0]).startups
    assert len(starts) == 3
    assert set(starts.service) == {CHAT}
    lead = (starts.ready_ts - starts.created_ts).dt.total_seconds()
    assert sorted(lead.dropna()) == [100, 120]
    given_up = starts[starts.ready_ts.isna()].iloc[0]  # found through its owner, never scraped
    assert (given_up.ended_ts - given_up.created_ts).total_seconds() == pytest.approx(300, abs=61)


def test_the_summary_says_how_far_quantiles_can_be_off(
    fleet: tuple[Path, dict[str, object]],
) -> None:
    error = fleet[1]["bucket_error"]["ttft_p50_seconds"]  # type: ignore[index]
    assert error["median_ratio"] == pytest.approx(
        0.125 / 0.375
    )  # half of (0.25, 0.5] at its middle
    assert fleet[1]["scrape_seconds"] == pytest.approx(15, abs=0.3)
    assert fleet[1]["window_seconds"] in {75.0, 76.0}


def test_one_query_a_column_whatever_the_fleet() -> None:
    assert len(serving_queries(Labels(), 60.0, 15.0)) == 18


def test_parts_of_an_earlier_run_are_not_mixed(fleet_url: str, tmp_path: Path) -> None:
    ingest(fleet_url, tmp_path, request_of())
    with pytest.raises(IngestError, match="--resume"):
        ingest(fleet_url, tmp_path, request_of())
    with pytest.raises(IngestError, match="another end_seconds"):
        ingest(fleet_url, tmp_path, request_of(hours=0.5), resume=True)


def test_labels_that_no_series_has_are_named_with_those_there_are(
    fleet_url: str, tmp_path: Path
) -> None:
    with pytest.raises(IngestError, match=r"labels namespace, app; they have .*service") as error:
        ingest(fleet_url, tmp_path, request_of(Labels(service="app")))
    assert "--config" in str(error.value)


def test_a_range_without_engines_is_an_error_not_an_empty_folder(
    fleet_url: str, tmp_path: Path
) -> None:
    before = Request("fleet", samples.START - 7200.0, samples.START - 3600.0, 60.0, Labels())
    with pytest.raises(IngestError, match="no series vllm:num_requests_running"):
        ingest(fleet_url, tmp_path, before)
    assert not (tmp_path / "load.parquet").exists()


def foreserve(url: str, out: Path, *more: str) -> list[str]:
    return [
        *("ingest", "prometheus", "--url", url, "--out", str(out), "--from", str(samples.START)),
        *("--to", str(samples.START + 3600), "--parallel", "1", *more),
    ]


def test_killed_and_resumed_is_as_if_never_killed(
    fleet_url: str, fleet: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    parts = tmp_path / ".ingest" / "parts"
    command = [*COLD, *foreserve(fleet_url, tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 30
        while time.monotonic() < end and len(list(parts.glob("*.parquet"))) < 3:
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
    kept = {p: p.stat().st_mtime_ns for p in parts.glob("*.parquet")}
    assert 3 <= len(kept) < 29, "killed in the middle"
    again = run(*foreserve(fleet_url, tmp_path, "--resume"))
    assert again.returncode == 0, again.stderr
    assert all(p.stat().st_mtime_ns == at for p, at in kept.items()), "nothing was fetched twice"
    whole, resumed = read_telemetry(fleet[0]), read_telemetry(tmp_path)
    pd.testing.assert_frame_equal(whole.load, resumed.load)
    pd.testing.assert_frame_equal(
        whole.serving.drop(columns=["ttft_within_slo_ratio", "tpot_within_slo_ratio"]),
        resumed.serving.drop(columns=["ttft_within_slo_ratio", "tpot_within_slo_ratio"]),
    )


def test_a_scrape_a_minute_widens_the_window(tmp_path: Path) -> None:
    sparse = (s for s in samples.fleet() if (s[2] - samples.START) % 60 == 0)
    file = samples.openmetrics(sparse, tmp_path / "sparse.om")
    with servers.prometheus(tmp_path / "server", file) as url:
        summary = ingest(url, tmp_path / "out", request_of())
    assert 120 < float(str(summary["window_seconds"])) <= 150
    assert load_of(tmp_path / "out", CHAT).requests[10] == pytest.approx(120)


BOUNDS = {
    "ttft": [
        *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20),
        *(40, 80, 160, 640, 2560, np.inf),
    ],
    "tpot": [
        *(
            0.01,
            0.025,
            0.05,
            0.075,
            0.1,
            0.15,
            0.2,
            0.3,
            0.4,
            0.5,
            0.75,
            1,
            2.5,
            5,
            7.5,
            10,
            20,
            40,
        ),
        *(80, np.inf),
    ],
}


@pytest.mark.parametrize("name", ["sweep", "moving"])
def test_a_real_vllm_agrees_with_what_its_clients_saw(name: str, tmp_path: Path) -> None:
    """Recorded pages in a real Prometheus; truth: the load generator's log."""
    scrapes, shift = samples.recorded(name)
    file = samples.openmetrics(scrapes, tmp_path / "recorded.om")
    end = samples.START + 60.0 * 15
    request = Request("lab", float(samples.START), end, 60.0, Labels())
    with servers.prometheus(tmp_path / "server", file) as url:
        ingest(url, tmp_path / "out", request)
    with gzip.open(samples.DATA / f"{name}_requests.csv.gz", "rt") as rows:
        truth = pd.read_csv(rows)
    # an interval reaches from the last scrape before its start to the last before its end: 2.5 s
    # earlier here
    arrived = (truth.arrival_ts + shift - samples.START + 2.5) / 60
    read = read_telemetry(tmp_path / "out")
    expected = arrived[(arrived >= 0) & (arrived < 15)].astype(int).value_counts().sort_index()
    rate_error = ((read.load.requests - expected.reindex(range(15))) / 60).to_numpy()[1:]
    assert np.abs(rate_error).max() < 0.1  # requests/s, of up to 6: a handful at the edges
    assert abs(rate_error.mean()) < 0.01
    whole = truth[(arrived >= 0) & (arrived < 15)]
    assert read.load.input_tokens.sum() == pytest.approx(whole.input_tokens.sum(), rel=0.03)
    assert read.load.output_tokens.sum() == pytest.approx(whole.output_tokens.sum(), rel=0.03)
    for what, seen, value in (
        ("ttft", truth.arrival_ts + truth.ttft_s, truth.ttft_s),
        ("tpot", truth.arrival_ts + truth.e2e_s, truth.tpot_s),
    ):
        minute = np.floor((seen + shift - samples.START + 2.5) / 60)
        for suffix, level in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            exact = value.groupby(minute).quantile(level).reindex(range(15)).to_numpy()
            got = read.serving[f"{what}_{suffix}_seconds"].to_numpy()
            lower, upper = bucket_of(BOUNDS[what], got)
            # a client sees the first token some ms later than the server; a few requests belong to
            # the neighbouring minute
            slack = 0.02 * exact + (0.005 if what == "ttft" else 0.0)
            inside = (exact >= lower - slack) & (exact <= upper + slack)
            assert inside.mean() >= 0.9  # one request at the edge may move one of 15 minutes


def test_sglang_and_an_older_vllm_by_their_own_names(tmp_path: Path) -> None:
    file = samples.openmetrics(samples.sglang(), tmp_path / "sglang.om")
    request = Request("fleet", float(samples.START), samples.START + 600.0, 60.0, Labels())
    with servers.prometheus(tmp_path / "server", file) as url:
        ingest(url, tmp_path / "out", request)
    serving = read_telemetry(tmp_path / "out").serving
    serving = serving.assign(minute=minutes(serving)).set_index(["service", "minute"])
    for service in ("prod/sg", "prod/old"):
        row = serving.loc[(service, 5)]
        assert row.arrival_rate_rps == pytest.approx(2)
        assert row.ttft_p50_seconds == pytest.approx(0.375)
        assert row.tpot_p50_seconds == pytest.approx(0.175)
    sglang = serving.loc[("prod/sg", 5)]
    assert sglang.running == pytest.approx(6)  # not 12: two ranks repeat one number
    assert sglang.waiting == pytest.approx(1)
    assert sglang.ready_replicas == pytest.approx(1)
    assert sglang.isl_tokens == pytest.approx(300)
    assert sglang.kv_cache_usage_ratio == pytest.approx(0.5)
    assert serving.loc[("prod/old", 5)].kv_cache_usage_ratio == pytest.approx(0.25)

"""What history adds up here is what the server would have: the same columns by both ways."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import samples
import servers
from hypothesis import given
from hypothesis import strategies as st
from test_real_servers import ingest, request_of

from autoscaler.edge.prometheus_api import Access, PrometheusApi
from models import contract_series as of
from models.contract import Labels
from models.contract_api import Row
from models.contract_queries import READINGS, Fold, Reading, serving_queries
from training.ingest.fold import COLUMN, Folding
from training.ingest.plan import Cache, Chunk, Probe
from training.ingest.probe import look, scrape_interval
from training.telemetry import read_telemetry

LABELS = Labels(namespace=None, variant=None)
CHUNK = Chunk(60.0, 180.0)  # three times
AT = np.array([60.0, 120.0, 180.0])


def reading(name: str) -> Reading:
    return next(r for r in READINGS if r.name == name)


def folded(
    name: str, *answers: list[Row], targets: tuple[float, ...] = (), full_scrapes: int = 4
) -> dict[str, list[float]]:
    rows = Folding(reading(name), LABELS, 60.0, full_scrapes, targets)(answers, CHUNK)
    out = {}
    for row in rows:
        values = np.full(3, -1.0)  # -1: no sample
        values[np.searchsorted(AT, row.times)] = row.values
        out[f"{row.labels['service']} {row.labels[COLUMN]}"] = values.tolist()
    return out


def line(values: list[float], times: np.ndarray = AT, **labels: str) -> Row:
    return Row({"service": "a", **labels}, times, np.array(values))


def test_the_largest_of_duplicates_then_the_sum_over_pods() -> None:
    rows = [
        line([1, 2, 3], pod="p", job="x"),
        line([1, 5, 3], pod="p", job="y"),  # the same pod by another job
        line([10], AT[2:], pod="q"),  # only there at the end
    ]
    assert folded("running", rows) == {"a running": [1, 5, 13]}


def test_an_alias_counts_only_where_the_one_before_it_has_nothing() -> None:
    first, second = [line([1, 2], AT[:2], pod="p")], [line([7, 7, 7], pod="p")]
    assert folded("running", first, second) == {"a running": [1, 2, 7]}


def test_scrapes_make_samples_and_pods() -> None:
    rows = [line([4, 4, 4], pod="p"), line([2, 4], AT[1:], pod="q")]
    # q has 2 of 4 scrapes at the second time: half a pod
    assert folded("scrapes", rows) == {"a samples": [4, 4, 4], "a ready_replicas": [1, 1.5, 2]}


def test_pods_with_as_many_scrapes_as_every_window_has_are_whole_ones() -> None:
    rows = [line([3, 3, 2], pod="p"), line([2, 2, 2], pod="q"), line([1, 1], AT[1:], pod="r")]
    # a window of 2.53 scrapes; r is there from the middle of the second one on
    out = folded("scrapes", rows, full_scrapes=2)
    assert out == {"a samples": [3, 3, 2], "a ready_replicas": [2, 2.5, 2.5]}
    # nobody has four yet: the most scraped is whole
    assert folded("scrapes", rows)["a ready_replicas"] == pytest.approx([5 / 3, 2, 2.5])


def test_buckets_make_quantiles_and_exact_shares() -> None:
    rows = [
        line([1, 1, 0], pod="p", le="1"),
        line([1, 3, 0], pod="p", le="2.0"),
        line([1, 4, 0], pod="p", le="+Inf"),
        line([1], AT[:1], pod="q", le="2.0"),  # pods of an exporter without the bound 1
        line([1], AT[:1], pod="q", le="+Inf"),
    ]
    out = folded("ttft", rows, targets=(2.0, 1.5))
    # second time: 1 within 1, 3 within 2, 4 in all; rank 2 is the middle of (1, 2]
    assert out["a ttft_p50_seconds"] == pytest.approx([1, 1.5, np.nan], nan_ok=True)
    assert out["a ttft_p99_seconds"][1] == 2  # in the last bucket: its lower bound
    assert out["a ttft_within:2"] == [1, 0.75, -1]
    # 1.5 s is told only where (1, 2] is empty; first time: one of two requests is in it
    assert out["a ttft_within:1.5"] == [-1, -1, -1]


def test_a_bound_that_is_missing_at_one_time_is_no_zero() -> None:
    rows = [
        line([2, 2], AT[:2], pod="p", le="1"),
        line([4, 4, 4], pod="p", le="2"),
        line([4, 4, 4], pod="p", le="+Inf"),
    ]
    # at the third time the buckets are (0, 2] and (2, Inf): the middle of the first is 1
    assert folded("ttft", rows)["a ttft_p50_seconds"] == pytest.approx([1, 1, 1])
    alone = [line([4, 4, 4], pod="p", le="2")]  # no +Inf: not a histogram
    assert np.isnan(folded("ttft", alone)["a ttft_p50_seconds"]).all()


@given(
    st.lists(
        st.tuples(st.sampled_from("pqr"), st.lists(st.floats(0, 1e6), min_size=3, max_size=3)),
        min_size=1,
        max_size=8,
    )
)
def test_adding_up_what_the_server_has_added_up_changes_nothing(
    pods: list[tuple[str, list[float]]],
) -> None:
    rows = [line(values, pod=pod, job=str(i)) for i, (pod, values) in enumerate(pods)]
    once = folded("running", rows)
    again = folded("running", [line(once["a running"])])
    assert again == once


def columns(url: str, out: Path, probe: Probe) -> dict[str, np.ndarray]:
    """Ingest with a given probe; every column as one long array."""
    request = replace(request_of(), targets=())
    Cache(out).begin(request, probe)
    ingest(url, out, request, resume=True)
    serving = read_telemetry(out).serving.sort_values(["service", "variant", "ts"])
    return {c: serving[c].to_numpy() for c in serving.columns if serving[c].dtype == np.float64}


def test_the_server_adding_up_gives_the_same_history(fleet_url: str, tmp_path: Path) -> None:
    with PrometheusApi(Access(fleet_url)) as api:
        probe = look(api, replace(request_of(), targets=()))
    assert not any(probe.summed(f) for f in Fold)
    assert probe.engines == 6  # chat-0 by two jobs, chat-1, mail twice, idle
    own = columns(fleet_url, tmp_path / "own", probe)
    summed = columns(fleet_url, tmp_path / "summed", replace(probe, engines=1000))
    all_bounds = {k: replace(h, matcher="") for k, h in probe.histograms.items()}
    whole = columns(fleet_url, tmp_path / "whole", replace(probe, histograms=all_bounds))
    for name, values in own.items():
        np.testing.assert_allclose(summed[name], values, rtol=1e-9, err_msg=name)
        np.testing.assert_allclose(whole[name], values, rtol=1e-9, err_msg=name)
    assert np.isfinite(own["ttft_p99_seconds"]).sum() > 100


def test_history_is_what_the_recording_rules_record(fleet_url: str, tmp_path: Path) -> None:
    """Column by column against the contract's own expressions, evaluated by the server."""
    request = replace(request_of(), targets=())
    ingest(fleet_url, tmp_path, request)
    serving = read_telemetry(tmp_path).serving
    seconds = (serving.ts - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(seconds=1)
    ends = {
        key: i for i, key in enumerate(zip(serving.service, serving.variant, seconds, strict=True))
    }
    checked = 0
    with PrometheusApi(Access(fleet_url)) as api:
        for name, query in serving_queries(Labels(), 75.0, 15.0).items():
            if name not in serving.columns:
                continue
            for row in api.range(query, samples.START + 60.0, samples.START + 3600.0, 60.0):
                key = Labels().row(row.labels)
                assert key is not None
                for at, value in zip(row.times.tolist(), row.values.tolist(), strict=True):
                    place = ends.get((*key, int(at) - 60))
                    if place is None or np.isnan(value):
                        continue
                    assert serving[name].iloc[place] == pytest.approx(value, rel=1e-9), (name, at)
                    checked += 1
    assert checked > 1500


def test_every_reading_has_a_way_to_add_up() -> None:
    for r in READINGS:
        assert Folding(r, Labels(), 60.0, 4).columns
        assert (r.fold is Fold.BUCKETS) == (r.quantity in (of.TTFT, of.TPOT))


@pytest.mark.parametrize(
    ("gaps", "guess", "interval"),
    [
        ([15.2, 15.2, 14.9, 30.1], 17.0, 15.0),  # jitter, one missed
        ([15.0], 15.6, 16.0),  # too few: the guess
        ([0.4] * 9, 0.4, 1.0),
        ([60.0] * 9, 57.0, 60.0),
    ],
)
def test_a_scrape_interval_is_whole_seconds(
    gaps: list[float], guess: float, interval: float
) -> None:
    assert scrape_interval(np.array(gaps), guess) == interval


def test_jittered_scrapes_give_the_usual_window(tmp_path: Path) -> None:
    def moved() -> "list[samples.Sample]":
        out = []
        for name, mark, at, value in samples.fleet():
            k = round((at - samples.START) / samples.SCRAPE)
            out.append((name, mark, at + (k * 7 % 5) * 0.2, value))  # up to 0.8 s late
        return out

    file = samples.openmetrics(moved(), tmp_path / "moved.om")
    with servers.prometheus(tmp_path / "server", file) as url:
        summary = ingest(url, tmp_path / "out", request_of())
    assert (summary["scrape_seconds"], summary["window_seconds"]) == (15.0, 75.0)

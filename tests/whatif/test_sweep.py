"""Variations, worlds and the cache together, on an hour of a small load."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_changes import POLICIES

from autoscaler.whatif.compare import compare
from autoscaler.whatif.output import report_json, write_csv, write_json
from autoscaler.whatif.report import write_report
from autoscaler.whatif.results import Comparison
from autoscaler.whatif.scenario import Scenario, ScenarioError

STATIC = {"name": "static", "setting": 3}


def no_training(telemetry: Path, models: Path) -> None:
    raise AssertionError(f"nothing is learned without Foreserve: {telemetry}, {models}")


def run(folder: Path, *, cache: Path | None = None, workers: int = 1, **changes: Any) -> Comparison:
    (folder / "policies.yaml").write_text(POLICIES)
    base: dict[str, Any] = {
        "name": "small",
        "trace": "bundled:azure2024-code",
        "profile": "llama2-70b-h100-80gb-tp4",
        "policies": folder / "policies.yaml",
        "meanRequestsPerSecond": 1,
        "startup": {"medianSeconds": 60, "sigma": 0.1},
        "judgedHours": 0.5,
        "warmUpSeconds": 300,
        "seeds": 1,
        "autoscalers": [STATIC],
    }
    return compare(
        Scenario.model_validate({**base, **changes}),
        work=folder / "work",
        train=no_training,
        progress=lambda *_: None,
        workers=workers,
        cache=cache,
    )


def test_variations_stand_beside_the_scenario_as_it_is(tmp_path: Path) -> None:
    axes = {"trafficFactor": [2], "prices": [{"old": 8.0}], "accelerators": [{"old": "b200"}]}
    got = run(tmp_path, axes=axes, variations=[{"name": "strict", "ttftSeconds": 0.001}])
    strict, twice, dear, lost = got.variations
    base = got.runs[0].measures
    assert twice.runs[0].measures.requests == pytest.approx(2 * base.requests, rel=0.15)
    assert dear.runs[0].measures.cost_usd == pytest.approx(2 * base.cost_usd)
    assert dear.runs[0].measures.gpu_hours == base.gpu_hours
    # what cannot be computed is said, in the place where it would have stood
    assert lost.gap is not None
    assert "no accelerator class 'b200'" in lost.gap
    assert strict.gap == "The SLO is out of reach for prod/code."
    assert strict.runs[0].measures.slo_attainment_ratio == 0.0
    report = report_json(got)
    json.dumps(report, allow_nan=False)
    assert report["variations"][0]["name"] == "strict"
    write_csv(got, tmp_path / "csv")
    table = pd.read_csv(tmp_path / "csv" / "variations.csv")
    assert list(table.variation) == ["strict", "trafficFactor 2", "prices old → 8.0"]


def test_other_worlds_are_other_and_the_same_again(tmp_path: Path) -> None:
    first, again = (run(tmp_path, seeds=3) for _ in range(2))
    worlds = first.runs[0].worlds
    assert [w.seed for w in worlds] == [7, 8, 9]
    assert len({w.measures.requests for w in worlds}) == 3
    assert [w.measures for w in worlds] == [w.measures for w in again.runs[0].worlds]
    assert report_json(first) == report_json(again)


def test_a_second_run_goes_on_where_the_first_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = run(tmp_path, cache=cache, seeds=2)
    assert len(list(cache.glob("*.json"))) == 2

    def nobody(*_: object) -> None:
        raise AssertionError("this run was made already")

    monkeypatch.setattr("autoscaler.whatif.pool.Pool.rival", nobody)
    assert report_json(run(tmp_path, cache=cache, seeds=2)) == report_json(first)
    with pytest.raises(AssertionError, match="made already"):
        run(tmp_path, cache=cache, seeds=3)  # the third world was never run


def telemetry_of(folder: Path, services: dict[str, float], minutes: int = 90) -> Path:
    stamps = pd.date_range("2026-01-05", periods=minutes, freq="60s", tz="UTC")
    frames = [
        pd.DataFrame(
            {
                "ts": stamps,
                "service": name,
                "requests": 60.0 * rate,
                "input_tokens": 60.0 * rate * 500,
                "output_tokens": 60.0 * rate * 50,
            }
        )
        for name, rate in services.items()
    ]
    folder.mkdir()
    pd.concat(frames).to_parquet(folder / "load.parquet")
    return folder


def test_a_service_without_traffic_is_said_and_the_others_are_computed(tmp_path: Path) -> None:
    folder = telemetry_of(tmp_path / "t", {"prod/code": 1.0})
    more = POLICIES.replace("name: code", "name: chat").split("---")[1]
    (tmp_path / "two.yaml").write_text(f"{POLICIES}---{more}")
    got = run(tmp_path, trace=None, telemetry=folder, policies=tmp_path / "two.yaml")
    assert list(got.attainments) == ["prod/code"]
    assert got.gaps == (
        "prod/chat: no request arrived in the judged hours, so cost and attainment could not be "
        "computed.",
    )
    assert "prod/chat" not in got.policies_text


def test_no_traffic_at_all_is_one_sentence(tmp_path: Path) -> None:
    folder = telemetry_of(tmp_path / "t", {"prod/code": 0.0})
    with pytest.raises(ScenarioError, match="no request of prod/code arrives in them"):
        run(tmp_path, trace=None, telemetry=folder, meanRequestsPerSecond=None)


def test_a_history_shorter_than_the_judged_hours_is_one_sentence(tmp_path: Path) -> None:
    folder = telemetry_of(tmp_path / "t", {"prod/code": 1.0})
    with pytest.raises(ScenarioError, match=r"judgedHours: 24; allowed: up to 1\.5"):
        run(tmp_path, trace=None, telemetry=folder, judgedHours=24)


def test_an_slo_out_of_reach_is_said(tmp_path: Path) -> None:
    policies = tmp_path / "hard.yaml"
    policies.write_text(POLICIES.replace("targetSeconds: 1.0", "targetSeconds: 0.001"))
    got = run(tmp_path, policies=policies)
    assert got.gaps[0].startswith("prod/code: the SLO is out of reach")


def test_twice_the_same_scenario_writes_the_same_bytes_but_for_the_day(tmp_path: Path) -> None:
    pages = []
    for n, day in enumerate(("28 November 2026", "29 November 2026")):
        got = run(tmp_path, seeds=2, axes={"trafficFactor": [2]}, workers=n + 1)
        write_report(got, tmp_path / "report.html", written=day)
        write_json(got, tmp_path / "report.json")
        write_csv(got, tmp_path / "csv")
        files = [tmp_path / "report.json", *sorted((tmp_path / "csv").iterdir())]
        pages.append(
            (
                (tmp_path / "report.html").read_text().replace(day, ""),
                [f.read_bytes() for f in files],
            )
        )
    assert pages[0] == pages[1]

import dataclasses
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from conftest import SERVICE, measures, run_result, series

from autoscaler.whatif.output import report_json, write_csv, write_json
from autoscaler.whatif.results import Comparison, combine
from autoscaler.whatif.words import headline, percent, seconds, table_row, usd


def with_runs(comparison: Comparison, **changes: dict[str, float]) -> Comparison:
    """Return the comparison with some numbers of some runs changed."""
    runs = []
    for run in comparison.runs:
        made = dataclasses.replace(run.measures, **changes.get(run.name, {}))
        runs.append(dataclasses.replace(run, measures=made, services={SERVICE: made}))
    return dataclasses.replace(comparison, runs=tuple(runs))


def test_headline_names_the_saving_over_the_cheapest_rival_that_met(comparison: Comparison) -> None:
    # 1 - 5504 / 7430.4 = 0.2593; the KPA at 10,320 missed, the static fleet at 9,907 is dearer
    assert headline(comparison) == (
        "Foreserve served 99.25 % of 690,000 requests within the SLO for $5,504: 26 % less than the "
        "cheapest rival, HPA on concurrency ($7,430, 99.12 %)."
    )


def test_headline_claims_no_saving_when_foreserve_missed(comparison: Comparison) -> None:
    text = headline(with_runs(comparison, foreserve={"slo_attainment_ratio": 0.9899}))
    assert "98.99 %" in text
    assert "short of the 99.00 % asked for" in text
    assert "less than" not in text


def test_headline_says_more_where_foreserve_cost_more(comparison: Comparison) -> None:
    # 1 - 8000 / 7430.4 = -0.0767
    assert "8 % more than" in headline(with_runs(comparison, foreserve={"cost_usd": 8000.0}))


def test_headline_when_no_rival_met(comparison: Comparison) -> None:
    missed = {"slo_attainment_ratio": 0.97}
    text = headline(with_runs(comparison, hpa=missed, static={"slo_attainment_ratio": 0.985}))
    # kpa with 0.9868 came closest
    assert "the rival that came closest, Knative KPA, took $10,320, 98.68 %" in text


def test_headline_without_foreserve(comparison: Comparison) -> None:
    assert "not among them" in headline(dataclasses.replace(comparison, runs=comparison.runs[1:]))


def test_percent_never_rounds_a_miss_up() -> None:
    assert percent(0.98999) == "98.99 %"
    assert percent(0.99) == "99.00 %"  # 0.99 * 10000 is 9900 up to rounding of floats
    assert percent(1.0) == "100.00 %"
    assert percent(math.nan) == "-"


def test_seconds_are_rendered_with_a_fitting_unit() -> None:
    assert seconds(0.0423) == "42 ms"
    assert seconds(2.5) == "2.50 s"
    assert seconds(0.9996) == "1.00 s"
    assert seconds(math.nan) == "-"


def test_amounts_have_their_sign_before_the_dollar() -> None:
    assert usd(1234.4) == "$1,234"
    assert usd(-1234.6) == "−$1,235"
    assert usd(-0.2) == "$0"
    assert usd(math.nan) == "-"


def test_times_clairvoyant(comparison: Comparison) -> None:
    ours = comparison.runs[0]
    assert comparison.times_clairvoyant(ours) == pytest.approx(800 / 600)
    alone = dataclasses.replace(comparison, runs=comparison.runs[:1])
    assert math.isnan(alone.times_clairvoyant(ours))
    assert table_row(alone, ours)[3] == "-"


def test_report_json_has_the_fields_of_the_protocol(comparison: Comparison) -> None:
    report = report_json(comparison)
    assert list(report["autoscalers"]) == ["foreserve", "static", "hpa", "kpa", "clairvoyant"]
    assert set(report["autoscalers"]["foreserve"]) == {
        "gpu_hours",
        "cost_usd",
        "slo_attainment_ratio",
        "ttft_p50_seconds",
        "ttft_p95_seconds",
        "ttft_p99_seconds",
        "tpot_p95_seconds",
        "scale_ups",
        "scale_downs",
        "max_replicas",
        "requests",
        "unserved_requests",
    }
    assert report["scenario"]["name"] == "a day"


def test_missing_numbers_are_null_in_json(comparison: Comparison, tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    write_json(with_runs(comparison, hpa={"tpot_p95_seconds": math.nan}), path)
    assert json.loads(path.read_text())["autoscalers"]["hpa"]["tpot_p95_seconds"] is None


def test_csv_holds_the_table_and_every_series(comparison: Comparison, tmp_path: Path) -> None:
    write_csv(comparison, tmp_path / "csv")
    table = pd.read_csv(tmp_path / "csv" / "autoscalers.csv")
    assert list(table.autoscaler) == ["foreserve", "static", "hpa", "kpa", "clairvoyant"]
    assert table.gpu_hours.iloc[2] == 1080.0
    ours = pd.read_csv(tmp_path / "csv" / "series-foreserve.csv")
    assert len(ours) == 24 * 3600 / 15
    assert {"reason", "forecast_p95_rps"} <= set(ours.columns)


def test_services_add_up_and_keep_the_worst_percentile() -> None:
    a = measures(requests=300, slo_attainment_ratio=1.0, cost_usd=10.0, ttft_p95_seconds=0.5)
    b = measures(requests=100, slo_attainment_ratio=0.9, cost_usd=5.0, ttft_p95_seconds=2.0)
    both = combine({"a/a": a, "b/b": b}, max_replicas=20)
    assert both.slo_attainment_ratio == pytest.approx(0.975)  # (300 + 90) / 400
    assert both.cost_usd == 15.0
    assert both.ttft_p95_seconds == 2.0
    assert both.max_replicas == 20


def test_a_service_without_requests_does_not_spoil_the_attainment() -> None:
    silent = measures(requests=0, slo_attainment_ratio=math.nan, ttft_p95_seconds=math.nan)
    both = combine({"a/a": measures(requests=10), "b/b": silent}, max_replicas=2)
    assert both.slo_attainment_ratio == pytest.approx(0.9925)
    assert both.ttft_p95_seconds == 1.2


def test_met_asks_every_service() -> None:
    good, bad = measures(slo_attainment_ratio=0.999), measures(slo_attainment_ratio=0.95)
    run = run_result("foreserve", good, series(1.0, hours=1.0))
    run = dataclasses.replace(run, services={"a/a": good, "b/b": bad})
    lenient = Comparison({"name": "x"}, {"a/a": 0.99, "b/b": 0.9}, {}, (run,))
    strict = Comparison({"name": "x"}, {"a/a": 0.99, "b/b": 0.99}, {}, (run,))
    assert lenient.met(run)
    assert not strict.met(run)

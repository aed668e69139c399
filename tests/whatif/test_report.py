import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import SERVICE, measures, run_result, series

from autoscaler.whatif.plots import by_minute
from autoscaler.whatif.report import render, write_report
from autoscaler.whatif.results import Comparison


class Page(HTMLParser):
    """Collects what a browser would fetch, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text: list[str] = []
        self.tables: list[list[str]] = []
        self._skip = False
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skip = tag in ("script", "style")
        names = dict(attrs)
        if tag in ("script", "img", "iframe") and names.get("src"):
            self.fetched.append(str(names["src"]))
        if tag == "link":
            self.fetched.append(str(names.get("href")))
        if tag == "tr":
            self.tables.append([])

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._skip = False

    def handle_data(self, data: str) -> None:
        if not self._skip and data.strip():
            self.text.append(data.strip())
            if self.tables:
                self.tables[-1].append(data.strip())


def parse(html: str) -> Page:
    page = Page()
    page.feed(html)
    return page


def test_page_holds_the_sentence_and_the_table_and_fetches_nothing(comparison: Comparison) -> None:
    html = render(comparison, attribution=("Trace: somebody's.",))
    page = parse(html)
    text = " ".join(page.text)
    assert page.fetched == []
    assert "26 % less than the cheapest rival, HPA on concurrency" in text
    assert "Trace: somebody's." in text
    assert "24 hours from Wednesday 15 May 2024 00:00 UTC" in text
    assert "10 %" in text  # the band is explained
    rows = {row[0]: row for row in reversed(page.tables) if row}
    assert rows["Foreserve"][1:5] == ["800.0", "$5,504", "1.33 ×", "99.25 % ✓"]
    assert "98.68 % ✗" in rows["Knative KPA"]
    assert len(html.encode()) < 5_000_000


def test_page_may_not_load_anything_from_elsewhere(comparison: Comparison) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', render(comparison))
    assert policy is not None
    assert policy[1].startswith("default-src 'none'")
    assert "http" not in policy[1]


def test_text_from_the_scenario_is_escaped(comparison: Comparison) -> None:
    evil = "<script>alert(1)</script>"
    scenario = {**comparison.scenario, "name": evil}
    changed = dataclasses.replace(comparison, scenario=scenario, notes=(evil,))
    assert evil not in render(changed, attribution=(evil,))


def test_page_of_one_autoscaler_only(comparison: Comparison, tmp_path: Path) -> None:
    alone = dataclasses.replace(comparison, runs=comparison.runs[2:3])
    path = tmp_path / "deep" / "report.html"
    write_report(alone, path)
    assert "Foreserve was not among them" in path.read_text(encoding="utf-8")


def test_page_of_two_services_has_a_table_by_service(comparison: Comparison) -> None:
    both = {SERVICE: measures(), "prod/chat": measures(cost_usd=77.0)}
    runs = tuple(dataclasses.replace(r, services=both) for r in comparison.runs)
    two = dataclasses.replace(
        comparison,
        runs=runs,
        attainments={SERVICE: 0.99, "prod/chat": 0.9},
        ttft_targets_seconds={SERVICE: 2.5, "prod/chat": math.inf},
    )
    rows = parse(render(two)).tables
    assert ["prod/chat", "HPA on concurrency", "690,000", "$77", "800.0"] in [r[:5] for r in rows]


def test_by_minute_weights_ttft_by_requests_and_adds_cost_up() -> None:
    frame = series(1.0, hours=0.05)  # 12 ticks: 3 minutes
    frame["finished_requests"] = [1, 0, 0, 3] * 3
    frame["ttft_p95_seconds"] = [2.0, np.nan, np.nan, 1.0] * 3
    frame["cost_usd"] = 0.5
    frame["ready_replicas"] = [2, 2, 3, 3] * 3
    minutes = by_minute(run_result("hpa", measures(), frame))
    assert len(minutes) == 3
    assert minutes.ttft_p95_seconds.to_list() == pytest.approx([1.25] * 3)  # (2·1 + 1·3) / 4
    assert minutes.cost_usd.to_list() == pytest.approx([2.0, 4.0, 6.0])
    assert minutes.ready_replicas.to_list() == pytest.approx([2.5] * 3)


def test_a_minute_in_which_nothing_finished_has_no_ttft() -> None:
    frame = series(1.0, hours=0.05)
    frame["finished_requests"] = 0.0
    frame["ttft_p95_seconds"] = np.nan
    assert by_minute(run_result("hpa", measures(), frame)).ttft_p95_seconds.isna().all()


def test_the_same_comparison_is_the_same_bytes_but_for_the_day(comparison: Comparison) -> None:
    first = render(comparison, written="28 November 2026")
    again = render(comparison, written="29 November 2026")
    assert first != again
    assert first.replace("28 November 2026", "29 November 2026") == again

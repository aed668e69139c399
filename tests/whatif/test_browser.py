"""The report in a real browser: it draws its plots, without an error, and asks nobody for anything."""

import dataclasses
import re
from pathlib import Path

from browser import needs_chromium, seen_in_browser

from autoscaler.whatif.report import render
from autoscaler.whatif.results import Comparison

ELSEWHERE = "http://elsewhere.invalid/x.png"

pytestmark = needs_chromium


def test_the_report_draws_its_plots_and_asks_nobody(comparison: Comparison, tmp_path: Path) -> None:
    seen = seen_in_browser(render(comparison), tmp_path / "report")
    assert seen["errors"] == []
    assert seen["asked"] == []
    assert seen["refused"] == []
    assert seen["documents"] == 1
    assert seen["canvases"] >= 3


def test_the_probe_would_tell(comparison: Comparison, tmp_path: Path) -> None:
    page = render(dataclasses.replace(comparison, notes=("broken on purpose",)))
    page = page.replace("</body>", f'<script>broken()</script><img src="{ELSEWHERE}"></body>')
    seen = seen_in_browser(page, tmp_path / "broken")
    assert "broken" in seen["errors"][0]
    assert ELSEWHERE in seen["refused"]  # the page's own policy forbids it
    without_policy = re.sub(r"<meta http-equiv=[^>]*>", "", page)
    assert ELSEWHERE in seen_in_browser(without_policy, tmp_path / "open")["asked"]

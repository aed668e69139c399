import io
from pathlib import Path

from rich.console import Console

from autoscaler.whatif.console import show
from autoscaler.whatif.results import Comparison


def test_the_table_has_a_line_for_everybody_and_ends_with_the_files(
    comparison: Comparison,
) -> None:
    out = io.StringIO()
    show(comparison, Console(file=out, width=160), {"report": Path("out/[demo]/report.html")})
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("Foreserve served 99.25 %")
    row = next(line for line in lines if line.strip().startswith("Knative KPA"))
    assert "98.68 % ✗" in row
    assert "$10,320" in row
    assert lines[-1] == "report: out/[demo]/report.html"  # brackets are not markup


def test_the_table_fits_into_eighty_columns(comparison: Comparison) -> None:
    out = io.StringIO()
    show(comparison, Console(file=out, width=80), {})
    lines = out.getvalue().splitlines()
    row = next(line for line in lines if line.strip().startswith("Knative KPA"))
    assert "98.68 % ✗" in row
    assert "$10,320" in row
    assert "…" not in out.getvalue()
    assert any(line.startswith("Settings: ") for line in lines)

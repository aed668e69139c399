"""The comparison as a table on a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from autoscaler.whatif.results import FORESERVE, Comparison
from autoscaler.whatif.words import TABLE_HEADER, headline, table_row

WIDE = 118  # columns at which settings fit into the table; below, they are a line of their own
HEADS = {  # two lines each, so that the table fits into 80 columns
    "GPU-hours": "GPU-\nhours",
    "× clairvoyant": "×\nplan",
    "SLO attainment": "SLO\nattained",
    "p95 TTFT": "p95\nTTFT",
    "Scale-ups": "Scale\nups",
    "Scale-downs": "Scale\ndowns",
}
LEFT = ("Autoscaler", "Setting")


def show(comparison: Comparison, console: Console, files: Mapping[str, Path]) -> None:
    """Print the headline, the table, the notes, and where the files are (`files`: what -> path)."""
    wide = console.width >= WIDE
    names = [n for n in TABLE_HEADER if wide or n != "Setting"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in names:
        justify: Literal["left", "right"] = "left" if name in LEFT else "right"
        table.add_column(HEADS.get(name, name), justify=justify, no_wrap=name != "Setting")
    for run in comparison.runs:
        cells = dict(zip(TABLE_HEADER, table_row(comparison, run), strict=True))
        cells["SLO attainment"] += " ✓" if comparison.met(run) else " ✗"
        table.add_row(*(cells[n] for n in names), style="bold" if run.name == FORESERVE else None)
    _print(console, headline(comparison))
    console.print(table)
    if not wide:
        settings = "; ".join(
            f"{run.label}: {run.setting}" for run in comparison.runs if run.setting
        )
        _print(console, f"Settings: {settings}")
    for note in (*comparison.gaps, *comparison.notes):
        _print(console, note)
    for what, path in files.items():
        _print(console, f"{what}: {path}")


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

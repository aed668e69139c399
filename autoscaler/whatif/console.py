"""The comparison as a table on a terminal."""

from collections.abc import Mapping
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from autoscaler.whatif.results import FORESERVE, TABLE_HEADER, Comparison, headline, table_row

LEFT = ("Autoscaler", "Setting")


def show(comparison: Comparison, console: Console, files: Mapping[str, Path]) -> None:
    """Print the headline, the table, the notes, and where the files are (`files`: what -> path)."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in TABLE_HEADER:
        left = name in LEFT
        table.add_column(
            name,
            justify="left" if left else "right",
            no_wrap=name != "Setting",
            overflow="fold",
        )
    for run in comparison.runs:
        cells = list(table_row(comparison, run))
        mark = "✓" if comparison.met(run) else "✗"
        cells[TABLE_HEADER.index("SLO attainment")] += f" {mark}"
        table.add_row(*cells, style="bold" if run.name == FORESERVE else None)
    console.print(headline(comparison), highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    for note in comparison.notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    for what, path in files.items():
        console.print(f"{what}: {path}", highlight=False, markup=False, soft_wrap=True)

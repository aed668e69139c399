"""`foreserve demo`: everything at once on a bundled real trace, no cluster."""

from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.common import progress_report, result_console
from autoscaler.cli.train import train_folder

EXAMPLE = """
Train on a bundled real trace, drive the controller through one day of it against simulated vLLM
replicas, do the same with the usual autoscalers, print a table and write an HTML report.

**Example**

    foreserve demo --out out/demo
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", help=EXAMPLE)(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for report, telemetry and models.")] = Path(
        "out/demo"
    ),
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Runs at a time; one per core by default.")
    ] = None,
) -> None:
    """Run the demo."""
    from autoscaler.whatif.console import show
    from autoscaler.whatif.demo import run_demo

    with progress_report() as report:
        comparison = run_demo(out, train=train_folder, progress=report, workers=workers)
    files = {"Report": out / "report.html", "Numbers": out / "report.json"}
    show(comparison, result_console(), files)

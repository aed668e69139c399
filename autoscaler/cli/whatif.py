"""`foreserve whatif`: what other autoscalers, SLOs, prices or start-up times would have cost."""

import contextlib
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.common import progress_report, result_console
from autoscaler.cli.ingest_otlp import identity_of
from autoscaler.cli.telemetry import StoreRules, StoreService, StoreVariant, telemetry_folder
from autoscaler.cli.train import train_folder
from models.otlp_identity import SERVICE_TEMPLATE, VARIANT_TEMPLATE

EXAMPLE = """
Compare autoscalers on your own history or trace, as a scenario file describes it (docs/whatif.md).

**Example**

    foreserve whatif scenario.yaml --out report.html --json report.json --csv tables/
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("whatif", help=EXAMPLE)(whatif)


def whatif(
    scenario: Annotated[Path, typer.Argument(help="SCENARIO.yaml.")],
    out: Annotated[Path, typer.Option(help="The report (HTML, self-contained).")],
    json: Annotated[Path, typer.Option(help="The numbers (JSON).")],
    csv: Annotated[Path | None, typer.Option(help="Folder for tables and time series.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Runs at a time; one per core by default.")
    ] = None,
    service: StoreService = SERVICE_TEMPLATE,
    variant: StoreVariant = VARIANT_TEMPLATE,
    rules: StoreRules = None,
) -> None:
    """Run the comparison."""
    from autoscaler.whatif.compare import compare
    from autoscaler.whatif.console import show
    from autoscaler.whatif.report import write_report
    from autoscaler.whatif.results import write_csv, write_json
    from autoscaler.whatif.scenario import load_scenario

    asked = load_scenario(scenario)
    with contextlib.ExitStack() as stack:
        if asked.telemetry is not None:
            identity = identity_of(service, variant, rules)
            folder = stack.enter_context(telemetry_folder(asked.telemetry, identity))
            asked = asked.model_copy(update={"telemetry": folder})
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix="foreserve-"))
        report = stack.enter_context(progress_report())
        comparison = compare(
            asked, work=Path(work), train=train_folder, progress=report, workers=workers
        )
    files = {"Report": out, "Numbers": json}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(comparison, json)
    write_report(comparison, out)
    if csv is not None:
        write_csv(comparison, csv)
        files["Tables"] = csv
    show(comparison, result_console(), files)

"""`foreserve whatif`: what other autoscalers, SLOs, prices or start-up times would have cost."""

import contextlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli import ingest_prometheus, server
from autoscaler.cli.common import progress_report, result_console
from autoscaler.cli.ingest_otlp import identity_of
from autoscaler.cli.telemetry import StoreRules, StoreService, StoreVariant, telemetry_folder
from autoscaler.cli.train import train_folder
from models.otlp_identity import SERVICE_TEMPLATE, VARIANT_TEMPLATE

EXAMPLE = """
Compare autoscalers on your own history or trace, as a scenario file describes it (docs/whatif.md).

**Example**

    foreserve whatif scenario.yaml --out report.html --json report.json --csv tables/

    foreserve whatif scenario.yaml --prometheus http://prometheus:9090 --last 14d --out r.html --json r.json
"""
CACHE = Path("~/.cache/foreserve/whatif")


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
    cache: Annotated[
        Path,
        typer.Option(
            help="Keeps finished runs and models, by their content: a second run goes on."
        ),
    ] = CACHE,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep nothing.")] = False,
    prometheus: Annotated[
        str | None, typer.Option(help="Read telemetry from this server, instead of what is named.")
    ] = None,
    last: Annotated[str, typer.Option(help="With --prometheus: how much history.")] = "14d",
    step: Annotated[str, typer.Option(help="With --prometheus: interval of the rows.")] = "60s",
    config: server.Config = None,
    user: server.User = None,
    password_file: server.PasswordFile = None,
    bearer_token_file: server.BearerTokenFile = None,
    ca_file: server.CaFile = None,
    tenant: server.Tenant = None,
    timeout: server.Timeout = 120.0,
    service: StoreService = SERVICE_TEMPLATE,
    variant: StoreVariant = VARIANT_TEMPLATE,
    rules: StoreRules = None,
) -> None:
    """Run the comparison."""
    from autoscaler.whatif.compare import compare
    from autoscaler.whatif.console import show
    from autoscaler.whatif.output import write_csv, write_json
    from autoscaler.whatif.report import write_report
    from autoscaler.whatif.scenario import load_scenario

    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="foreserve-")))
        if prometheus is None:
            asked = load_scenario(scenario)
        else:
            (work / "ingested").mkdir()
            asked = load_scenario(scenario, work / "ingested")  # checked before anything is read
            ingest_prometheus.prometheus(
                url=prometheus,
                out=work / "ingested",
                from_=last,
                step=step,
                policies=[asked.policies],
                config=config,
                user=user,
                password_file=password_file,
                bearer_token_file=bearer_token_file,
                ca_file=ca_file,
                tenant=tenant,
                timeout=timeout,
            )
        if asked.telemetry is not None:
            identity = identity_of(service, variant, rules)
            folder = stack.enter_context(telemetry_folder(asked.telemetry, identity))
            asked = asked.model_copy(update={"telemetry": folder})
        report = stack.enter_context(progress_report())
        comparison = compare(
            asked,
            work=work,
            train=train_folder,
            progress=report,
            workers=workers,
            cache=None if no_cache else cache.expanduser(),
        )
    written = f"{datetime.fromtimestamp(server.wall_seconds(), UTC):%d %B %Y}"
    files = {"Report": out, "Numbers": json}
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(comparison, json)
    write_report(comparison, out, written=written)
    if csv is not None:
        write_csv(comparison, csv)
        files["Tables"] = csv
    show(comparison, result_console(), files)

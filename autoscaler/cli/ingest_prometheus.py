"""`foreserve ingest prometheus`: weeks of history from a server into the telemetry folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from autoscaler.cli import server
from autoscaler.cli.common import log, progress_report
from autoscaler.edge.policy_files import load_policies
from autoscaler.edge.telemetry_config import read_labels
from models.contract_api import clock_skew_sentence

MAX_SKEW_SECONDS = 30.0

HELP = """
Read history from Prometheus, VictoriaMetrics, Thanos or Mimir into a telemetry folder.

A few aggregated queries for all services together, in chunks. A run that was stopped goes on with
`--resume`. Writes load.parquet, serving.parquet, startups.parquet and ingest.json (what was seen).

**Example**

    foreserve ingest prometheus --url http://prometheus:9090 --from 14d --out telemetry/
"""


def add_to(group: typer.Typer) -> None:
    """Add the command."""
    group.command("prometheus", help=HELP)(prometheus)


def prometheus(
    url: server.Url,
    out: Annotated[Path, typer.Option(help="Telemetry folder; made if absent.")],
    from_: Annotated[str, typer.Option("--from", help="14d (ago), a time with zone, or epoch.")],
    to: Annotated[str, typer.Option(help="As --from.")] = "now",
    step: Annotated[str, typer.Option(help="Interval of the rows.")] = "60s",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped.")] = False,
    policies: Annotated[
        list[Path] | None,
        typer.Option(help="Policy files: their targets; prefill and decode apart."),
    ] = None,
    parallel: Annotated[int, typer.Option(help="Queries at once.", min=1, max=32)] = 4,
    config: server.Config = None,
    user: server.User = None,
    password_file: server.PasswordFile = None,
    bearer_token_file: server.BearerTokenFile = None,
    ca_file: server.CaFile = None,
    tenant: server.Tenant = None,
    timeout: server.Timeout = 120.0,
) -> None:
    """Ingest history."""
    from autoscaler.edge.prometheus_api import Access, PrometheusApi
    from training.ingest.plan import Cache, Request, aligned
    from training.ingest.prometheus import ingest_prometheus

    now = server.wall_seconds()
    step_seconds = server.seconds_of(step, "--step")
    ends = (server.instant_of(from_, now, "--from"), server.instant_of(to, now, "--to"))
    held = Cache(out).range_of() if resume else None  # `--from 14d` means what it meant at first
    start, end = held or aligned(*ends, step_seconds)
    access = Access(url, user, password_file, bearer_token_file, ca_file, tenant, timeout)
    with PrometheusApi(access) as api, progress_report() as report:
        api.instant("vector(1)", now)  # address, permission and clock, before anything is written
        skew = clock_skew_sentence(api.server_seconds(), server.wall_seconds(), MAX_SKEW_SECONDS)
        if skew:
            log.warning("%s: %s", api.where, skew)
        request = Request(
            api.where,
            start,
            end,
            step_seconds,
            read_labels(config),
            server.targets_of(policies),
            server.roles_of(load_policies(policies)) if policies else (),
        )
        summary = ingest_prometheus(
            api, request, out, resume=resume, parallel=parallel, progress=report
        )
    _tell(summary, out)


def _tell(summary: dict[str, Any], out: Path) -> None:
    log.info(
        "%s: %d services, %d rows of load (%.1f %% gaps), %d starts, by %d queries a chunk",
        out,
        summary["services"],
        summary["load_rows"],
        100 * summary["load_gap_ratio"],
        summary["starts"],
        summary["queries"],
    )
    if 2 * summary["scrape_seconds"] > summary["step_seconds"]:
        log.warning(
            "scrapes are %.0f s apart: rates are smoothed over %.0f s, more than a step of %.0f s",
            summary["scrape_seconds"],
            summary["window_seconds"],
            summary["step_seconds"],
        )
    for service in summary["arrivals_gateway_unclear"]:
        log.warning(
            "%s: shares its model with another service of its namespace; its arrivals are rebuilt "
            "from completions, not the gateway's",
            service,
        )
    for what in ("infinite", "implausible", "unlabelled"):
        for name, count in summary[what].items():
            log.warning("%s: %d %s samples count as missing", name, count, what)

"""`foreserve ingest trace`: request logs in, telemetry folder out."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pandas as pd
import typer

from autoscaler.cli.common import log, progress_report
from models.trace_shapes import FORMATS, TraceError, parse_mapping
from models.trace_times import zone_of

if TYPE_CHECKING:
    from training.ingest_trace import Ingested

EXAMPLE = """
Turn request logs (CSV, JSONL, both also .gz, Parquet) into a telemetry folder (docs/ingest-trace.md).

**Examples**

    foreserve ingest trace AzureLLMInferenceTrace_conv.csv --service prod/chat --out telemetry/
    foreserve ingest trace conversation_trace.jsonl --service prod/chat --start 2025-01-06T00:00:00Z --out t/
    foreserve ingest trace gateway.jsonl.gz --columns timestamp=at,service=route --out t/
"""
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_to(group: typer.Typer) -> None:
    """Add the command to the group `ingest`."""
    group.command("trace", help=EXAMPLE)(trace)


def trace(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Request logs.")],
    out: Annotated[Path, typer.Option(help="Telemetry folder to write.")],
    service: Annotated[
        str | None,
        typer.Option(help="Whose log it is, NAMESPACE/NAME; replaces a column `service`."),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Which variant served it; latencies are written with one.")
    ] = None,
    step: Annotated[
        str | None, typer.Option(help="Interval: 60s, 5m, 1h. Default 60s, or the log's window.")
    ] = None,
    format: Annotated[str, typer.Option(help=f"auto, {', '.join(FORMATS)}.")] = "auto",
    columns: Annotated[
        str, typer.Option(help="FIELD=COLUMN,... as docs/ingest-trace.md says.")
    ] = "",
    time_zone: Annotated[
        str | None,
        typer.Option(
            help="Of times without a zone: UTC, Europe/Berlin. Azure's: UTC if not given."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="When numeric timestamps are 0; default 1970-01-01T00:00:00Z."),
    ] = None,
    max_bad_ratio: Annotated[float, typer.Option(help="Share of bad rows to leave out.")] = 0.0,
    whole_steps: Annotated[
        bool,
        typer.Option(
            "--whole-steps/--partial-steps",
            help="Leave out, or keep, the first and last step, which a log covers in part.",
        ),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace a telemetry folder.")] = False,
) -> None:
    """Read the logs and write the folder."""
    from training.ingest_trace import TraceOptions, ingest_trace

    zone = None if time_zone is None else zone_of(time_zone)
    options = TraceOptions(
        shape=format,
        mapping=parse_mapping(columns) if columns else {},
        service=None if service is None else _service(service),
        variant=variant,
        step_seconds=None if step is None else _duration(step),
        zone=zone,
        start_seconds=None if start is None else _start(start, time_zone),
        max_bad_ratio=max_bad_ratio,
        whole_steps=whole_steps,
    )
    with progress_report() as report:
        done = ingest_trace(files, out, options, force=force, progress=report)
    _report(done, out)


def _report(done: "Ingested", out: Path) -> None:
    for note in done.notes:
        log.warning("%s", note)
    log.info(
        "%s: %d rows, %d services, %d intervals of %g s from %s to %s%s",
        out,
        done.rows,
        done.services,
        done.load_rows,
        done.step_seconds,
        done.first.strftime("%Y-%m-%dT%H:%M:%SZ"),
        done.last.strftime("%Y-%m-%dT%H:%M:%SZ"),
        f", {done.serving_rows} with latencies" if done.serving_rows else "",
    )


def _service(name: str) -> str:
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", name):
        raise TraceError(
            f"--service: {name!r}; allowed: NAMESPACE/NAME, as the ScalingPolicy has it"
        )
    return name


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if not found:
        raise TraceError(
            f"--step: {text!r}; allowed: whole numbers with a unit, as 60s, 5m, 1h, 1d"
        )
    return float(int(found[1]) * SECONDS[found[2]])


def _start(text: str, time_zone: str | None) -> float:
    try:
        at = pd.Timestamp(text)
    except (ValueError, TypeError) as error:
        raise TraceError(
            f"--start: {text!r}; allowed: a time such as 2025-01-06T00:00:00Z"
        ) from error
    if pd.isna(at) or (at.tzinfo is None and time_zone is None):
        raise TraceError(f"--start: {text!r} has no time zone; allowed: 2025-01-06T00:00:00Z")
    if at.tzinfo is None:
        stamps = pd.Series([at]).dt.tz_localize(
            zone_of(time_zone or "UTC"), ambiguous="NaT", nonexistent="NaT"
        )
        at = stamps.iloc[0]
    if pd.isna(at):
        raise TraceError(f"--start: {text!r} does not exist or is ambiguous in {time_zone}")
    return float(at.timestamp())

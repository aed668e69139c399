"""The group `foreserve ingest`: real telemetry into the telemetry folder, one subcommand a source."""

from types import ModuleType

import typer

from autoscaler.cli import ingest_otlp, ingest_prometheus, ingest_trace

# each source stands in its own module ingest_<source>.py with `add_to(group)`; add it here
SOURCES: tuple[ModuleType, ...] = (ingest_prometheus, ingest_otlp, ingest_trace)

group = typer.Typer(
    name="ingest",
    help="Write the telemetry folder from a real source.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
for source in SOURCES:
    source.add_to(group)


def add_to(app: typer.Typer) -> None:
    """Add the group to the application."""
    app.add_typer(group)

"""Telemetry for commands that learn: a folder of Parquet files, or an OTLP store read into one first."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from autoscaler.cli.common import progress_report
from autoscaler.cli.ingest_otlp import warn_unnamed
from models.otlp_identity import Identity
from models.starts import WATCHED_FILE

StoreService = Annotated[
    str, typer.Option("--service", help="Of an OTLP store: names the service; docs/otlp.md.")
]
StoreVariant = Annotated[
    str, typer.Option("--variant", help="Of an OTLP store: names the variant.")
]
StoreRules = Annotated[
    Path | None, typer.Option("--map", help="Of an OTLP store: YAML rules, before the templates.")
]

HolidaysOf = Annotated[
    str | None,
    typer.Option(
        "--holidays",
        help="Country or part of it, ISO 3166 (DE, US-CA): its holidays are no working days.",
    ),
]
HolidaysZone = Annotated[
    str, typer.Option("--holidays-zone", help="Time zone of those holidays: Europe/Berlin.")
]


@contextmanager
def telemetry_folder(telemetry: Path, identity: Identity) -> Iterator[Path]:
    """Yield the folder itself, or one with the frames of the store that it is, for as long as needed.

    Raises StoreError and FrameError as `ingest otlp-store` does.
    """
    from training.ingest_otlp import ingest_store, is_store

    if not is_store(telemetry):
        yield telemetry
        return
    with tempfile.TemporaryDirectory(prefix="foreserve-") as work:
        with progress_report() as report:
            done = ingest_store(telemetry, identity, Path(work), progress=report)
        warn_unnamed(done)
        if (telemetry / WATCHED_FILE).exists():  # by `foreserve run --starts`
            shutil.copy(telemetry / WATCHED_FILE, work)
        yield Path(work)

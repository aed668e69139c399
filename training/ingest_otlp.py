"""The OTLP store, read for training: two weeks of cells -> the telemetry folder.

The definitions are `models/otlp_frames.py`, the same that the online path uses; here is only the file.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from models import otlp_schema as schema
from models.otlp_frames import OtlpFrames, to_frames
from models.otlp_identity import Identity
from models.progress import Progress
from training.telemetry import LOAD_FILE, SERVING_FILE, STARTUPS_FILE


@dataclass(frozen=True, slots=True)
class Period:
    """What to read, in seconds since the epoch; open where it is infinite."""

    start_seconds: float = float("-inf")
    end_seconds: float = float("inf")


def read_store(
    folder: Path,
    identity: Identity,
    *,
    interval_seconds: int = 60,
    period: Period | None = None,
    progress: Progress | None = None,
) -> OtlpFrames:
    """Return the frames of a store; a receiver may be writing it meanwhile.

    Raises StoreError if the folder holds no store, FrameError for numbers that cannot be.
    """
    period = period if period is not None else Period()
    where = folder / schema.FILE_NAME
    if not where.is_file():
        raise schema.StoreError(f"{where}: no such file; allowed: what `foreserve otlp` writes")
    with closing(sqlite3.connect(f"{where.resolve().as_uri()}?mode=ro", uri=True)) as db:
        try:
            db.execute("BEGIN")  # one state of the store for sources and cells
            bin_seconds = schema.check_meta(db.execute(schema.READ_META), str(where))
            bins = _bins(db, period, bin_seconds)
            rows = _reported(db.execute(schema.READ_CELLS, bins), bins, progress)
            return to_frames(
                schema.cells_from_rows(rows, str(where)),
                schema.sources_from_rows(db.execute(schema.READ_SOURCES)),
                identity,
                bin_seconds=bin_seconds,
                interval_seconds=interval_seconds,
            )
        except sqlite3.DatabaseError as error:
            raise schema.StoreError(f"{where}: {error}; allowed: a store") from error


def write_folder(frames: OtlpFrames, out: Path) -> None:
    """Write the telemetry folder; without any start there is no startups file."""
    out.mkdir(parents=True, exist_ok=True)
    frames.load.to_parquet(out / LOAD_FILE, index=False)
    frames.serving.to_parquet(out / SERVING_FILE, index=False)
    if len(frames.startups):
        frames.startups.to_parquet(out / STARTUPS_FILE, index=False)


def _bins(db: sqlite3.Connection, period: Period, bin_seconds: int) -> tuple[int, int]:
    first, last = db.execute(schema.READ_BINS).fetchone()
    if first is None:
        return 0, 0
    start = max(float(first), period.start_seconds / bin_seconds)
    end = min(float(last + 1), period.end_seconds / bin_seconds)
    return int(start), int(end)


def _reported(
    rows: Iterator[tuple[int, int, bytes]], bins: tuple[int, int], progress: Progress | None
) -> Iterator[tuple[int, int, bytes]]:
    first, end = bins
    for i, row in enumerate(rows):
        if progress is not None and i % 1000 == 0:
            progress("reading the store", row[0] - first, end - first)
        yield row
    if progress is not None:
        progress("reading the store", end - first, end - first)

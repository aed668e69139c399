"""The embedded telemetry store: one SQLite file that the receiver writes and anybody may read.

Bounded in age (retention) and in bytes (SQLite itself refuses to grow beyond). A flush is one
transaction of cells, sources and the series' last points, so what is on disk is always consistent: a
receiver killed at any moment continues from its last flush.
"""

import fcntl
import logging
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from models import otlp_schema as schema
from models.otlp_cells import merge, to_bytes
from models.otlp_fold import Fold, Series
from models.otlp_frames import OtlpFrames, to_frames
from models.otlp_identity import Identity
from models.otlp_increments import NS
from models.otlp_points import Source

DAY_SECONDS = 86_400.0
DEFAULT_RETENTION_SECONDS = 15 * DAY_SECONDS
DEFAULT_MAX_BYTES = 8 * 2**30
MIN_MAX_BYTES = 4 * 2**20
LOCK_NAME = "otlp.lock"
FULL_RATIO = 0.9  # of the allowed bytes: from here on the oldest hour goes first
BUSY_SECONDS = 5.0  # how long to wait for a reader's lock; readers of a WAL hold none

log = logging.getLogger("foreserve")


class OtlpStore:
    """The writer's side; one at a time per folder.

    Parameters
    ----------
    folder : made if absent.
    bin_seconds : width of a cell; a store keeps the one that it was made with.
    retention_seconds : older cells are deleted by `prune`.
    max_bytes : the file never grows beyond; the oldest cells are deleted before.
    """

    def __init__(
        self,
        folder: Path,
        *,
        bin_seconds: int,
        retention_seconds: float = DEFAULT_RETENTION_SECONDS,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._where = str(folder / schema.FILE_NAME)
        self._lock = _lock(folder / LOCK_NAME)
        self._retention_seconds = retention_seconds
        try:
            self._db = sqlite3.connect(
                self._where, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._set_up(bin_seconds, max_bytes)
        except sqlite3.DatabaseError as error:
            self._lock.close()
            raise schema.StoreError(
                f"{self._where}: {error}; allowed: a store or no file"
            ) from error
        except schema.StoreError:
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let another writer in."""
        self._db.close()
        self._lock.close()

    def restore(self, fold: Fold) -> None:
        """Let `fold` continue from the last flush."""
        rows = schema.sources_from_rows(self._db.execute(schema.READ_SOURCES))
        newest: dict[Source, int] = {tuple(sorted(a.items())): n for n, a in sorted(rows.items())}
        series: dict[bytes, Series] = {}
        for row in self._db.execute(schema.READ_SERIES):
            key, one = schema.series_from_row(*row)
            series[key] = one
        fold.restore(newest, series, max(rows, default=0) + 1)

    def flush(self, fold: Fold) -> int:
        """Write what the fold gathered, all or nothing; return the number of cells.

        Raises OSError if the file cannot take it; the fold then keeps everything for the next try.
        """
        cells = len(fold.cells)
        try:
            with self._transaction():
                self._write_cells(fold)
                self._write_series(fold)
        except sqlite3.OperationalError as error:
            raise OSError(f"{self._where}: {error}") from error
        fold.taken()
        return cells

    def forget(self, keys: list[bytes]) -> None:
        """Delete series that the fold has forgotten."""
        with self._transaction():
            self._db.executemany(schema.DELETE_SERIES, [(key,) for key in keys])

    def prune(self, now_seconds: float) -> None:
        """Delete cells beyond the retention; where the file is nearly full, the oldest hours too."""
        self._delete_before(math.floor((now_seconds - self._retention_seconds) / self.bin_seconds))
        hour = max(int(3600 // self.bin_seconds), 1)
        while self._used_ratio() > FULL_RATIO:
            oldest, newest = self._db.execute(schema.READ_BINS).fetchone()
            if oldest is None or oldest >= newest:
                break
            log.warning("%s: nearly full: the oldest hour is deleted", self._where)
            self._delete_before(min(oldest + hour, newest))

    def _set_up(self, bin_seconds: int, max_bytes: int) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA journal_size_limit = 16777216")
        page_bytes = self._pragma("page_size")
        self._max_pages = max(max_bytes, MIN_MAX_BYTES) // page_bytes
        self._db.execute(f"PRAGMA max_page_count = {self._max_pages}")
        with self._transaction():
            for statement in schema.CREATE:
                self._db.execute(statement)
            meta = self._db.execute(schema.READ_META).fetchall()
            if not meta:
                meta = [("version", schema.VERSION), ("bin_seconds", bin_seconds)]
                self._db.executemany(schema.WRITE_META, meta)
        self.bin_seconds = schema.check_meta(meta, self._where)

    def _write_cells(self, fold: Fold) -> None:
        attributes = {number: source for source, number in fold.sources.items()}
        for (number, source), cell in sorted(fold.cells.items()):
            row = self._db.execute(schema.READ_CELL, (number, source)).fetchone()
            if row is not None:
                _, _, written = next(
                    schema.cells_from_rows([(number, source, row[0])], self._where)
                )
                merge(written, cell)
                cell = written  # noqa: PLW2901 - the fold's own stays as it is until `taken`
            self._db.execute(schema.WRITE_CELL, (number, source, to_bytes(cell)))
            self._write_source(source, attributes[source], number)

    def _write_series(self, fold: Fold) -> None:
        attributes = {number: source for source, number in fold.sources.items()}
        for key in sorted(fold.touched):
            one = fold.series.get(key)
            if one is None:
                self._db.execute(schema.DELETE_SERIES, (key,))
                continue
            self._db.execute(schema.WRITE_SERIES, schema.series_to_row(key, one))
            at = one.state.time_ns // (self.bin_seconds * NS)
            self._write_source(one.source, attributes[one.source], at)

    def _write_source(self, number: int, source: Source, at: int) -> None:
        row = (number, schema.source_to_text(source), at, at)
        self._db.execute(schema.WRITE_SOURCE, row)

    def _delete_before(self, number: int) -> None:
        with self._transaction():
            for statement in schema.DELETE_BEFORE:
                self._db.execute(statement, (number,))

    def _used_ratio(self) -> float:
        used = self._pragma("page_count") - self._pragma("freelist_count")
        return used / self._max_pages

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


@dataclass(frozen=True, slots=True)
class RecentTelemetry:
    """The last minutes of all services, and how old the newest of it is."""

    frames: OtlpFrames
    staleness_seconds: float  # now less the end of the newest bin; infinite for an empty store


def read_recent(
    folder: Path,
    *,
    now_seconds: float,
    window_seconds: float,
    identity: Identity,
    interval_seconds: int = 60,
) -> RecentTelemetry:
    """Return the intervals that ended in the last `window_seconds`, whatever their number of services.

    Raises StoreError if the folder holds no store.
    """
    where = folder / schema.FILE_NAME
    if not where.is_file():
        raise schema.StoreError(f"{where}: no such file; allowed: what `foreserve otlp` writes")
    with closing(sqlite3.connect(f"{where.resolve().as_uri()}?mode=ro", uri=True)) as db:
        try:
            bin_seconds = schema.check_meta(db.execute(schema.READ_META), str(where))
            end = math.floor(now_seconds / interval_seconds) * interval_seconds
            begin = math.floor((now_seconds - window_seconds) / interval_seconds) * interval_seconds
            rows = db.execute(schema.READ_CELLS, (begin // bin_seconds, end // bin_seconds))
            frames = to_frames(
                schema.cells_from_rows(rows, str(where)),
                schema.sources_from_rows(db.execute(schema.READ_SOURCES)),
                identity,
                bin_seconds=bin_seconds,
                interval_seconds=interval_seconds,
            )
            newest = db.execute(schema.READ_BINS).fetchone()[1]
        except sqlite3.DatabaseError as error:
            raise schema.StoreError(f"{where}: {error}; allowed: a store") from error
    age = math.inf if newest is None else now_seconds - (newest + 1) * bin_seconds
    return RecentTelemetry(frames, max(age, 0.0))


def _lock(path: Path) -> IO[str]:
    """Hold the folder's lock until closed, or raise StoreError if another writer does."""
    lock = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise schema.StoreError(
            f"{path}: another receiver writes there; allowed: one at a time"
        ) from error
    return lock

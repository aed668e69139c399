"""The embedded telemetry store, its writer's side: one SQLite file that anybody may read meanwhile.

Bounded in age (retention) and in bytes (SQLite itself refuses to grow beyond). A flush is one
transaction of blocks, sources and the series' last points, so what is on disk is always consistent: a
receiver killed at any moment continues from its last flush. Flushed blocks are merged later, each time
some of one period into one in one transaction: their rows add up, so no reader sees a difference.
"""

import fcntl
import logging
import math
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

from models import otlp_schema as schema
from models.otlp_block import Block, from_cells, joined, selected, summed
from models.otlp_cells import Cell
from models.otlp_fold import Fold, Series
from models.otlp_increments import NS
from models.otlp_points import Source

DAY_SECONDS = 86_400.0
DEFAULT_RETENTION_SECONDS = 15 * DAY_SECONDS
DEFAULT_MAX_BYTES = 8 * 2**30
MIN_MAX_BYTES = 4 * 2**20
LOCK_NAME = "otlp.lock"
FULL_RATIO = 0.9  # of the allowed bytes: from here on the oldest hour goes first
MERGE_BLOCKS = 24  # as flushed, of one period: as many become one
MERGE_BYTES = 32 * 2**20  # uncompressed, at a time: merging needs about five times as much
FINAL_AFTER_SECONDS = (
    2 * 3600.0
)  # after its end nothing of a period can come: points are refused before
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

    def merge_one(self, now_seconds: float) -> bool:
        """Merge the blocks of one period, where any waits for it; return whether one did.

        Raises OSError if the file cannot take it; everything then is as before.
        """
        waiting = self._db.execute(schema.READ_LEVELS, (schema.FINAL,)).fetchall()
        ends = schema.period_bins(self.bin_seconds) * self.bin_seconds
        for period, level, count in waiting:
            if level == schema.FRESH and count >= MERGE_BLOCKS:
                self._merge(period, schema.FRESH, schema.MERGED)
                return True
        for period, _, _ in waiting:
            if (period + 1) * ends + FINAL_AFTER_SECONDS < now_seconds:
                self._merge(period, schema.FINAL, schema.FINAL)
                return True
        return False

    def prune(self, now_seconds: float) -> None:
        """Delete periods beyond the retention; where the file is nearly full, the oldest hours too."""
        each = schema.period_bins(self.bin_seconds)
        oldest_kept = (now_seconds - self._retention_seconds) / self.bin_seconds
        self._delete_before(math.floor(oldest_kept / each))
        hour = max(int(3600 // self.bin_seconds) // each, 1)
        while self._used_ratio() > FULL_RATIO:
            first, last = self._db.execute(schema.READ_BINS).fetchone()
            if first is None or first // each >= last // each:
                break
            log.warning("%s: nearly full: the oldest hour is deleted", self._where)
            self._delete_before(min(first // each + hour, last // each))

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
        each = schema.period_bins(self.bin_seconds)
        periods: dict[int, dict[tuple[int, int], Cell]] = {}
        newest: dict[int, int] = {}  # by source
        for key, cell in fold.cells.items():
            number, source = key
            periods.setdefault(number // each, {})[key] = cell
            newest[source] = max(number, newest.get(source, number))
        for period, cells in sorted(periods.items()):
            block = from_cells(cells, self.bin_seconds)
            self._db.execute(schema.WRITE_BLOCK, schema.block_to_row(period, schema.FRESH, block))
        for source, number in newest.items():
            self._write_source(source, attributes[source], number)

    def _merge(self, period: int, level: int, into: int) -> None:
        """Put the blocks of one period up to `level` into as few as memory allows."""
        found = self._db.execute(schema.READ_OF_PERIOD, (period, level)).fetchall()
        parts = max(1, math.ceil(sum(size for _, size in found) / MERGE_BYTES))
        numbers = [number for number, _ in found]
        blocks = (self._part(numbers, part, parts) for part in range(parts))  # one at a time
        rows = [schema.block_to_row(period, into, block) for block in blocks if len(block)]
        try:
            with self._transaction():
                self._db.executemany(schema.DELETE_BLOCK, [(number,) for number in numbers])
                self._db.executemany(schema.WRITE_BLOCK, rows)
        except sqlite3.DatabaseError as error:
            raise OSError(f"{self._where}: {error}") from error

    def _part(self, numbers: list[int], part: int, parts: int) -> Block:
        """Return the sum of blocks, of every `parts`-th source only."""
        rows = (self._db.execute(schema.READ_CONTENT, (number,)).fetchone() for number in numbers)
        blocks = schema.blocks_from_rows(rows, self._where)
        return summed(joined([selected(b, b.sources % parts == part) for b in blocks]))

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

    def _delete_before(self, period: int) -> None:
        first_bin = period * schema.period_bins(self.bin_seconds)
        with self._transaction():
            self._db.execute(schema.DELETE_BLOCKS_BEFORE, (period,))
            # a number may be given again: none goes before its last row does
            self._db.execute(schema.DELETE_SOURCES_BEFORE, (first_bin,))

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

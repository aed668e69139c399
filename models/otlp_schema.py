"""The store's tables and what is written into them; who opens the file brings the connection.

One writer (the receiver) and any readers (`train`, the online path) share these statements. Times are
whole bins: bin b covers [b, b + 1) x bin_seconds since the epoch. Blocks never span two periods of
PERIOD_SECONDS; the rows of all blocks add up, so that merging some into one changes nothing.
"""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from models.frames import FrameError
from models.otlp_block import Block, from_bytes, to_bytes
from models.otlp_fold import Series
from models.otlp_histogram import Histogram
from models.otlp_increments import SeriesState
from models.otlp_points import Source, Temporality

FILE_NAME = "otlp.sqlite"
VERSION = 2
PERIOD_SECONDS = 600
FRESH, MERGED, FINAL = (
    0,
    1,
    2,
)  # levels of blocks: as flushed; some flushes in one; nothing can come

CREATE = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS source (id INTEGER PRIMARY KEY, attributes TEXT NOT NULL, "
    "first_bin INTEGER NOT NULL, last_bin INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS block (id INTEGER PRIMARY KEY, period INTEGER NOT NULL, "
    "level INTEGER NOT NULL, first_bin INTEGER NOT NULL, last_bin INTEGER NOT NULL, "
    "row_count INTEGER NOT NULL, raw_bytes INTEGER NOT NULL, content BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS block_by_period ON block (period, level, first_bin, last_bin, row_count)",
    "CREATE TABLE IF NOT EXISTS series (key BLOB PRIMARY KEY, source INTEGER NOT NULL, "
    "signal TEXT NOT NULL, metric TEXT NOT NULL, temporality TEXT NOT NULL, "
    "state TEXT NOT NULL) WITHOUT ROWID",
)
READ_META = "SELECT name, value FROM meta"
WRITE_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
READ_SOURCES = "SELECT id, attributes FROM source"
READ_RECENT_SOURCES = "SELECT id, attributes FROM source WHERE last_bin >= ?"
WRITE_SOURCE = (
    "INSERT INTO source VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
    "first_bin = min(first_bin, excluded.first_bin), last_bin = max(last_bin, excluded.last_bin)"
)
WRITE_BLOCK = (
    "INSERT INTO block (period, level, first_bin, last_bin, row_count, raw_bytes, content) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
DELETE_BLOCK = "DELETE FROM block WHERE id = ?"
READ_PERIODS = (
    "SELECT period, sum(row_count) FROM block WHERE last_bin >= ? AND first_bin < ? "
    "GROUP BY period ORDER BY period"
)
READ_BLOCKS = (
    "SELECT id, content FROM block "
    "WHERE period >= ? AND period <= ? AND last_bin >= ? AND first_bin < ?"
)
READ_LEVELS = "SELECT period, level, count(*) FROM block WHERE level < ? GROUP BY period, level"
READ_OF_PERIOD = "SELECT id, raw_bytes FROM block WHERE period = ? AND level <= ?"
READ_CONTENT = "SELECT id, content FROM block WHERE id = ?"
READ_BINS = "SELECT min(first_bin), max(last_bin) FROM block"
READ_SERIES = "SELECT key, source, signal, metric, temporality, state FROM series"
WRITE_SERIES = "INSERT OR REPLACE INTO series VALUES (?, ?, ?, ?, ?, ?)"
DELETE_SERIES = "DELETE FROM series WHERE key = ?"
DELETE_BLOCKS_BEFORE = "DELETE FROM block WHERE period < ?"
DELETE_SOURCES_BEFORE = "DELETE FROM source WHERE last_bin < ?"


class StoreError(FrameError):
    """A store that cannot be used; the message says where, what and what is allowed."""


def check_meta(rows: Iterable[tuple[str, int]], where: str) -> int:
    """Return the store's bin_seconds. Raises StoreError for another version or none."""
    meta = dict(rows)
    if meta.get("version") != VERSION:
        raise StoreError(
            f"{where}: a store of version {meta.get('version')}; allowed: {VERSION} "
            "(start a new folder; the old one needs the release that wrote it)"
        )
    return int(meta["bin_seconds"])


def period_bins(bin_seconds: int) -> int:
    """Return how many bins a period has."""
    return max(1, PERIOD_SECONDS // bin_seconds)


def source_to_text(source: Source) -> str:
    """Return the stored form of a source's attributes."""
    return json.dumps(dict(source), separators=(",", ":"))


def sources_from_rows(rows: Iterable[tuple[int, str]]) -> dict[int, dict[str, str]]:
    """Return the attributes of each source number."""
    return {number: json.loads(text) for number, text in rows}


def block_to_row(
    period: int, level: int, block: Block
) -> tuple[int, int, int, int, int, int, bytes]:
    """Return what WRITE_BLOCK wants of a block with rows."""
    span = (int(block.bins.min()), int(block.bins.max()))
    return (period, level, *span, len(block), block.raw_bytes, to_bytes(block))


def blocks_from_rows(rows: Iterable[tuple[int, bytes]], where: str) -> Iterator[Block]:
    """Yield the blocks of (id, content). Raises StoreError for a row that is not one."""
    for number, data in rows:
        try:
            yield from_bytes(data)
        except ValueError as error:
            raise StoreError(f"{where}: block {number}: {error}") from error


def series_to_row(key: bytes, series: Series) -> tuple[bytes, int, str, str, str, str]:
    """Return the stored form of a series' last point."""
    state, histogram = series.state, series.state.histogram
    content: list[Any] = [state.start_ns, state.time_ns, _number(state.value), None]
    if histogram is not None:
        content[3] = [
            *(histogram.count, _number(histogram.total), list(histogram.counts.items())),
            *(histogram.bounds, histogram.scale, histogram.zero_count, histogram.zero_threshold),
        ]
    text = json.dumps(content, separators=(",", ":"))
    return key, series.source, series.signal, series.metric, series.temporality, text


def series_from_row(
    key: bytes, source: int, signal: str, metric: str, temporality: Temporality, text: str
) -> tuple[bytes, Series]:
    """Read what `series_to_row` wrote."""
    start_ns, time_ns, value, content = json.loads(text)
    histogram = None
    if content is not None:
        count, total, counts, bounds, scale, zero_count, zero_threshold = content
        histogram = Histogram(
            count,
            _nan(total),
            dict(counts),
            bounds=None if bounds is None else tuple(bounds),
            scale=scale,
            zero_count=zero_count,
            zero_threshold=zero_threshold,
        )
    state = SeriesState(start_ns, time_ns, _nan(value), histogram)
    return key, Series(source, state, signal, metric, temporality)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan(value: float | None) -> float:
    return math.nan if value is None else value

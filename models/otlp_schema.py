"""The store's tables and what is written into them; who opens the file brings the connection.

One writer (the receiver) and any readers (`train`, the online path) share these statements. Times are
whole bins: bin b covers [b, b + 1) x bin_seconds since the epoch.
"""

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from models.frames import FrameError
from models.otlp_cells import Cell, from_bytes
from models.otlp_fold import Series
from models.otlp_histogram import Histogram
from models.otlp_increments import SeriesState
from models.otlp_points import Source

FILE_NAME = "otlp.sqlite"
VERSION = 1

CREATE = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS source (id INTEGER PRIMARY KEY, attributes TEXT NOT NULL, "
    "first_bin INTEGER NOT NULL, last_bin INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS cell (bin INTEGER NOT NULL, source INTEGER NOT NULL, "
    "content BLOB NOT NULL, PRIMARY KEY (bin, source)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS series (key BLOB PRIMARY KEY, source INTEGER NOT NULL, "
    "state TEXT NOT NULL) WITHOUT ROWID",
)
READ_META = "SELECT name, value FROM meta"
WRITE_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
READ_SOURCES = "SELECT id, attributes FROM source"
WRITE_SOURCE = (
    "INSERT INTO source VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
    "first_bin = min(first_bin, excluded.first_bin), last_bin = max(last_bin, excluded.last_bin)"
)
READ_CELL = "SELECT content FROM cell WHERE bin = ? AND source = ?"
WRITE_CELL = "INSERT OR REPLACE INTO cell VALUES (?, ?, ?)"
READ_CELLS = "SELECT bin, source, content FROM cell WHERE bin >= ? AND bin < ? ORDER BY bin, source"
READ_BINS = "SELECT min(bin), max(bin) FROM cell"
READ_SERIES = "SELECT key, source, state FROM series"
WRITE_SERIES = "INSERT OR REPLACE INTO series VALUES (?, ?, ?)"
DELETE_SERIES = "DELETE FROM series WHERE key = ?"
DELETE_BEFORE = ("DELETE FROM cell WHERE bin < ?", "DELETE FROM source WHERE last_bin < ?")


class StoreError(FrameError):
    """A store that cannot be used; the message says where, what and what is allowed."""


def check_meta(rows: Iterable[tuple[str, int]], where: str) -> int:
    """Return the store's bin_seconds. Raises StoreError for another version or none."""
    meta = dict(rows)
    if meta.get("version") != VERSION:
        raise StoreError(f"{where}: version {meta.get('version')}; allowed: {VERSION}")
    return int(meta["bin_seconds"])


def source_to_text(source: Source) -> str:
    """Return the stored form of a source's attributes."""
    return json.dumps(dict(source), separators=(",", ":"))


def sources_from_rows(rows: Iterable[tuple[int, str]]) -> dict[int, dict[str, str]]:
    """Return the attributes of each source number."""
    return {number: json.loads(text) for number, text in rows}


def cells_from_rows(
    rows: Iterable[tuple[int, int, bytes]], where: str
) -> Iterator[tuple[int, int, Cell]]:
    """Yield (bin, source, cell). Raises StoreError for a row that is not one."""
    for number, source, data in rows:
        try:
            yield number, source, from_bytes(data)
        except ValueError as error:
            raise StoreError(f"{where}: bin {number}, source {source}: {error}") from error


def series_to_row(key: bytes, series: Series) -> tuple[bytes, int, str]:
    """Return the stored form of a series' last point."""
    state, histogram = series.state, series.state.histogram
    content: list[Any] = [state.start_ns, state.time_ns, _number(state.value), None]
    if histogram is not None:
        content[3] = [
            *(histogram.count, _number(histogram.total), list(histogram.counts.items())),
            *(histogram.bounds, histogram.scale, histogram.zero_count, histogram.zero_threshold),
        ]
    return key, series.source, json.dumps(content, separators=(",", ":"))


def series_from_row(key: bytes, source: int, text: str) -> tuple[bytes, Series]:
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
    return key, Series(source, SeriesState(start_ns, time_ns, _nan(value), histogram))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _nan(value: float | None) -> float:
    return math.nan if value is None else value

"""The rows of a load file in batches, as plain arrays; and again, of a few services, as a frame."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.frames import LOAD_NUMBERS, FrameError

BATCH_ROWS = (
    16_384  # arrays of 128 KiB: larger ones leave gaps in the heap, smaller ones take longer
)
READ_AHEAD_BYTES = 65_536  # of each column; without it a whole column of a row group
KEYS = ("ts", "service")
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


class Rows(NamedTuple):
    """N rows of known services."""

    code: NDArray[np.int64]  # (N,), place of the service among those asked for
    seconds: NDArray[np.float64]  # (N,), since the epoch
    numbers: NDArray[np.float64]  # (N, 3), of LOAD_NUMBERS; NaN where not told


def is_plain(schema: pa.Schema) -> bool:
    """Whether rows can be read as arrays: times with a zone, names, and numbers that are floats or ints."""
    kinds = {field.name: field.type for field in schema}
    if not {*KEYS, *LOAD_NUMBERS} <= set(kinds) or len(kinds) < len(schema):
        return False
    name = kinds["service"]
    name = name.value_type if pa.types.is_dictionary(name) else name
    return (
        pa.types.is_timestamp(kinds["ts"])
        and kinds["ts"].tz is not None
        and (pa.types.is_string(name) or pa.types.is_large_string(name))
        and all(
            pa.types.is_integer(kinds[c]) or pa.types.is_floating(kinds[c]) for c in LOAD_NUMBERS
        )
    )


@dataclass(frozen=True, slots=True)
class HistoryFile:
    """A load file whose schema `is_plain`, and the services asked for."""

    path: Path
    metadata: pq.FileMetaData
    services: tuple[str, ...]

    def times(self) -> Iterator[Rows]:
        """Yield the known rows without their numbers. Raises FrameError if one has no time."""
        for batch in self._batches(KEYS, -np.inf):
            rows, _ = self._rows(batch)
            yield rows

    def rows(self, after_seconds: float) -> Iterator[Rows]:
        """Yield the known rows later than a time."""
        for batch in self._batches((*KEYS, *LOAD_NUMBERS), after_seconds):
            rows, kept = self._rows(batch)
            late = rows.seconds > after_seconds
            at = kept[late]
            numbers = np.stack([_floats(batch.column(c))[at] for c in LOAD_NUMBERS], axis=1)
            yield Rows(rows.code[late], rows.seconds[late], numbers)

    def frame(self, services: Collection[str], after_seconds: float) -> pd.DataFrame:
        """Return the rows of some services later than a time."""
        only = HistoryFile(self.path, self.metadata, tuple(services))
        kept = []
        for batch in only._batches((*KEYS, *LOAD_NUMBERS), after_seconds):
            rows, at = only._rows(batch)
            kept.append(batch.take(pa.array(at[rows.seconds > after_seconds])))
        frame: pd.DataFrame = pa.Table.from_batches(kept).to_pandas()
        return frame.astype({"service": object})  # no names of services that have no row here

    def _rows(self, batch: pa.RecordBatch) -> tuple[Rows, NDArray[np.int64]]:
        """Return the known rows, without numbers, and where in the batch they are."""
        code = _codes(batch.column("service"), self.services)
        kept = np.flatnonzero(code >= 0)
        ts = batch.column("ts")
        if ts.null_count:
            lacking = int(np.count_nonzero(np.asarray(ts.is_null())[kept]))
            if lacking:
                raise FrameError(
                    f"{self.path}: column 'ts': {lacking} rows without a time; allowed: a timestamp"
                )
            ts = ts.fill_null(0)
        ticks = np.asarray(ts.cast(pa.int64()))[kept]
        seconds = ticks / PER_SECOND[ts.type.unit]
        return Rows(code[kept], seconds, np.empty((0, len(LOAD_NUMBERS)))), kept

    def _batches(self, columns: Collection[str], after_seconds: float) -> Iterator[pa.RecordBatch]:
        """Yield all batches that may hold a row of the services after a time."""
        with pq.ParquetFile(
            self.path,
            metadata=self.metadata,
            read_dictionary=["service"],
            buffer_size=READ_AHEAD_BYTES,
            pre_buffer=False,
        ) as file:
            groups = [g for g in range(file.num_row_groups) if self._may_hold(g, after_seconds)]
            yield from file.iter_batches(
                BATCH_ROWS, row_groups=groups, columns=list(columns), use_threads=False
            )

    def _may_hold(self, group: int, after_seconds: float) -> bool:
        """Whether a row group's statistics, if there are any, allow a row of the services after a time."""
        of = self.metadata.row_group(group)
        found = {
            of.column(i).path_in_schema: of.column(i).statistics for i in range(of.num_columns)
        }
        ts, name = found["ts"], found["service"]
        if ts is not None and ts.has_min_max and ts.max.timestamp() <= after_seconds:
            return False
        if name is None or not name.has_min_max:
            return True
        return any(name.min <= s <= name.max for s in self.services)


def _codes(names: pa.Array, services: tuple[str, ...]) -> NDArray[np.int64]:
    """Return each name's place among the services, -1 for any other or none."""
    coded = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
    place = {name: i for i, name in enumerate(services)}
    known = np.array([*(place.get(n, -1) for n in coded.dictionary.to_pylist()), -1], np.int64)
    codes: NDArray[np.int64] = known[np.asarray(coded.indices.fill_null(len(coded.dictionary)))]
    return codes


def _floats(numbers: pa.Array) -> NDArray[np.float64]:
    return np.asarray(numbers.cast(pa.float64()).to_numpy(zero_copy_only=False))

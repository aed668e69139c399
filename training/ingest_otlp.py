"""The OTLP store, read for training: two weeks of cells -> the telemetry folder.

The definitions are `models/otlp_numbers.py`, the same that the online path uses; here is only the
file. Rows are written part by part, so memory does not grow with the time that is read.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from models import otlp_schema as schema
from models.frames import FrameError
from models.otlp_frames import FrameMaker
from models.otlp_identity import Identity
from models.otlp_parts import read_head, read_parts
from models.progress import Progress
from training.telemetry import LOAD_FILE, SERVING_FILE, STARTUPS_FILE


@dataclass(frozen=True, slots=True)
class Period:
    """What to read, in seconds since the epoch; open where it is infinite."""

    start_seconds: float = float("-inf")
    end_seconds: float = float("inf")


@dataclass(frozen=True, slots=True)
class Ingested:
    """What a telemetry folder got from a store."""

    services: int
    load_rows: int
    serving_rows: int
    starts: int
    unnamed_sources: tuple[Mapping[str, str], ...]


def is_store(folder: Path) -> bool:
    """Whether the folder is one that `foreserve otlp` writes."""
    return (folder / schema.FILE_NAME).is_file()


def ingest_store(
    folder: Path,
    identity: Identity,
    out: Path,
    *,
    interval_seconds: int = 60,
    period: Period | None = None,
    progress: Progress | None = None,
    name: str = "",
) -> Ingested:
    """Write the telemetry folder of a store; a receiver may be writing the store meanwhile.

    Without any start there is no startups file. Raises StoreError if the folder holds no store,
    FrameError for numbers that cannot be and where there are none, naming the store (or `name`); a
    file is put in place only when it is complete.
    """
    period = period if period is not None else Period()
    where = folder / schema.FILE_NAME
    if not where.is_file():
        raise schema.StoreError(f"{where}: no such file; allowed: what `foreserve otlp` writes")
    out.mkdir(parents=True, exist_ok=True)
    with _opened(where) as db:
        head = read_head(db.execute, str(where))
        maker = FrameMaker(head.sources, identity, head.bin_seconds, interval_seconds)
        first, end = head.bins(period.start_seconds, period.end_seconds)
        with _RowFile(out / LOAD_FILE) as load, _RowFile(out / SERVING_FILE) as serving:
            for part in read_parts(db.execute, str(where), (first, end), head.bin_seconds):
                _write(maker.add(part.block, part.end_bin), load, serving)
                if progress is not None:
                    progress("reading the store", part.end_bin - first, end - first)
            _write(maker.finish(), load, serving)
            if not load.rows and not serving.rows:
                raise FrameError(_nothing(name or str(folder), maker.unnamed_sources()))
    starts = maker.startups()
    (out / STARTUPS_FILE).unlink(missing_ok=True)  # one of an earlier run would be believed
    if len(starts):
        starts.to_parquet(out / STARTUPS_FILE, index=False)
    return Ingested(
        len(load.services), load.rows, serving.rows, len(starts), maker.unnamed_sources()
    )


def _nothing(name: str, unnamed: tuple[Mapping[str, str], ...]) -> str:
    shown = ""
    if unnamed:
        attributes = ", ".join(f"{k}={v}" for k, v in unnamed[0].items()) or "no attributes"
        shown = f" ({len(unnamed)} sources without a name, the first with {attributes})"
    return (
        f"{name}: nothing of use{shown}; allowed: vLLM, SGLang or gen_ai metrics, or vLLM's request "
        "spans, of sources that --service names"
    )


class _RowFile:
    """A Parquet file of frames with the same columns, written piece by piece."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self.services: set[str] = set()
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        if error is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)

    def append(self, frame: pd.DataFrame) -> None:
        """Write the rows; the first frame, which may be empty, sets the columns."""
        if self._writer is None:
            schema_ = pa.Schema.from_pandas(frame, preserve_index=False)
            names = {"service": pa.string(), "variant": pa.string()}
            fields = [f.with_type(names.get(f.name, f.type)) for f in schema_]
            self._writer = pq.ParquetWriter(self._partial, pa.schema(fields, schema_.metadata))
        if len(frame):
            self._writer.write_table(
                pa.Table.from_pandas(frame, schema=self._writer.schema, preserve_index=False)
            )
            self.rows += len(frame)
            self.services |= set(frame.service.unique())


def _write(frames: tuple[pd.DataFrame, pd.DataFrame], load: _RowFile, serving: _RowFile) -> None:
    load.append(frames[0])
    serving.append(frames[1])


@contextmanager
def _opened(where: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(
            sqlite3.connect(f"{where.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        ) as db:
            yield db
    except sqlite3.DatabaseError as error:
        raise schema.StoreError(f"{where}: {error}; allowed: a store") from error

"""Read what the features need of a load history: its last days, and only of known services.

A file is read in batches into one array, so that memory is bounded by what is kept, whatever else the
file holds and in which order. Services with a row that is doubled, impossible or off the grid are read
once more, a few at a time and as frames, to be mended or refused as load is everywhere.
"""

import logging
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from autoscaler.edge.history_grid import HistoryGrid
from autoscaler.edge.history_rows import HistoryFile, Rows, is_plain
from models.frames import FrameError, load_step_seconds, to_series, validate_load
from models.mend import mend_load
from models.recorded import CompactLoad, Recorded

log = logging.getLogger("foreserve")
SERVICES_AT_ONCE = 128  # of a week of minutes: 15 MiB
FRAME_ROWS = 250_000  # of services that are read again, at a time


def read_history(
    path: Path, services: Collection[str], step_seconds: float | None, keep_steps: int
) -> Recorded | None:
    """Return the last `keep_steps` steps of `services`; None if the file holds none of them.

    `step_seconds` None: whatever the file's own step is, and all of it. Raises FrameError naming the
    file if it cannot be read or breaks the contract.
    """
    parts = read_parts(path, services, step_seconds, keep_steps, at_once=max(1, len(services)))
    return next(iter(list(parts)), None)


def read_parts(
    path: Path,
    services: Collection[str],
    step_seconds: float | None,
    keep_steps: int,
    *,
    at_once: int = SERVICES_AT_ONCE,
) -> Iterator[Recorded]:
    """Yield the same, of some services at a time: all end at one time, and none waits for the others.

    The file is gone through once for each part, and once before. Raises FrameError as `read_history`
    does, also after the last part.
    """
    try:
        if step_seconds is not None and path.is_file():
            metadata = pq.read_metadata(path)
            if is_plain(metadata.schema.to_arrow_schema()):
                file = HistoryFile(path, metadata, tuple(sorted(services)))
                yield from _streamed(file, step_seconds, keep_steps, at_once)
                return
        frame = _recent_frame(path, services, step_seconds, keep_steps)
    except FileNotFoundError as error:
        raise FrameError(f"{path}: no such file; allowed: a Parquet file") from error
    except (OSError, pa.ArrowException) as error:
        raise FrameError(f"{path}: not readable as Parquet ({error})") from error
    if frame.empty and {"ts", "service"} <= set(frame.columns):
        return
    frame = _mended(frame, str(path))
    if step_seconds is not None and frame.duplicated("service").any():
        _refuse_longer_steps(load_step_seconds(frame, str(path)), str(path), step_seconds)
    yield to_series(frame, str(path), step_seconds=step_seconds)


def _streamed(
    file: HistoryFile, step_seconds: float, keep_steps: int, at_once: int
) -> Iterator[CompactLoad]:
    """Yield the load of a file with plain columns, in memory for little more than a part."""
    first, last = _ends(file.times(), len(file.services))
    newest = float(last.max(initial=-np.inf))
    after = newest - keep_steps * step_seconds
    known = [name for name, at in zip(file.services, last, strict=True) if at > after]
    oldest = max(after, float(first.min(initial=np.inf)))
    distances: list[NDArray[np.int64]] = []
    for begin in range(0, len(known), at_once):
        some = replace(file, services=tuple(known[begin : begin + at_once]))
        yield _grid(some, (step_seconds, oldest, newest), after, distances).load()
    usual = sum(distances, start=np.zeros(1, np.int64))
    if usual.any():
        _refuse_longer_steps(usual.argmax() * step_seconds, str(file.path), step_seconds)


def _grid(
    file: HistoryFile,
    span: tuple[float, float, float],
    after_seconds: float,
    distances: list[NDArray[np.int64]],
) -> HistoryGrid:
    """Return the services' rows on a grid of step, oldest and newest time; append their distances."""
    grid = HistoryGrid(file.services, *span)
    for rows in file.rows(after_seconds):
        grid.write(rows)
    _look_again(grid, file, after_seconds)
    distances.append(grid.distances())
    return grid


def _ends(times: Iterator[Rows], services: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last time (S,) of each service, in seconds; inf and -inf without a row."""
    first, last = np.full(services, np.inf), np.full(services, -np.inf)
    for rows in times:
        np.minimum.at(first, rows.code, rows.seconds)
        np.maximum.at(last, rows.code, rows.seconds)
    return first, last


def _look_again(grid: HistoryGrid, file: HistoryFile, after_seconds: float) -> None:
    """Mend what is wrong with single rows, or raise FrameError."""
    where, names = str(file.path), np.array(grid.services, dtype=object)
    suspects = np.flatnonzero(grid.again)
    part = np.cumsum(grid.rows[suspects]) // FRAME_ROWS
    for n in np.unique(part):
        frame = _mended(file.frame(names[suspects[part == n]], after_seconds), where)
        if grid.off_grid[suspects[part == n]].any() and frame.duplicated("service").any():
            _refuse_longer_steps(load_step_seconds(frame, where), where, grid.step_seconds)
        grid.replace(
            to_series(
                frame, where, step_seconds=grid.step_seconds, start_seconds=grid.start_seconds
            )
        )


def _mended(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the load in canonical form, or raise FrameError; say what was mended."""
    mended = mend_load(frame, where)
    for sentence in mended.notes:
        log.warning("%s", sentence)
    return validate_load(mended.frame, where)


def _refuse_longer_steps(found_seconds: float, where: str, step_seconds: float) -> None:
    """Five minutes of requests read as one minute's would be five times the load."""
    if found_seconds > step_seconds:
        raise FrameError(
            f"{where}: steps of {found_seconds:g} s; "
            f"allowed: {step_seconds:g} s, as the load model was trained on"
        )


def _recent_frame(
    path: Path, services: Collection[str], step_seconds: float | None, keep_steps: int
) -> pd.DataFrame:
    """Read the known services' rows at once: of a folder, of odd columns, or of unknown steps."""
    table = pq.read_table(path)
    if "service" in table.column_names:
        known = pc.is_in(
            table["service"].cast(pa.string()), pa.array(sorted(services), pa.string())
        )
        table = table.filter(known)
    if step_seconds is not None and "ts" in table.column_names and table.num_rows:
        table = table.filter(_recent(table["ts"], keep_steps * step_seconds))
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _recent(ts: pa.ChunkedArray, seconds: float) -> pa.ChunkedArray:
    """Whether each time lies in the last `seconds` before the newest; all of them if not times."""
    if not pa.types.is_timestamp(ts.type) or ts.null_count:
        return pa.chunked_array([pa.array([True] * len(ts))])  # what is wrong is said later
    newest = pc.max(ts).as_py()
    start = pa.scalar(newest - pd.Timedelta(seconds=seconds).to_pytimedelta(), ts.type)
    return pc.greater(ts, start)

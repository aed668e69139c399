"""Read what the features need of a load history: its last days, and only of known services."""

import logging
from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.frames import FrameError, LoadSeries, load_step_seconds, to_series, validate_load
from models.mend import mend_load

log = logging.getLogger("foreserve")


def read_history(
    path: Path, services: Collection[str], step_seconds: float | None, keep_steps: int
) -> LoadSeries | None:
    """Return the last `keep_steps` steps of `services`; None if the file holds none of them.

    `step_seconds` None: whatever the file's own step is, and all of it. Raises FrameError naming the
    file if it cannot be read or breaks the contract.
    """
    try:
        table = pq.read_table(path)
        if "service" in table.column_names:
            known = pc.is_in(
                table["service"].cast(pa.string()), pa.array(sorted(services), pa.string())
            )
            table = table.filter(known)
        if step_seconds is not None and "ts" in table.column_names and table.num_rows:
            table = table.filter(_recent(table["ts"], keep_steps * step_seconds))
        frame: pd.DataFrame = table.to_pandas()
    except FileNotFoundError as error:
        raise FrameError(f"{path}: no such file; allowed: a Parquet file") from error
    except (OSError, pa.ArrowException) as error:
        raise FrameError(f"{path}: not readable as Parquet ({error})") from error
    if frame.empty and {"ts", "service"} <= set(frame.columns):
        return None
    mended = mend_load(frame, str(path))
    for sentence in mended.notes:
        log.warning("%s", sentence)
    frame = validate_load(mended.frame, str(path))
    if step_seconds is not None:
        _refuse_longer_steps(frame, str(path), step_seconds)
    return to_series(frame, str(path), step_seconds=step_seconds)


def _refuse_longer_steps(frame: pd.DataFrame, where: str, step_seconds: float) -> None:
    """Five minutes of requests read as one minute's would be five times the load."""
    if not frame.duplicated("service").any():
        return  # one row a service says nothing of the step
    found = load_step_seconds(frame, where)
    if found > step_seconds:
        raise FrameError(
            f"{where}: steps of {found:g} s; "
            f"allowed: {step_seconds:g} s, as the load model was trained on"
        )


def _recent(ts: pa.ChunkedArray, seconds: float) -> pa.ChunkedArray:
    """Whether each time lies in the last `seconds` before the newest; all of them if not times."""
    if not pa.types.is_timestamp(ts.type) or ts.null_count:
        return pa.chunked_array([pa.array([True] * len(ts))])  # what is wrong is said later
    newest = pc.max(ts).as_py()
    start = pa.scalar(newest - pd.Timedelta(seconds=seconds).to_pytimedelta(), ts.type)
    return pc.greater(ts, start)

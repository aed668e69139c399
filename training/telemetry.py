"""Read a telemetry folder (PROTOCOL.md section 1), checked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from models import starts
from models.frames import (
    SERVING_OPTIONAL,
    SERVING_REQUIRED,
    FrameError,
    validate_load,
    validate_serving,
    validate_startups,
)
from models.mend import mend_load

LOAD_FILE = "load.parquet"
SERVING_FILE = "serving.parquet"
STARTUPS_FILE = starts.STARTS_FILE
WATCHED_FILE = starts.WATCHED_FILE


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Validated frames; serving and startups are empty where the folder has none."""

    load: pd.DataFrame
    serving: pd.DataFrame
    startups: pd.DataFrame
    missing: tuple[str, ...]  # files that the folder lacks
    mended: tuple[str, ...] = ()  # what was impossible in the load and is taken as gaps


def read_telemetry(folder: Path) -> Telemetry:
    """Return the folder's frames. Raises FrameError naming file, column and what is allowed.

    load.parquet is required; without the others nothing is learned of latency or of starts. Starts that
    the operator watched (startups-watched.parquet) are added to the ingested ones, each once.
    """
    if not folder.is_dir():
        raise FrameError(f"{folder}: not a folder; allowed: one with {LOAD_FILE}")
    absent = [f for f in (SERVING_FILE, STARTUPS_FILE) if not (folder / f).exists()]
    if (folder / WATCHED_FILE).exists():
        absent = [f for f in absent if f != STARTUPS_FILE]  # starts are known all the same
    load, mended = read_load(folder / LOAD_FILE)
    return Telemetry(
        load=load,
        serving=_optional(folder / SERVING_FILE, validate_serving, _no_serving()),
        startups=starts.joined(_starts(folder / STARTUPS_FILE), _starts(folder / WATCHED_FILE)),
        missing=tuple(absent),
        mended=mended,
    )


def read_load(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the load of a Parquet file and sentences on what was mended, or raise FrameError."""
    notes: list[str] = []

    def mended(frame: pd.DataFrame, where: str) -> pd.DataFrame:
        done = mend_load(frame, where)
        notes.extend(done.notes)
        return validate_load(done.frame, where)

    return read_frame(path, mended), tuple(notes)


def read_frame(path: Path, validate: Callable[[pd.DataFrame, str], pd.DataFrame]) -> pd.DataFrame:
    """Read one Parquet file and check it, or raise FrameError."""
    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError as error:
        raise FrameError(f"{path}: no such file; allowed: a Parquet file") from error
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise FrameError(f"{path}: not readable as Parquet ({error})") from error
    return validate(frame, str(path))


def _optional(
    path: Path, validate: Callable[[pd.DataFrame, str], pd.DataFrame], empty: pd.DataFrame
) -> pd.DataFrame:
    return read_frame(path, validate) if path.exists() else validate(empty, str(path))


def _starts(path: Path) -> pd.DataFrame:
    return _optional(path, validate_startups, _no_startups())


def _no_serving() -> pd.DataFrame:
    columns = {c: pd.Series(dtype="float64") for c in (*SERVING_REQUIRED, *SERVING_OPTIONAL)}
    return pd.DataFrame(
        {"ts": _no_times(), "service": _no_names(), "variant": _no_names(), **columns}
    )


def _no_startups() -> pd.DataFrame:
    times = {c: _no_times() for c in ("created_ts", "ready_ts", "ended_ts")}
    return pd.DataFrame({"service": _no_names(), "variant": _no_names(), **times})


def _no_times() -> pd.Series:
    return pd.Series(dtype="datetime64[ns, UTC]")


def _no_names() -> pd.Series:
    return pd.Series(dtype="object")

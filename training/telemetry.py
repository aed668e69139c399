"""Read a telemetry folder (PROTOCOL.md section 1), checked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from models.frames import (
    SERVING_OPTIONAL,
    SERVING_REQUIRED,
    FrameError,
    validate_load,
    validate_serving,
    validate_startups,
)

LOAD_FILE = "load.parquet"
SERVING_FILE = "serving.parquet"
STARTUPS_FILE = "startups.parquet"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Validated frames; serving and startups are empty where the folder has none."""

    load: pd.DataFrame
    serving: pd.DataFrame
    startups: pd.DataFrame
    missing: tuple[str, ...]  # files that the folder lacks


def read_telemetry(folder: Path) -> Telemetry:
    """Return the folder's frames. Raises FrameError naming file, column and what is allowed.

    load.parquet is required; without the others nothing is learned of latency or of starts.
    """
    if not folder.is_dir():
        raise FrameError(f"{folder}: not a folder; allowed: one with {LOAD_FILE}")
    absent = [f for f in (SERVING_FILE, STARTUPS_FILE) if not (folder / f).exists()]
    return Telemetry(
        load=read_frame(folder / LOAD_FILE, validate_load),
        serving=_optional(folder / SERVING_FILE, validate_serving, _no_serving()),
        startups=_optional(folder / STARTUPS_FILE, validate_startups, _no_startups()),
        missing=tuple(absent),
    )


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

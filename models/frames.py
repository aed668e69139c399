"""The tidy-frame contract: which columns telemetry has, in which unit, and what is refused.

PROTOCOL.md section 1 fixes the columns. A missing number is NaN, never zero. Everything that reads
telemetry goes through the three functions here, so that a bad file is refused once, in one sentence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

LOAD_NUMBERS = ("requests", "input_tokens", "output_tokens")
LATENCY_NUMBERS = (
    "ttft_p50_seconds",
    "ttft_p95_seconds",
    "ttft_p99_seconds",
    "tpot_p50_seconds",
    "tpot_p95_seconds",
    "tpot_p99_seconds",
)
ATTAINMENT_NUMBERS = (
    "finished_requests",
    "ttft_within_slo_ratio",
    "tpot_within_slo_ratio",
    "slo_attainment_ratio",
)
SERVING_REQUIRED = (
    "ready_replicas",
    "arrival_rate_rps",
    "isl_tokens",
    "osl_tokens",
)
SERVING_OPTIONAL = (
    "starting_replicas",
    "running",
    "waiting",
    "kv_cache_usage_ratio",
    "prefix_cache_hit_ratio",
    *LATENCY_NUMBERS,
    *ATTAINMENT_NUMBERS,
)
RATIOS = tuple(c for c in SERVING_OPTIONAL if c.endswith("_ratio"))
RATIO_SLACK = 1e-6  # a share computed from floats may exceed 1 by rounding
MAX_LATENCY_SECONDS = 86_400.0  # a day: larger values are milliseconds or microseconds
MAX_TPOT_SECONDS = 60.0  # a minute a token: larger values are milliseconds
OFF_GRID_STEPS = 1e-3  # of a step, that a time may lie beside it


class FrameError(ValueError):
    """Telemetry that cannot be used; the message says where, what and what is allowed."""


@dataclass(frozen=True, slots=True)
class LoadSeries:
    """The offered load of every service on one regular grid.

    `values` has shape (S, T, 3): services x steps x (requests, input_tokens, output_tokens) per step;
    NaN where the source has a gap. Step t covers [start_seconds + t * step_seconds, + step_seconds).
    """

    services: tuple[str, ...]
    start_seconds: float
    step_seconds: float
    values: np.ndarray[tuple[int, int, int], np.dtype[np.float64]]

    @property
    def end_seconds(self) -> float:
        """End of the last step, in seconds since the epoch."""
        return self.start_seconds + self.values.shape[1] * self.step_seconds


def validate_load(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return `frame` in canonical order and dtypes, or raise FrameError naming `where`."""
    frame = _typed(frame, where, keys=("service",), required=LOAD_NUMBERS, optional=())
    for column in LOAD_NUMBERS:
        _refuse(frame, where, column, frame[column] < 0, "a number >= 0 or NaN")
        _refuse(frame, where, column, ~np.isfinite(frame[column].fillna(0.0)), "a finite number")
    return _unique(frame, where, ("service", "ts"))


def validate_serving(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return `frame` with every column of the contract (NaN where absent), or raise FrameError."""
    frame = _typed(
        frame,
        where,
        keys=("service", "variant"),
        required=SERVING_REQUIRED,
        optional=SERVING_OPTIONAL,
    )
    for column in (*SERVING_REQUIRED, *SERVING_OPTIONAL):
        _refuse(frame, where, column, frame[column] < 0, "a number >= 0 or NaN")
    for column in RATIOS:
        _refuse(frame, where, column, frame[column] > 1 + RATIO_SLACK, "a ratio from 0 to 1")
    for column in LATENCY_NUMBERS:
        limit = MAX_TPOT_SECONDS if column.startswith("tpot") else MAX_LATENCY_SECONDS
        allowed = f"seconds up to {limit:g} (is the source in milliseconds?)"
        _refuse(frame, where, column, frame[column] > limit, allowed)
    return _unique(frame, where, ("service", "variant", "ts"))


def validate_startups(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return starts with created_ts, ready_ts and ended_ts; a null ready_ts is a censored start."""
    frame = frame.copy()
    if "ended_ts" not in frame.columns:
        frame["ended_ts"] = pd.Series(pd.NaT, index=frame.index, dtype="datetime64[ns, UTC]")
    _require(frame, where, ("service", "variant", "created_ts", "ready_ts"))
    for column in ("created_ts", "ready_ts", "ended_ts"):
        if frame[column].isna().all():
            frame[column] = pd.Series(pd.NaT, index=frame.index, dtype="datetime64[ns, UTC]")
        frame[column] = _utc(frame, where, column)
    _refuse(frame, where, "created_ts", frame.created_ts.isna(), "a timestamp")
    for column in ("ready_ts", "ended_ts"):
        early = frame[column] < frame.created_ts
        _refuse(frame, where, column, early, "a timestamp at or after created_ts")
    for key in ("service", "variant"):
        frame[key] = _strings(frame, where, key)
    return frame.sort_values(["service", "variant", "created_ts"], ignore_index=True)


def to_series(
    frame: pd.DataFrame,
    where: str,
    *,
    step_seconds: float | None = None,
    start_seconds: float | None = None,
) -> LoadSeries:
    """Put a validated load frame on one regular grid; steps without a row are gaps (NaN).

    The grid starts at `start_seconds`, None: at the first row. Raises FrameError if a row does not lie on it.
    """
    if frame.empty:
        raise FrameError(f"{where}: no rows; at least one interval of load is needed")
    seconds = frame.ts.astype("datetime64[ns, UTC]").astype("int64").to_numpy() / 1e9
    step = step_seconds if step_seconds is not None else load_step_seconds(frame, where)
    start = start_seconds if start_seconds is not None else float(seconds.min())
    slot = (seconds - start) / step
    at = np.rint(slot).astype(np.int64)
    off = np.abs(slot - at) > OFF_GRID_STEPS
    if off.any():
        row = int(np.flatnonzero(off)[0])
        raise FrameError(
            f"{where}: column 'ts', row {row}: {frame.ts.iloc[row]} is off the grid of "
            f"{step:g} s that starts at {pd.Timestamp(start, unit='s', tz='UTC')}"
        )
    services, code = np.unique(
        frame.service.to_numpy(dtype=object).astype(str), return_inverse=True
    )
    values = np.full((len(services), int(at.max()) + 1, len(LOAD_NUMBERS)), np.nan)
    values[code, at] = frame[list(LOAD_NUMBERS)].to_numpy(dtype=np.float64)
    return LoadSeries(tuple(str(s) for s in services), start, float(step), values)


def load_step_seconds(frame: pd.DataFrame, where: str) -> float:
    """Return the interval of the load: the most frequent distance between rows of a service."""
    seconds = frame.ts.astype("datetime64[ns, UTC]").astype("int64") / 1e9
    gaps = seconds.groupby(frame.service.to_numpy()).diff().dropna()
    if gaps.empty:
        raise FrameError(f"{where}: one row a service; at least two intervals are needed")
    return float(gaps.mode().iloc[0])


def _typed(
    frame: pd.DataFrame,
    where: str,
    *,
    keys: Sequence[str],
    required: Sequence[str],
    optional: Sequence[str],
) -> pd.DataFrame:
    _require(frame, where, ("ts", *keys, *required))
    out = pd.DataFrame({"ts": _utc(frame, where, "ts")})
    _refuse(out, where, "ts", out.ts.isna(), "a timestamp")
    for key in keys:
        out[key] = _strings(frame, where, key)
    for column in (*required, *optional):
        if column not in frame.columns:
            out[column] = np.nan
            continue
        try:
            out[column] = pd.to_numeric(frame[column]).astype(np.float64)
        except (TypeError, ValueError) as error:
            raise FrameError(
                f"{where}: column '{column}' holds {frame[column].dtype}; numbers or NaN are allowed"
            ) from error
    return out


def _require(frame: pd.DataFrame, where: str, columns: Sequence[str]) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise FrameError(
            f"{where}: column {', '.join(repr(c) for c in missing)} is missing; "
            f"required: {', '.join(columns)}"
        )


def _utc(frame: pd.DataFrame, where: str, column: str) -> pd.Series:
    series = frame[column]
    if not isinstance(series.dtype, pd.DatetimeTZDtype):
        raise FrameError(
            f"{where}: column '{column}' holds {series.dtype}; allowed: timestamps with a time zone "
            "(a naive time could be any zone: write it as UTC)"
        )
    out: pd.Series = series.dt.tz_convert("UTC").astype("datetime64[ns, UTC]")
    return out


def _strings(frame: pd.DataFrame, where: str, column: str) -> pd.Series:
    series = frame[column]
    bad = series.isna() | (series.astype(str).str.len() == 0)
    _refuse(frame, where, column, bad, "a name")
    return series.astype(str).astype(object)


def _refuse(
    frame: pd.DataFrame, where: str, column: str, bad: "pd.Series | np.ndarray", allowed: str
) -> None:
    rows = np.flatnonzero(np.asarray(bad, dtype=bool))
    if len(rows):
        row = int(rows[0])
        raise FrameError(
            f"{where}: column '{column}', row {row}: {frame[column].iloc[row]} "
            f"({len(rows)} such rows); allowed: {allowed}"
        )


def _unique(frame: pd.DataFrame, where: str, keys: Sequence[str]) -> pd.DataFrame:
    rows = np.flatnonzero(frame.duplicated(list(keys)).to_numpy())
    if len(rows):
        first = frame.iloc[int(rows[0])]
        raise FrameError(
            f"{where}: {len(rows)} duplicate rows, the first for "
            f"{', '.join(f'{k}={first[k]}' for k in keys)}; one row per {' and '.join(keys)} is allowed"
        )
    return frame.sort_values(list(keys), ignore_index=True)

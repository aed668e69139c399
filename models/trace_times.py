"""Timestamps of request logs as seconds since the epoch.

Numbers count seconds (or milliseconds, by the layout's factor) from a start that the caller gives;
texts are ISO 8601. A text or a typed value without a zone is in the caller's zone, never in a guessed
one; a local time that does not exist or occurs twice (daylight saving) is bad.
"""

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.trace_shapes import TraceError

FloatArray = NDArray[np.float64]
MIN_SECONDS = 0.0  # 1970-01-01
MAX_SECONDS = 4_102_444_800.0  # 2100-01-01: larger numbers are milliseconds or damage
ZONED = r"(?:Z|z|[+-]\d{2}(?::?\d{2})?)$"
ALLOWED_TIMES = (
    "ISO 8601 or seconds, between 1970 and 2100 "
    "(milliseconds: `foreserve ingest trace --columns timestamp_ms=COLUMN`)"
)


def zone_of(name: str) -> ZoneInfo:
    """Return the IANA zone `name`, or raise TraceError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise TraceError(
            f"--time-zone: {name!r}; allowed: an IANA name such as UTC or Europe/Berlin"
        ) from error


def epoch_seconds(
    values: pd.Series, where: str, *, factor: float, start_seconds: float, zone: ZoneInfo | None
) -> FloatArray:
    """Return seconds since the epoch, shape (N,); NaN where a value is no time or out of range.

    Raises TraceError where a time has no zone and `zone` is None.
    """
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        out = _seconds(_localized(values, where, zone))
    elif pd.api.types.is_bool_dtype(values.dtype):
        out = np.full(len(values), np.nan)
    elif pd.api.types.is_numeric_dtype(values.dtype):
        out = start_seconds + factor * values.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        out = _of_text(values, where, factor, start_seconds, zone)
    with np.errstate(invalid="ignore"):
        out[~((out >= MIN_SECONDS) & (out < MAX_SECONDS))] = np.nan
    return out


def _of_text(
    values: pd.Series, where: str, factor: float, start_seconds: float, zone: ZoneInfo | None
) -> FloatArray:
    text = values.astype("str").str.strip()
    numbers = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    out = start_seconds + factor * numbers
    zoned = text.str.contains(ZONED, regex=True, na=False).to_numpy(dtype=bool)
    dated = np.isnan(numbers) & values.notna().to_numpy()
    # a colon: the -05 of the date 2024-05-05 is not an offset
    with_zone = dated & zoned & text.str.contains(":", regex=False).to_numpy(dtype=bool)
    without = dated & ~with_zone
    if with_zone.any():
        stamps = pd.to_datetime(text[with_zone], format="ISO8601", errors="coerce", utc=True)
        out[with_zone] = _seconds(stamps)
    if without.any():
        stamps = pd.to_datetime(text[without], format="ISO8601", errors="coerce")
        if stamps.notna().any():
            out[without] = _seconds(_localized(stamps, where, zone))
    return out


def _localized(stamps: pd.Series, where: str, zone: ZoneInfo | None) -> pd.Series:
    if isinstance(stamps.dtype, pd.DatetimeTZDtype):
        there: pd.Series = stamps.dt.tz_convert("UTC")
        return there
    if zone is None:
        raise TraceError(
            f"{where}: {stamps.dropna().iloc[0] if stamps.notna().any() else 'a time'} "
            "has no time zone; allowed: UTC, as 2024-05-10T00:00:00Z "
            "(`foreserve ingest trace` takes --time-zone)"
        )
    local = stamps.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    out: pd.Series = local.dt.tz_convert("UTC")
    return out


def _seconds(stamps: pd.Series) -> FloatArray:
    """Seconds since the epoch of zoned timestamps; NaN for NaT."""
    nanoseconds = stamps.astype("datetime64[ns, UTC]").astype("int64").to_numpy()
    # whole seconds and the rest apart: a float64 of nanoseconds would round to 256 ns
    out: FloatArray = (nanoseconds // 1_000_000_000) + (nanoseconds % 1_000_000_000) / 1e9
    out[stamps.isna().to_numpy()] = np.nan
    return out

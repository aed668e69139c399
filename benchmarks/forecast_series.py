"""Load series for the forecasters' benchmark, on one grid, as the services of one fleet.

Three sources: the real trace that the project ships; a telemetry folder or its load.parquet; or a
folder of public series in Parquet (columns timestamp or t_s, a number, and gap where the source lacks
data), one file a series or several told apart by the column service.
"""

from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd

from models.frames import LoadSeries, to_series, validate_load

WEEK = pd.Timedelta(days=7)
ANCHOR = pd.Timestamp("2025-06-01", tz="UTC")  # every public series ends in the week before it
NUMBERS = ("requests", "input_tokens", "total_tokens", "value")
# what is load and varies by the minute; CPU percentages, day totals and an hour of load are not
PUBLIC = {
    "azure2024_code_10min_digitised": ("azure2024-code",),
    "servegen_10min": ("servegen-m-large", "servegen-m-mid"),
    "burstgpt1_week1_tokens": ("burstgpt1-all",),
    "o365_sageserve_digitised": ("o365-A-prod", "o365-A-dev", "o365-D-prod"),
    "twitter_2021_08": ("twitter-2021-08",),
    "nasa_1995": ("nasa-ksc-1995",),
    "worldcup98": ("worldcup98",),
    "nab_realworld": ("nab-elb_request_count_8c0756", "nab-twitter_volume_aapl", "nab-nyc_taxi"),
}
MAX_DAYS = 21
MIN_KNOWN_RATIO = 0.5  # of a coarser step's minutes


def shipped(step_minutes: int) -> LoadSeries:
    """The trace of the demo: six days of ten-minute load of one service."""
    file = resources.files("autoscaler.whatif") / "bundle" / "azure2024_code_10min.csv"
    with file.open(encoding="utf-8") as text:
        frame = pd.read_csv(text, parse_dates=["timestamp"])
    load = frame.set_index("timestamp").requests.astype(float)
    return _together({"azure2024-code": load}, step_minutes)


def telemetry(path: Path, step_minutes: int) -> LoadSeries:
    """Requests of every service of a telemetry folder or load.parquet."""
    file = path / "load.parquet" if path.is_dir() else path
    frame = validate_load(pd.read_parquet(file), str(file))
    services = frame.set_index("ts").groupby("service").requests
    return _together({str(name): load for name, load in services}, step_minutes)


def public(folder: Path, step_minutes: int) -> LoadSeries:
    """The public series of a folder, each moved by whole weeks so that all end in the same one."""
    found = {}
    for file, services in PUBLIC.items():
        frame = pd.read_parquet(folder / f"{file}.parquet")
        for name in services:
            load = _load_of(frame[frame.service == name])
            weeks = (ANCHOR - load.index[-1]) // WEEK
            found[name] = load.set_axis(load.index + weeks * WEEK)
    return _together(found, step_minutes)


def _load_of(frame: pd.DataFrame) -> pd.Series:
    column = next(name for name in NUMBERS if name in frame.columns)
    load = frame[column].astype(float)
    if "gap" in frame.columns:
        load = load.mask(frame.gap.astype(bool))
    at = frame["timestamp"] if "timestamp" in frame.columns else pd.to_datetime(frame.t_s, unit="s")
    return load.set_axis(pd.DatetimeIndex(at).tz_localize("UTC")).sort_index()


def _together(found: dict[str, pd.Series], step_minutes: int) -> LoadSeries:
    """Sum to the common step; a step with less than half of its minutes known is a gap."""
    rows = []
    for name, load in found.items():
        own = load.index.to_series().diff().median() / pd.Timedelta(minutes=step_minutes)
        if own > 1.001:
            continue  # coarser than the grid: nothing to compare
        least = max(1, round(MIN_KNOWN_RATIO / own))
        grouped = load[load.index > load.index[-1] - pd.Timedelta(days=MAX_DAYS)].resample(
            f"{step_minutes}min"
        )
        count = grouped.count()
        mean = grouped.mean().where(count >= least) / own
        rows.append(pd.DataFrame({"ts": mean.index, "service": name, "requests": mean.to_numpy()}))
    frame = pd.concat(rows, ignore_index=True).assign(input_tokens=np.nan, output_tokens=np.nan)
    return to_series(validate_load(frame, "series"), "series", step_seconds=60.0 * step_minutes)

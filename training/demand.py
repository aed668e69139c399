"""From what was counted to what was asked for: zeros of an outage become gaps before anything is learned."""

import numpy as np
import pandas as pd

from models.frames import LoadSeries
from models.outage import unreachable

COUNTS = ("ready_replicas", "starting_replicas")


def without_outages(series: LoadSeries, serving: pd.DataFrame) -> tuple[LoadSeries, dict[str, int]]:
    """Return the load with steps of outages unknown, and how many steps that is, by service.

    `serving` (models.frames.validate_serving) tells how many replicas were ready and starting; a service that
    it does not tell of is left as it is.
    """
    values, masked = series.values, {}
    counts = _counts(series, serving)
    for row, name in enumerate(series.services):
        own = counts.get(name)
        if own is None:
            continue
        dark = unreachable(values[row, :, 0], own[:, 0], own[:, 1], series.step_seconds)
        if dark.any():
            if values is series.values:
                values = values.copy()
            values[row, dark] = np.nan
            masked[name] = int(dark.sum())
    if not masked:
        return series, masked
    return LoadSeries(series.services, series.start_seconds, series.step_seconds, values), masked


def _counts(series: LoadSeries, serving: pd.DataFrame) -> dict[str, np.ndarray]:
    """Replicas (T, 2) ready and starting of each service by step of the load; NaN where not told.

    A step is told where an interval of serving begins in it; variants add up, intervals of a step average.
    """
    if serving.empty:
        return {}
    seconds = serving.ts.astype("datetime64[ns, UTC]").astype("int64").to_numpy() / 1e9
    step = np.floor((seconds - series.start_seconds) / series.step_seconds + 1e-6).astype(np.int64)
    inside = (step >= 0) & (step < series.values.shape[1])
    rows = serving.loc[inside, ["service", "ts", *COUNTS]].assign(step=step[inside])
    at_once = rows.groupby(["service", "step", "ts"], sort=False)[list(COUNTS)].sum(min_count=1)
    by_step = at_once.groupby(level=["service", "step"]).mean()
    out = {}
    for name, own in by_step.groupby(level="service"):
        counts = np.full((series.values.shape[1], len(COUNTS)), np.nan)
        counts[own.index.get_level_values("step")] = own.to_numpy()
        out[str(name)] = counts
    return out

"""Where the money went, hour by hour, and why it is more than the clairvoyant plan's.

Per tick, Foreserve's cost less the plan's (same requests, same start-up times) has two parts: what
starting replicas cost more is the lead time's; the rest belongs to the step of the decision that had
the last word at that tick. A convention, not a proof: an hour's parts add up to its difference.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from autoscaler.core.types import Reason
from autoscaler.whatif.results import RunResult

HOUR_SECONDS = 3600.0
FORECAST, GUARD, LIMITS, LEAD_TIME = "forecast_usd", "guard_usd", "limits_usd", "lead_time_usd"
CAUSES = (FORECAST, GUARD, LIMITS, LEAD_TIME)
# forecast: the predicted load, its risk margin and the latency model that sized for it
CAUSE_OF: Mapping[str, str] = {
    **dict.fromkeys((r.value for r in Reason), GUARD),
    Reason.FORECAST.value: FORECAST,
    Reason.SCHEDULE.value: FORECAST,
    Reason.NO_MODEL.value: FORECAST,
    Reason.BUDGET.value: LIMITS,
    Reason.QUOTA.value: LIMITS,
    Reason.MIN.value: LIMITS,
    Reason.MAX.value: LIMITS,
}


def hourly(run: RunResult) -> pd.DataFrame:
    """Return a row an hour (UTC, naive): requests that ended, slo_attainment_ratio, cost_usd, reasons.

    `reasons` is in words: the three that decided most often, with their share of the ticks; empty for
    a rival.
    """
    ticks = run.series
    hour = _hours(ticks)
    known = ticks["slo_attainment_ratio"].notna()
    met = (ticks["slo_attainment_ratio"] * ticks["finished_requests"]).where(known, 0.0)
    ended = ticks["finished_requests"].where(known, 0.0).groupby(hour).sum()
    out = pd.DataFrame({"requests": ended})
    out["slo_attainment_ratio"] = met.groupby(hour).sum() / ended.where(ended > 0)
    out["cost_usd"] = ticks["cost_usd"].groupby(hour).sum()
    out["reasons"] = ticks["reason"].groupby(hour).agg(_shares) if "reason" in ticks else ""
    return out


def over_plan(ours: RunResult, plan: RunResult) -> pd.DataFrame:
    """Return a row an hour: over_usd (ours less the plan's), and its parts, one column per CAUSE."""
    keys = ["ts_seconds", "service"]
    both = ours.series.merge(plan.series, on=keys, suffixes=("", "_plan"))
    lead_time = _starting_usd(both, "") - _starting_usd(both, "_plan")
    over = both["cost_usd"] - both["cost_usd_plan"]
    cause = both["reason"].map(CAUSE_OF).fillna(GUARD)
    hour = _hours(both)
    out = pd.DataFrame({"over_usd": over.groupby(hour).sum()})
    for name in (FORECAST, GUARD, LIMITS):
        out[name] = (over - lead_time).where(cause == name, 0.0).groupby(hour).sum()
    out[LEAD_TIME] = lead_time.groupby(hour).sum()
    return out


def _hours(ticks: pd.DataFrame) -> pd.Series:
    """Return the hour in which each tick lies; one that ends at the full hour is the last of its."""
    end = np.nextafter(ticks["ts_seconds"].to_numpy(dtype=np.float64), -np.inf)
    stamps = pd.to_datetime(end // HOUR_SECONDS * HOUR_SECONDS, unit="s")
    return pd.Series(stamps, index=ticks.index, name="hour")


def _starting_usd(both: pd.DataFrame, suffix: str) -> pd.Series:
    """Return what the starting replicas cost in each tick: their share of those that are paid for."""
    starting, ready = both[f"starting_replicas{suffix}"], both[f"ready_replicas{suffix}"]
    share = (starting / (starting + ready)).fillna(0.0)
    return share * both[f"cost_usd{suffix}"]


def _shares(reasons: pd.Series) -> str:
    shares = reasons.value_counts(normalize=True)
    return ", ".join(f"{name} {share * 100:.0f} %" for name, share in shares.head(3).items())

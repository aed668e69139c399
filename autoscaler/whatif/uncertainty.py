"""How sure a figure is: worlds drawn anew, and blocks of hours drawn again and again (the bootstrap).

A block is a day where there are seven or more, else three hours: neighbouring hours are alike and must
not count as independent. Two autoscalers are compared block by block in the same world, so what both
suffered cancels. Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), 8.6 (blocks).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from autoscaler.whatif.results import RunResult

DRAWS = 2000
LEVELS = (0.025, 0.975)
DAY_HOURS, SHORT_HOURS = 24, 3
MANY_DAYS = 7
FEWEST_BLOCKS = 4  # with fewer nothing can be said
SEED = 11


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the interval that holds it in 95 of 100 draws; NaN where too little was seen."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def excludes(self, value: float) -> bool:
        """Whether the interval is clear of a value; without one, never."""
        return self.is_known and not self.low <= value <= self.high


def saving(ours: RunResult, other: RunResult) -> Estimate:
    """Return the share of the other's cost that ours saves, over all worlds that both were run in."""
    mine, theirs = _paired(ours, other)
    value = 1 - mean_cost_usd(ours) / max(mean_cost_usd(other), 1e-9)
    if mine is None or theirs is None:
        return Estimate(value)
    drawn = 1 - _drawn_sums(mine) / np.maximum(_drawn_sums(theirs), 1e-9)
    return _around(value, drawn)


def attainment(run: RunResult) -> Estimate:
    """Return the share of requests within the SLO, over all worlds."""
    measures = [w.measures for w in run.worlds] or [run.measures]
    known = [m for m in measures if m.requests and math.isfinite(m.slo_attainment_ratio)]
    value = math.nan
    if known:
        met = sum(m.slo_attainment_ratio * m.requests for m in known)
        value = met / sum(m.requests for m in known)
    blocks = _blocks([w.hours for w in run.worlds], ("met", "ended"))
    if blocks is None:
        return Estimate(value)
    drawn = _drawn_sums(blocks)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = drawn[:, 0] / drawn[:, 1]
    # hours count what ended, the figure what arrived: the spread is theirs, the place is its own
    return _around(value, shares - float(np.nanmedian(shares)) + value, highest=1.0)


def by_hour(series: pd.DataFrame) -> pd.DataFrame:
    """Return a row an hour since the start of a run: cost_usd, met and ended requests, all services."""
    ends = series["ts_seconds"].to_numpy(dtype=np.float64)
    first = float(ends.min()) if len(ends) else 0.0
    hour = pd.Series(((ends - first) // 3600).astype(np.int64), index=series.index, name="hour")
    known = series["slo_attainment_ratio"].notna()
    ended = series["finished_requests"].where(known, 0.0)
    met = (series["slo_attainment_ratio"] * series["finished_requests"]).where(known, 0.0)
    return pd.DataFrame(
        {
            "cost_usd": series["cost_usd"].groupby(hour).sum(),
            "met": met.groupby(hour).sum(),
            "ended": ended.groupby(hour).sum(),
        }
    )


def mean_cost_usd(run: RunResult) -> float:
    """Return the mean cost of a world."""
    return (
        sum(w.measures.cost_usd for w in run.worlds) / len(run.worlds)
        if run.worlds
        else (run.measures.cost_usd)
    )


def _paired(
    ours: RunResult, other: RunResult
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    return (
        _blocks([w.hours for w in ours.worlds], ("cost_usd",)),
        _blocks([w.hours for w in other.worlds], ("cost_usd",)),
    )


def _blocks(worlds: Sequence[pd.DataFrame], columns: Sequence[str]) -> NDArray[np.float64] | None:
    """Return sums by world and block, shape (W, B, C); None where there are too few blocks."""
    if not worlds:
        return None
    hours = min(len(w) for w in worlds)
    size = DAY_HOURS if hours >= MANY_DAYS * DAY_HOURS else SHORT_HOURS
    count = hours // size
    if count * len(worlds) < FEWEST_BLOCKS:
        return None
    values = np.stack([w[list(columns)].to_numpy(dtype=np.float64)[:hours] for w in worlds])
    edges = np.minimum(np.arange(hours) // size, count - 1)  # the last block takes what is left
    out = np.zeros((len(worlds), count, len(columns)))
    for world, rows in enumerate(values):
        np.add.at(out[world], edges, rows)
    return out


def _drawn_sums(blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sums of blocks drawn with replacement, worlds first; the same draws for the same shape."""
    worlds, count, _ = blocks.shape
    rng = np.random.default_rng(SEED)
    world = rng.integers(0, worlds, (DRAWS, worlds))
    block = rng.integers(0, count, (DRAWS, worlds, count))
    sums = blocks[world[:, :, None], block].sum(axis=(1, 2))
    return np.asarray(sums[:, 0] if sums.shape[1] == 1 else sums, dtype=np.float64)


def _around(value: float, drawn: NDArray[np.float64], *, highest: float = math.inf) -> Estimate:
    known = drawn[np.isfinite(drawn)]
    if not len(known) or not math.isfinite(value):
        return Estimate(value)
    low, high = (float(x) for x in np.quantile(known, LEVELS))
    return Estimate(value, min(low, value), min(max(high, value), highest))

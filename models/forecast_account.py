"""The account of a backtest: losses, coverage and typical days of forecasts whose truth is known.

A forecast at a cutoff speaks of H steps in Q quantiles. Its loss is the pinball loss, mean over steps
and quantiles; a service's loss ratio is the mean over its cutoffs, divided by its mean load.

How sure a figure is: neighbouring cutoffs err alike, so whole blocks of SIX HOURS are drawn with
replacement and the figure is taken anew (block bootstrap: Künsch, Annals of Statistics 17 (1989)).
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from models.features import DAY_SECONDS, IntArray
from models.losses import pinball_losses
from models.quantiles import QUANTILES, FloatArray
from models.simple_rules import RULES

LAST_VALUE = RULES[0]
BLOCK_SECONDS = 6 * 3600.0
MIN_BLOCKS = 6  # fewer blocks cannot tell how sure a figure is
DRAWS = 500
INTERVAL = (0.05, 0.95)  # what is called "between ... and ...": 90 % of the draws
SMALLEST = 1e-12
BoolArray = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class Contest:
    """What was forecast at N cutoffs, H steps ahead, and what came. C contestants, Q quantiles."""

    services: tuple[str, ...]
    row: IntArray  # (N,), index into services
    cutoff_seconds: FloatArray  # (N,), end of the last known step
    step_seconds: float
    actual: FloatArray  # (N, H), NaN where the truth is unknown
    served: FloatArray  # (N, H, Q), what Foreserve said
    winner: tuple[str, ...]  # (N,), the contestant that served
    contestants: tuple[str, ...]
    losses: FloatArray  # (N, C), each contestant's loss; NaN where it could not forecast


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two losses, and between which values it lies in nine of ten draws (NaN: unknown)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """One service. Shapes: N its cutoffs with a known truth, H leads, Q quantiles."""

    service: str
    cutoffs: int
    first_seconds: float
    last_seconds: float
    mean_load: float  # per step, over the steps that were forecast
    loss_ratio: float  # of what served
    contestants: Mapping[str, float]  # loss ratio of each that could forecast at every cutoff
    served_by: Mapping[str, int]  # cutoffs at which each served
    best_rule: str  # of the simple rules, chosen with hindsight
    to_best_rule: Ratio
    to_last_value: Ratio
    coverage: FloatArray  # (Q,), share of steps at or below each quantile
    coverage_low: FloatArray  # (Q,)
    coverage_high: FloatArray  # (Q,)
    coverage_by_lead: FloatArray  # (H, Q)
    worst_day: tuple[float, float]  # start in seconds since the epoch, loss ratio
    median_day: tuple[float, float]


def account_of(contest: Contest, service: str) -> ServiceAccount | None:
    """Return the account of one service; None where no truth is known or nothing ever came."""
    index = contest.services.index(service)
    at = np.flatnonzero((contest.row == index) & np.isfinite(contest.actual).any(axis=1))
    at = at[np.argsort(contest.cutoff_seconds[at], kind="stable")]
    load = float(np.nanmean(contest.actual[at])) if at.size else 0.0
    if load <= 0:
        return None
    served = _mean_losses(contest.actual[at], contest.served[at])
    known = {
        name: contest.losses[at, c]
        for c, name in enumerate(contest.contestants)
        if np.isfinite(contest.losses[at, c]).all()
    }
    best = min((n for n in known if n in RULES), key=lambda n: known[n].mean())
    seconds = contest.cutoff_seconds[at]
    draws = _draws(seconds, service)
    under, judged = _under(contest.actual[at], contest.served[at])
    worst, median = _days(seconds, served / load)
    winners, counts = np.unique(np.array(contest.winner)[at], return_counts=True)
    low, high = _shares(under.sum(axis=1), judged.sum(axis=1), draws)
    return ServiceAccount(
        service=service,
        cutoffs=at.size,
        first_seconds=float(seconds[0]),
        last_seconds=float(seconds[-1]),
        mean_load=load,
        loss_ratio=float(served.mean()) / load,
        contestants={name: float(loss.mean()) / load for name, loss in known.items()},
        served_by={str(n): int(k) for n, k in zip(winners, counts, strict=True)},
        best_rule=best,
        to_best_rule=_ratio(served, known[best], draws),
        to_last_value=_ratio(served, known[LAST_VALUE], draws),
        coverage=under.sum(axis=(0, 1)) / judged.sum(),
        coverage_low=low,
        coverage_high=high,
        coverage_by_lead=under.sum(axis=0) / np.maximum(judged.sum(axis=0), 1)[:, np.newaxis],
        worst_day=worst,
        median_day=median,
    )


def cutoff_losses(actual: FloatArray, forecast: FloatArray) -> FloatArray:
    """Mean pinball loss of each cutoff, (N,), of `forecast` (N, H, Q) against `actual` (N, H).

    NaN where no truth is known.
    """
    known = np.isfinite(actual).any(axis=1)
    out = np.full(actual.shape[0], np.nan)
    out[known] = _mean_losses(actual[known], forecast[known])
    return out


def _mean_losses(actual: FloatArray, forecast: FloatArray) -> FloatArray:
    losses = pinball_losses(actual, forecast, QUANTILES).mean(axis=-1)
    known = np.isfinite(actual)
    total: FloatArray = np.where(known, losses, 0.0).sum(axis=1) / known.sum(axis=1)
    return total


def _under(actual: FloatArray, forecast: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Whether the truth was at or below each quantile (N, H, Q), and whether it is known (N, H)."""
    known = np.isfinite(actual)
    return (actual[..., np.newaxis] <= forecast) & known[..., np.newaxis], known


def _draws(seconds: FloatArray, service: str) -> Callable[[FloatArray], FloatArray] | None:
    """Return a function from (N, ...) values to their sums over each draw of blocks, (DRAWS, ...)."""
    block = np.floor((seconds - seconds[0]) / BLOCK_SECONDS).astype(np.int64)
    _, block = np.unique(block, return_inverse=True)
    blocks = int(block.max()) + 1
    if blocks < MIN_BLOCKS:
        return None
    rng = np.random.default_rng(zlib.crc32(service.encode()))
    times = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=DRAWS).astype(np.float64)

    def sums(values: FloatArray) -> FloatArray:
        by_block = np.zeros((blocks, *values.shape[1:]))
        np.add.at(by_block, block, values)
        return np.tensordot(times, by_block, axes=1)

    return sums


def _ratio(
    ours: FloatArray, theirs: FloatArray, draws: Callable[[FloatArray], FloatArray] | None
) -> Ratio:
    value = float(ours.sum() / max(theirs.sum(), SMALLEST))
    if draws is None:
        return Ratio(value, np.nan, np.nan)
    ratios = draws(ours) / np.maximum(draws(theirs), SMALLEST)
    low, high = np.quantile(ratios, INTERVAL)
    return Ratio(value, float(low), float(high))


def _shares(
    under: FloatArray, judged: FloatArray, draws: Callable[[FloatArray], FloatArray] | None
) -> tuple[FloatArray, FloatArray]:
    """Bounds (Q,) of the shares under (N, Q) of judged (N,)."""
    if draws is None:
        unknown = np.full(under.shape[1], np.nan)
        return unknown, unknown
    shares = (
        draws(under.astype(np.float64))
        / np.maximum(draws(judged.astype(np.float64)), 1)[:, np.newaxis]
    )
    low, high = np.quantile(shares, INTERVAL, axis=0)
    return low, high


def _days(
    seconds: FloatArray, losses: FloatArray
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the worst and the median day (UTC), among days with at least half as many cutoffs as any."""
    day = np.floor(seconds / DAY_SECONDS).astype(np.int64)
    days, at, counts = np.unique(day, return_inverse=True, return_counts=True)
    means = np.bincount(at, weights=losses) / counts
    full = np.flatnonzero(counts >= counts.max() / 2)
    order = full[np.argsort(means[full], kind="stable")]
    worst, median = order[-1], order[(order.size - 1) // 2]

    def as_pair(k: int) -> tuple[float, float]:
        return float(days[k] * DAY_SECONDS), float(means[k])

    return as_pair(worst), as_pair(median)

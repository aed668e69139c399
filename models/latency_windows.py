"""From serving telemetry of one (service, variant) to the few cells that a latency fit needs.

Windows with a backlog are no steady state: what waits there depends on how long it has been growing.
They say what the limits of a batch are and how long the steps of a full batch take; of the time to the
first token and of the batch that a load makes only the others tell. Windows are averaged in cells of
like load, so that a fit takes the same time on an hour or on a month of telemetry.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.step_time import NO_LIMIT

FloatArray = NDArray[np.float64]
QUANTILE_COLUMNS = (
    ("ttft_p50_seconds", 0.5),
    ("ttft_p95_seconds", 0.95),
    ("ttft_p99_seconds", 0.99),
    ("tpot_p50_seconds", 0.5),
    ("tpot_p95_seconds", 0.95),
    ("tpot_p99_seconds", 0.99),
)
LEVELS = np.array([0.5, 0.95, 0.99])
MAX_WINDOWS = 6_000  # a day of 15 s windows; more are thinned evenly
MAX_CELLS = 80
MIN_KV_USAGE_RATIO = 0.002  # below, the gauge is mostly rounding
LIMIT_SPREAD = 0.03  # a full batch does not vary by more, over windows
LIMIT_WINDOWS = 10  # that must agree on how many sequences are a full batch
LIMIT_SHARE = 0.25  # of those with a backlog: fewer are the top of what varies
MIN_LIMIT_WINDOWS = 5
CENSORED_WINDOWS = 3  # windows with the very same highest percentile, ...
CENSORED_TIMES = 3.0  # ... this many times the usual one: the last bucket's bound


@dataclass(frozen=True, slots=True)
class Windows:
    """Usable windows of one (service, variant), shape (W,) each; `latency` is (W, 6), may be NaN."""

    start_seconds: FloatArray  # epoch, rising
    rate_rps: FloatArray  # per replica
    replicas: FloatArray
    isl_tokens: FloatArray
    osl_tokens: FloatArray
    hit_ratio: FloatArray
    running: FloatArray  # per replica
    waiting: FloatArray  # per replica, NaN where not measured
    kv_usage_ratio: FloatArray
    finished: FloatArray  # requests behind the percentiles, NaN where unknown
    latency: FloatArray  # seconds, columns as QUANTILE_COLUMNS
    steady: NDArray[np.bool_]  # False: a backlog is older than this window's load
    before: NDArray[np.bool_]  # True: before the last change of pace
    length_seconds: FloatArray  # of a window, usually

    def take(self, rows: "NDArray[np.int64] | NDArray[np.bool_]") -> "Windows":
        """Return the chosen windows."""
        return Windows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def __len__(self) -> int:
        return len(self.rate_rps)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a replica's batch, NO_LIMIT where none was seen, the usual prefix-cache hits, and its role.

    prefill, decode False: another variant does that phase of a request.
    """

    max_sequences: float
    kv_tokens: float
    prefix_cache_hit_ratio: float
    prefill: bool = True
    decode: bool = True


def usable_windows(frame: pd.DataFrame) -> Windows:
    """Return the windows of a validated serving frame that show load, replicas and a latency."""
    frame = frame.sort_values("ts", kind="stable")
    replicas = frame.ready_replicas.to_numpy(np.float64)
    latency = frame[[c for c, _ in QUANTILE_COLUMNS]].to_numpy(np.float64)
    latency = _uncensored(np.where(latency > 0, latency, np.nan))
    known = (replicas >= 0.5) & np.isfinite(latency).any(axis=1)
    for column in ("arrival_rate_rps", "isl_tokens", "osl_tokens"):
        known &= frame[column].to_numpy(np.float64) > 0  # NaN compares false
    rows = np.flatnonzero(known)
    seconds = _window_seconds(frame)
    if len(rows) > MAX_WINDOWS:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_WINDOWS).astype(np.int64)]
    part = frame.iloc[rows]
    count = np.maximum(replicas[rows], 1.0)

    def numbers(column: str) -> FloatArray:
        return part[column].to_numpy(np.float64)

    finished = numbers("finished_requests")
    return Windows(
        start_seconds=part.ts.astype("datetime64[ns, UTC]").astype("int64").to_numpy() / 1e9,
        rate_rps=numbers("arrival_rate_rps") / count,
        replicas=count,
        isl_tokens=numbers("isl_tokens"),
        osl_tokens=numbers("osl_tokens"),
        hit_ratio=np.clip(numbers("prefix_cache_hit_ratio"), 0.0, 0.95),
        running=numbers("running") / count,
        waiting=numbers("waiting") / count,
        kv_usage_ratio=numbers("kv_cache_usage_ratio"),
        finished=np.where(finished > 0, finished, numbers("arrival_rate_rps") * seconds),
        latency=latency[rows],
        steady=~_backlogged(numbers("running") / count, numbers("waiting") / count),
        before=np.zeros(len(rows), dtype=bool),
        length_seconds=np.full(len(rows), seconds),
    )


def _uncensored(latency: FloatArray) -> FloatArray:
    """Return latency (W, 6) without what lay beyond the last bucket of a histogram: NaN there.

    Such a percentile is told as the last finite bound (models.histograms): the column's highest value,
    again and again, and far above the usual. It only says "longer than this".
    """
    out = latency.copy()
    for column in out.T:
        seen = column[np.isfinite(column)]
        if not len(seen):
            continue
        top = column == seen.max()
        often = CENSORED_WINDOWS <= top.sum() <= 0.5 * len(seen)
        if often and seen.max() >= CENSORED_TIMES * np.median(seen):
            column[top] = np.nan
    return out


def _window_seconds(frame: pd.DataFrame) -> float:
    """Return the usual distance between rows; the windows' length is not in the table."""
    steps = np.diff(frame.ts.astype("datetime64[ns, UTC]").astype("int64").to_numpy()) / 1e9
    return float(np.median(steps[steps > 0])) if (steps > 0).any() else 60.0


def _backlogged(running: FloatArray, waiting: FloatArray) -> NDArray[np.bool_]:
    """Return (W,) True where more requests wait than a steady queue holds: one a replica and up."""
    return waiting > np.maximum(1.0, 0.25 * running)


def limits_of(windows: Windows) -> Limits:
    """Return what bounds the batch: `running` flat under a backlog, tokens per KV usage."""
    full = windows.running[~windows.steady]
    full = full[np.isfinite(full) & (full > 1.0)]
    sequences = NO_LIMIT
    if len(full):
        # a limit is where counts pile up; a backlog may also wait for prompt tokens, and those batches vary
        top = full[full >= (1.0 - LIMIT_SPREAD) * full.max()]
        if len(top) >= max(LIMIT_WINDOWS, LIMIT_SHARE * len(full)):
            sequences = float(np.quantile(top, 0.9))
    context = windows.isl_tokens + 0.5 * windows.osl_tokens
    with np.errstate(divide="ignore", invalid="ignore"):
        tokens = windows.running * context / windows.kv_usage_ratio
    tokens = tokens[(windows.kv_usage_ratio > MIN_KV_USAGE_RATIO) & np.isfinite(tokens)]
    hits = windows.hit_ratio[np.isfinite(windows.hit_ratio)]
    return Limits(
        max_sequences=sequences,
        kv_tokens=float(np.median(tokens)) if len(tokens) >= MIN_LIMIT_WINDOWS else NO_LIMIT,
        prefix_cache_hit_ratio=float(np.median(hits)) if len(hits) else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Cells:
    """Windows of like load, averaged. Shapes (C,); `log_latency` (C, 6) may be NaN."""

    start_seconds: FloatArray
    rate_rps: FloatArray
    replicas: FloatArray
    isl_tokens: FloatArray
    osl_tokens: FloatArray
    hit_ratio: FloatArray
    running: FloatArray
    log_latency: FloatArray
    level: FloatArray  # (C, 3): what the measured p50, p95, p99 stand for, given the sample
    weight: FloatArray  # (C,): of a cell's residuals, mean 1
    length_seconds: FloatArray
    steady: NDArray[np.bool_]
    before: NDArray[np.bool_]


def to_cells(windows: Windows, usual_hit_ratio: float, *, in_time: bool = False) -> Cells:
    """Average windows in cells of like replicas and rate; some MAX_CELLS windows stay single.

    A cell is of one kind: with or without a backlog, before or after a change of pace. `in_time`:
    average neighbours in time instead, whatever their kind.
    """
    label = _in_order(np.arange(len(windows))) if in_time else _cell_labels(windows)
    hits = np.where(np.isfinite(windows.hit_ratio), windows.hit_ratio, usual_hit_ratio)
    size = np.bincount(label).astype(np.float64)

    def mean(values: FloatArray) -> FloatArray:
        ok = np.isfinite(values)
        total = np.bincount(label[ok], values[ok], minlength=len(size))
        seen = np.bincount(label[ok], minlength=len(size))
        with np.errstate(invalid="ignore"):
            averaged: FloatArray = np.where(seen > 0, total / np.maximum(seen, 1), np.nan)
        return averaged

    finished = mean(windows.finished)
    weight = np.sqrt(size * np.clip(np.nan_to_num(finished, nan=30.0), 1.0, 300.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        latency = np.log(windows.latency)
    return Cells(
        start_seconds=mean(windows.start_seconds),
        rate_rps=mean(windows.rate_rps),
        replicas=mean(windows.replicas),
        isl_tokens=mean(windows.isl_tokens),
        osl_tokens=mean(windows.osl_tokens),
        hit_ratio=mean(hits),
        running=mean(windows.running),
        log_latency=np.stack([mean(latency[:, j]) for j in range(latency.shape[1])], axis=1),
        level=sample_level(finished),
        weight=weight / weight.mean(),
        length_seconds=mean(windows.length_seconds),
        steady=mean(windows.steady.astype(np.float64)) > 0.5,
        before=mean(windows.before.astype(np.float64)) > 0.5,
    )


def _cell_labels(windows: Windows) -> NDArray[np.int64]:
    """Return (W,) the cell of each window: of one kind, then of like replicas, then of like rate."""
    kind = 2 * windows.before.astype(np.int64) + windows.steady
    order = np.lexsort((windows.rate_rps, np.round(3.0 * np.log2(windows.replicas)), kind))
    label = _in_order(order)
    cells: NDArray[np.int64] = np.unique(4 * label + kind, return_inverse=True)[1]
    return cells


def _in_order(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (W,) labels 0 to MAX_CELLS - 1 that rise along `order`, of about as many windows each."""
    count = len(order)
    label = np.empty(count, dtype=np.int64)
    label[order] = np.arange(count) * min(count, MAX_CELLS) // max(count, 1)
    return label


def sample_level(finished: FloatArray) -> FloatArray:
    """Return (C, 3): the quantile that the p50, p95, p99 of `finished` requests stand for.

    The linear-interpolated quantile q of n values is their order statistic (n - 1) * q + 1, whose
    median rank is (i - 0.3) / (n + 0.4) (Benard and Bos-Levenbach, 1953): the p99 of 20 is a p96.
    """
    n = np.nan_to_num(finished, nan=np.inf)[:, None]
    with np.errstate(invalid="ignore"):
        level = ((n - 1.0) * LEVELS + 0.7) / (n + 0.4)
    return np.where(np.isfinite(n), np.clip(level, 0.3, 0.99), LEVELS)

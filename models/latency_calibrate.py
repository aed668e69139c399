"""Calibrate the tails, so that the predicted share within a target is what windows show on average.

The physics describes one window in a steady state. Windows of the same mean load differ: the load
moves inside them, requests that began under another load end in them, lengths vary. Two numbers carry
that, `burst_ratio` (queues) and `tpot_scatter_ratio` (batches). They are chosen so that the mean share
of requests within a time T agrees, for several T out in the tail and at every level of load, with the
mean over windows. No target needs to be known: a window's own percentiles give its share within any T.

A queue left over from an earlier overload says nothing about the load of the window that finds it:
windows right after a backlog are left out.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from models.latency_correction import Table, Tables
from models.latency_tails import Tails, tails, tpot_share, ttft_share
from models.latency_windows import Limits, Windows, sample_level
from models.step_time import Coefficients, mean_field, request_work

FloatArray = NDArray[np.float64]
BURSTS = (1.0, 1.02, 1.05, 1.08, 1.12, 1.16, 1.2, 1.25, 1.3)
SCATTERS = (0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.8)
DEFAULT_BURST, DEFAULT_SCATTER = 1.05, 0.25  # where telemetry has no tail to calibrate on
SHARES = (0.9, 0.97, 0.99, 0.997)  # overall shares that define the times T
LOAD_BINS = 6
MAX_WINDOWS = 800
MIN_WINDOWS = 60
SMOOTH_WINDOWS = 21  # a planner knows mean lengths over minutes, not a window's own
FLOOR = 1e-3  # of misses: below, targets of 99.9 % are safe whatever the difference
Z_MAX = 5.0


def calibrated(
    c: Coefficients, windows: Windows, limits: Limits, table: Table | None = None
) -> Coefficients:
    """Return `c` (fields of shape (1,)) with burst_ratio and tpot_scatter_ratio set.

    `table`: the correction that the times are served with.
    """
    after = np.concatenate([[False], ~windows.steady[:-1]])
    lengths = np.stack([_smooth(windows.isl_tokens), _smooth(windows.osl_tokens)])
    rows = np.flatnonzero(~after)
    if len(rows) > MAX_WINDOWS:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_WINDOWS).astype(np.int64)]
    part, lengths = windows.take(rows), lengths[:, rows]
    one = ("", "")
    correction = None if table is None else Tables({one: table}).of([one] * len(rows), *lengths)

    phase_work = partial(request_work, prefill=limits.prefill, decode=limits.decode)

    def at(**numbers: float) -> Tails:
        changed = replace(c, **{k: np.full_like(c.base_seconds, v) for k, v in numbers.items()})
        work = phase_work(changed, lengths[0], lengths[1])
        batch = mean_field(changed, work, part.rate_rps, part.replicas)
        t = tails(changed, work, batch, part.rate_rps, part.replicas)
        return t if correction is None else correction.apply(t, work, part.rate_rps)

    load = part.rate_rps * phase_work(c, lengths[0], lengths[1]).saturation_seconds
    scatter = _best(part, 3, load, SCATTERS, lambda x, t: tpot_share(at(tpot_scatter_ratio=x), t))
    burst = _best(part, 0, load, BURSTS, lambda x, t: ttft_share(at(burst_ratio=x), t))
    return replace(
        c,
        burst_ratio=np.full_like(c.base_seconds, DEFAULT_BURST if burst is None else burst),
        tpot_scatter_ratio=np.full_like(
            c.base_seconds, DEFAULT_SCATTER if scatter is None else scatter
        ),
    )


def _best(
    windows: Windows,
    first: int,
    load: FloatArray,
    values: tuple[float, ...],
    share: Callable[[float, FloatArray], FloatArray],
) -> float | None:
    """Return the value whose shares agree best with the windows, None without a measured tail.

    `first` is the column of the p50 in `windows.latency`; the p95 and p99 follow it.
    """
    z, known = _z_of(windows, first)
    if known.sum() < MIN_WINDOWS:
        return None
    requests = np.where(known, np.nan_to_num(windows.finished, nan=1.0), 0.0)
    upper = windows.latency[:, first + 1]
    times = np.quantile(upper[known], (0.1, 0.5, 0.9, 0.98))
    label = np.searchsorted(np.quantile(load[known], np.arange(1, LOAD_BINS) / LOAD_BINS), load)
    losses = np.zeros(len(values))
    for time in times:
        seen = _by_bin(1.0 - ndtr(z(time)), requests, label)
        for n, value in enumerate(values):
            said = _by_bin(1.0 - share(value, np.asarray(time)), requests, label)
            off = np.log((said + FLOOR) / (seen + FLOOR))
            losses[n] += (np.sqrt(np.minimum(seen, 0.1)) * off**2).sum()
    return values[int(np.argmin(losses))]


def _z_of(windows: Windows, first: int) -> tuple[Callable[[float], FloatArray], NDArray[np.bool_]]:
    """Return a function from a time to the windows' share within it, as a normal score (W,).

    Between its percentiles a window's score is linear in the logarithm of time; beyond them it goes
    on with the slope of the upper two.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(windows.latency[:, first : first + 3])
    level = ndtri(sample_level(windows.finished))
    tail = np.where(np.isfinite(logs[:, 2]), 2, 1)
    rows = np.arange(len(logs))
    top, top_z = logs[rows, tail], level[rows, tail]
    low, low_z = logs[:, 0], level[:, 0]
    known = np.isfinite(low) & np.isfinite(logs[:, 1])
    with np.errstate(invalid="ignore"):
        inner = (level[:, 1] - low_z) / np.maximum(logs[:, 1] - low, 1e-3)
        outer = (top_z - low_z) / np.maximum(top - low, 1e-3)
    middle, middle_z = logs[:, 1], level[:, 1]

    def z(time: float) -> FloatArray:
        at = np.log(time)
        score = np.where(at < middle, low_z + (at - low) * inner, middle_z + (at - middle) * outer)
        clipped: FloatArray = np.clip(np.where(known, score, 0.0), -Z_MAX, Z_MAX)
        return clipped

    return z, known


def _by_bin(miss: FloatArray, requests: FloatArray, label: NDArray[np.int64]) -> FloatArray:
    total = np.bincount(label, requests * miss, minlength=LOAD_BINS)
    return total / np.maximum(np.bincount(label, requests, minlength=LOAD_BINS), 1e-9)


def _smooth(values: FloatArray) -> FloatArray:
    """Return the centred moving mean over SMOOTH_WINDOWS, shorter at the ends."""
    kernel = np.ones(min(SMOOTH_WINDOWS, 2 * ((len(values) - 1) // 2) + 1))
    total = np.convolve(values, kernel, mode="same")
    return total / np.convolve(np.ones_like(values), kernel, mode="same")

"""How far a set of coefficients is from what cells of windows show, and which way the errors move.

Residuals are logarithms of predicted over measured: six percentiles (TTFT and TPOT at p50, p95, p99) and
`running`, seven a cell. Latency is predicted for the batch that was seen, where `running` is measured: what
a step takes follows from the batch, whatever load made it. How a load makes a batch is the seventh residual.

Windows from before a change of pace (models.latency_pace) are compared on the present clock: with
f = the steps' time now over before, they show the present engine at rate / f, with times 1 / f as long.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.latency_parameters import N_FREE, unpack
from models.latency_tails import Tails, tails, tpot_quantile, ttft_quantile, ttft_share
from models.latency_windows import QUANTILE_COLUMNS, Cells, Limits
from models.step_time import Batch, Coefficients, mean_field, observed_field, request_work

FloatArray = NDArray[np.float64]
N_RESIDUALS = len(QUANTILE_COLUMNS) + 1
LOG_STEP = 0.01  # of the numeric Jacobian
SMALL_BATCH = 0.02  # requests: below, `running` says nothing
MIN_RISE = 1e-3  # of a share over a logarithm of time: flatter is no percentile to follow


@dataclass(frozen=True, slots=True)
class Problem:
    """What a fit is asked: cells, limits, and the usual error (7,) of each column."""

    cells: Cells
    limits: Limits
    noise: FloatArray

    def errors(self, x: FloatArray) -> FloatArray:
        """Return (7 * C,) weighted log errors at x (P,); where nothing was measured the error is zero."""
        batch, t = _state(x, self.cells, self.limits)
        latency = _log_percentiles(t, self.cells) - _clock(x, self.cells)[:, None]
        return self._weighted(latency - self.cells.log_latency, _log_running(batch, self.cells))

    def slopes(self, x: FloatArray) -> FloatArray:
        """Return (7 * C, P): the derivative of `errors`.

        A percentile T of TTFT has no closed form, but its derivative has: with F the share within T,
        dT/dx = -(dF/dx) / (dF/dT), both by finite differences at the T already known.
        """
        cells = self.cells
        steps = LOG_STEP * np.concatenate([np.zeros((1, len(x))), np.eye(len(x))])
        batch, t = _state(x + steps, cells, self.limits)  # (1 + P, C), unchanged first
        _, here = _state(x, cells, self.limits)
        level = cells.level.T[:, None]  # (3, 1, C)
        time = ttft_quantile(here, level)
        share = ttft_share(t, time)  # (3, 1 + P, C)
        rise = (ttft_share(here, time * np.exp(LOG_STEP)) - share[:, :1]) / LOG_STEP
        ttft = -(share - share[:, :1]) / np.maximum(rise, MIN_RISE)
        tpot = np.log(tpot_quantile(t, level))
        moved = np.moveaxis(np.concatenate([ttft, tpot]), 0, -1)
        moved = moved - _clock(x + steps, cells)[..., None]
        running = _log_running(batch, cells)
        seen = np.where(np.isfinite(cells.log_latency), 1.0, np.nan)
        change = self._weighted((moved - moved[0]) * seen, running - running[0])
        slopes: FloatArray = change[1:].T / LOG_STEP
        return slopes

    def unweighted(self, x: FloatArray) -> FloatArray:
        """Return (C, 7) log errors times the square root of each cell's weight, NaN where not measured."""
        plain = Problem(self.cells, self.limits, np.ones(N_RESIDUALS)).errors(x)
        return np.where(plain != 0.0, plain, np.nan).reshape(-1, N_RESIDUALS)

    def _weighted(self, latency: FloatArray, running: FloatArray) -> FloatArray:
        """Return (..., 7 * C) from errors of latency (..., C, 6) and running (..., C); NaN becomes 0.

        Divided by the noise, so that 1 is a usual error.
        """
        every = np.concatenate([latency, running[..., None]], axis=-1)
        weighted = every / self.noise * self.cells.weight[:, None]
        return np.nan_to_num(weighted.reshape(*weighted.shape[:-2], -1), nan=0.0)


def median_errors(x: FloatArray, cells: Cells, limits: Limits) -> dict[str, float]:
    """Return the median absolute error of each percentile, as a ratio of what was measured."""
    t = _state(x, cells, limits)[1]
    predicted = _log_percentiles(t, cells) - _clock(x, cells)[:, None]
    out = {}
    for j, (name, _) in enumerate(QUANTILE_COLUMNS):
        off = np.abs(np.expm1(predicted[:, j] - cells.log_latency[:, j]))
        if np.isfinite(off).any():
            out[name] = round(float(np.nanmedian(off)), 4)
    return out


def _state(x: FloatArray, cells: Cells, limits: Limits) -> tuple[Batch, Tails]:
    """Return the batch that the load makes, and the latency of the batch that was seen."""
    c: Coefficients = unpack(x, limits)
    rate = cells.rate_rps * np.exp(-_clock(x, cells))
    work = request_work(
        c,
        cells.isl_tokens,
        cells.osl_tokens,
        cells.hit_ratio,
        prefill=limits.prefill,
        decode=limits.decode,
    )
    batch = mean_field(c, work, rate, cells.replicas)
    seen = observed_field(c, work, batch, cells.running, cells.replicas)
    return batch, tails(c, work, seen, rate, cells.replicas, cells.length_seconds)


def _clock(x: FloatArray, cells: Cells) -> FloatArray:
    """Return (..., C): the logarithm of the present steps' time over that of each cell's time."""
    clock: FloatArray = x[..., N_FREE, None] * cells.before
    return clock


def _log_running(batch: Batch, cells: Cells) -> FloatArray:
    off = np.log((batch.running + SMALL_BATCH) / (cells.running + SMALL_BATCH))
    return np.where(cells.steady, off, np.nan)


def _log_percentiles(t: Tails, cells: Cells) -> FloatArray:
    """Return (C, 6): the logarithm of each percentile at the level that it stands for."""
    level = cells.level.T
    seconds = np.concatenate([ttft_quantile(t, level), tpot_quantile(t, level)])
    return np.asarray(np.log(seconds).T, dtype=np.float64)

"""Fit the physical coefficients of one (service, variant) to its own serving windows.

Robust least squares (soft L1) on the logarithms of the TTFT and TPOT percentiles and of `running`.
What the telemetry cannot tell apart (one constant length pair, say, fits any split between prompt and
base time) is held by weak priors on ratios of coefficients, taken from published step times.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.latency_calibrate import calibrated
from models.latency_tails import Tails, tails, tpot_quantile, ttft_quantile, ttft_share
from models.latency_windows import (
    QUANTILE_COLUMNS,
    Cells,
    Limits,
    Windows,
    backlogged,
    limits_of,
    to_cells,
)
from models.robust_fit import minimise
from models.step_time import NO_LIMIT, Batch, Coefficients, mean_field, request_work

FloatArray = NDArray[np.float64]

# Free parameters: logarithms, the last two as logits; prior mean and standard deviation. Ratios to the
# base time of a step: Llama-2-70B on 4 boards of A100 and H100, Llama-3.1-8B on one H100 and
# Qwen2.5-14B (public step-time tables) lie within a factor of 3 of these.
PRIOR = (
    ("base", np.log(0.02), 1.5),
    ("per_sequence", np.log(6e-3), 1.2),  # of base
    ("per_context_token", np.log(4e-6), 1.5),  # of base
    ("per_prompt_token", np.log(4e-3), 1.0),  # of base
    ("prompt_growth", np.log(1.0 / 15000.0), 1.0),  # per token
    ("steps_per_token", np.log(1.0 / 3000.0), 0.7),  # token budgets of 512 to 16,384 are usual
    ("overhead", np.log(0.005), 1.5),  # seconds: HTTP, tokenizer, scheduler
    ("isl_sigma", np.log(0.7), 0.8),  # chat and code traces: 0.5 to 1.2; load generators: 0.05
    ("start_steps", np.log(0.6), 0.5),  # the rest of one, or more where scheduling runs ahead
    ("wait_scale", 0.0, 0.6),
    ("tpot_spread", 0.0, 0.8),
    ("regularity", -2.5, 1.5),  # 0.08: users are independent
    ("routing", 1.5, 1.5),  # 0.8: gateways send to the least loaded, not perfectly
)
PRIOR_MEAN = np.array([mean for _, mean, _ in PRIOR])
PRIOR_SIGMA = np.array([sigma for _, _, sigma in PRIOR])
LOG_STEP = 0.01  # of the numeric Jacobian
SOFT = 1.5  # usual errors beyond which a residual counts linearly
FIRST_NOISE = 0.15  # log error of a percentile, before the data say better
NOISE_BOUNDS = (0.03, 0.5)
NORMAL_MIDDLE = 0.6745  # median absolute value of a standard normal
WINDOW_SECONDS = 60.0  # an overload that a steady window can hide lasts about as long
SMALL_BATCH = 0.02  # requests: below, `running` says nothing
MIN_RISE = 1e-3  # of a share over a logarithm of time: flatter is no percentile to follow
CLIP = 12.0
MIN_STEADY = 12  # windows: with fewer, those with a backlog are used too


def fit_windows(windows: Windows) -> tuple[FloatArray, dict[str, Any]]:
    """Return the coefficients (F,) that fit all `windows` and how well the fit did.

    The scores: the fit on the first 80 % of the windows against the last 20 % (out of sample), and
    the final fit against everything (in sample).
    """
    limits = limits_of(windows)
    steady = ~backlogged(windows)
    if steady.sum() < MIN_STEADY:
        steady[:] = True
    used = windows.take(steady)
    split = int(0.8 * len(used))
    fit = None
    scores: dict[str, Any] = {"windows": len(windows), "steady_windows": len(used)}
    if split >= MIN_STEADY:
        early = to_cells(used.take(np.arange(split)), limits.prefix_cache_hit_ratio)
        late = to_cells(used.take(np.arange(split, len(used))), limits.prefix_cache_hit_ratio)
        fit = fit_cells(early, limits)
        scores["out_of_sample"] = errors(fit.x, late, limits)
    cells = to_cells(used, limits.prefix_cache_hit_ratio)
    fit = fit_cells(cells, limits, fit)
    scores["in_sample"] = errors(fit.x, cells, limits)
    c = unpack(fit.x, limits)
    work = request_work(c, used.isl_tokens, used.osl_tokens)
    load = np.quantile(used.rate_rps * work.saturation_seconds, 0.98)
    c = replace(c, seen_load_ratio=np.full_like(c.base_seconds, min(1.0, float(load))))
    c = calibrated(c, windows)
    return c.columns()[:, 0], scores


def default_columns() -> FloatArray:
    """Return coefficients (F,) of an engine of which nothing is known: the priors' centre."""
    return unpack(PRIOR_MEAN, Limits(NO_LIMIT, NO_LIMIT, 0.0)).columns()[:, 0]


def errors(x: FloatArray, cells: Cells, limits: Limits) -> dict[str, float]:
    """Return the median absolute error of each percentile, as a ratio of what was measured."""
    predicted = _log_percentiles(_tails(unpack(x, limits), cells)[1], cells)
    out = {}
    for j, (name, _) in enumerate(QUANTILE_COLUMNS):
        off = np.abs(np.expm1(predicted[:, j] - cells.log_latency[:, j]))
        if np.isfinite(off).any():
            out[name] = round(float(np.nanmedian(off)), 4)
    return out


def unpack(x: FloatArray, limits: Limits) -> Coefficients:
    """Return coefficients of shape (..., 1) from free parameters x (..., P)."""
    base, seq, ctx, prompt, growth, steps, over, sigma, starts, wait, spread = np.moveaxis(
        np.exp(np.clip(x[..., :-2], -30.0, 10.0)), -1, 0
    )
    regular, routing = np.moveaxis(1.0 / (1.0 + np.exp(-np.clip(x[..., -2:], -CLIP, CLIP))), -1, 0)
    full = np.ones_like(base)
    rows = (
        base,
        base * seq,
        base * ctx,
        base * prompt,
        growth,
        steps,
        over,
        full * limits.max_sequences,
        full * limits.kv_tokens,
        sigma,
        starts,
        wait,
        spread,
        routing,
        regular,
        full,
        0.0 * full,
        full * limits.prefix_cache_hit_ratio,
        full,
    )
    return Coefficients(*(row[..., None] for row in rows))


@dataclass(frozen=True, slots=True)
class Fit:
    """Free parameters (P,) and the noise (7,) of each column: TTFT and TPOT percentiles, running."""

    x: FloatArray
    noise: FloatArray


def fit_cells(cells: Cells, limits: Limits, before: Fit | None = None) -> Fit:
    """Return the parameters that fit `cells` best.

    From nothing it takes two rounds: the first shows how noisy each percentile is, the second weighs
    it by that. From an earlier fit to some of the cells, one round is enough.
    """
    mean = _prior_mean(cells)
    if before is None:
        before = _round(cells, limits, mean, Fit(mean, np.full(7, FIRST_NOISE)))
    return _round(cells, limits, mean, before)


def _round(cells: Cells, limits: Limits, mean: FloatArray, before: Fit) -> Fit:
    """Minimise with the noise of the round before, then measure the noise anew."""
    pull = np.diag(1.0 / PRIOR_SIGMA)

    def model(y: FloatArray) -> tuple[FloatArray, FloatArray]:
        return _log_errors(y, cells, limits, before.noise), pull @ (y - mean)

    def slopes(y: FloatArray) -> tuple[FloatArray, FloatArray]:
        return _log_slopes(y, cells, limits, before.noise), pull

    x = minimise(model, slopes, before.x, SOFT)
    off = np.abs(_log_errors(x, cells, limits, np.ones(7)).reshape(-1, 7))
    off = np.where(off > 0, off, np.nan)
    return Fit(x, np.clip(_middle(off) / NORMAL_MIDDLE, *NOISE_BOUNDS))


def _middle(values: FloatArray) -> FloatArray:
    """Return the median of each column without NaN; FIRST_NOISE's equivalent where all are NaN."""
    empty = np.isnan(values).all(axis=0)
    filled = np.where(empty, NORMAL_MIDDLE * FIRST_NOISE, values)
    return np.asarray(np.nanmedian(filled, axis=0), dtype=np.float64)


def _prior_mean(cells: Cells) -> FloatArray:
    """Return the priors' centre, with the step's base at the lowest TPOT seen."""
    mean = PRIOR_MEAN.copy()
    tpot = cells.log_latency[:, 3]
    if np.isfinite(tpot).any():
        mean[0] = np.nanquantile(tpot, 0.05) + np.log(0.95)
    return mean


def _log_errors(x: FloatArray, cells: Cells, limits: Limits, noise: FloatArray) -> FloatArray:
    """Return (7 * C,) weighted log errors; where nothing was measured the error is zero."""
    batch, t = _tails(unpack(x, limits), cells)
    return _weighted(
        _log_percentiles(t, cells) - cells.log_latency, _log_running(batch, cells), cells, noise
    )


def _log_slopes(x: FloatArray, cells: Cells, limits: Limits, noise: FloatArray) -> FloatArray:
    """Return (7 * C, P): the derivative of `_log_errors`.

    A percentile T of TTFT has no closed form, but its derivative has: with F the share within T,
    dT/dx = -(dF/dx) / (dF/dT), both by finite differences at the T already known.
    """
    steps = LOG_STEP * np.concatenate([np.zeros((1, len(x))), np.eye(len(x))])
    batch, t = _tails(unpack(x + steps, limits), cells)  # (1 + P, C), unchanged first
    _, here = _tails(unpack(x, limits), cells)
    level = cells.level.T[:, None]  # (3, 1, C)
    time = ttft_quantile(here, level)
    share = ttft_share(t, time)  # (3, 1 + P, C)
    rise = (ttft_share(here, time * np.exp(LOG_STEP)) - share[:, :1]) / LOG_STEP
    ttft = -(share - share[:, :1]) / np.maximum(rise, MIN_RISE)
    tpot = np.log(tpot_quantile(t, level))
    moved = np.moveaxis(np.concatenate([ttft, tpot]), 0, -1)
    running = _log_running(batch, cells)
    seen = np.where(np.isfinite(cells.log_latency), 1.0, np.nan)
    change = _weighted((moved - moved[0]) * seen, running - running[0], cells, noise)
    return change[1:].T / LOG_STEP


def _weighted(
    latency: FloatArray, running: FloatArray, cells: Cells, noise: FloatArray
) -> FloatArray:
    """Return (..., 7 * C) from errors of latency (..., C, 6) and running (..., C); NaN becomes 0.

    `noise` (7,): the standard deviation of each column, so that 1 is a usual error.
    """
    every = np.concatenate([latency, running[..., None]], axis=-1)
    weighted = every / noise * cells.weight[:, None]
    return np.nan_to_num(weighted.reshape(*weighted.shape[:-2], -1), nan=0.0)


def _log_running(batch: Batch, cells: Cells) -> FloatArray:
    return np.log((batch.running + SMALL_BATCH) / (cells.running + SMALL_BATCH))


def _tails(c: Coefficients, cells: Cells) -> tuple[Batch, Tails]:
    work = request_work(c, cells.isl_tokens, cells.osl_tokens, cells.hit_ratio)
    batch = mean_field(c, work, cells.rate_rps, cells.replicas)
    return batch, tails(c, work, batch, cells.rate_rps, cells.replicas, WINDOW_SECONDS)


def _log_percentiles(t: Tails, cells: Cells) -> FloatArray:
    """Return (C, 6): the logarithm of each percentile at the level that it stands for."""
    level = cells.level.T
    seconds = np.concatenate([ttft_quantile(t, level), tpot_quantile(t, level)])
    return np.asarray(np.log(seconds).T, dtype=np.float64)

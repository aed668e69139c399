"""Fit the physical coefficients of one (service, variant) to its own serving windows.

Robust least squares (soft L1) on the logarithms of the TTFT and TPOT percentiles and of `running`
(models.latency_residuals), with weak priors (models.latency_parameters). Where the engine changed its
pace on the way, what was seen before counts on the present clock (models.latency_pace).
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.latency_calibrate import calibrated
from models.latency_correction import Table
from models.latency_learned import learned
from models.latency_pace import at_present_pace, likely_change
from models.latency_parameters import Prior, prior_from_tpot, unpack
from models.latency_residuals import N_RESIDUALS, Problem, median_errors
from models.latency_windows import Cells, Limits, Windows, limits_of, to_cells
from models.phases import BOTH, DECODE, PREFILL
from models.profiles import Profile, prior_of
from models.robust_fit import minimise, robust_loss
from models.step_time import NO_LIMIT, Coefficients, request_work

FloatArray = NDArray[np.float64]

SOFT = 1.5  # usual errors beyond which a residual counts linearly
FIRST_NOISE = 0.15  # log error of a percentile, before the data say better
NOISE_BOUNDS = (0.03, 0.5)
NORMAL_MIDDLE = 0.6745  # median absolute value of a standard normal
SEEN = 0.98  # quantile of what windows show: up to there the model is at home
MIN_STEADY = 12  # windows, to judge a fit on later ones
MIN_CHANGE = np.log(1.05)  # of the steps' time: less is not worth a change of pace
MIN_GAIN = 16.0  # of the loss, in squared usual errors: four standard deviations


@dataclass(frozen=True, slots=True)
class Fit:
    """Free parameters (P,) and the noise (7,) of each column: TTFT and TPOT percentiles, running."""

    x: FloatArray
    noise: FloatArray


class Fitted(NamedTuple):
    """What one pair's windows taught: coefficients (F,), a correction of them or None, scores."""

    columns: FloatArray
    correction: Table | None
    scores: dict[str, Any]


def fit_windows(windows: Windows, known: Profile | None = None, role: str = BOTH) -> Fitted:
    """Return the coefficients (F,) that fit all `windows` (in order of time) and how well they do.

    `known`: a profile of such an engine; it is the prior, and says what limits a batch until that is seen.
    `role`: the phase that the variant serves (models.phases).
    The scores: the fit on the first 80 % of the windows against the last 20 % (out of sample), and
    the final fit against everything (in sample).
    """
    limits = replace(_limits(windows, known), prefill=role != DECODE, decode=role != PREFILL)
    belief = None if known is None else prior_of(known)
    hits = limits.prefix_cache_hit_ratio
    used = _informative(windows)
    scores: dict[str, Any] = {
        "windows": len(windows),
        "steady_windows": int(windows.steady.sum()),
        "window_seconds": float(windows.length_seconds[0]),
    }
    split = int(np.searchsorted(np.cumsum(used.steady), int(0.8 * used.steady.sum()))) + 1
    fit = None
    if used.steady[:split].sum() >= MIN_STEADY and used.steady[split:].any():
        fit = fit_cells(to_cells(used.take(np.arange(split)), hits), limits, belief)
        late = to_cells(used.take(np.arange(split, len(used))), hits)
        scores["out_of_sample"] = median_errors(fit.x, late, limits)
    fit = fit_cells(to_cells(used, hits), limits, belief, fit)
    fit, used = _with_change_of_pace(fit, used, limits, belief)
    scores["in_sample"] = median_errors(fit.x, to_cells(used, hits), limits)
    if used.before.any():
        factor = float(np.exp(fit.x[-1]))
        scores["pace"] = {"windows_before": int(used.before.sum()), "steps_now": round(factor, 4)}
        windows = at_present_pace(replace(windows, before=used.before), factor)
        used = at_present_pace(used, factor)
    c = unpack(fit.x, limits)
    steady = windows.take(used.steady) if used.steady.any() else windows
    work = request_work(
        c, steady.isl_tokens, steady.osl_tokens, prefill=limits.prefill, decode=limits.decode
    )
    load = steady.rate_rps * work.saturation_seconds
    one = np.ones_like(c.base_seconds)
    c = replace(
        c,
        seen_load_ratio=one * min(1.0, float(np.quantile(load, SEEN))),
        seen_isl_tokens=one * float(np.quantile(windows.isl_tokens, SEEN)),
        seen_osl_tokens=one * float(np.quantile(windows.osl_tokens, SEEN)),
    )
    correction, judgement = learned(c, used, limits)
    if judgement:
        scores["correction"] = judgement
    return Fitted(calibrated(c, windows, limits, correction).columns()[:, 0], correction, scores)


def _limits(windows: Windows, known: Profile | None) -> Limits:
    seen = limits_of(windows)
    if known is None:
        return seen
    c = Coefficients.from_columns(known.columns)
    return Limits(
        seen.max_sequences if seen.max_sequences < NO_LIMIT else float(c.max_sequences),
        seen.kv_tokens if seen.kv_tokens < NO_LIMIT else float(c.kv_tokens),
        seen.prefix_cache_hit_ratio,
    )


def _informative(windows: Windows) -> Windows:
    """Return the windows without what a backlog says of loads.

    A backlog's TTFT is older than its load. Its TPOT tells of the steps only where the batch is known.
    Where that leaves nothing at all, everything is taken as it is.
    """
    if not (windows.steady | np.isfinite(windows.running)).any():
        return replace(windows, steady=np.ones_like(windows.steady))
    after = np.concatenate([[False], ~windows.steady[:-1]])
    known = (windows.steady & ~after)[:, None] & np.ones(3, dtype=bool)
    batch = (windows.steady | np.isfinite(windows.running))[:, None] & np.ones(3, dtype=bool)
    seen = np.concatenate([known, batch], axis=1)
    return replace(windows, latency=np.where(seen, windows.latency, np.nan))


def _with_change_of_pace(
    fit: Fit, used: Windows, limits: Limits, belief: Prior | None
) -> tuple[Fit, Windows]:
    """Return the fit and windows that know of a change of pace, or those given where none is likely."""
    hits = limits.prefix_cache_hit_ratio
    blocks = Problem(to_cells(used, hits, in_time=True), limits, fit.noise)
    prior = belief or prior_from_tpot(blocks.cells.log_latency[:, 3])
    block = likely_change(
        _softened(blocks.errors(fit.x), blocks.slopes(fit.x)),
        fit.x - prior.mean,
        prior.sigma,
        blocks.cells.start_seconds,
    )
    if block is None:
        return fit, used
    before = np.arange(len(used)) < int(np.ceil(block * len(used) / len(blocks.cells.rate_rps)))
    changed = replace(used, before=before)
    cells = to_cells(changed, hits)
    new = fit_cells(cells, limits, belief, fit)
    prior = belief or prior_from_tpot(cells.log_latency[:, 3])
    gain = _loss(fit.x, cells, limits, fit.noise, prior) - _loss(
        new.x, cells, limits, fit.noise, prior
    )
    if gain < MIN_GAIN or abs(new.x[-1]) < MIN_CHANGE:
        return fit, used
    return new, changed


def fit_cells(
    cells: Cells, limits: Limits, belief: Prior | None = None, before: Fit | None = None
) -> Fit:
    """Return the parameters that fit `cells` best; `belief`: the prior, where more is known than usual.

    From nothing it takes two rounds: the first shows how noisy each percentile is, the second weighs
    it by that. From an earlier fit to some of the cells, one round is enough.
    """
    prior = belief or prior_from_tpot(cells.log_latency[:, 3])
    if before is None:
        before = _round(cells, limits, prior, Fit(prior.mean, np.full(N_RESIDUALS, FIRST_NOISE)))
    return _round(cells, limits, prior, before)


def _round(cells: Cells, limits: Limits, prior: Prior, before: Fit) -> Fit:
    """Minimise with the noise of the round before, then measure the noise anew."""
    problem = Problem(cells, limits, before.noise)
    pull = np.diag(1.0 / prior.sigma)

    def model(y: FloatArray) -> tuple[FloatArray, FloatArray]:
        return problem.errors(y), pull @ (y - prior.mean)

    def slopes(y: FloatArray) -> tuple[FloatArray, FloatArray]:
        return problem.slopes(y), pull

    x = minimise(model, slopes, before.x, SOFT)
    return Fit(x, np.clip(_middle(np.abs(problem.unweighted(x))) / NORMAL_MIDDLE, *NOISE_BOUNDS))


def _loss(x: FloatArray, cells: Cells, limits: Limits, noise: FloatArray, prior: Prior) -> float:
    errors = Problem(cells, limits, noise).errors(x)
    return robust_loss(errors, (x - prior.mean) / prior.sigma, SOFT)


def _softened(errors: FloatArray, slopes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return errors (C, 7) and slopes (C, 7, P) with far residuals weighed down as the loss does."""
    soft = (1.0 + (errors / SOFT) ** 2) ** -0.25
    return (
        (errors * soft).reshape(-1, N_RESIDUALS),
        (slopes * soft[:, None]).reshape(len(soft) // N_RESIDUALS, N_RESIDUALS, -1),
    )


def _middle(values: FloatArray) -> FloatArray:
    """Return the median of each column without NaN; FIRST_NOISE's equivalent where all are NaN."""
    empty = np.isnan(values).all(axis=0)
    filled = np.where(empty, NORMAL_MIDDLE * FIRST_NOISE, values)
    return np.asarray(np.nanmedian(filled, axis=0), dtype=np.float64)

"""How much longer an engine's steps take now than when it was fitted, followed from window to window.

The same idea as a change of pace between windows (models.latency_pace), online: given the batch that a window
shows, TPOT should be what the coefficients say. The logarithm of what it was over that is averaged
exponentially, over some eighty windows of traffic, and all step times are multiplied by it: within
limits, and only once it is more than the noise of a window. A window that is off beyond belief
(milliseconds read as seconds, two engines under one label) teaches nothing; many in a row are told.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.latency_correction import Correction
from models.latency_tails import tails, tpot_quantile
from models.step_time import Coefficients, Work, mean_field, observed_field

FloatArray = NDArray[np.float64]
GAIN = 1.0 / 80.0  # of a window with enough requests: twenty minutes of 15 s
ENOUGH_REQUESTS = 30.0
FIRST_EVIDENCE = 40.0  # windows before the factor counts
DEAD_ZONE = np.log(1.08)  # a fit is not better than that: closer is no drift
LIMIT = np.log(1.3)  # further needs a new fit
ODD = np.log(3.0)  # beyond belief in one window
TOLD_WINDOWS = 20  # odd ones in a row: worth telling
MOST_EVIDENCE = 1e4
STEP_TIMES = (
    "base_seconds",
    "per_sequence_seconds",
    "per_context_token_seconds",
    "per_prompt_token_seconds",
)


@dataclass(frozen=True, slots=True)
class Drift:
    """What windows since the fit say of one engine: numbers, or arrays of one shape.

    log_factor: of the steps' time over the fitted one. windows: worth of evidence. odd_windows: in a row,
    whose TPOT was no plausible one.
    """

    log_factor: "FloatArray | float" = 0.0
    windows: "FloatArray | float" = 0.0
    odd_windows: "FloatArray | float" = 0.0


def followed(drift: Drift, log_off: FloatArray, requests: FloatArray) -> Drift:
    """Return `drift` (N,) after one window each: `log_off` of measured over fitted TPOT, NaN where none.

    `requests` that ended in the window, NaN where not known: then it counts in full.
    """
    known = np.isfinite(log_off)
    odd = known & (np.abs(log_off) > ODD)
    weight = np.clip(np.nan_to_num(requests, nan=ENOUGH_REQUESTS) / ENOUGH_REQUESTS, 0.0, 1.0)
    weight = np.where(known & ~odd, weight, 0.0)
    toward = np.where(known, log_off, 0.0) - drift.log_factor
    log_factor = np.clip(drift.log_factor + GAIN * weight * toward, -LIMIT, LIMIT)
    windows = np.minimum(drift.windows + weight, MOST_EVIDENCE)
    odd_windows = np.where(odd, drift.odd_windows + 1.0, np.where(known, 0.0, drift.odd_windows))
    return Drift(log_factor, windows, odd_windows)


def factor(drift: Drift) -> FloatArray:
    """Return what the steps' time is to be multiplied with: 1 without enough evidence of a change."""
    sure = (np.asarray(drift.windows) >= FIRST_EVIDENCE) & (np.abs(drift.log_factor) >= DEAD_ZONE)
    return np.where(sure, np.exp(drift.log_factor), 1.0)


def at_pace(c: Coefficients, times: FloatArray) -> Coefficients:
    """Return `c` with steps that take `times` as long."""
    return replace(c, **{name: getattr(c, name) * times for name in STEP_TIMES})


def expected_tpot_p50(
    c: Coefficients,
    work: Work,
    rate_rps: FloatArray,
    running: FloatArray,
    replicas: FloatArray,
    correction: Correction | None = None,
) -> FloatArray:
    """Return the median TPOT of a window with this batch; `rate_rps` and `running` per replica."""
    with np.errstate(invalid="ignore", divide="ignore"):
        batch = mean_field(c, work, rate_rps, replicas)
        seen = observed_field(c, work, batch, running, replicas)
        t = tails(c, work, seen, rate_rps, replicas, 60.0)
        if correction is not None:  # what was learned of the engine is no drift from it
            t = correction.apply(t, work, rate_rps)
        return tpot_quantile(t, np.asarray(0.5))

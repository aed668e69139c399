"""Simple rules: last value, level, same time yesterday and last week. The permanent contestants.

Each rule gives a centre; its spread is the empirical quantiles of its own past errors per service and
lead, in scales (features.Known.u), so that it grows in wild hours and shrinks in calm ones.

Source: Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., §5.2 (rules) and §5.5
(residual quantiles). https://otexts.com/fpp3/
"""

import numpy as np
from numpy.typing import NDArray

from models.empirical import known_quantiles
from models.features import Grid, Known, yesterday_times_level
from models.quantiles import QUANTILES, FloatArray
from models.smoothing import smoothed

RULES = (
    "last-value",
    "level-short",
    "level",
    "level-hour",
    "yesterday",
    "yesterday-ratio",
    "last-week",
    "last-week-ratio",
    "level-and-yesterday",
    "last-value-and-rise",
    "smoothing",
    "smoothing-and-rise",
    "by-the-clock",
)
SHORT_STEPS = 3
MIN_ERRORS = 20  # fewer errors say nothing about a quantile
PRIOR_ERRORS = 30.0  # the fleet's errors weigh as much as so many of the service's own
DEFAULT_SPREAD = 2.0  # standard deviation in scales where no service has a history
NORMAL_QUANTILES = (-1.2816, 0.0, 0.8416, 1.2816, 1.6449, 2.3263)  # of QUANTILES, standard normal


def rule_centres(known: Known, grid: Grid, share: FloatArray) -> FloatArray:
    """Return each rule's centre in scales from the level now, shape (R, K, len(RULES)).

    `share` (R,) is what smoothing follows a step by. NaN where a rule knows nothing (no yesterday, say).
    """
    day, week = known.yesterday, known.last_week
    shape, last, level = known.leads_steps.shape, known.last[:, np.newaxis], known.base
    ratio_day = yesterday_times_level(known, day)
    rise = day.smooth - day.now[:, np.newaxis]
    smooth = smoothed(known.recent, share)[:, np.newaxis]
    centres = {
        "last-value": last,
        "level-short": _else(known.level(SHORT_STEPS), level)[:, np.newaxis],
        "level": level[:, np.newaxis],
        "level-hour": _else(known.level(grid.hour_steps), level)[:, np.newaxis],
        "yesterday": day.exact,
        "yesterday-ratio": ratio_day,
        "last-week": week.exact,
        "last-week-ratio": yesterday_times_level(known, week),
        "level-and-yesterday": 0.5 * (last + ratio_day),
        "last-value-and-rise": last + 0.5 * (day.exact - day.now[:, np.newaxis]),
        "smoothing": smooth,
        "smoothing-and-rise": smooth + rise,
        "by-the-clock": known.anchor,
    }
    out = np.empty((*shape, len(RULES)))
    for i, name in enumerate(RULES):
        out[..., i] = known.u(centres[name])
    return out


def error_quantiles(errors: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Quantiles over the first axis of (N, ...) errors, shape (..., Q), and how many are known.

    NaN where fewer than MIN_ERRORS are known.
    """
    count = np.isfinite(errors).sum(axis=0)
    table = known_quantiles(errors, QUANTILES)
    return np.where((count >= MIN_ERRORS)[..., np.newaxis], table, np.nan), count


def share_errors(
    table: FloatArray, count: NDArray[np.int64], pool: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Lean each service's error quantiles on the fleet's. Returns the table and the pool, no NaN.

    `table` (S, L, C, Q) and `count` (S, L, C) come from `error_quantiles`; the pool (L, C, Q) is the
    median over services (one that just woke up errs by hundreds of scales), or `pool` if given. Leads
    that nobody has errors for take the nearest shorter lead's; a rule without any errors gets a wide
    default.
    """
    if pool is None:
        pool = _fill_leads(known_quantiles(table, 0.5))
    weight = (count / (count + PRIOR_ERRORS))[..., np.newaxis]
    own = np.where(np.isfinite(table), table, pool)
    return weight * own + (1 - weight) * pool, pool


def _fill_leads(pool: FloatArray) -> FloatArray:
    out = pool.copy()
    for lead in range(1, out.shape[0]):
        out[lead] = np.where(np.isfinite(out[lead]), out[lead], out[lead - 1])
    default = DEFAULT_SPREAD * np.asarray(NORMAL_QUANTILES)
    return np.where(np.isfinite(out), out, default)


def _else(x: FloatArray, otherwise: FloatArray) -> FloatArray:
    return np.where(np.isfinite(x), x, otherwise)

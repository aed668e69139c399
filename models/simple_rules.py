"""Simple rules: last value, level, same time yesterday and last week. The permanent contestants.

Each rule gives a centre; its spread is the empirical quantiles of its own past errors, taken in log
ratios (features.Known.z) per service and lead, so that it grows with the load.

Source: Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., §5.2 (rules) and §5.5
(residual quantiles). https://otexts.com/fpp3/
"""

import numpy as np
from numpy.typing import NDArray

from models.empirical import known_quantiles
from models.features import MAX_LEVEL_RATIO, SMALLEST, Grid, Known
from models.quantiles import QUANTILES, FloatArray

RULES = (
    "last-value",
    "level-short",
    "level",
    "level-hour",
    "yesterday",
    "yesterday-ratio",
    "last-week-ratio",
    "level-and-yesterday",
    "last-value-and-rise",
)
SHORT_STEPS = 3
MIN_ERRORS = 20  # fewer errors say nothing about a quantile
PRIOR_ERRORS = 30.0  # the fleet's errors weigh as much as so many of the service's own
DEFAULT_SPREAD = 0.4  # standard deviation of the log ratio where no service has a history
NORMAL_QUANTILES = (-1.2816, 0.0, 0.8416, 1.2816, 1.6449, 2.3263)  # of QUANTILES, standard normal


def rule_centres(known: Known, grid: Grid) -> FloatArray:
    """Return each rule's centre as a log ratio to the level now, shape (R, K, len(RULES)).

    NaN where a rule knows nothing (no yesterday, say).
    """
    last, level = known.last, known.base
    ratio = _ratio(level, known.yesterday_level)
    yesterday = known.yesterday_smooth * ratio[:, np.newaxis]
    week = known.week_smooth * _ratio(level, known.week_level)[:, np.newaxis]
    z_yesterday = known.z(yesterday)
    flat = {
        "last-value": last,
        "level-short": _else(known.level(SHORT_STEPS), level),
        "level": level,
        "level-hour": _else(known.level(grid.hour_steps), level),
    }
    z = {name: _spread(known.z(x), known.leads_steps.shape) for name, x in flat.items()}
    z["yesterday"] = known.z(known.yesterday_smooth)
    z["yesterday-ratio"] = z_yesterday
    z["last-week-ratio"] = known.z(week)
    z["level-and-yesterday"] = 0.5 * z_yesterday
    z["last-value-and-rise"] = z["last-value"] + 0.5 * z_yesterday
    return np.stack([z[name] for name in RULES], axis=-1)


def error_quantiles(errors: FloatArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Quantiles over the first axis of (N, ...) log errors, shape (..., Q), and how many are known.

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
    mean over services, or `pool` if given. Leads that nobody has errors for take the nearest shorter
    lead's; a rule without any errors gets a wide default.
    """
    if pool is None:
        known = np.isfinite(table)
        pool = np.where(known, table, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        pool = np.where(known.any(axis=0), pool, np.nan)
        pool = _fill_leads(pool)
    weight = (count / (count + PRIOR_ERRORS))[..., np.newaxis]
    own = np.where(np.isfinite(table), table, pool)
    return weight * own + (1 - weight) * pool, pool


def _fill_leads(pool: FloatArray) -> FloatArray:
    out = pool.copy()
    for lead in range(1, out.shape[0]):
        out[lead] = np.where(np.isfinite(out[lead]), out[lead], out[lead - 1])
    default = DEFAULT_SPREAD * np.asarray(NORMAL_QUANTILES)
    return np.where(np.isfinite(out), out, default)


def _ratio(now: FloatArray, then: FloatArray) -> FloatArray:
    ratio = now / np.maximum(then, SMALLEST)
    return np.clip(ratio, 1 / MAX_LEVEL_RATIO, MAX_LEVEL_RATIO)


def _else(x: FloatArray, otherwise: FloatArray) -> FloatArray:
    return np.where(np.isfinite(x), x, otherwise)


def _spread(z: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    return np.broadcast_to(z[:, np.newaxis], shape)

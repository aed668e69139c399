"""Rolling-origin backtest: forecasts at given cutoffs from nothing but the load up to each.

    day D-1           | day D (UTC)
    ...history........|..c1....c2......c3...
                      ^ the model of every cutoff of day D is fitted on the steps that end by here

The refit points are midnights: they depend on no other cutoff, no later row and no other service.
What is newer than the last midnight reaches a forecast through its features, and through the coverage
that was seen since (models.online). Tokens are forecast in agreement with the requests and their classes
(models.token_forecast).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from models.features import DAY_SECONDS, Grid, IntArray
from models.frames import LOAD_NUMBERS, FrameError, LoadSeries
from models.holiday_calendar import Holidays
from models.load_model import LoadModel
from models.online import walk
from models.progress import Progress
from models.quantiles import QUANTILES, FloatArray, LoadForecast
from models.token_forecast import token_quantiles
from training.mix_walk import walk_mix

REQUESTS, *TOKENS = LOAD_NUMBERS
MAX_BEYOND_STEPS = 100_000  # a cutoff so far behind the last row is a mistake in its clock
Observer = Callable[[LoadModel, IntArray, FloatArray, LoadForecast], None]
FOLLOWED_A_DAY = 288  # steps at most from which the coverage is learned, each day
MIN_FIT_STEPS = 8  # with less before midnight, the day's first cutoffs are fitted on what they know


@dataclass(frozen=True, slots=True)
class _Ask:
    """What is the same for every fit of a backtest."""

    horizon_steps: int
    holidays: Holidays | None
    progress: Progress | None


def backtest(
    series: LoadSeries,
    cutoffs: pd.DataFrame,
    *,
    horizon_steps: int,
    target: str,
    progress: Progress | None = None,
    observe: Observer | None = None,
    holidays: Holidays | None = None,
) -> pd.DataFrame:
    """Forecast every cutoff (columns service, cutoff: the last timestamp that may be known).

    `observe` is shown each model with rows of `cutoffs`, their services' history (R, steps) and what
    was forecast from it. It is how a report compares the contestants on the same cutoffs. `holidays`: days
    that are no working days.

    Returns service, cutoff, h (1..horizon_steps), quantile, yhat: complete, without NaN, never
    crossing, >= 0. Raises FrameError on an unknown service, a cutoff outside the load, or one before
    which its service has no known value.
    """
    if horizon_steps < 1:
        raise FrameError(f"horizon_steps must be at least 1, got {horizon_steps}")
    if target not in LOAD_NUMBERS:
        raise FrameError(f"target '{target}' is unknown; allowed: {', '.join(LOAD_NUMBERS)}")
    row, step = locate(series, cutoffs)
    series = _padded(series, int(step.max(initial=0)) + 1)
    ask = _Ask(horizon_steps, holidays, progress)
    yhat = _forecasts(series, cutoffs, (row, step), target, ask, observe)
    if target != REQUESTS:
        yhat = _with_mix(series, cutoffs, (row, step), yhat, target, ask)
    return _frame(cutoffs, yhat)


def _forecasts(
    series: LoadSeries,
    cutoffs: pd.DataFrame,
    origins: tuple[IntArray, IntArray],
    target: str,
    ask: _Ask,
    observe: Observer | None = None,
) -> FloatArray:
    """Quantiles (N, H, Q) of one target from its own load model."""
    row, step = origins
    horizon_steps, progress = ask.horizon_steps, ask.progress
    values = series.values[:, :, LOAD_NUMBERS.index(target)]
    origin = _last_known(values, row, step, cutoffs, Grid(series.step_seconds).window_steps)
    until = fit_steps(series, values, step)
    yhat = np.full((len(cutoffs), horizon_steps, len(QUANTILES)), np.nan)
    done = 0
    for fit_until in np.unique(until):
        model = _fit(series, int(fit_until), target, ask)
        inside = until == fit_until
        walked = _walk(model, series, values, (row[inside], origin[inside]), int(fit_until) - 1)
        for at in np.unique(origin[inside]):
            here = np.flatnonzero(inside & (origin == at))
            names, past, end = _known(model, series, values, row[here], int(at))
            if int(at) in walked:
                known = dict(zip(*walked[int(at)], strict=True))
                forecast = model.wrap(names, end, np.stack([known[name] for name in names]))
            else:  # from before the fit: what was known then, long ago
                forecast = model.forecast(names, past, end)
            yhat[here] = forecast.values
            if observe is not None:
                observe(model, here, past, forecast)
            done += here.size
            if progress is not None:
                progress("backtest: cutoffs", done, len(cutoffs))
    return yhat


def _with_mix(
    series: LoadSeries,
    cutoffs: pd.DataFrame,
    origins: tuple[IntArray, IntArray],
    own: FloatArray,
    target: str,
    ask: _Ask,
) -> FloatArray:
    """Return quantiles of tokens (N, H, Q) that agree with those of the requests and with their mix.

    Where requests are not known, the tokens' `own` forecast speaks alone.
    """
    values = series.values[:, :, LOAD_NUMBERS.index(REQUESTS)]
    row, step = origins
    known = np.maximum.accumulate(np.isfinite(values), axis=1)[row, step]
    here = np.flatnonzero(known)
    if here.size == 0:
        return own
    asked, some = cutoffs.iloc[here], (row[here], step[here])
    requests = _forecasts(series, asked, some, REQUESTS, ask)
    until = fit_steps(series, values, some[1])
    mix = walk_mix(series, *some, until, ask.horizon_steps)
    kind = TOKENS.index(target)
    out = own.copy()
    out[here] = token_quantiles(own[here], requests, mix.lengths[..., kind], mix.bounds[:, kind])
    return out


def locate(series: LoadSeries, cutoffs: pd.DataFrame) -> tuple[IntArray, IntArray]:
    """Row of the service and last known step of each cutoff."""
    missing = [c for c in ("service", "cutoff") if c not in cutoffs.columns]
    if missing:
        raise FrameError(f"cutoffs: column '{missing[0]}' is missing; required: service, cutoff")
    if not isinstance(cutoffs.cutoff.dtype, pd.DatetimeTZDtype) or cutoffs.cutoff.isna().any():
        raise FrameError(
            "cutoffs: column 'cutoff' must hold timestamps with a time zone, none null"
        )
    index = {name: i for i, name in enumerate(series.services)}
    row = cutoffs.service.map(index)
    if row.isna().any():
        raise FrameError(
            f"cutoffs: service '{cutoffs.service[row.isna()].iloc[0]}' is not in the load"
        )
    seconds = cutoffs.cutoff.astype("datetime64[ns, UTC]").astype("int64").to_numpy() / 1e9
    slot = (np.asarray(seconds, dtype=np.float64) - series.start_seconds) / series.step_seconds
    step = np.floor(slot + 1e-6).astype(np.int64)
    outside = np.flatnonzero((step < 0) | (step > series.values.shape[1] + MAX_BEYOND_STEPS))
    if outside.size:
        raise FrameError(
            f"cutoffs: {cutoffs.cutoff.iloc[int(outside[0])]} is outside the load; "
            "allowed: from its first ts to a little after its last"
        )
    return row.to_numpy().astype(np.int64), step


def fit_steps(series: LoadSeries, values: FloatArray, step: IntArray) -> IntArray:
    """How many steps the model of each cutoff may learn from: those that end by the last midnight.

    On a day before whose midnight there is next to nothing, those up to the day's first cutoff.
    """
    end = np.float64(series.start_seconds) + (step + 1) * series.step_seconds
    day = np.floor(end / DAY_SECONDS + 1e-9)
    midnight = (day * DAY_SECONDS - series.start_seconds) / series.step_seconds
    until: IntArray = np.floor(midnight + 1e-6).astype(np.int64)
    known = np.flatnonzero(np.isfinite(values).any(axis=0))
    for d in np.unique(day):
        here = np.flatnonzero(day == d)
        if np.searchsorted(known, until[here[0]]) < MIN_FIT_STEPS:
            until[here] = step[here].min() + 1
    return until


def _walk(
    model: LoadModel,
    series: LoadSeries,
    values: FloatArray,
    origins: tuple[IntArray, IntArray],
    first: int,
) -> dict[int, tuple[list[str], FloatArray]]:
    """Forecasts by step, from the end of the fit on, with the coverage followed on the way.

    It is followed at the same steps whatever the cutoffs are. Each: service names, quantiles (S, H, Q).
    """
    rows, steps = np.unique(origins[0]), np.unique(origins[1][origins[1] >= first])
    if not steps.size:
        return {}
    stride = -(-Grid(series.step_seconds).day_steps // FOLLOWED_A_DAY)
    followed = np.arange(first, int(steps[-1]) + 1, stride)
    names = [series.services[r] for r in rows]
    found = walk(model, names, values[rows], series.start_seconds, (steps, followed))
    return {int(step): (names, quantiles) for step, quantiles in zip(steps, found, strict=True)}


def _padded(series: LoadSeries, steps: int) -> LoadSeries:
    """Return `series` with gaps up to `steps`: a cutoff may lie behind the last row."""
    services, known, numbers = series.values.shape
    if steps <= known:
        return series
    gap = np.full((services, steps - known, numbers), np.nan)
    values = np.concatenate([series.values, gap], axis=1)
    return LoadSeries(series.services, series.start_seconds, series.step_seconds, values)


def _last_known(
    values: FloatArray, row: IntArray, step: IntArray, cutoffs: pd.DataFrame, window_steps: int
) -> IntArray:
    """Return the step to forecast each cutoff from: its own, or the last known before a long gap."""
    origin = step.copy()
    for s in np.unique(row):
        here = row == s
        known = np.flatnonzero(np.isfinite(values[s]))
        at = np.searchsorted(known, step[here], side="right") - 1
        if (at < 0).any():
            raise FrameError(
                f"cutoffs: service '{cutoffs.service[here].iloc[0]}' has no known value up to "
                f"{cutoffs.cutoff[here][at < 0].iloc[0]}"
            )
        stale = step[here] - known[at] >= window_steps
        origin[here] = np.where(stale, known[at], step[here])
    return origin


def _fit(series: LoadSeries, until: int, target: str, ask: _Ask) -> LoadModel:
    past = LoadSeries(
        series.services, series.start_seconds, series.step_seconds, series.values[:, :until]
    )
    leads = range(1, ask.horizon_steps + 1)
    return LoadModel.fit(past, target=target, leads_steps=leads, holidays=ask.holidays)


def _known(
    model: LoadModel, series: LoadSeries, values: FloatArray, row: IntArray, at: int
) -> tuple[list[str], FloatArray, float]:
    """Names, history (R, steps) and its end, of services `row` up to and including step `at`."""
    names = [series.services[r] for r in row]
    past = values[row, max(0, at + 1 - model.history_steps) : at + 1]
    return names, past, series.start_seconds + (at + 1) * series.step_seconds


def _frame(cutoffs: pd.DataFrame, yhat: FloatArray) -> pd.DataFrame:
    rows, horizon, quantiles = yhat.shape
    return pd.DataFrame(
        {
            "service": np.repeat(cutoffs.service.to_numpy(dtype=object), horizon * quantiles),
            "cutoff": cutoffs.cutoff.repeat(horizon * quantiles).to_numpy(),
            "h": np.tile(np.repeat(np.arange(1, horizon + 1), quantiles), rows),
            "quantile": np.tile(np.array(QUANTILES), rows * horizon),
            "yhat": yhat.ravel(),
        }
    )

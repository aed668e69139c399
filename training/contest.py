"""A backtest in which every contestant forecasts at every cutoff, not only the one that serves."""

import numpy as np
import pandas as pd

from models.features import DAY_SECONDS, IntArray
from models.forecast_account import Contest, cutoff_losses
from models.frames import LOAD_NUMBERS, LoadSeries
from models.holiday_calendar import Holidays
from models.load_model import CANDIDATES, LoadModel
from models.progress import Progress
from models.quantiles import QUANTILES, FloatArray, LoadForecast
from training.backtest import backtest, locate

JUDGED_DAYS = 7  # of cutoffs where none are given
MOST_CUTOFFS = 20_000  # of all services: memory and time stay bounded
KNOWN_RATIO = 0.5  # of the load, at least, comes before the first of them


def usual_cutoffs(series: LoadSeries, horizon_steps: int, target: str) -> pd.DataFrame:
    """Return cutoffs for a look at a forecaster: each horizon of the last week, for every service.

    Where the load is shorter than two weeks, those of its second half; of a large fleet, every so many
    horizons. Columns service and cutoff.
    """
    values = series.values[:, :, LOAD_NUMBERS.index(target)]
    steps = values.shape[1]
    week = round(JUDGED_DAYS * DAY_SECONDS / series.step_seconds)
    first = max(steps - week, int(steps * KNOWN_RATIO), 1)
    span = max(0, steps - horizon_steps - first + 1)
    each = -(-span * len(series.services) // (MOST_CUTOFFS * horizon_steps))  # horizons, at least 1
    at = np.arange(first - 1, steps - horizon_steps, horizon_steps * max(1, each))
    rows = []
    for name, own in zip(series.services, values, strict=True):
        known = np.flatnonzero(np.isfinite(own))
        rows += [(name, step) for step in at if known.size and step >= known[0]]
    frame = pd.DataFrame(rows, columns=["service", "step"])
    seconds = series.start_seconds + frame.step.astype(float) * series.step_seconds
    return frame.assign(cutoff=pd.to_datetime(seconds, unit="s", utc=True))[["service", "cutoff"]]


def contest(
    series: LoadSeries,
    cutoffs: pd.DataFrame,
    *,
    horizon_steps: int,
    target: str,
    progress: Progress | None = None,
    holidays: Holidays | None = None,
) -> tuple[pd.DataFrame, Contest, dict[str, float]]:
    """Return the backtest's forecasts, the contest, and the feature importances of the last fit.

    The forecasts are those of `training.backtest.backtest`, with its errors.
    """
    seen = _Seen(series, cutoffs, horizon_steps, target)
    forecasts = backtest(
        series,
        cutoffs,
        horizon_steps=horizon_steps,
        target=target,
        progress=progress,
        observe=seen.observe,
        holidays=holidays,
    )
    served = forecasts.yhat.to_numpy().reshape(len(cutoffs), horizon_steps, len(QUANTILES))
    return forecasts, seen.contest(served), seen.importances


class _Seen:
    """What the backtest's observer gathers: losses rather than forecasts, so that memory is bounded."""

    def __init__(
        self, series: LoadSeries, cutoffs: pd.DataFrame, horizon_steps: int, target: str
    ) -> None:
        values = series.values[:, :, LOAD_NUMBERS.index(target)]
        self._series = series
        self._row, self._step = locate(series, cutoffs)
        ahead = self._step[:, np.newaxis] + np.arange(1, horizon_steps + 1)
        inside = ahead < values.shape[1]
        known = values[self._row[:, np.newaxis], np.where(inside, ahead, 0)]
        self._actual: FloatArray = np.where(inside, known, np.nan)
        self._losses = np.full((len(cutoffs), len(CANDIDATES)), np.nan)
        self._winner = np.full(len(cutoffs), "", dtype=object)
        self.importances: dict[str, float] = {}

    def observe(
        self, model: LoadModel, here: IntArray, past: FloatArray, forecast: LoadForecast
    ) -> None:
        """Let every candidate of the model forecast what it has just forecast."""
        self._winner[here] = forecast.winner
        self.importances = model.feature_importances()
        for name in model.candidates:
            alone = model.served_by(name).forecast(forecast.services, past, forecast.cutoff_seconds)
            serves = np.array([winner == name for winner in forecast.winner])
            values = np.where(serves[:, None, None], forecast.values, alone.values)
            loss = cutoff_losses(self._actual[here], values)
            self._losses[here, CANDIDATES.index(name)] = loss

    def contest(self, served: FloatArray) -> Contest:
        """Return what was gathered, with what served (N, H, Q)."""
        series = self._series
        return Contest(
            services=series.services,
            row=self._row,
            cutoff_seconds=np.float64(series.start_seconds)
            + (self._step + 1) * series.step_seconds,
            step_seconds=series.step_seconds,
            actual=self._actual,
            served=served,
            winner=tuple(str(name) for name in self._winner),
            contestants=CANDIDATES,
            losses=self._losses,
        )

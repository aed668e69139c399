"""The same moment, forecast several times: the mean of the last few forecasts of it.

A lagged average (Hoffman & Kalnay, Tellus 35A, 1983). Each new minute moves a forecast a little, mostly
by its noise, and a fleet that follows every move holds the highest of them. The mean of the forecasts of
a few minutes moves less and errs no more. Only a clear rise is not averaged away: where the newest median
lies above the mean's by more than RISE of the way to the mean's 0.8 quantile, the newest alone speaks.
What was forecast more than `span_seconds` before the newest one is not counted: with steps as long as
that, the newest alone speaks.
"""

import numpy as np

from models.quantiles import QUANTILES, FloatArray, LoadForecast

RISE = 0.5
MEDIAN, UPPER = QUANTILES.index(0.5), QUANTILES.index(0.8)


class LaggedAverage:
    """Remembers forecasts of the last `span_seconds` and returns their mean for the newest's leads."""

    def __init__(self, span_seconds: float) -> None:
        self.span_seconds = span_seconds
        self._kept: list[LoadForecast] = []

    def of(self, newest: LoadForecast) -> FloatArray:
        """Return the mean (S, L, Q) of the forecasts kept, the newest among them.

        A service that an earlier forecast did not know is averaged over those that did; one of which the
        newest says nothing (NaN) stays unknown. Forecasts of other services or leads are forgotten.
        """
        self._kept = [f for f in self._kept if self._speaks_for(f, newest)]
        total, count = newest.values.copy(), np.ones((len(newest.services), 1, 1))
        for earlier in self._kept:
            late = (newest.cutoff_seconds - earlier.cutoff_seconds) / newest.step_seconds
            values = _at(earlier, newest.leads_steps.astype(np.float64) + late)
            known = np.isfinite(values).all(axis=(1, 2), keepdims=True)
            total += np.where(known, values, 0.0)
            count += known
        self._kept.append(newest)
        mean = total / count
        median, spread = mean[..., MEDIAN], mean[..., UPPER] - mean[..., MEDIAN]
        rises = newest.values[..., MEDIAN] > median + RISE * spread
        return np.where(rises[..., np.newaxis], newest.values, mean)

    def _speaks_for(self, earlier: LoadForecast, newest: LoadForecast) -> bool:
        age = newest.cutoff_seconds - earlier.cutoff_seconds
        return (
            0 < age < self.span_seconds
            and earlier.services == newest.services
            and np.array_equal(earlier.leads_steps, newest.leads_steps)
        )


def _at(forecast: LoadForecast, leads: FloatArray) -> FloatArray:
    """Return the quantiles (S, L, Q) at leads (L,) in steps: linear between leads, held beyond the last."""
    place = np.interp(leads, forecast.leads_steps, np.arange(forecast.leads_steps.size))
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, forecast.leads_steps.size - 1)
    share = (place - below)[:, np.newaxis]
    values: FloatArray = (
        forecast.values[:, below] * (1.0 - share) + forecast.values[:, above] * share
    )
    return values

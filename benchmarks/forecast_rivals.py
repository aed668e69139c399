"""What a forecaster is compared with: two rules, and the classical libraries with their own intervals.

A rival is fitted at the last midnight before a cutoff, on what is known by then, and carried on to the
cutoff with the parameters that it has: as Foreserve is. Prophet cannot be carried on; it is fitted at
every cutoff. Gaps are interpolated for all of them: none takes NaN.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from models.quantiles import QUANTILES, FloatArray

LEVELS = {0.1: ("lo", 80), 0.8: ("hi", 60), 0.9: ("hi", 80), 0.95: ("hi", 90), 0.99: ("hi", 98)}
SAMPLES = 300  # of Prophet's predictive distribution
ERROR_DAYS = 7


@dataclass(frozen=True, slots=True)
class Rival:
    """`fit` takes the load so far (T,) and returns what `predict` continues from."""

    name: str
    fit: Callable[[FloatArray, int], Any]
    predict: Callable[[Any, FloatArray, int], FloatArray]  # -> (H, Q)
    note: str


def rivals(day_steps: int) -> list[Rival]:
    """Every rival whose library is installed; the two rules always are."""
    out = [
        _rule("last value", 0, day_steps),
        _rule("seasonal naive", day_steps, day_steps),
    ]
    if find_spec("statsforecast") is not None:
        out += _statsforecast(day_steps)
    if find_spec("prophet") is not None:
        out.append(_prophet(day_steps))
    return out


def _rule(name: str, season: int, day_steps: int) -> Rival:
    """The value one season earlier, or the last; spread: its own errors of the last seven days."""

    def predict(_fitted: None, y: FloatArray, horizon: int) -> FloatArray:
        quantiles = np.empty((horizon, len(QUANTILES)))
        for h in range(1, horizon + 1):
            back = season - h if season else 0  # steps before the origin
            centre = y[y.size - 1 - back]
            past = y[max(season, h) :] - y[max(season, h) - (season or h) : -(season or h)]
            errors = past[-ERROR_DAYS * day_steps :]
            quantiles[h - 1] = centre + (np.quantile(errors, QUANTILES) if errors.size else 0.0)
        return quantiles

    return Rival(name, lambda _y, _day: None, predict, "spread: its errors of the last seven days")


def _statsforecast(day_steps: int) -> list[Rival]:
    from statsforecast.models import MSTL, AutoARIMA, AutoETS, AutoTheta  # type: ignore[import-untyped]

    def seasons(y: FloatArray) -> list[int]:
        week = 7 * day_steps
        return [day_steps, week] if y.size >= 2 * week else [day_steps]

    def continued(name: str, build: Callable[[FloatArray], Any], note: str) -> Rival:
        def fit(y: FloatArray, _day: int) -> object:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of lengths of seasons, and of convergence
                return build(y).fit(y)

        def predict(fitted: Any, y: FloatArray, horizon: int) -> FloatArray:  # noqa: ANN401  (untyped library)
            levels = sorted({width for _, width in LEVELS.values()})
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                got = fitted.forward(y=y, h=horizon, level=levels)
            columns = [
                got["mean"] if q == 0.5 else got[f"{LEVELS[q][0]}-{LEVELS[q][1]}"]
                for q in QUANTILES
            ]
            return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)

        return Rival(name, fit, predict, note)

    return [
        continued("AutoETS", lambda _y: AutoETS(), "no season: it takes none above 24 steps"),
        continued(
            "MSTL", lambda y: MSTL(seasons(y)), "day, and week where two are known; AutoETS trend"
        ),
        continued("Theta", lambda _y: AutoTheta(day_steps), "AutoTheta, season of a day"),
        continued(
            "ARIMA",
            lambda _y: AutoARIMA(seasonal=False),
            "AutoARIMA without a season: one of a day does not end in reasonable time",
        ),
    ]


def _prophet(day_steps: int) -> Rival:
    from prophet import Prophet

    for name in ("prophet", "cmdstanpy"):
        logging.getLogger(name).disabled = True  # a line for every fit

    def predict(_fitted: None, y: FloatArray, horizon: int) -> FloatArray:
        at = pd.Timestamp("2025-01-06") + pd.timedelta_range(
            "0s", periods=y.size + horizon, freq=f"{86400 // day_steps}s"
        )
        np.random.seed(20)  # noqa: NPY002, TID251  (Prophet draws from the global generator)
        weekly = y.size >= 14 * day_steps
        model = Prophet(
            daily_seasonality=True,
            weekly_seasonality=weekly,
            yearly_seasonality=False,
            uncertainty_samples=SAMPLES,
        )
        model.fit(pd.DataFrame({"ds": at[: y.size], "y": y}), seed=20)
        drawn = model.predictive_samples(pd.DataFrame({"ds": at[y.size :]}))["yhat"]
        return np.quantile(drawn, QUANTILES, axis=1).T

    return Rival(
        "Prophet",
        lambda _y, _day: None,
        predict,
        "fitted at every cutoff; day, and week where two are known",
    )


def filled(y: FloatArray) -> FloatArray:
    """Interpolate gaps; before the first known value there is nothing."""
    known = np.flatnonzero(np.isfinite(y))
    return np.interp(np.arange(known[0], y.size), known, y[known])


def ordered(quantiles: Sequence[FloatArray]) -> FloatArray:
    """Stack to (N, H, Q): never negative, never crossing, as Foreserve's are."""
    return np.sort(np.maximum(np.stack(quantiles), 0.0), axis=-1)

"""Losses that forecasts are judged by. Steps whose truth is NaN (a gap) count for nothing.

Pinball loss of quantile forecast p at level q for truth y: max(q * (y - p), (q - 1) * (y - p)).
Source: Koenker & Bassett, Regression Quantiles, Econometrica 46 (1978).
"""

from collections.abc import Sequence

import numpy as np

from models.quantiles import FloatArray


def pinball_losses(
    actual: FloatArray, forecast: FloatArray, quantiles: Sequence[float]
) -> FloatArray:
    """Return the loss of each forecast, shape (..., Q), in the unit of `actual`.

    `actual` has shape (...), `forecast` (..., Q). NaN in either gives NaN.
    """
    level = np.asarray(quantiles, dtype=np.float64)
    if forecast.shape[-1] != level.size:
        raise ValueError(f"forecast has {forecast.shape[-1]} quantiles, {level.size} were named")
    miss = np.asarray(actual)[..., np.newaxis] - forecast
    return np.maximum(level * miss, (level - 1.0) * miss)


def pinball_loss(actual: FloatArray, forecast: FloatArray, quantiles: Sequence[float]) -> float:
    """Return the mean loss over all steps and quantiles that can be judged; NaN if there are none."""
    losses = pinball_losses(actual, forecast, quantiles)
    known = np.isfinite(losses)
    return float(losses[known].mean()) if known.any() else float("nan")


def coverage_ratio(actual: FloatArray, upper: FloatArray) -> float:
    """Return the share of steps at or below `upper` (same shape); NaN if no step is known."""
    known = np.isfinite(actual) & np.isfinite(upper)
    return float((actual[known] <= upper[known]).mean()) if known.any() else float("nan")


def wape_ratio(actual: FloatArray, forecast: FloatArray) -> float:
    """Return sum |y - p| / sum |y| (weighted absolute percentage error, as a ratio)."""
    known = np.isfinite(actual) & np.isfinite(forecast)
    total = float(np.abs(actual[known]).sum())
    return (
        float(np.abs(actual[known] - forecast[known]).sum()) / total if total > 0 else float("nan")
    )

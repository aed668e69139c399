"""Weights of contestants whose quantile functions are averaged, learned on forecasts that were held out.

Averaging quantiles (Vincent, 1912) keeps the shape of each contestant; the mean of several is rarely
worse than any of them and usually better (Lichtendahl, Grushka-Cockayne & Winkler, Management Science
59 (2013)). The weights follow the exponentiated gradient (Kivinen & Warmuth, Information and
Computation 132 (1997)) from the fleet's weights: few steps leave a service near the fleet, so that
what it tells of itself moves it only as far as it is told often.
"""

from collections.abc import Sequence

import numpy as np

from models.quantiles import QUANTILES, FloatArray

STEPS = 40
RATE = 0.3
FLEET_STEPS = 60
FLEET_RATE = 2.0
MAX_GRADIENT = 1.0
LEVELS = np.asarray(QUANTILES)


def learn_weights(forecast: FloatArray, actual: FloatArray, prior: FloatArray) -> FloatArray:
    """Return the weights (K,) of one service, starting from `prior` (K,).

    `forecast` (N, K, Q) and `actual` (N,) are in one unit, such as requests; NaN truth is left out.
    """
    known = np.isfinite(actual)
    if not known.any():
        return prior
    forecast, actual = forecast[known], actual[known]
    size = _size(forecast, actual, prior)
    weight, total = prior.copy(), np.zeros_like(prior)
    for _ in range(STEPS):
        weight = _step(weight, _gradient(forecast, actual, weight) / size, RATE)
        total += weight
    return total / STEPS


def fleet_weights(parts: Sequence[tuple[FloatArray, FloatArray]], prior: FloatArray) -> FloatArray:
    """Return the weights (K,) that serve all services best, each counting alike.

    `parts` holds the (forecast, actual) of each service, as for `learn_weights`.
    """
    known = [(f[np.isfinite(a)], a[np.isfinite(a)]) for f, a in parts]
    known = [(f, a) for f, a in known if a.size]
    sizes = [_size(f, a, prior) for f, a in known]
    weight = prior.copy()
    for _ in range(FLEET_STEPS if known else 0):
        slopes = [_gradient(f, a, weight) / s for (f, a), s in zip(known, sizes, strict=True)]
        slope = np.clip(slopes, -MAX_GRADIENT, MAX_GRADIENT).mean(axis=0)
        weight = _step(weight, slope, FLEET_RATE)
    return weight


def _size(forecast: FloatArray, actual: FloatArray, weight: FloatArray) -> float:
    """Mean loss of the blend: gradients are counted in it, so that no service outweighs another."""
    miss = actual[:, np.newaxis] - np.einsum("nkq,k->nq", forecast, weight)
    return max(float(np.maximum(LEVELS * miss, (LEVELS - 1) * miss).mean()), 1e-12)


def _gradient(forecast: FloatArray, actual: FloatArray, weight: FloatArray) -> FloatArray:
    """Slope of the mean pinball loss in each weight, less that of the blend itself, (K,)."""
    mixed = np.einsum("nkq,k->nq", forecast, weight)
    slope = np.where(actual[:, np.newaxis] > mixed, -LEVELS, 1 - LEVELS)
    own: FloatArray = np.einsum("nq,nkq->k", slope, forecast) / slope.size
    return own - float((slope * mixed).sum() / slope.size)


def _step(weight: FloatArray, slope: FloatArray, rate: float) -> FloatArray:
    moved: FloatArray = weight * np.exp(-np.clip(rate * slope, -2.0, 2.0))
    moved /= moved.sum()
    return moved

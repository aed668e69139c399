"""Interval calibration per service and lead from held-out errors.

Conformalized quantile regression (Romano, Patterson & Candès, NeurIPS 2019), in units of the forecast's
own width w = q90 - q10, so that one number serves quiet and busy hours:

    shift[q] = quantile_q((y - forecast_q) / w),      calibrated_q = forecast_q + shift[q] * w

Few held-out errors of one service and lead are leant on the service's other leads, those on the fleet.
No shift is larger than MAX_SHIFT. A service that sleeps and bursts has its narrowest forecasts before a
burst and its widest after: the misses of the first, in units of the second, are far too much.
"""

from typing import Self

import numpy as np

from models.empirical import known_quantiles
from models.quantiles import QUANTILES, FloatArray

LOW, HIGH = QUANTILES.index(0.1), QUANTILES.index(0.9)
MIN_WIDTH = 0.05  # scales: a narrower forecast is taken as this wide
MAX_SHIFT = 0.5  # widths; more is not calibration but another model
PRIOR_ERRORS = 4000.0  # the fleet's shift weighs as much as so many errors of one service
FLEET_PRIOR_ERRORS = 1000.0  # ... and none at all as much as so many of the fleet's


class Conformal:
    """Shapes: S services, L leads, Q quantiles. `shift` (S + 1, L, Q); row S is the fleet's."""

    def __init__(self, shift: FloatArray) -> None:
        self.shift = shift

    @classmethod
    def fit(cls, forecast: FloatArray, actual: FloatArray) -> Self:
        """Learn from held-out `forecast` (S, N, L, Q) and `actual` (S, N, L), in scales, NaN = unknown."""
        score = (actual[..., np.newaxis] - forecast) / forecast_width(forecast)  # (S, N, L, Q)
        zero = np.zeros(len(QUANTILES))
        every = np.concatenate(score, axis=0)
        fleet_all = _leant(np.concatenate(every, axis=0), zero, FLEET_PRIOR_ERRORS)  # (Q,)
        fleet = _leant(every, fleet_all, FLEET_PRIOR_ERRORS)  # (L, Q)
        by_origin = np.moveaxis(score, 1, 0)  # (N, S, L, Q)
        own_all = _leant(np.concatenate(np.moveaxis(score, 0, 2), axis=0), fleet_all)  # (S, Q)
        shift = _leant(by_origin, own_all[:, np.newaxis] + fleet - fleet_all)  # (S, L, Q)
        shift = np.concatenate([shift, fleet[np.newaxis]])
        return cls(np.clip(shift, -MAX_SHIFT, MAX_SHIFT))

    @classmethod
    def none(cls, services: int, leads: int) -> Self:
        """Return a calibration that changes nothing (no held-out errors)."""
        return cls(np.zeros((services + 1, leads, len(QUANTILES))))

    def apply(
        self, forecast: FloatArray, service: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    ) -> FloatArray:
        """Calibrate quantiles (R, L, Q) of services (R,); index S (or -1) stands for the fleet."""
        return np.sort(forecast + self.shift[service] * forecast_width(forecast), axis=-1)


def forecast_width(forecast: FloatArray) -> FloatArray:
    """Return q90 - q10 of quantiles (..., Q), at least MIN_WIDTH, as (..., 1)."""
    return np.maximum(forecast[..., HIGH] - forecast[..., LOW], MIN_WIDTH)[..., np.newaxis]


def _leant(score: FloatArray, prior: FloatArray, errors: float = PRIOR_ERRORS) -> FloatArray:
    """Quantile q of column q over the first axis of (N, ..., Q) scores, leant on `prior` (..., Q)."""
    own = np.stack([known_quantiles(score[..., i], q) for i, q in enumerate(QUANTILES)], axis=-1)
    count = np.isfinite(score).sum(axis=0)
    weight = count / (count + errors)
    shift: FloatArray = weight * np.where(count > 0, own, 0.0) + (1 - weight) * prior
    return shift

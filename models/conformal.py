"""Interval calibration per service and lead from held-out errors.

Conformalized quantile regression (Romano, Patterson & Candès, NeurIPS 2019), in units of the forecast's
own width w = q90 - q10, so that one number serves quiet and busy hours:

    shift[q] = quantile_q((y - forecast_q) / w),      calibrated_q = forecast_q + shift[q] * w

Few held-out errors of one service and lead are leant on the service's other leads, those on the fleet.
"""

from typing import Self

import numpy as np

from models.quantiles import QUANTILES, FloatArray

LOW, HIGH = QUANTILES.index(0.1), QUANTILES.index(0.9)
MIN_WIDTH = 0.02  # log ratio: a forecast narrower than 2 % is taken as this wide
MAX_SHIFT = 2.0  # widths; more is not calibration but another model
PRIOR_ERRORS = 200.0  # the wider group's shift weighs as much as so many errors


class Conformal:
    """Shapes: S services, L leads, Q quantiles. `shift` (S + 1, L, Q); row S is the fleet's."""

    def __init__(self, shift: FloatArray) -> None:
        self.shift = shift

    @classmethod
    def fit(cls, forecast: FloatArray, actual: FloatArray) -> Self:
        """Learn from held-out log ratios: `forecast` (S, N, L, Q), `actual` (S, N, L), NaN = unknown."""
        services, _, leads, _ = forecast.shape
        score = (actual[..., np.newaxis] - forecast) / _width(forecast)
        fleet_all = _quantiles(score.reshape(-1, len(QUANTILES)), np.zeros(len(QUANTILES)))
        fleet = np.stack(
            [
                _quantiles(score[:, :, i].reshape(-1, len(QUANTILES)), fleet_all)
                for i in range(leads)
            ]
        )
        shift = np.empty((services + 1, leads, len(QUANTILES)))
        for s in range(services):
            own = _quantiles(score[s].reshape(-1, len(QUANTILES)), fleet_all)
            for i in range(leads):
                shift[s, i] = _quantiles(score[s, :, i], own + fleet[i] - fleet_all)
        shift[services] = fleet
        return cls(np.clip(shift, -MAX_SHIFT, MAX_SHIFT))

    @classmethod
    def none(cls, services: int, leads: int) -> Self:
        """Return a calibration that changes nothing (no held-out errors)."""
        return cls(np.zeros((services + 1, leads, len(QUANTILES))))

    def apply(
        self, forecast: FloatArray, service: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    ) -> FloatArray:
        """Calibrate log ratios (R, L, Q) of services (R,); index S (or -1) stands for the fleet."""
        return np.sort(forecast + self.shift[service] * _width(forecast), axis=-1)


def _width(forecast: FloatArray) -> FloatArray:
    return np.maximum(forecast[..., HIGH] - forecast[..., LOW], MIN_WIDTH)[..., np.newaxis]


def _quantiles(score: FloatArray, prior: FloatArray) -> FloatArray:
    """Quantile i of column i of (N, Q) scores, leant on `prior` (Q,)."""
    known = score[np.isfinite(score).all(axis=-1)]
    if not len(known):
        return prior
    own = np.array([np.quantile(known[:, i], q) for i, q in enumerate(QUANTILES)])
    weight = len(known) / (len(known) + PRIOR_ERRORS)
    return weight * own + (1 - weight) * prior

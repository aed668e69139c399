"""The quantiles that every load forecast carries, and the frame-free shape of such a forecast."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
QUANTILES = (0.1, 0.5, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class LoadForecast:
    """Quantile forecasts of several services made at one cutoff.

    Shapes: S services, L leads, Q = len(QUANTILES). `values` (S, L, Q) is the target's own unit per
    step (requests, or tokens), never negative, never crossing. Lead l speaks of the step that ends
    `leads_steps[l]` steps after `cutoff_seconds`, the end of the last known step. A service for which
    nothing can be said has NaN throughout. `winner` names the rule that serves each service.
    """

    services: tuple[str, ...]
    cutoff_seconds: float
    step_seconds: float
    leads_steps: NDArray[np.int64]  # (L,), increasing, from 1
    values: FloatArray  # (S, L, Q)
    winner: tuple[str, ...]

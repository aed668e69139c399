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

    def every_step(self) -> FloatArray:
        """Return the forecast of every step up to the last lead, shape (S, leads_steps[-1], Q).

        Between two leads it is interpolated linearly; before the first, the first holds. What that
        costs in pinball loss, benchmarks/bench_forecast_speed.py prints.
        """
        steps = np.arange(1, int(self.leads_steps[-1]) + 1)
        place = np.interp(steps, self.leads_steps, np.arange(self.leads_steps.size))
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, self.leads_steps.size - 1)
        every: FloatArray = self.values.take(below, axis=1)
        further = self.values.take(above, axis=1)
        further -= every
        further *= (place - below)[:, np.newaxis]
        every += further
        return every

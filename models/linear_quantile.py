"""Linear quantile regression over the simple rules: one line a quantile for the whole fleet.

The columns are the rules' centres in scales (models.simple_rules), the root of the lead and the noise
of the last minutes over the usual. A rule that knows nothing counts as the level now, 0.

Source: Koenker & Bassett, Regression Quantiles, Econometrica 46 (1978); scikit-learn's QuantileRegressor.
"""

from typing import Self

import numpy as np

from models.features import Known
from models.quantiles import QUANTILES, FloatArray

ROWS = 1000  # more rows change little, and the linear programme grows with their square
PENALTY = 1e-3  # on the sum of the coefficients' sizes
MAX_SCALES = 30.0  # of what enters: one wild row must not tilt the line
MIN_ROWS = 200
LINE_EXTRAS = 2  # columns beside the rules


class LinearQuantile:
    """`slope` (Q, F), `offset` (Q,)."""

    def __init__(self, slope: FloatArray, offset: FloatArray) -> None:
        self.slope = slope
        self.offset = offset

    @classmethod
    def fit(cls, columns: FloatArray, target: FloatArray, weight: FloatArray) -> Self:
        """Learn from (N, F) columns, (N,) targets in scales and weights; rows are thinned evenly."""
        from sklearn.linear_model import QuantileRegressor  # only a fit needs it

        if target.size < MIN_ROWS:
            raise ValueError(f"{target.size} rows are too few to fit on; at least {MIN_ROWS}")
        at = np.unique(np.linspace(0, target.size - 1, min(ROWS, target.size)).astype(np.int64))
        slope, offset = [], []
        for quantile in QUANTILES:
            line = QuantileRegressor(quantile=quantile, alpha=PENALTY, solver="highs")
            line.fit(columns[at], np.clip(target[at], -MAX_SCALES, MAX_SCALES), weight[at])
            slope.append(line.coef_)
            offset.append(float(line.intercept_))
        return cls(np.stack(slope), np.array(offset))

    def predict(self, columns: FloatArray) -> FloatArray:
        """Return quantiles in scales, shape (N, Q), never crossing."""
        return np.sort(np.einsum("nf,qf->nq", columns, self.slope) + self.offset, axis=1)


def line_columns(known: Known, centres: FloatArray) -> FloatArray:
    """Return the columns (R * K, F) for the rules' centres (R, K, C) of `rule_centres`."""
    shape = known.leads_steps.shape
    rules = np.where(np.isfinite(centres), centres, 0.0)
    more = [np.sqrt(known.leads_steps), np.broadcast_to(known.track.short_ratio[:, None], shape)]
    columns = np.concatenate([rules, np.stack(more, axis=-1)], axis=-1)
    flat: FloatArray = np.clip(columns, -MAX_SCALES, MAX_SCALES).reshape(-1, columns.shape[-1])
    return np.where(np.isfinite(flat), flat, 0.0)

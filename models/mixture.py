"""The blend of all contestants at many origins, in one pass.

    u[r, l, q] = sum over k of weight[r, k] * clip(contestant k's quantile q, low[r], high[r])

A rule's quantile is its centre plus the quantile of its own errors; a rule that knows nothing says what
the level says. Who has no weight is not computed.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.quantiles import FloatArray


@njit(cache=True, nogil=True)  # calls no other kernel: its own file is all it depends on
def mixed_quantiles(
    rules: tuple[FloatArray, FloatArray, int],
    row: NDArray[np.int64],
    fitted: FloatArray,
    weights: FloatArray,
    bounds: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Return the blend in scales, (R, L, Q).

    `rules` are the centres (R, L, C), the errors (S, L, C, Q) and which rule is the level; `row` (R,) the
    service of each origin; `fitted` (R, L, M, Q) the quantiles of the M fitted models; `weights` (R, C + M);
    `bounds` the least and the most that a forecast may say, (R,) each.
    """
    centres, errors, level = rules
    low, high = bounds
    origins, leads, count = centres.shape
    quantiles = errors.shape[3]
    out = np.zeros((origins, leads, quantiles))
    for r in range(origins):
        of = row[r]
        for k in range(weights.shape[1]):
            weight = weights[r, k]
            if weight == 0.0:
                continue
            for lead in range(leads):
                rule = k
                if k < count and not np.isfinite(centres[r, lead, k]):
                    rule = level
                for q in range(quantiles):
                    if k < count:
                        u = centres[r, lead, rule] + errors[of, lead, rule, q]
                    else:
                        u = fitted[r, lead, k - count, q]
                    u = max(u, low[r])
                    u = min(u, high[r])
                    out[r, lead, q] += weight * u
    return out

"""Robust nonlinear least squares for a few parameters and many residuals.

Levenberg and Marquardt's damping (Marquardt, SIAM J. Appl. Math. 1963) on iteratively reweighted
normal equations, with the soft-L1 loss 2 * s^2 * (sqrt(1 + (r/s)^2) - 1): quadratic for errors below
s, linear beyond. For a dozen parameters the normal equations are two orders of magnitude faster than
a singular value decomposition of the whole Jacobian, and a fleet has thousands of fits.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
MAX_STEPS = 30
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-6, 1e4
CALMER, BOLDER = 4.0, 0.25  # factors on the damping after a bad and a good step
MAX_MOVE = 1.5  # of a parameter in one step
TOLERANCE = 1e-3  # of the loss, relative: a good step that gains less is the last


def minimise(
    residuals: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    slopes: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    start: FloatArray,
    soft: float,
) -> FloatArray:
    """Return x (P,) near `start` that minimises soft-L1(data) + squares(prior).

    `residuals(x)` gives (data (M,), prior (K,)), `slopes(x)` their derivatives ((M, P), (K, P)).
    """
    x = np.array(start, dtype=np.float64)
    data, prior = residuals(x)
    loss, damping = robust_loss(data, prior, soft), FIRST_DAMPING
    equations = _normal(data, prior, *slopes(x), soft)
    for _ in range(MAX_STEPS):
        matrix, gradient = equations
        damped = matrix + damping * np.diag(np.diag(matrix) + 1e-12)
        step = np.clip(-np.linalg.solve(damped, gradient), -MAX_MOVE, MAX_MOVE)
        data, prior = residuals(x + step)
        found = robust_loss(data, prior, soft)
        if not found < loss:  # NaN is no improvement
            damping *= CALMER
            if damping > MOST_DAMPING:
                break
            continue
        gain, x, loss = loss - found, x + step, found
        damping = max(damping * BOLDER, LEAST_DAMPING)
        if gain < TOLERANCE * loss:
            break
        equations = _normal(data, prior, *slopes(x), soft)
    return x


def robust_loss(data: FloatArray, prior: FloatArray, soft: float) -> float:
    """Return soft-L1(data) + squares(prior), in squares of a usual error."""
    robust = 2.0 * soft**2 * (np.sqrt(1.0 + (data / soft) ** 2) - 1.0)
    return float(robust.sum() + (prior**2).sum())


def _normal(
    data: FloatArray,
    prior: FloatArray,
    data_slopes: FloatArray,
    prior_slopes: FloatArray,
    soft: float,
) -> tuple[FloatArray, FloatArray]:
    """Return the normal matrix (P, P) and gradient (P,); the loss is linear in far residuals."""
    weight = 1.0 / np.sqrt(1.0 + (data / soft) ** 2)
    weighted = data_slopes * weight[:, None]
    matrix = weighted.T @ data_slopes + prior_slopes.T @ prior_slopes
    return matrix, weighted.T @ data + prior_slopes.T @ prior

"""Step times from benchmarks at a fixed concurrency: N clients, each sending its next request at once.

With N requests on an instance a step decodes N sequences and, as every request brings its prompt once in L
tokens, computes N / L prompts on the way (models.step_time has the symbols):

    tpot(N) = base + N * (per_sequence + per_context_token * (isl + L / 2) + per_prompt_token * isl / L)

which is linear in the four coefficients: non-negative least squares on the relative error, so that 10 ms
and 100 ms weigh the same, reweighted for robustness (soft L1). Means over requests of TPOT are what such
benchmarks publish, and what this predicts. No queue is modelled: N beyond what fits into a batch is
extrapolated as if it did.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

FloatArray = NDArray[np.float64]
ROUNDS = 10
SOFT = 1.5  # usual errors beyond which a point counts linearly
LEAST_ERROR = 0.02  # relative: closer than measurements repeat
NORMAL_MIDDLE = 0.6745  # median absolute value of a standard normal


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Points of a closed-loop benchmark, shapes (P,): requests in flight on an instance, mean tokens."""

    concurrency: FloatArray
    isl_tokens: FloatArray
    osl_tokens: FloatArray

    def design(self) -> FloatArray:
        """Return (P, 4): what each coefficient is multiplied with."""
        n, length = self.concurrency, np.maximum(self.osl_tokens, 1.0)
        context = n * (self.isl_tokens + 0.5 * length)
        return np.stack([np.ones_like(n), n, context, n * self.isl_tokens / length], axis=1)


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds of a step: base, per sequence, per context token and per prompt token."""

    base_seconds: float
    per_sequence_seconds: float
    per_context_token_seconds: float
    per_prompt_token_seconds: float

    def tpot_seconds(self, points: ClosedLoop) -> FloatArray:
        """Return the mean TPOT (P,) at each point."""
        each = np.array(
            [
                self.base_seconds,
                self.per_sequence_seconds,
                self.per_context_token_seconds,
                self.per_prompt_token_seconds,
            ]
        )
        seconds: FloatArray = points.design() @ each
        return seconds


def fit_closed_loop(
    points: ClosedLoop, tpot_seconds: FloatArray, *, prompts: bool = True
) -> StepTimes:
    """Return the step times that explain measured TPOT (P,) best; ValueError where nothing is usable.

    `prompts` False: what prompts cost is left out, where it is known from elsewhere.
    """
    usable = np.isfinite(tpot_seconds) & (tpot_seconds > 0)
    if not usable.any():
        raise ValueError("closed-loop points: no TPOT above zero; allowed: seconds")
    design = points.design() if prompts else points.design() * [1.0, 1.0, 1.0, 0.0]
    relative = design[usable] / tpot_seconds[usable, None]
    weight = np.ones(len(relative))
    for _ in range(ROUNDS):
        found, _ = nnls(relative * weight[:, None], weight)
        off = np.abs(relative @ found - 1.0)
        usual = max(float(np.median(off)) / NORMAL_MIDDLE, LEAST_ERROR)
        weight = (1.0 + (off / (SOFT * usual)) ** 2) ** -0.25
    return StepTimes(*(float(value) for value in found))

"""When an engine's pace changed: a restart with other settings, a new version, a slower clock.

An engine whose steps all take f times as long is the same engine with another clock: at the rate lam it
looks as the old one did at lam * f, with every time f times as long and the same batch. So windows
from before a change need not be thrown away: with rate / f and times * f they speak of the engine as
it is now, and one number is all that has to be learned of the change.

Where a change is likely is found by Rao's score test (1948): how much better would the fit be if all that was
seen before some window had another pace, the other parameters free to follow? A misfit that lasts
for a while looks like a change, too: the test is measured against the scatter of the scores as they
come, summed over neighbours in time (Newey and West, Econometrica 1987).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.latency_windows import Windows

FloatArray = NDArray[np.float64]
MIN_BLOCKS = 5  # on either side of a change
MIN_SCORE = 9.0  # of chi square with one degree of freedom: three standard deviations
PAUSE_STEPS, MIN_PAUSE_SECONDS = 5.0, 60.0  # without telemetry
PAUSE_BONUS = 6.0  # of chi square: a change is twenty times as likely at a pause
BASE = 0  # the free parameter that scales all step times


def at_present_pace(windows: Windows, factor: float) -> Windows:
    """Return `windows` as the engine would show them now; `factor`: its steps' time over before."""
    clock = np.where(windows.before, factor, 1.0)
    rate, latency = windows.rate_rps / clock, windows.latency * clock[:, None]
    return replace(windows, rate_rps=rate, latency=latency, before=np.zeros_like(windows.before))


def likely_change(
    softened: tuple[FloatArray, FloatArray],
    off_prior: FloatArray,
    prior_sigma: FloatArray,
    start_seconds: FloatArray,
) -> int | None:
    """Return the first block (in time) of the present pace, None where no change is likely.

    `softened`: errors (B, J) of J residuals a block and their slopes (B, J, P) by the parameters, BASE
    the one that scales the steps' time. `off_prior` (P,): how far the parameters are from the prior.
    `start_seconds` (B,): telemetry pauses where an engine restarts, so a change is likelier there.
    """
    errors, slopes = softened
    if len(errors) < 2 * MIN_BLOCKS:
        return None
    normal = np.einsum("bjp,bjq->pq", slopes, slopes) + np.diag(prior_sigma**-2.0)
    uphill = np.einsum("bjp,bj->p", slopes, errors) + off_prior / prior_sigma**2
    errors = errors - slopes @ np.linalg.solve(normal, uphill)  # at the optimum for these blocks
    pace = slopes[:, :, BASE]
    at = np.arange(MIN_BLOCKS, len(errors) - MIN_BLOCKS + 1) - 1
    cross = np.cumsum(np.einsum("bjp,bj->bp", slopes, pace), axis=0)[at]
    follow = np.linalg.solve(normal, cross.T).T  # how the parameters would follow
    score = np.cumsum((pace * errors).sum(axis=1))[at]
    free = np.cumsum((pace**2).sum(axis=1))[at] - (cross * follow).sum(axis=1)
    gain = score**2 / np.maximum(free, 1e-9)
    best = int(np.argmax(gain + PAUSE_BONUS * _pauses(start_seconds)[at + 1]))
    bent = pace * (np.arange(len(errors)) <= at[best])[:, None] - slopes @ follow[best]
    rest = errors - score[best] / max(float(free[best]), 1e-9) * bent
    scatter = _long_run_variance((bent * rest).sum(axis=1)) / max(
        float((bent**2).mean(0).sum()), 1e-12
    )
    return int(at[best]) + 1 if gain[best] >= MIN_SCORE * scatter else None


def _pauses(start_seconds: FloatArray) -> NDArray[np.bool_]:
    """Return (B,) True where a block begins later than usual after the one before it."""
    step = np.diff(start_seconds, prepend=start_seconds[0])
    usual = float(np.median(step[1:]))
    return step > max(PAUSE_STEPS * usual, MIN_PAUSE_SECONDS)


def _long_run_variance(scores: FloatArray) -> float:
    """Return the variance of the sum of `scores` (B,), per block, with their neighbours' covariance."""
    centred = scores - scores.mean()
    alone = float((centred**2).mean())
    reach = max(1, int(4.0 * (len(scores) / 100.0) ** (2.0 / 9.0)))
    total = alone
    for lag in range(1, reach + 1):
        weight = 1.0 - lag / (reach + 1.0)
        total += 2.0 * weight * float((centred[lag:] * centred[:-lag]).sum()) / len(scores)
    return max(total, 0.5 * alone)

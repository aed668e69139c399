"""How far the same time of an earlier day can be taken at its word, service by service.

A job that starts at 02:00 every night is idle a minute before: no level, no noise tells of it, but
yesterday does. For a lead h, the last day itself says what the two ways of foretelling were worth,

    miss_level(h) = mean |x[t] - x[t - h]|,      miss_day = mean |x[t] - x[t - day]|

(or the miss of a straight line through x[t - 2 h] and x[t - h], or of the window's median, if that is less)

and the anchor of a forecast is a mean of the level now and of the same time yesterday and last week,
each earlier day weighted by (DOUBT * miss_day / miss_level(h)) ** -SHARPNESS against 1 for the level. On
most services that is the level; on one that runs by the clock, the clock.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.empirical import known_quantiles
from models.quantiles import FloatArray
from models.tracking import SMALLEST, known_mean

IntArray = NDArray[np.int64]
MOST_SAMPLES = 144  # of the window, evenly spaced: what is compared costs no more for short steps
LEAST_SAMPLES = 24  # fewer pairs tell nothing
DOUBT = 3.0  # an earlier day must be so much better than the level to count as much
SHARPNESS = 6.0
FLOOR_RATIO = 1e-3  # of the mean load: no miss is smaller


@dataclass(frozen=True, slots=True)
class Schedule:
    """Shapes: R origins, K leads, D earlier days. Values are in the unit of the series."""

    trust: FloatArray  # (R, K, D), weight of each earlier day; 0 where it is unknown
    usual: FloatArray  # (R, D), the same at one lead for all
    miss: FloatArray  # (R, D), mean distance from the same time on that day; NaN unknown

    def anchor(self, level: FloatArray, exact: FloatArray) -> FloatArray:
        """Return the mean (R, K) of `level` (R,) and the same time on earlier days, `exact` (R, K, D)."""
        trust = np.where(np.isfinite(exact), self.trust, 0.0)
        days = np.where(np.isfinite(exact), exact, 0.0)
        rest = 1.0 - trust.sum(axis=2)
        anchor: FloatArray = rest * level[:, np.newaxis] + (trust * days).sum(axis=2)
        return anchor

    def scale(self, scale: FloatArray) -> FloatArray:
        """Return `scale` (R,) drawn to what the trusted days missed by, as far as they are trusted."""
        miss = np.where(self.usual > 0, np.maximum(self.miss, SMALLEST), 1.0)
        drawn = (self.usual * np.log(miss)).sum(axis=1)
        kept = 1.0 - self.usual.sum(axis=1)
        together: FloatArray = np.exp(drawn + kept * np.log(scale))
        return together


def sampled_steps(window_steps: int) -> IntArray:
    """Return the steps (P,) at which the ways are compared, from the origin: increasing, the last is 0."""
    stride = -(-window_steps // MOST_SAMPLES)
    back: IntArray = np.arange(0, window_steps, stride, dtype=np.int64)
    return -back[::-1]


def schedule(
    recent: FloatArray, days: FloatArray, leads_steps: IntArray, usual_steps: int
) -> Schedule:
    """Weigh earlier days against the level.

    `recent` (R, W) newest last; `days` (R, P, D) the values of earlier days at `sampled_steps(W)`;
    `leads_steps` (R, K); `usual_steps` is the lead that stands for all.
    """
    at = recent.shape[1] - 1 + sampled_steps(recent.shape[1])
    now = recent[:, at]
    floor = (FLOOR_RATIO * known_mean(now) + SMALLEST)[:, np.newaxis]
    miss = np.stack([_miss(now, days[:, :, d]) for d in range(days.shape[2])], axis=1)
    usual = np.full((recent.shape[0], 1), usual_steps)
    leads = np.concatenate([leads_steps, usual], axis=1)
    still = _miss(now, np.broadcast_to(known_quantiles(now.T, 0.5)[:, np.newaxis], now.shape))
    level = _level_misses(recent, at, leads)
    level = np.fmin(level, still[:, np.newaxis])
    better = np.maximum(level, floor)[..., np.newaxis] / np.maximum(miss, floor)[:, np.newaxis]
    weight = np.where(np.isfinite(better), better / DOUBT, 0.0) ** SHARPNESS
    trust = weight / (1.0 + weight.sum(axis=2, keepdims=True))
    return Schedule(trust[:, :-1], trust[:, -1], np.maximum(miss, floor))


def _miss(now: FloatArray, then: FloatArray) -> FloatArray:
    """Mean distance (R,) of (R, P) values; NaN where fewer than LEAST_SAMPLES pairs are known."""
    apart = np.ascontiguousarray(
        np.abs(now - then)
    )  # sums of a row are the same bits in any layout
    enough = np.isfinite(apart).sum(axis=1) >= LEAST_SAMPLES
    return np.where(enough, known_mean(apart), np.nan)


@njit(cache=True, nogil=True)  # calls no other kernel: its own file is all it depends on
def _level_misses(recent: FloatArray, at: IntArray, leads: IntArray) -> FloatArray:
    """Mean distance (R, K) of steps `at` from the level a lead before, or from a line if that is less."""
    out = np.full(leads.shape, np.nan)
    for r in range(leads.shape[0]):
        for k in range(leads.shape[1]):
            lead = leads[r, k]
            flat, line = 0.0, 0.0
            flats, lines = 0, 0
            for p in at:
                if p < lead:
                    continue
                before = recent[r, p - lead]
                apart = recent[r, p] - before
                if np.isfinite(apart):
                    flat += abs(apart)
                    flats += 1
                if p >= 2 * lead:
                    apart = apart - before + recent[r, p - 2 * lead]
                    if np.isfinite(apart):
                        line += abs(apart)
                        lines += 1
            if flats >= LEAST_SAMPLES:
                out[r, k] = flat / flats
            if lines >= LEAST_SAMPLES and line / lines < out[r, k]:
                out[r, k] = line / lines
    return out

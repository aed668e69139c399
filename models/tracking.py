"""Where a noisy series stands now, and how far single steps fall from there.

The level is a mean of trailing means over several windows, each weighted by how well it has foretold
the next steps: short windows for a series that wanders, long ones for counts around a steady rate.
The scale is the mean distance of a step from the level before it, a long memory and a short one
combined geometrically, so that both the usual noise and a wild or calm hour count.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.quantiles import FloatArray

WINDOWS = (1, 2, 3, 5, 8, 15, 30)  # steps, increasing
AHEAD_STEPS = 2  # a window is judged by the mean of so many next steps
SHARPNESS = 25.0  # weights go with error ** -SHARPNESS: nearly the best window, without jumps
MEMORY_STEPS = 360  # steps before the origin that are judged, at most
SHORT_HALF_LIFE_STEPS = 8.0
SHORT_PRIOR_STEPS = 2.0  # the long memory weighs as much as so many steps of the short one
PRIOR_STEPS = 2.0  # the scale is no less than if so many steps were off by PRIOR_RATIO of the mean
PRIOR_RATIO = 0.2
LEAST_SHORT_RATIO = 0.2  # a calm hour shrinks the scale to no less of the usual
LEAST_RATIO = 0.003  # of the load: no scale is smaller
SMALLEST = 1e-9


@dataclass(frozen=True, slots=True)
class Track:
    """Shapes: R origins, M = steps judged. Values are in the unit of the series."""

    centre: FloatArray  # (R,), level now; NaN where nothing is known
    scale: FloatArray  # (R,), > 0; NaN where nothing is known
    short_ratio: FloatArray  # (R,), log of the short memory over the long one
    window: FloatArray  # (R,), mean log of the window that serves
    misses: FloatArray  # (R, M), step minus the level before it, in scales, newest last


def follow(recent: FloatArray, usual: FloatArray | None = None) -> Track:
    """Track series `recent` (R, W), newest last; NaN is a gap.

    `usual` (R,) is a load seen before the window, NaN where none was: it keeps the scale of a service
    that was idle all the window from vanishing.
    """
    memory = min(recent.shape[1], MEMORY_STEPS)
    levels = _trailing_means(recent, memory + 1)  # (windows, R, memory + 1)
    tail = _tail(recent, memory)
    weights = _weights(levels, tail)
    centre = np.einsum("kr,krm->rm", weights, levels)
    misses = tail - centre[:, :-1]
    whole = known_mean(recent)
    scale, short_ratio = _scale(np.abs(misses), whole)
    known = np.fmax(whole, whole if usual is None else usual)
    scale = np.maximum(scale, LEAST_RATIO * np.where(np.isfinite(known), known, 0.0))
    now = centre[:, -1]
    return Track(
        centre=np.where(np.isfinite(now), now, whole),
        scale=np.where(np.isfinite(whole), scale, np.nan),
        short_ratio=short_ratio,
        window=np.einsum("k,kr->r", np.log(np.array(WINDOWS)), weights),
        misses=misses / scale[:, np.newaxis],
    )


def known_mean(x: FloatArray) -> FloatArray:
    """Return the mean of the known values of each row, NaN where there are none."""
    known = np.isfinite(x)
    return ratio(np.where(known, x, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


def row_sums(x: FloatArray | NDArray[np.bool_], weight: FloatArray) -> FloatArray:
    """Return the weighted sum of each row (R, M): the same bits whatever rows are beside it.

    BLAS adds up in an order that depends on the number of rows; a forecast must not.
    """
    total: FloatArray = np.einsum("rm,m->r", np.asarray(x, dtype=np.float64), weight)
    return total


def ratio(total: FloatArray, count: FloatArray) -> FloatArray:
    """Return `total / count`, NaN where the count is 0."""
    return np.where(count > 0, total / np.where(count > 0, count, 1.0), np.nan)


def _tail(x: FloatArray, steps: int) -> FloatArray:
    """Return the newest `steps` columns, gaps in front where there are fewer."""
    short = steps - x.shape[1]
    if short <= 0:
        return x[:, x.shape[1] - steps :]
    return np.concatenate([np.full((x.shape[0], short), np.nan), x], axis=1)


def _trailing_means(x: FloatArray, steps: int) -> FloatArray:
    """Mean of the known among the last w values, (windows, R, steps); a gap takes a longer window's."""
    padded = _tail(x, steps + WINDOWS[-1])
    known = np.isfinite(padded)
    total = np.cumsum(np.where(known, padded, 0.0), axis=1)
    count = np.cumsum(known, axis=1, dtype=np.float64)
    out = np.empty((len(WINDOWS), x.shape[0], steps))
    for k in reversed(range(len(WINDOWS))):
        end = slice(WINDOWS[-1], WINDOWS[-1] + steps)
        begin = slice(end.start - WINDOWS[k], end.stop - WINDOWS[k])
        mean = ratio(total[:, end] - total[:, begin], count[:, end] - count[:, begin])
        longer = out[k + 1] if k + 1 < len(WINDOWS) else np.nan
        out[k] = np.where(np.isfinite(mean), np.maximum(mean, 0.0), longer)
    return out


def _weights(levels: FloatArray, tail: FloatArray) -> FloatArray:
    """Weight of each window (windows, R): the better it foretold the next steps, the more."""
    known = np.isfinite(tail)
    pair = np.where(known, tail, 0.0)
    ahead = ratio(pair[:, :-1] + pair[:, 1:], known[:, :-1] + known[:, 1:].astype(np.float64))
    miss = np.abs(
        ahead - levels[:, :, : ahead.shape[1]]
    )  # level j stands before step j of the tail
    seen = np.isfinite(miss)
    total = np.where(seen, miss, 0.0).sum(axis=2)
    error = np.where(seen.any(axis=2), total / np.maximum(seen.sum(axis=2), 1), 1.0)
    least = np.maximum(error.min(axis=0), SMALLEST)
    weight: FloatArray = (np.maximum(error, SMALLEST) / least) ** -SHARPNESS
    weight /= weight.sum(axis=0)
    return weight


def _scale(distance: FloatArray, whole: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Scale (R,) and the log ratio of its short memory to its long one (R,)."""
    memory = distance.shape[1]
    age = np.arange(memory - 1, -1, -1, dtype=np.float64)
    seen = np.isfinite(distance)
    distance = np.where(seen, distance, 0.0)
    slow, fast = 0.5 ** (age / (MEMORY_STEPS / 4)), 0.5 ** (age / SHORT_HALF_LIFE_STEPS)
    prior = PRIOR_STEPS * PRIOR_RATIO * np.where(np.isfinite(whole), whole, 0.0)
    least = np.maximum(prior, SMALLEST) / (
        seen.sum(axis=1) + PRIOR_STEPS
    )  # wide for a young series
    far, near = row_sums(distance, slow), row_sums(distance, fast)
    long = np.maximum(far / np.maximum(row_sums(seen, slow), SMALLEST), least)
    short = (near + SHORT_PRIOR_STEPS * long) / (row_sums(seen, fast) + SHORT_PRIOR_STEPS)
    long, short = np.maximum(long, SMALLEST), np.maximum(short, SMALLEST)
    scale = np.maximum(np.sqrt(long * short), LEAST_SHORT_RATIO * long)
    return np.maximum(scale, least), np.log(short / long)

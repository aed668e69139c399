"""Quantiles and shares from classic histogram buckets, and how far they can be from the truth.

A classic histogram has upper bounds b_1 < ... < b_K = +Inf and cumulative counts c_1 <= ... <= c_K. The
q-quantile lies in the first bucket whose count reaches q * c_K; inside it Prometheus interpolates
linearly (https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile), and so
do the functions here. The truth is anywhere in that bucket: its width is the error.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


class BucketError(ValueError):
    """Buckets that are not a histogram; the message says what and what is allowed."""


def checked_bounds(bounds: ArrayLike) -> FloatArray:
    """Return bounds (K,) that rise strictly and end with +Inf, or raise BucketError."""
    out = np.asarray(bounds, dtype=np.float64)
    if out.ndim != 1 or len(out) < 2 or not np.isposinf(out[-1]):
        raise BucketError(f"bounds {bounds!r}; allowed: two or more, the last +Inf")
    if np.isnan(out).any() or not (np.diff(out) > 0).all():
        raise BucketError(f"bounds {bounds!r}; allowed: rising strictly")
    return out


def quantiles(bounds: ArrayLike, cumulative: ArrayLike, level: float) -> FloatArray:
    """Return the quantile of each histogram as Prometheus does.

    bounds (K,); cumulative (..., K), made monotone first (scrapes of pods are not simultaneous);
    result (...). NaN where nothing was counted; in the bucket of +Inf the highest finite bound.
    """
    b = checked_bounds(bounds)
    if not 0 <= level <= 1:
        raise BucketError(f"level {level}; allowed: 0 to 1")
    c = np.maximum.accumulate(np.asarray(cumulative, dtype=np.float64), axis=-1)
    total = c[..., -1]
    rank = level * total
    at = np.minimum((c < rank[..., None]).sum(axis=-1), len(b) - 1)
    upper = b[at]
    lower = np.where(at > 0, b[np.maximum(at - 1, 0)], np.minimum(0.0, upper))
    here = np.take_along_axis(c, at[..., None], axis=-1)[..., 0]
    below = np.where(
        at > 0, np.take_along_axis(c, np.maximum(at - 1, 0)[..., None], axis=-1)[..., 0], 0.0
    )
    inside = np.divide(rank - below, here - below, out=np.ones_like(rank), where=here > below)
    finite = np.where(np.isposinf(upper), lower, upper)
    value = lower + (finite - lower) * np.clip(inside, 0.0, 1.0)
    return np.where(np.isnan(total) | (total <= 0), np.nan, value)


def bucket_of(bounds: ArrayLike, values: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return lower and upper bound of the bucket that an estimated quantile lies in; NaN for NaN.

    An estimate at the highest finite bound may mean the last bucket: its upper bound is +Inf.
    """
    b = checked_bounds(bounds)
    v = np.asarray(values, dtype=np.float64)
    at = np.searchsorted(b, v, side="left")
    at = np.where(v >= b[-2], len(b) - 1, at)
    at = np.minimum(at, len(b) - 1)
    lower = np.where(at > 0, b[np.maximum(at - 1, 0)], 0.0)
    missing = np.isnan(v)
    return np.where(missing, np.nan, lower), np.where(missing, np.nan, b[at])


def error_bound(bounds: ArrayLike, values: ArrayLike) -> FloatArray:
    """Return how far the true quantile can be from each estimate: +Inf in the last bucket."""
    lower, upper = bucket_of(bounds, values)
    v = np.asarray(values, dtype=np.float64)
    return np.maximum(v - lower, upper - v)


def share_within(
    bounds: ArrayLike, cumulative: ArrayLike, target: float
) -> tuple[FloatArray, FloatArray]:
    """Return the least and greatest share at or below `target`; equal where it is a bound.

    cumulative (..., K); both results (...). NaN where nothing was counted.
    """
    b = checked_bounds(bounds)
    c = np.maximum.accumulate(np.asarray(cumulative, dtype=np.float64), axis=-1)
    total = np.where(c[..., -1] > 0, c[..., -1], np.nan)
    exact = np.isclose(b, target, rtol=1e-9, atol=0.0)
    if exact.any():
        share = c[..., int(np.argmax(exact))] / total
        return share, share
    at = int(np.searchsorted(b, target))
    low = c[..., at - 1] / total if at > 0 else np.zeros_like(total) * total
    return low, c[..., min(at, len(b) - 1)] / total


def bounds_with_mass(bounds: ArrayLike, cumulative: ArrayLike) -> NDArray[np.bool_]:
    """Return which bounds matter, shape (K,): those of a bucket with anything in it, both its ends.

    cumulative (..., K): counts over everything that will be asked. Without the others every quantile
    stays what it was: their buckets are empty on both sides. The last bound always stays.
    """
    b = checked_bounds(bounds)
    c = np.nan_to_num(np.asarray(cumulative, dtype=np.float64)).reshape(-1, len(b))
    filled = np.asarray((np.abs(np.diff(c, axis=1, prepend=0.0)) > 0).any(axis=0))
    keep = filled | np.append(filled[1:], True)
    keep[-1] = True
    return np.asarray(keep, dtype=np.bool_)


def native_cumulative(
    cells: Sequence[tuple[float, float, float]], count: float
) -> list[tuple[float, float]]:
    """Return (upper bound, cumulative count) of a native histogram, as classic buckets have them.

    cells: (lower bound, upper bound, count) of the buckets with anything in them. Both ends of each are
    given, since what lies between two of them is empty. Buckets of schema s end at the powers of
    2^(2^-s): a quantile is off by at most that factor (1.09 for schema 3, 2 for schema 0). Last +Inf.
    """
    out: list[tuple[float, float]] = []
    below = 0.0
    for lower, upper, inside in sorted(cells):
        if lower > 0 and (not out or out[-1][0] < lower):
            out.append((lower, below))
        below += inside
        out.append((upper, below))
    if not out or math.isfinite(out[-1][0]):
        out.append((math.inf, max(count, below)))
    return out

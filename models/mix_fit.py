"""Fitting the mix model: classes, how far each rule can be trusted, and what is no drift."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.empirical import known_quantiles
from models.features import DAY_SECONDS
from models.frames import LoadSeries
from models.mix_bins import BinClock, binned, mean_lengths
from models.mix_drift import HIGH, LEAST_REQUESTS, LOW, distance
from models.mix_model import (
    HALF_LIVES_BINS,
    HOURS,
    LEADS_BINS,
    RECENT,
    RULES,
    SEASONS_DAYS,
    MixLearned,
    MixModel,
    hour_of,
)
from models.quantiles import FloatArray
from models.traffic_classes import MOST, Hull, hull_of

MAX_DAYS = 28  # older mixes say little
JUDGED_DAYS = 7  # on which the rules are compared
SURE_REQUESTS = 20.0  # a bin of so many counts half as much as one of very many
MIN_PAIRS = 48  # fewer tell nothing of a rule
SHARPNESS = 4.0
USUAL = 0.98  # nearly all bins of a service have shorter means; absurd is so many times longer:
ABSURD_RATIO = 3.0
DOUBT = 1.2  # an earlier day must be so much better than a level to count as much
SHARE_SLACK = 0.1  # beyond all shares seen, and so many times their noise, begins a drift
NOISE_SLACK = 3.0
EXCESS_SLACK = 0.15
NEAR_HOURS = (-1, 0, 1)  # whose shares an hour may have, too
LEAST_DAYS = 3  # of an hour, before it has shares of its own


def fit_mix(series: LoadSeries) -> MixModel:
    """Learn classes, weights and what is allowed from the last MAX_DAYS of every service."""
    clock = BinClock(series.step_seconds)
    keep = round(MAX_DAYS * DAY_SECONDS / series.step_seconds)
    values = series.values[:, -keep:]
    skipped = series.values.shape[1] - values.shape[1]
    sums, first = binned(values, series.start_seconds + skipped * series.step_seconds, clock)
    told: NDArray[np.bool_] = np.any(np.isfinite(values[..., 1:]), axis=1)
    means = _without_absurd(mean_lengths(sums))
    average = _average(means, sums[..., 0])
    points = means / average[:, np.newaxis]
    weight = sums[..., 0] / (sums[..., 0] + SURE_REQUESTS)
    found = [hull_of(p, w) for p, w in zip(points, weight, strict=True)]
    hull = Hull(np.stack([f[0] for f in found]), np.array([f[1] for f in found], np.int64))
    shares = hull.shares(points)
    excess = distance(points, hull.points(shares))
    judged = sums[..., 0] >= LEAST_REQUESTS
    learned = MixLearned(
        mean=np.where(told, average, np.nan),
        hull=hull,
        weights=_weights(sums, points, average, clock),
        allowed=_allowed(np.where(judged[..., np.newaxis], shares, np.nan), first, clock),
        allowed_excess=EXCESS_SLACK + _top(np.where(judged, excess, np.nan)),
    )
    scores = {
        name: _score(learned, s, _mean_shares(shares[s], sums[s]), int(judged[s].sum()))
        for s, name in enumerate(series.services)
    }
    return MixModel(
        step_seconds=series.step_seconds, services=series.services, learned=learned, scores=scores
    )


def _without_absurd(means: FloatArray) -> FloatArray:
    """Return mean lengths (S, B, 2), none many times longer than nearly all others of its service."""
    usual = known_quantiles(np.moveaxis(means, 1, 0), USUAL)
    capped: FloatArray = np.minimum(means, ABSURD_RATIO * usual[:, np.newaxis])
    return capped


def _average(means: FloatArray, requests: FloatArray) -> FloatArray:
    """Return the mean lengths (S, 2) by requests (S, B); 1 where nothing is known."""
    known = np.isfinite(means)
    weight = np.where(known, requests[..., np.newaxis], 0.0)
    total = (weight * np.where(known, means, 0.0)).sum(axis=1)
    average = total / np.maximum(weight.sum(axis=1), 1e-12)
    return np.where(average > 0, average, 1.0)


def _weights(
    sums: FloatArray, points: FloatArray, average: FloatArray, clock: BinClock
) -> FloatArray:
    """Weights (S, leads, R): by the mean distance of each rule from what came, over the last days."""
    services, bins = sums.shape[:2]
    begin = max(0, bins - JUDGED_DAYS * clock.day_bins)
    levels = _levels(sums) / average[:, np.newaxis, np.newaxis]  # (S, B, H, 2)
    errors = np.full((services, len(LEADS_BINS), len(RULES)), np.inf)
    for i, lead in enumerate(LEADS_BINS):
        for r in range(len(RULES)):
            if r < len(HALF_LIVES_BINS):
                back, said = lead, levels[:, :, r]
            else:
                season = SEASONS_DAYS[r - len(HALF_LIVES_BINS)] * clock.day_bins
                back, said = -(-lead // season) * season, points
            here = max(begin, back)
            if here >= bins:
                continue
            miss = distance(points[:, here:], said[:, here - back : bins - back])
            errors[:, i, r] = _mean_miss(miss, sums[:, here:, 0])
    errors[:, :, len(HALF_LIVES_BINS) :] *= DOUBT
    least = np.maximum(errors.min(axis=2, keepdims=True), 1e-9)
    nothing = np.isinf(least[..., 0])
    least[nothing] = 1.0
    weight = (least / np.maximum(errors, least)) ** SHARPNESS
    weight[nothing] = np.eye(len(RULES))[RECENT]
    weights: FloatArray = weight / weight.sum(axis=2, keepdims=True)
    return weights


def _levels(sums: FloatArray) -> FloatArray:
    """Trailing mean lengths (S, B, H, 2) at the end of each bin."""
    services, bins = sums.shape[:2]
    keep = 0.5 ** (1.0 / np.array(HALF_LIVES_BINS))[:, np.newaxis]
    state = np.zeros((services, len(HALF_LIVES_BINS), 3))
    out = np.empty((services, bins, len(HALF_LIVES_BINS), 2))
    for b in range(bins):
        state = keep * state + sums[:, b, np.newaxis]
        out[:, b] = mean_lengths(state)
    return out


def _mean_miss(miss: FloatArray, requests: FloatArray) -> FloatArray:
    """Mean (S,) by requests of the known; inf where fewer than MIN_PAIRS are."""
    known = np.isfinite(miss)
    weight = np.where(known, requests, 0.0)
    total = weight.sum(axis=1)
    mean = (weight * np.where(known, miss, 0.0)).sum(axis=1) / np.maximum(total, 1e-12)
    return np.where((known.sum(axis=1) >= MIN_PAIRS) & (total > 0), mean, np.inf)


def _allowed(shares: FloatArray, first: int, clock: BinClock) -> FloatArray:
    """Least and most share (S, HOURS, MOST, 2) by hour, with slack; of all hours where days are few."""
    services, bins = shares.shape[:2]
    out = np.empty((services, HOURS, MOST, 2))
    hours = hour_of(first + np.arange(bins), clock)
    days = (first + np.arange(bins)) // clock.day_bins
    whole = _range(shares)
    for hour in range(HOURS):
        near = np.isin(hours, [(hour + h) % HOURS for h in NEAR_HOURS])
        known = np.isfinite(shares[:, hours == hour, 0])
        seen = (
            np.stack(
                [known[:, days[hours == hour] == d].any(axis=1) for d in np.unique(days)], axis=1
            ).sum(axis=1)
            if bins
            else np.zeros(services)
        )
        own = _range(shares[:, near])
        out[:, hour] = np.where((seen >= LEAST_DAYS)[:, np.newaxis, np.newaxis], own, whole)
    steps = np.diff(shares, axis=1)
    noise = np.sqrt(_known_mean(steps**2) / 2.0)
    slack = SHARE_SLACK + NOISE_SLACK * noise[:, np.newaxis]
    out[..., LOW] -= slack
    out[..., HIGH] += slack
    return out


def _range(shares: FloatArray) -> FloatArray:
    """Least and most (S, MOST, 2) over bins (S, B, MOST); everything where nothing is known."""
    known = np.isfinite(shares)
    low = np.where(known, shares, np.inf).min(axis=1, initial=np.inf)
    high = np.where(known, shares, -np.inf).max(axis=1, initial=-np.inf)
    none = ~known.any(axis=1)
    return np.stack([np.where(none, 0.0, low), np.where(none, 1.0, high)], axis=-1)


def _known_mean(x: FloatArray) -> FloatArray:
    known = np.isfinite(x)
    total = np.where(known, x, 0.0).sum(axis=1)
    mean: FloatArray = total / np.maximum(known.sum(axis=1), 1)
    return mean


def _top(excess: FloatArray) -> FloatArray:
    """Return what nearly all bins (S, B) stay below, (S,); 0 where nothing is known."""
    known = np.where(np.isfinite(excess), excess, 0.0)
    if known.shape[1] == 0:
        return np.zeros(known.shape[0])
    top: FloatArray = np.quantile(known, 0.99, axis=1)
    return top


def _mean_shares(shares: FloatArray, sums: FloatArray) -> FloatArray:
    weight = np.where(np.isfinite(shares), sums[:, :1], 0.0)
    total: FloatArray = (weight * np.nan_to_num(shares)).sum(axis=0) / np.maximum(
        weight.sum(axis=0), 1e-12
    )
    return total


def _score(learned: MixLearned, s: int, shares: FloatArray, bins: int) -> dict[str, Any]:
    """JSON-able account of one service: its classes, and what their shares follow half an hour ahead."""
    lengths = learned.hull.corners[s] * learned.mean[s]
    lead = LEADS_BINS.index(2)
    classes = [
        {
            "isl_tokens": _rounded(lengths[k, 0], 1),
            "osl_tokens": _rounded(lengths[k, 1], 1),
            "share_ratio": _rounded(shares[k], 4),
        }
        for k in range(int(learned.hull.count[s]))
    ]
    rules = {r: round(float(w), 3) for r, w in zip(RULES, learned.weights[s, lead], strict=True)}
    return {"classes": classes, "share_follows": rules, "known_bins": bins}


def _rounded(x: float, digits: int) -> float | None:
    return round(float(x), digits) if np.isfinite(x) else None

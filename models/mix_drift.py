"""Whether a class of traffic is still what it was: its share of the requests, and its lengths.

A class drifts when, for DRIFT_BINS bins in a row, its share is outside of all that history showed at this
hour of the day, with slack for noise, or when the mean lengths lie outside of what all classes can make.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.mix_bins import mean_lengths
from models.quantiles import FloatArray
from models.traffic_classes import Hull

DRIFT_BINS = 4  # an hour
LEAST_REQUESTS = 5.0  # in a bin, to judge it
LOW, HIGH = 0, 1
SHORTEST = 1.0  # token: below, lengths do not differ
ALIKE_RATIO = 1.5  # classes of two fits whose lengths are no further apart are the same
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Drift:
    """A class that is not as it was: its share of the requests, or the length of its requests."""

    number: int  # of the class
    what: str  # "share" or "length"
    now: float  # share; or distance of the lengths from all that the classes allow, in mean lengths
    low: float  # what history allows
    high: float

    def in_words(self, lengths: FloatArray) -> str:
        """Return a sentence; `lengths` (2,) are those of the class."""
        of = f"requests of about {lengths[0]:.0f} tokens in, {lengths[1]:.0f} out"
        if self.what == "share":
            low, high = max(0.0, self.low), min(1.0, self.high)
            usual = f"{low:.0%} to {high:.0%} at this hour"
            return f"mix drifted: {of} are {self.now:.0%} of the traffic, {usual} until now"
        return f"mix drifted: lengths are {self.now:.0%} off those of {of}, {self.high:.0%} allowed"


@dataclass(frozen=True, slots=True)
class DriftSpan:
    """One class of one service that drifted, at some of the moments that were looked at."""

    service: str
    lengths: tuple[float, float]  # of the class, tokens in and out
    what: str  # as Drift.what
    moments: int  # at which it drifted
    looked_at: int  # moments of this service
    first_seconds: float
    last_seconds: float
    sentence: str  # of the last of them


@dataclass(frozen=True, slots=True)
class Allowed:
    """What history allows S services: shares by bin (S, bins, K, 2), distance from the hull (S,)."""

    shares: FloatArray
    excess: FloatArray


def drifts_of(
    tail: FloatArray, mean: FloatArray, hull: Hull, allowed: Allowed
) -> tuple[Drift | None, ...]:
    """Judge the last DRIFT_BINS full bins `tail` (S, bins, 3); `mean` (S, 2) are the hull's units."""
    means = mean_lengths(tail) / mean[:, np.newaxis]
    judged: Mask = (tail[..., 0] >= LEAST_REQUESTS) & np.isfinite(means[..., 0] + means[..., 1])
    whole = judged.all(axis=1) & (tail.shape[1] == DRIFT_BINS)
    shares = hull.shares(means)
    excess = distance(means, hull.points(shares))
    over: Mask = np.all(shares > allowed.shares[..., HIGH], axis=1)
    under: Mask = np.all(shares < allowed.shares[..., LOW], axis=1)
    moved: Mask = np.all(excess > allowed.excess[:, np.newaxis], axis=1)
    out: list[Drift | None] = [None] * tail.shape[0]
    for s in np.flatnonzero(whole & (moved | over.any(axis=1) | under.any(axis=1))):
        now = shares[s].mean(axis=0)
        if moved[s]:
            most = float(allowed.excess[s])
            out[s] = Drift(int(now.argmax()), "length", float(excess[s].mean()), 0.0, most)
            continue
        k = int(np.flatnonzero(over[s] if over[s].any() else under[s])[0])
        low, high = allowed.shares[s, -1, k]
        out[s] = Drift(k, "share", float(now[k]), float(low), float(high))
    return tuple(out)


def distance(points: FloatArray, others: FloatArray) -> FloatArray:
    """Return the distance (...) between points (..., 2)."""
    apart: FloatArray = np.sqrt(((points - others) ** 2).sum(axis=-1))
    return apart


def spans_of(
    services: Sequence[str],
    seconds: FloatArray,
    drifts: Sequence[Drift | None],
    lengths: FloatArray,
) -> tuple[DriftSpan, ...]:
    """Gather what drifted at N moments by service, class and kind; by service, then by time.

    `lengths` (N, 2) are those of the class that drifts. Models that are fitted anew number their classes
    anew: a class is known by its lengths.
    """
    looked_at = {name: services.count(name) for name in set(services)}
    found: list[DriftSpan] = []
    for n in np.argsort(seconds, kind="stable"):
        drift = drifts[n]
        if drift is None:
            continue
        name, at, own = services[n], float(seconds[n]), lengths[n]
        sentence = drift.in_words(own)
        for i, span in enumerate(found):
            apart = np.abs(np.log(np.maximum(own, SHORTEST) / np.maximum(span.lengths, SHORTEST)))
            if (span.service, span.what) == (name, drift.what) and apart.max() < np.log(
                ALIKE_RATIO
            ):
                found[i] = replace(
                    span, moments=span.moments + 1, last_seconds=at, sentence=sentence
                )
                break
        else:
            tokens = float(own[0]), float(own[1])
            found.append(DriftSpan(name, tokens, drift.what, 1, looked_at[name], at, at, sentence))
    return tuple(sorted(found, key=lambda span: (span.service, span.first_seconds)))

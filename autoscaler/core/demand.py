"""From predicted quantiles to the demand that replicas are sized for.

Sizing integrates over the whole predictive distribution, on a fixed grid of probabilities that is
finer in the upper tail, where replicas are decided. Between the given quantiles the quantile function
is linear; beyond the last it goes on with the last slope, below the first it falls to zero.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from autoscaler.core.outcome import FloatArray, Outlook, Sample

# Cells of probability; each is represented by its middle.
EDGES = np.array(
    [
        *(0.0, 0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.88, 0.93),
        *(0.95, 0.965, 0.975, 0.982, 0.987, 0.991, 0.994, 0.997, 1.0),
    ]
)
PROBABILITIES: FloatArray = (EDGES[:-1] + EDGES[1:]) / 2
WEIGHTS: FloatArray = np.diff(EDGES)
# A miss of an overload counts twice: the queue of a burst goes on to miss when the burst is over, and the
# highest bursts lie above the straight line by which the tail ends (docs/design/002-sizing.md).
OVERLOAD = 2.0
OVERLOADED = 0.9  # the probability above which a cell stands for a burst
MISSES: FloatArray = WEIGHTS * np.where(PROBABILITIES > OVERLOADED, OVERLOAD, 1.0)
MIDDLE = int(np.argmin(np.abs(PROBABILITIES - 0.5)))  # the point nearest the median
CAREFUL = int(
    np.argmin(np.abs(PROBABILITIES - 0.75))
)  # what must be nothing before all is given up

# Spread of a minute's rate around its recent mean where no load model exists: a coefficient of
# variation of 0.35, what ServeGen (arXiv 2505.09999) shows for large clients within ten minutes.
UNMODELLED_SIGMA = 0.35
STANDARD_NORMAL: FloatArray = np.round(ndtri(PROBABILITIES), 3)


@dataclass(frozen=True, slots=True)
class Fans:
    """Outlooks of S services that share their leads and quantiles, to be asked all at once.

    `rates_rps` (S, L, Q); leads in seconds after each service's own cutoff, `age_seconds` (S,) old by now.
    """

    services: tuple[str, ...]
    leads_seconds: FloatArray  # (L,)
    quantiles: FloatArray  # (Q,)
    rates_rps: FloatArray  # (S, L, Q)
    age_seconds: FloatArray  # (S,)

    def at(self, ahead_seconds: FloatArray) -> FloatArray:
        """Return (S, Q), the quantiles at (S,) seconds ahead of now; held beyond the ends."""
        known, leads = self.leads_seconds, ahead_seconds + self.age_seconds
        after = np.minimum(np.maximum(known.searchsorted(leads), 1), max(1, known.size - 1))
        before = after - 1
        after = np.minimum(after, known.size - 1)  # a single lead speaks for all
        span = np.where(after > before, known[after] - known[before], 1.0)
        share = np.minimum(np.maximum((leads - known[before]) / span, 0.0), 1.0)[:, np.newaxis]
        each = np.arange(len(leads))
        values: FloatArray = (
            self.rates_rps[each, before] * (1.0 - share) + self.rates_rps[each, after] * share
        )
        return values

    def highest(self, start_seconds: FloatArray, end_seconds: FloatArray) -> FloatArray:
        """Return (S, Q), the pointwise maximum of each quantile from start to end (S,) ahead of now."""
        edges = np.maximum(self.at(start_seconds), self.at(end_seconds))
        low, high = start_seconds + self.age_seconds, end_seconds + self.age_seconds
        near = slice(*np.searchsorted(self.leads_seconds, (low.min(), high.max())))
        leads = self.leads_seconds[near]
        if leads.size == 0:
            return edges
        inside = (leads > low[:, np.newaxis]) & (leads < high[:, np.newaxis])
        between = np.where(inside[:, :, np.newaxis], self.rates_rps[:, near], -np.inf).max(axis=1)
        highest: FloatArray = np.maximum(edges, between)
        return highest


def fans_of(outlooks: Mapping[str, Outlook], now_seconds: float) -> Iterator[Fans]:
    """Yield the outlooks in stacks; those of one forecast are one stack."""
    alike: dict[tuple[bytes, bytes], list[str]] = {}
    for name, outlook in outlooks.items():
        key = (outlook.leads_seconds.tobytes(), outlook.quantiles.tobytes())
        alike.setdefault(key, []).append(name)
    for names in alike.values():
        each = [outlooks[name] for name in names]
        yield Fans(
            tuple(names),
            each[0].leads_seconds,
            each[0].quantiles,
            np.stack([o.arrival_rate_rps for o in each]),
            np.array([now_seconds - o.cutoff_seconds for o in each]),
        )


def rates_at(
    probabilities: FloatArray, values_rps: FloatArray, quantiles: FloatArray
) -> FloatArray:
    """Return the rate at each probability, shape (S, K), from quantiles of shape (S, Q)."""
    top, bottom = values_rps[:, -1:], np.maximum(0.0, 2.0 * values_rps[:, :1] - values_rps[:, 1:2])
    slope = (top - values_rps[:, -2:-1]) / (quantiles[-1] - quantiles[-2])
    p = np.concatenate(([0.0], quantiles, [1.0]))
    v = np.concatenate((bottom, values_rps, top + slope * (1.0 - quantiles[-1])), axis=1)
    low = np.minimum(np.maximum(p.searchsorted(probabilities, "right") - 1, 0), p.size - 2)
    rise = (v[:, low + 1] - v[:, low]) / (p[low + 1] - p[low])
    points: FloatArray = rise * (probabilities - p[low]) + v[:, low]
    return points


def unmodelled_points(rate_rps: float) -> FloatArray:
    """Demand around a measured rate where nothing was learned: lognormal, mean `rate_rps`."""
    points: FloatArray = rate_rps * np.exp(
        UNMODELLED_SIGMA * STANDARD_NORMAL - UNMODELLED_SIGMA**2 / 2
    )
    return points


def measured_rate_rps(samples: Sequence[Sample], now_seconds: float, window: float) -> float:
    """Return the mean rate over the samples that end within the last `window` seconds; NaN if none."""
    since = now_seconds - window
    recent = [s for s in samples if s.end_seconds > since]
    span = sum([s.interval_seconds for s in recent])
    if span <= 0:
        return float("nan")
    return sum([s.arrival_rate_rps * s.interval_seconds for s in recent]) / span

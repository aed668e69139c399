"""From predicted quantiles to the demand that replicas are sized for.

Sizing integrates over the whole predictive distribution, on a fixed grid of probabilities that is
finer in the upper tail, where replicas are decided. Between the given quantiles the quantile function
is linear; beyond the last it goes on with the last slope, below the first it falls to zero.
"""

from collections.abc import Sequence

import numpy as np

from autoscaler.core.outcome import FloatArray, Outlook, Sample

# Cells of probability; each is represented by its middle.
EDGES = np.array([0.0, 0.1, 0.25, 0.4, 0.55, 0.7, 0.8, 0.88, 0.94, 0.97, 0.99, 1.0])
PROBABILITIES: FloatArray = (EDGES[:-1] + EDGES[1:]) / 2
WEIGHTS: FloatArray = np.diff(EDGES)

# Spread of a minute's rate around its recent mean where no load model exists: a coefficient of
# variation of 0.35, what ServeGen (arXiv 2505.09999) shows for large clients within ten minutes.
UNMODELLED_SIGMA = 0.35
STANDARD_NORMAL: FloatArray = np.array(
    [-1.645, -0.935, -0.454, -0.063, 0.319, 0.674, 0.994, 1.341, 1.695, 2.054, 2.576]
)


def envelope(outlook: Outlook, now_seconds: float, start: float, end: float) -> FloatArray:
    """Return the pointwise maximum of each quantile over [now + start, now + end], shape (Q,).

    Seconds ahead of now; the forecast may be older than now, its leads count from its own cutoff.
    """
    age = now_seconds - outlook.cutoff_seconds
    low, high = start + age, end + age
    leads = outlook.leads_seconds
    inside = leads[(leads > low) & (leads < high)]
    highest: FloatArray = at_leads(outlook, np.concatenate(([low], inside, [high]))).max(axis=0)
    return highest


def at_leads(outlook: Outlook, leads_seconds: FloatArray) -> FloatArray:
    """Return quantiles at leads counted from the cutoff, shape (len(leads), Q); held at the ends."""
    known, rates = outlook.leads_seconds, outlook.arrival_rate_rps
    after = np.clip(np.searchsorted(known, leads_seconds), 1, max(1, known.size - 1))
    before = after - 1
    after = np.minimum(after, known.size - 1)  # a single lead speaks for all
    span = np.where(after > before, known[after] - known[before], 1.0)
    share = np.clip((leads_seconds - known[before]) / span, 0.0, 1.0)[:, np.newaxis]
    values: FloatArray = rates[before] * (1.0 - share) + rates[after] * share
    return values


def demand_points(values_rps: FloatArray, quantiles: FloatArray) -> FloatArray:
    """Return the rate at each of PROBABILITIES, shape (K,), from quantiles of shape (Q,)."""
    top = values_rps[-1]
    slope = (top - values_rps[-2]) / (quantiles[-1] - quantiles[-2])
    p = np.concatenate(([0.0], quantiles, [1.0]))
    bottom = max(0.0, 2.0 * values_rps[0] - values_rps[1])
    v = np.concatenate(([bottom], values_rps, [top + slope * (1.0 - quantiles[-1])]))
    points: FloatArray = np.interp(PROBABILITIES, p, v)
    return points


def unmodelled_points(rate_rps: float) -> FloatArray:
    """Demand around a measured rate where nothing was learned: lognormal, mean `rate_rps`."""
    points: FloatArray = rate_rps * np.exp(
        UNMODELLED_SIGMA * STANDARD_NORMAL - UNMODELLED_SIGMA**2 / 2
    )
    return points


def measured_rate_rps(samples: Sequence[Sample], now_seconds: float, window: float) -> float:
    """Return the mean rate over the samples that end within the last `window` seconds; NaN if none."""
    recent = [s for s in samples if s.end_seconds > now_seconds - window]
    span = sum(s.interval_seconds for s in recent)
    if span <= 0:
        return float("nan")
    return sum(s.arrival_rate_rps * s.interval_seconds for s in recent) / span

"""Survival curves of start-up times on a grid of durations: what lead times are read from.

Kaplan and Meier's estimate with imaginary starts that follow a prior; models.lead_time has the sources.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

FloatArray = NDArray[np.float64]
Pair = tuple[str, str]
ANY, THERE, NEW = (
    "any",
    "there",
    "new",
)  # the node: not asked for or not known, found ready, waited for
PRIORS = {ANY: (150.0, 0.75), THERE: (75.0, 0.7), NEW: (450.0, 0.6)}  # median seconds, log sigma
PRIOR_STARTS = 2.0  # the prior against the fleet
FLEET_STARTS = 3.0  # the fleet's pool against a variant
VARIANT_STARTS = 5.0  # a variant's pool against a service
KNOWN_STARTS = 2.5  # of a state, aged, so three of the last days: fewer tell nothing of it
MIN_SECONDS, MAX_SECONDS = 1.0, 14_400.0  # a start of four hours never ends
GRID = np.geomspace(MIN_SECONDS, MAX_SECONDS, 241)  # 4 % apart: starts vary by far more
NOTHING: FloatArray = np.zeros((2, len(GRID)))
NOTHING.setflags(write=False)  # shared by all who know nothing
NEVER = (np.nan, np.nan)


@dataclass(frozen=True, slots=True)
class Starts:
    """What is known of one (service, variant).

    counts: node state -> (2, G) starts that became ready, and censored ones, a cell of GRID, aged.
    ANY holds all of them, the other states those whose phases tell. seen, censored: starts, and those of
    them that never became ready, not aged. latest: node state -> when the last one that became ready was
    created (epoch seconds) and how long it took, NaN where none; THERE: the last one that may have been.
    """

    counts: Mapping[str, FloatArray]
    seen: int
    censored: int
    latest: Mapping[str, tuple[float, float]]


class Curves:
    """Survival curves (G,) of one node state: pairs shrunk to variants, these to the fleet and a prior."""

    def __init__(self, starts: Mapping[Pair, Starts], state: str) -> None:
        median, sigma = PRIORS[state]
        prior = np.asarray(1.0 - ndtr(np.log(GRID / median) / sigma), dtype=np.float64)
        pools: dict[str, FloatArray] = {}
        for (_, variant), of in starts.items():
            pools[variant] = pools.get(variant, NOTHING) + of.counts[state]
        self._fleet = survival(sum(pools.values(), start=NOTHING), prior, PRIOR_STARTS)
        self._variants = {v: survival(of, self._fleet, FLEET_STARTS) for v, of in pools.items()}
        self._pairs = {
            pair: survival(of.counts[state], self._variants[pair[1]], VARIANT_STARTS)
            for pair, of in starts.items()
            if of.counts[state].any()  # else its variant speaks: a thousand services need no copies
        }
        self._known = {v for v, of in pools.items() if of.sum() >= KNOWN_STARTS}

    def of(self, service: str, variant: str) -> FloatArray:
        """Return the curve of a pair, of its variant or of the fleet: the first that is known."""
        curve = self._pairs.get((service, variant))
        return self._variants.get(variant, self._fleet) if curve is None else curve

    def known(self, variant: str) -> bool:
        """Return whether starts in this state were seen, of any service of the variant."""
        return variant in self._known


def survival(counts: FloatArray, prior: FloatArray, prior_starts: float) -> FloatArray:
    """Return (G,) the chance that a start exceeds GRID, from `counts` (2, G), shrunk to `prior`.

    Kaplan-Meier with `prior_starts` imaginary starts that follow `prior` (G,) at risk beside the
    observed: hazard = (events + prior events) / (at risk + prior at risk) in each cell of the grid.
    A censored start leaves the risk set without an event.
    """
    leaving = counts.sum(axis=0).astype(np.float64)
    at_risk = leaving[::-1].cumsum()[::-1]
    before = np.concatenate([[1.0], prior[:-1]])
    events = counts[0] + prior_starts * (before - prior)
    hazard = events / np.maximum(at_risk + prior_starts * before, 1e-12)
    return np.asarray(np.cumprod(1.0 - np.clip(hazard, 0.0, 1.0)), dtype=np.float64)


def quantile_of(curve: FloatArray, q: float) -> float:
    """Return the duration at which the chance to take longer falls to 1 - q, log-linear in a cell."""
    known = np.concatenate([[0.0], 1.0 - curve])
    edges = np.concatenate([[np.log(0.5 * MIN_SECONDS)], np.log(GRID)])
    return float(np.exp(np.interp(q, known, edges)))

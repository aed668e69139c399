"""How long a replica takes from created to ready: a distribution per (service, variant).

A start that is still running, or was given up, is censored: it says "longer than this", not "short"
(Kaplan and Meier, JASA 1958). Starts of one pair are few, so its distribution is shrunk to that of its
variant, that to the fleet's, and that to a prior, each worth a fixed number of starts (a Dirichlet
prior on the survival curve: Susarla and Van Ryzin, JASA 1976, with expected counts).

The prior is lognormal with a median of 150 s and a 95 % range of about 35 s to 650 s: public start-up
measurements of vLLM replicas give 35 to 60 s on a warm node with caches, 80 to 300 s with cold caches
and 5 to 12 minutes with a new node and an image pull.
"""

import json
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
FILE = "lead_time.json"
FORMAT = 1
PRIOR_MEDIAN_SECONDS = 150.0
PRIOR_SIGMA = 0.75  # of the logarithm
PRIOR_STARTS = 2.0  # the prior against the fleet
FLEET_STARTS = 3.0  # the fleet's pool against a variant
VARIANT_STARTS = 5.0  # a variant's pool against a service
MIN_SECONDS, MAX_SECONDS = 1.0, 14_400.0  # a start of four hours never ends
GRID = np.geomspace(MIN_SECONDS, MAX_SECONDS, 241)  # 4 % apart: starts vary by far more


class LeadTimeError(ValueError):
    """A lead-time model that cannot be read or asked; the message says what is allowed."""


class LeadTimeModel:
    """Survival curves of start-up time on GRID, per pair, per variant and for the fleet.

    Attributes
    ----------
    scores : per "service/variant": starts seen, how many censored, and the 0.5 and 0.95 quantiles.
    """

    def __init__(self, counts: Mapping[tuple[str, str], IntArray]) -> None:
        """Build from (2, G) counts per pair: starts that became ready, and censored ones, a cell."""
        self._counts = {pair: counts[pair] for pair in sorted(counts)}
        prior = np.asarray(
            1.0 - ndtr((np.log(GRID) - np.log(PRIOR_MEDIAN_SECONDS)) / PRIOR_SIGMA),
            dtype=np.float64,
        )
        pools: dict[str, IntArray] = {}
        for (_, variant), of in self._counts.items():
            pools[variant] = pools.get(variant, np.zeros_like(of)) + of
        nothing = np.zeros((2, len(GRID)), dtype=np.int64)
        self._fleet = survival(sum(pools.values(), start=nothing), prior, PRIOR_STARTS)
        self._variants = {v: survival(of, self._fleet, FLEET_STARTS) for v, of in pools.items()}
        self._pairs = {
            pair: survival(of, self._variants[pair[1]], VARIANT_STARTS)
            for pair, of in self._counts.items()
        }
        self.scores: dict[str, dict[str, Any]] = {
            f"{service}/{variant}": {
                "starts": int(self._counts[service, variant].sum()),
                "censored": int(self._counts[service, variant][1].sum()),
                "p50_seconds": round(_quantile(curve, 0.5), 2),
                "p95_seconds": round(_quantile(curve, 0.95), 2),
            }
            for (service, variant), curve in self._pairs.items()
        }

    @classmethod
    def fit(cls, startups: pd.DataFrame, *, end_seconds: float) -> Self:
        """Fit validated starts (models.frames.validate_startups) as known at `end_seconds` (epoch).

        A start with neither ready_ts nor ended_ts was still running at the end; one created after
        the end is not known.
        """
        created = _epoch(startups.created_ts)
        ready_at = _epoch(startups.ready_ts)
        gone = np.fmin(_epoch(startups.ended_ts), end_seconds)
        ready = ready_at <= end_seconds  # NaN compares false
        seconds = np.where(ready, ready_at, gone) - created
        cell = np.searchsorted(GRID[:-1], np.clip(seconds, MIN_SECONDS, MAX_SECONDS))
        counts: dict[tuple[str, str], IntArray] = {}
        names = zip(startups.service.astype(str), startups.variant.astype(str), strict=True)
        for n, pair in enumerate(names):
            if seconds[n] >= 0:
                of = counts.setdefault(pair, np.zeros((2, len(GRID)), dtype=np.int64))
                of[0 if ready[n] else 1, cell[n]] += 1
        return cls(counts)

    def with_more(self, other: Self) -> Self:
        """Return a model that knows of each pair what the better informed of the two does.

        Not their sum: both may have seen the same starts.
        """
        counts = dict(self._counts)
        for pair, of in other._counts.items():
            if pair not in counts or of.sum() > counts[pair].sum():
                counts[pair] = of
        return type(self)(counts)

    def quantile_seconds(self, service: str, variant: str, q: float) -> float:
        """Return the start-up time that a share `q` of starts does not exceed, q in (0, 1).

        A pair without starts gets its variant's pool, an unknown variant the fleet's, and a fleet
        without starts the prior.
        """
        if not 0.0 < q < 1.0:
            raise LeadTimeError(f"quantile {q}: a number between 0 and 1 is allowed")
        curve = self._pairs.get((service, variant))
        return _quantile(self._variants.get(variant, self._fleet) if curve is None else curve, q)

    def to_files(self) -> dict[str, bytes]:
        """Return the model as file names and bytes; the same model gives the same bytes."""
        document = {
            "format": FORMAT,
            "grid_seconds": [MIN_SECONDS, MAX_SECONDS, len(GRID)],
            "pairs": [[*pair, *_packed(of)] for pair, of in self._counts.items()],
        }
        return {FILE: json.dumps(document, sort_keys=True, allow_nan=False).encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Return the model of `to_files`; raise LeadTimeError if they are not such files."""
        if FILE not in files:
            raise LeadTimeError(f"lead time: file '{FILE}' is missing")
        document = json.loads(files[FILE])
        grid = [MIN_SECONDS, MAX_SECONDS, len(GRID)]
        if document.get("format") != FORMAT or document.get("grid_seconds") != grid:
            raise LeadTimeError(
                f"lead time: '{FILE}' has format {document.get('format')!r} and grid "
                f"{document.get('grid_seconds')!r}; allowed: {FORMAT} and {grid}. Train again."
            )
        return cls({(s, v): _unpacked(cells) for s, v, *cells in document["pairs"]})


def survival(counts: IntArray, prior: FloatArray, prior_starts: float) -> FloatArray:
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


def _epoch(column: pd.Series) -> FloatArray:
    stamps = column.astype("datetime64[ns, UTC]")
    return np.where(stamps.isna(), np.nan, stamps.astype("int64") / 1e9)


def _quantile(curve: FloatArray, q: float) -> float:
    """Return the duration at which the chance to take longer falls to 1 - q, log-linear in a cell."""
    known = np.concatenate([[0.0], 1.0 - curve])
    edges = np.concatenate([[np.log(0.5 * MIN_SECONDS)], np.log(GRID)])
    return float(np.exp(np.interp(q, known, edges)))


def _packed(counts: IntArray) -> list[list[int]]:
    """Return the cells that are not empty as two lists [cell, count, cell, count, ...]."""
    return [[int(x) for g in np.flatnonzero(row) for x in (g, row[g])] for row in counts]


def _unpacked(cells: list[list[int]]) -> IntArray:
    """Return the counts (2, G) of `_packed`."""
    counts = np.zeros((2, len(GRID)), dtype=np.int64)
    for row, packed in zip(counts, cells, strict=True):
        row[packed[0::2]] = packed[1::2]
    return counts

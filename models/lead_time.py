"""How long a replica takes from created to ready: a distribution per (service, variant) and node state.

A start that is still running, or was given up, is censored: it says "longer than this", not "short"
(Kaplan and Meier, JASA 1958). Starts of one pair are few, so its distribution is shrunk to that of its
variant, that to the fleet's, and that to a prior, each worth a fixed number of starts (a Dirichlet
prior on the survival curve: Susarla and Van Ryzin, JASA 1976, with expected counts).

Where phases are known, a start that waited for its node is told from one that found it: the states have
curves of their own, shrunk along the same way. Starts age: one counts half as much as one a fortnight
younger. And a plan never counts on less than what was just seen: the upper quantiles of a pair are at least
what its last start took.

Priors are lognormal, from public start-up measurements of vLLM replicas (the simulator ships them:
startup_facts.csv): 34 to 82 s on a warm node with caches, 215 to 294 s with cold caches, 80 to 120 s
more for a new node and 420 to 600 s for a large image. All starts: median 150 s, 95 % within 35 to 650 s;
on a node that is there: 75 s, within 20 to 300 s; on a new one: 450 s, within 140 to 1,460 s.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Pair = tuple[str, str]
FILE = "lead_time.json"
FORMAT = 2
ANY, THERE, NEW = (
    "any",
    "there",
    "new",
)  # the node: not asked for or not known, found ready, waited for
PRIORS = {ANY: (150.0, 0.75), THERE: (75.0, 0.7), NEW: (450.0, 0.6)}  # median seconds, log sigma
NEW_NODE_SECONDS = (
    20.0  # until a node was found: a scheduler with a free node takes less than a few
)
HALF_LIFE_SECONDS = 14 * 86_400.0
JUST_SEEN_SECONDS = 86_400.0  # before the end of what is known: older is not news
UPPER = 0.8  # quantiles from here on are never below what was just seen
SCHEDULE_PHASE = "phase_schedule_seconds"
PRIOR_STARTS = 2.0  # the prior against the fleet
FLEET_STARTS = 3.0  # the fleet's pool against a variant
VARIANT_STARTS = 5.0  # a variant's pool against a service
MIN_SECONDS, MAX_SECONDS = 1.0, 14_400.0  # a start of four hours never ends
GRID = np.geomspace(MIN_SECONDS, MAX_SECONDS, 241)  # 4 % apart: starts vary by far more


class LeadTimeError(ValueError):
    """A lead-time model that cannot be read or asked; the message says what is allowed."""


@dataclass(frozen=True, slots=True)
class Starts:
    """What is known of one (service, variant).

    counts: node state -> (2, G) starts that became ready, and censored ones, a cell of GRID, aged.
    ANY holds all of them, the other states those whose phases tell. seen, censored: starts, and those of
    them that never became ready, not aged. latest: when
    the last one that became ready was created (epoch seconds) and how long it took; NaN where none.
    """

    counts: Mapping[str, FloatArray]
    seen: int
    censored: int
    latest: tuple[float, float]


class LeadTimeModel:
    """Survival curves of start-up time on GRID, per pair, per variant and for the fleet.

    Attributes
    ----------
    scores : per "service/variant": starts seen, how many censored, the 0.5 and 0.95 quantiles, and where
        phases are known the 0.5 quantile on a node that was there and on a new one.
    """

    def __init__(self, starts: Mapping[Pair, Starts], end_seconds: float = np.inf) -> None:
        """`end_seconds` (epoch): what is known ends there; what was just seen came shortly before."""
        self._starts = {pair: starts[pair] for pair in sorted(starts)}
        self._end_seconds = end_seconds
        self._curves = {state: _Curves(self._starts, state) for state in PRIORS}
        self.scores: dict[str, dict[str, Any]] = {
            "/".join(pair): self._score(pair) for pair in self._starts
        }

    def _score(self, pair: Pair) -> dict[str, Any]:
        of = self._starts[pair]
        score = {
            "starts": of.seen,
            "censored": of.censored,
            "p50_seconds": round(self.quantile_seconds(*pair, 0.5), 2),
            "p95_seconds": round(self.quantile_seconds(*pair, 0.95), 2),
        }
        for state in (THERE, NEW):
            if of.counts[state].any():
                key = f"node_{state}_p50_seconds"
                score[key] = round(self.quantile_seconds(*pair, 0.5, node=state), 2)
        return score

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
        names = list(zip(startups.service.astype(str), startups.variant.astype(str), strict=True))
        rows: dict[Pair, list[int]] = {}
        for n, pair in enumerate(names):
            if seconds[n] >= 0:
                rows.setdefault(pair, []).append(n)
        states = _node_states(startups)
        return cls(
            {
                pair: _starts_of(created[at], seconds[at], ready[at], states[at])
                for pair, at in ((p, np.array(r)) for p, r in rows.items())
            },
            end_seconds,
        )

    def with_more(self, other: Self) -> Self:
        """Return a model that knows of each pair what the better informed of the two does.

        Not their sum: both may have seen the same starts. The last start is the later of both.
        """
        starts = dict(self._starts)
        for pair, of in other._starts.items():
            mine = starts.get(pair)
            more = of if mine is None or of.seen > mine.seen else mine
            last = of.latest if mine is None else max(mine.latest, of.latest, key=_known_time)
            starts[pair] = replace(more, latest=last)
        ends = (e for e in (self._end_seconds, other._end_seconds) if np.isfinite(e))
        return type(self)(starts, max(ends, default=np.inf))

    def quantile_seconds(self, service: str, variant: str, q: float, node: str = ANY) -> float:
        """Return the start-up time that a share `q` of starts does not exceed, q in (0, 1).

        A pair without starts gets its variant's pool, an unknown variant the fleet's, and a fleet
        without starts the prior. `node`: THERE or NEW where it is known on what node the start will be.
        """
        if not 0.0 < q < 1.0:
            raise LeadTimeError(f"quantile {q}: a number between 0 and 1 is allowed")
        if node not in PRIORS:
            raise LeadTimeError(f"node {node!r}; allowed: {', '.join(PRIORS)}")
        seconds = _quantile(self._curves[node].of(service, variant), q)
        of = self._starts.get((service, variant))
        if of is None or node != ANY or q < UPPER:
            return seconds
        created, took = of.latest
        news = self._end_seconds - created <= JUST_SEEN_SECONDS  # NaN compares false
        return max(seconds, took) if news else seconds

    def to_files(self) -> dict[str, bytes]:
        """Return the model as file names and bytes; the same model gives the same bytes."""
        document = {
            "format": FORMAT,
            "grid_seconds": [MIN_SECONDS, MAX_SECONDS, len(GRID)],
            "end_seconds": None if np.isinf(self._end_seconds) else self._end_seconds,
            "pairs": [_pair_out(pair, of) for pair, of in self._starts.items()],
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
        end = document["end_seconds"]
        pairs = {(p["service"], p["variant"]): _starts_in(p) for p in document["pairs"]}
        return cls(pairs, np.inf if end is None else float(end))


class _Curves:
    """Survival curves (G,) of one node state: pairs shrunk to variants, these to the fleet and a prior."""

    def __init__(self, starts: Mapping[Pair, Starts], state: str) -> None:
        median, sigma = PRIORS[state]
        prior = np.asarray(1.0 - ndtr(np.log(GRID / median) / sigma), dtype=np.float64)
        pools: dict[str, FloatArray] = {}
        nothing = np.zeros((2, len(GRID)))
        for (_, variant), of in starts.items():
            pools[variant] = pools.get(variant, nothing) + of.counts[state]
        self._fleet = survival(sum(pools.values(), start=nothing), prior, PRIOR_STARTS)
        self._variants = {v: survival(of, self._fleet, FLEET_STARTS) for v, of in pools.items()}
        self._pairs = {
            pair: survival(of.counts[state], self._variants[pair[1]], VARIANT_STARTS)
            for pair, of in starts.items()
        }

    def of(self, service: str, variant: str) -> FloatArray:
        """Return the curve of a pair, of its variant or of the fleet: the first that is known."""
        curve = self._pairs.get((service, variant))
        return self._variants.get(variant, self._fleet) if curve is None else curve


def _starts_of(
    created: FloatArray, seconds: FloatArray, ready: NDArray[np.bool_], states: NDArray[np.str_]
) -> Starts:
    """Return what N starts of one pair say; arguments of shape (N,)."""
    cell = np.searchsorted(GRID[:-1], np.clip(seconds, MIN_SECONDS, MAX_SECONDS))
    weight = 0.5 ** ((created.max() - created) / HALF_LIFE_SECONDS)
    counts = {}
    for state in PRIORS:
        counts[state] = np.zeros((2, len(GRID)))
        of = np.ones_like(ready) if state == ANY else states == state
        np.add.at(counts[state], (1 - ready[of].astype(np.int64), cell[of]), weight[of])
        counts[state] = np.round(counts[state], 4)
    latest = (np.nan, np.nan)
    if ready.any():
        last = np.flatnonzero(ready)[np.argmax(created[ready])]
        latest = (float(created[last]), float(np.clip(seconds[last], MIN_SECONDS, MAX_SECONDS)))
    return Starts(counts, len(seconds), int((~ready).sum()), latest)


def _node_states(startups: pd.DataFrame) -> NDArray[np.str_]:
    """Return (N,) THERE, NEW, or ANY where the time until a node was found is not known."""
    waited = np.full(len(startups), np.nan)
    if SCHEDULE_PHASE in startups.columns:
        waited = pd.to_numeric(startups[SCHEDULE_PHASE], errors="coerce").to_numpy(np.float64)
    known = np.where(waited >= NEW_NODE_SECONDS, NEW, THERE)
    return np.where(np.isnan(waited), ANY, known)


def _known_time(latest: tuple[float, float]) -> float:
    return -np.inf if np.isnan(latest[0]) else latest[0]


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


def _epoch(column: pd.Series) -> FloatArray:
    stamps = column.astype("datetime64[ns, UTC]")
    return np.where(stamps.isna(), np.nan, stamps.astype("int64") / 1e9)


def _quantile(curve: FloatArray, q: float) -> float:
    """Return the duration at which the chance to take longer falls to 1 - q, log-linear in a cell."""
    known = np.concatenate([[0.0], 1.0 - curve])
    edges = np.concatenate([[np.log(0.5 * MIN_SECONDS)], np.log(GRID)])
    return float(np.exp(np.interp(q, known, edges)))


def _pair_out(pair: Pair, of: Starts) -> dict[str, Any]:
    latest = None if np.isnan(of.latest[0]) else list(of.latest)
    cells = {state: _packed(counts) for state, counts in of.counts.items() if counts.any()}
    return {
        "service": pair[0],
        "variant": pair[1],
        "seen": of.seen,
        "censored": of.censored,
        "latest": latest,
        "cells": cells,
    }


def _starts_in(entry: Mapping[str, Any]) -> Starts:
    counts = {state: _unpacked(entry["cells"].get(state, [[], []])) for state in PRIORS}
    latest = (np.nan, np.nan) if entry["latest"] is None else tuple(entry["latest"])
    return Starts(
        counts, int(entry["seen"]), int(entry["censored"]), (float(latest[0]), float(latest[1]))
    )


def _packed(counts: FloatArray) -> list[list[float]]:
    """Return the cells that are not empty as two lists [cell, count, cell, count, ...]."""
    return [[x for g in np.flatnonzero(row).tolist() for x in (g, float(row[g]))] for row in counts]


def _unpacked(cells: list[list[float]]) -> FloatArray:
    """Return the counts (2, G) of `_packed`."""
    counts = np.zeros((2, len(GRID)))
    for row, packed in zip(counts, cells, strict=True):
        row[np.array(packed[0::2], dtype=np.int64)] = packed[1::2]
    return counts

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
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.start_curves import (
    ANY,
    GRID,
    MAX_SECONDS,
    MIN_SECONDS,
    NEVER,
    NEW,
    NOTHING,
    PRIORS,
    THERE,
    Curves,
    FloatArray,
    Pair,
    Starts,
    quantile_of,
)

FILE = "lead_time.json"
FORMAT = 2
NEW_NODE_SECONDS = (
    20.0  # until a node was found: a scheduler with a free node takes less than a few
)
HALF_LIFE_SECONDS = 14 * 86_400.0
JUST_SEEN_SECONDS = 86_400.0  # before the end of what is known: older is not news
UPPER = 0.8  # quantiles from here on are never below what was just seen
SCHEDULE_PHASE = "phase_schedule_seconds"


class LeadTimeError(ValueError):
    """A lead-time model that cannot be read or asked; the message says what is allowed."""


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
        self._curves = {state: Curves(self._starts, state) for state in PRIORS}
        self._asked: dict[tuple[str, str, float, str], float] = {}  # a plan asks anew every turn
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
            if mine is None:
                starts[pair] = of
                continue
            last = {s: max(mine.latest[s], of.latest[s], key=_known_time) for s in PRIORS}
            starts[pair] = replace(of if of.seen > mine.seen else mine, latest=last)
        ends = (e for e in (self._end_seconds, other._end_seconds) if np.isfinite(e))
        return type(self)(starts, max(ends, default=np.inf))

    def knows_node(self, variant: str, node: str) -> bool:
        """Return whether starts of the variant, of any service, tell how long it takes on such a node.

        Phases must be known for that; without, only the mix of nodes is.
        """
        return self._curves[node].known(variant)

    def quantile_seconds(self, service: str, variant: str, q: float, node: str = ANY) -> float:
        """Return the start-up time that a share `q` of starts does not exceed, q in (0, 1).

        A pair without starts gets its variant's pool, an unknown variant the fleet's, and a fleet
        without starts the prior. `node`: THERE or NEW where it is known on what node the start will be;
        NEW is never less than the mix.
        """
        key = (service, variant, q, node)
        if key not in self._asked:
            self._asked[key] = self._quantile(*key)
        return self._asked[key]

    def _quantile(self, service: str, variant: str, q: float, node: str) -> float:
        if not 0.0 < q < 1.0:
            raise LeadTimeError(f"quantile {q}: a number between 0 and 1 is allowed")
        if node not in PRIORS:
            raise LeadTimeError(f"node {node!r}; allowed: {', '.join(PRIORS)}")
        seconds = quantile_of(self._curves[node].of(service, variant), q)
        of = self._starts.get((service, variant))
        if of is not None and q >= UPPER:
            created, took = of.latest[node]
            news = self._end_seconds - created <= JUST_SEEN_SECONDS  # NaN compares false
            seconds = max(seconds, took) if news else seconds
        return max(seconds, self.quantile_seconds(service, variant, q)) if node == NEW else seconds

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
    may_be = {ANY: ready, THERE: ready & (states != NEW), NEW: ready & (states == NEW)}
    latest = {state: _last(created, seconds, of) for state, of in may_be.items()}
    return Starts(counts, len(seconds), int((~ready).sum()), latest)


def _last(created: FloatArray, seconds: FloatArray, of: NDArray[np.bool_]) -> tuple[float, float]:
    """Return when the last start `of` these was created and how long it took."""
    if not of.any():
        return NEVER
    last = np.flatnonzero(of)[np.argmax(created[of])]
    return float(created[last]), float(np.clip(seconds[last], MIN_SECONDS, MAX_SECONDS))


def _node_states(startups: pd.DataFrame) -> NDArray[np.str_]:
    """Return (N,) THERE, NEW, or ANY where the time until a node was found is not known."""
    waited = np.full(len(startups), np.nan)
    if SCHEDULE_PHASE in startups.columns:
        waited = pd.to_numeric(startups[SCHEDULE_PHASE], errors="coerce").to_numpy(np.float64)
    known = np.where(waited >= NEW_NODE_SECONDS, NEW, THERE)
    return np.where(np.isnan(waited), ANY, known)


def _known_time(latest: tuple[float, float]) -> float:
    return -np.inf if np.isnan(latest[0]) else latest[0]


def _epoch(column: pd.Series) -> FloatArray:
    stamps = column.astype("datetime64[ns, UTC]")
    return np.where(stamps.isna(), np.nan, stamps.astype("int64") / 1e9)


def _pair_out(pair: Pair, of: Starts) -> dict[str, Any]:
    latest = {s: None if np.isnan(at[0]) else list(at) for s, at in of.latest.items()}
    usual = {ANY: latest[ANY], THERE: latest[ANY], NEW: None}  # of most: not written
    cells = {state: _packed(counts) for state, counts in of.counts.items() if counts.any()}
    return {
        "service": pair[0],
        "variant": pair[1],
        "seen": of.seen,
        "censored": of.censored,
        "latest": latest[ANY],
        **{f"latest_{s}": last for s, last in latest.items() if last != usual[s]},
        "cells": cells,
    }


def _starts_in(entry: Mapping[str, Any]) -> Starts:
    cells = entry["cells"]
    counts = {s: _unpacked(cells[s]) if s in cells else NOTHING for s in PRIORS}
    last = entry["latest"]
    kept = {ANY: last, THERE: entry.get("latest_there", last), NEW: entry.get("latest_new")}
    latest = {state: NEVER if at is None else _two(at) for state, at in kept.items()}
    return Starts(counts, int(entry["seen"]), int(entry["censored"]), latest)


def _two(numbers: list[float]) -> tuple[float, float]:
    return float(numbers[0]), float(numbers[1])


def _packed(counts: FloatArray) -> list[list[float]]:
    """Return the cells that are not empty as two lists [cell, count, cell, count, ...]."""
    return [[x for g in np.flatnonzero(row).tolist() for x in (g, float(row[g]))] for row in counts]


def _unpacked(cells: list[list[float]]) -> FloatArray:
    """Return the counts (2, G) of `_packed`."""
    counts = NOTHING.copy()
    for row, packed in zip(counts, cells, strict=True):
        row[np.array(packed[0::2], dtype=np.int64)] = packed[1::2]
    return counts

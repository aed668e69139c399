"""Fitting the load model: honest held-out scores, calibration, then a final fit on everything.

    |<---------------- history (28 days at most) ---------------->|
    | first fit, rules' errors            | held out (<= 2 days)  |   -> scores, winner, calibration
    | final fit                                                   |   -> what serves

Every sampling depends on the data alone (fixed seeds): the same series gives the same model.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.conformal import Conformal
from models.features import MAX_Z, Grid, IntArray, Known, feature_matrix, look_back
from models.frames import LOAD_NUMBERS, LoadSeries
from models.lgbm_quantile import MIN_ROWS, LgbmQuantile
from models.load_model import (
    BLEND,
    CANDIDATES,
    CHUNK_ROWS,
    LEVEL,
    LGBM,
    Learned,
    LoadModel,
    rule_quantiles,
)
from models.losses import pinball_losses
from models.progress import Progress
from models.quantiles import QUANTILES, FloatArray
from models.simple_rules import RULES, error_quantiles, rule_centres, share_errors

DEFAULT_LEADS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 45, 60, 90, 120)
MAX_DAYS = 28  # older load says little about tomorrow
HELD_OUT_DAYS = 2
HELD_OUT_RATIO = 0.25
ERROR_DAYS = 5  # the rules' errors before the held-out part
TRAIN_ROWS = 160_000
TRAIN_LEADS = 4  # of each origin, drawn at random
YOUNG_RATIO = 0.1  # of the training origins see a shortened history
HELD_OUT_ROWS = 600_000
ERROR_ROWS = 3_000_000
PRIOR_ORIGINS = 50.0  # the fleet's verdict weighs as much as so many held-out origins
MIN_ORIGINS = 10  # held-out origins before a service's own scores are reported
SEED = 20


@dataclass(frozen=True, slots=True)
class _Data:
    """One target on one grid, cropped to the steps that are used."""

    services: tuple[str, ...]
    values: FloatArray  # (S, T)
    start_seconds: float
    grid: Grid
    leads_steps: IntArray  # (L,)
    split: int  # first held-out step


@dataclass(frozen=True, slots=True)
class _Sample:
    """Rules and truth at common origins of all services, as log ratios to the level then."""

    centres: FloatArray  # (S, N, L, C)
    actual: FloatArray  # (S, N, L)
    base: FloatArray  # (S, N)
    offset: FloatArray  # (S, N)
    most: FloatArray  # (S, N)
    lgbm: FloatArray | None  # (S, N, L, Q)


def fit_load(
    series: LoadSeries,
    *,
    target: str,
    leads_steps: Sequence[int] | None,
    progress: Progress | None,
) -> LoadModel:
    """Fit, select and calibrate. Raises ValueError on an unknown target, bad leads or no load at all."""
    data = _prepare(series, target, leads_steps)
    report = progress or _silent
    first = _train(data, data.split, "load model: held-out fit", report)
    errors = _sample(data, _error_origins(data), before=data.split, lgbm=None)
    held = _sample(data, _held_out_origins(data), before=None, lgbm=first)
    table, count = _error_table(errors.actual, errors.centres)
    table, pool = share_errors(table, count)
    verdict = _judge(held, table)
    both = _error_table(
        np.concatenate([errors.actual, held.actual], axis=1),
        np.concatenate([errors.centres, held.centres], axis=1),
    )
    table, pool = share_errors(*both)
    lgbm = _train(data, data.values.shape[1], "load model: final fit", report) if first else None
    known = np.isfinite(data.values).sum(axis=1)
    learned = Learned(
        services=data.services,
        rule_errors=np.concatenate([table, pool[np.newaxis]]),
        choice=verdict.choice,
        best_rule=verdict.best_rule,
        lgbm=lgbm,
        lgbm_shift=verdict.lgbm_shift,
        blend_shift=verdict.blend_shift,
    )
    return LoadModel(
        target=target,
        step_seconds=series.step_seconds,
        leads_steps=data.leads_steps,
        learned=learned,
        scores={s: _score(verdict, i, int(known[i])) for i, s in enumerate(data.services)},
    )


def _silent(_what: str, _done: int, _total: int) -> None:
    return None


def _prepare(series: LoadSeries, target: str, leads_steps: Sequence[int] | None) -> _Data:
    if target not in LOAD_NUMBERS:
        raise ValueError(f"target '{target}' is unknown; allowed: {', '.join(LOAD_NUMBERS)}")
    leads = np.array(DEFAULT_LEADS if leads_steps is None else leads_steps, dtype=np.int64)
    if leads.ndim != 1 or leads.size == 0 or leads[0] < 1 or (np.diff(leads) <= 0).any():
        raise ValueError(f"leads_steps must increase from 1 on, got {list(leads)}")
    grid = Grid(series.step_seconds)
    values = series.values[:, :, LOAD_NUMBERS.index(target)]
    skip = max(0, values.shape[1] - MAX_DAYS * grid.day_steps)
    values = values[:, skip:]
    known = np.flatnonzero(np.isfinite(values).any(axis=0))
    if known.size == 0:
        raise ValueError(f"the last {MAX_DAYS} days hold no known value of '{target}'")
    first = int(known[0])
    values = values[:, first:]
    steps = values.shape[1]
    held_out = min(HELD_OUT_DAYS * grid.day_steps, max(1, int(steps * HELD_OUT_RATIO)))
    start = series.start_seconds + (skip + first) * series.step_seconds
    return _Data(series.services, values, start, grid, leads, steps - held_out)


def _train(data: _Data, until: int, what: str, report: Progress) -> LgbmQuantile | None:
    """Fit on targets before step `until`; None if there are too few rows."""
    active = np.isfinite(data.values[:, :until]).sum(axis=1)
    leads_each = min(TRAIN_LEADS, data.leads_steps.size)
    share = TRAIN_ROWS // (leads_each * max(1, int((active > 0).sum())))
    rows, steps, leads, young = [], [], [], []
    for i, name in enumerate(data.services):
        known = np.flatnonzero(np.isfinite(data.values[i, : until - 1]))
        if known.size == 0:
            continue
        rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
        span = until - 1 - int(known[0])
        at = known[0] + np.sort(rng.choice(span, size=min(share, span), replace=False))
        rows.append(np.full(at.size, i))
        steps.append(at)
        leads.append(_draw_leads(rng, data.leads_steps, at.size, leads_each))
        young.append(_draw_young(rng, at.size, data.grid))
    if not rows:
        return None
    row, at = np.concatenate(rows), np.concatenate(steps)
    table = _training_table(data, (row, at), np.concatenate(leads), np.concatenate(young), until)
    if table[1].size < MIN_ROWS:
        return None
    return LgbmQuantile.fit(*table, done=lambda n: report(what, n, len(QUANTILES)))


def _draw_leads(rng: np.random.Generator, grid: IntArray, rows: int, each: int) -> IntArray:
    order = np.argsort(rng.random((rows, grid.size)), axis=1)[:, :each]
    return grid[np.sort(order, axis=1)]


def _draw_young(rng: np.random.Generator, rows: int, grid: Grid) -> IntArray:
    """History that each origin may see: all of it, or for a few between 5 steps and a week."""
    short = np.exp(rng.uniform(np.log(5), np.log(grid.week_steps), rows)).astype(np.int64)
    return np.where(rng.random(rows) < YOUNG_RATIO, short, grid.history_steps)


def _training_table(
    data: _Data, origins: tuple[IntArray, IntArray], leads: IntArray, young: IntArray, until: int
) -> tuple["np.ndarray[tuple[int, int], np.dtype[np.float32]]", FloatArray, FloatArray]:
    matrices, targets, weights = [], [], []
    for part in _parts(origins[0].size):
        here = origins[0][part], origins[1][part]
        known = look_back(
            data.values, data.start_seconds, data.grid, here, leads[part], young_steps=young[part]
        )
        actual = known.z(_truth(data.values, here, leads[part], until)).ravel()
        size = np.broadcast_to(_weight(known)[:, np.newaxis], leads[part].shape).ravel()
        keep = np.isfinite(actual) & np.isfinite(size)
        matrices.append(feature_matrix(known, data.grid)[keep])
        targets.append(actual[keep])
        weights.append(size[keep])
    return np.concatenate(matrices), np.concatenate(targets), np.concatenate(weights)


def _weight(known: Known) -> FloatArray:
    """Busy hours matter in proportion to their load: the loss is in requests, the target a ratio."""
    return np.clip(known.base / np.maximum(known.level(known.recent.shape[1]), 1e-9), 0.1, 4.0)


def _truth(
    values: FloatArray, origins: tuple[IntArray, IntArray], leads: IntArray, until: int
) -> FloatArray:
    """Return what came `leads` (R, L) steps after each origin, NaN from step `until` on."""
    step = origins[1][:, np.newaxis] + leads
    inside = step < until
    got = values[origins[0][:, np.newaxis], np.where(inside, step, 0)]
    return np.where(inside, got, np.nan)


def _error_origins(data: _Data) -> IntArray:
    budget = ERROR_ROWS // (len(data.services) * data.leads_steps.size)
    first = max(0, data.split - ERROR_DAYS * data.grid.day_steps)
    return _even(first, data.split - 1, int(np.clip(budget, 150, 1000)))


def _held_out_origins(data: _Data) -> IntArray:
    budget = HELD_OUT_ROWS // (len(data.services) * data.leads_steps.size)
    return _even(max(0, data.split - 1), data.values.shape[1] - 1, int(np.clip(budget, 24, 400)))


def _even(first: int, until: int, most: int) -> IntArray:
    """At most `most` steps spread evenly over [first, until), none twice."""
    span = max(0, until - first)
    return first + np.unique(np.linspace(0, max(span - 1, 0), min(most, span)).astype(np.int64))


def _sample(
    data: _Data, steps: IntArray, *, before: int | None, lgbm: LgbmQuantile | None
) -> _Sample:
    services, leads = len(data.services), data.leads_steps.size
    row = np.repeat(np.arange(services), steps.size)
    at = np.tile(steps, services)
    until = data.values.shape[1] if before is None else before
    parts: list[tuple[FloatArray, ...]] = []
    for part in _parts(row.size):
        here = row[part], at[part]
        known = look_back(data.values, data.start_seconds, data.grid, here, data.leads_steps)
        actual = known.z(_truth(data.values, here, known.leads_steps, until))
        own = np.empty((actual.shape[0], leads, 0))
        if lgbm is not None:
            own = lgbm.predict(feature_matrix(known, data.grid))
            own = own.reshape(-1, leads, len(QUANTILES))
        state = np.stack([known.base, known.offset, known.most()])
        parts.append((rule_centres(known, data.grid), actual, *state, own))
    if not parts:
        zero = np.empty((0, leads))
        state = np.empty((3, 0))
        parts = [(np.empty((0, leads, len(RULES))), zero, *state, zero[..., None])]
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    centres, actual, base, offset, most, own = (
        a.reshape(services, steps.size, *a.shape[1:]) for a in joined
    )
    return _Sample(centres, actual, base, offset, most, own if lgbm is not None else None)


def _parts(rows: int) -> Iterator[slice]:
    for first in range(0, rows, CHUNK_ROWS):
        yield slice(first, first + CHUNK_ROWS)


def _error_table(actual: FloatArray, centres: FloatArray) -> tuple[FloatArray, IntArray]:
    """Error quantiles of each service (S, L, C, Q) and their counts (S, L, C)."""
    found = [error_quantiles(a[..., np.newaxis] - c) for a, c in zip(actual, centres, strict=True)]
    return np.stack([f[0] for f in found]), np.stack([f[1] for f in found])


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Row S speaks for services never seen."""

    losses: FloatArray  # (S, candidates), mean pinball loss over the service's mean; NaN unknown
    origins: IntArray  # (S,)
    coverage: FloatArray  # (S, candidates), of the 0.9 quantile
    choice: IntArray  # (S + 1,)
    best_rule: IntArray  # (S + 1,)
    lgbm_shift: Conformal
    blend_shift: Conformal


def _judge(held: _Sample, table: FloatArray) -> _Verdict:
    """Score every candidate on the held-out sample; calibrations are scored on the other half."""
    services, origins, leads = held.actual.shape
    losses = np.full((services, len(CANDIDATES)), np.nan)
    coverage = np.full((services, len(CANDIDATES)), np.nan)
    count = np.isfinite(held.actual).any(axis=2).sum(axis=1)
    for c in range(len(RULES)):
        z = _rule_z(held, table, np.full(services, c))
        losses[:, c], coverage[:, c] = _losses(held, z)
    best_rule = _select(losses[:, : len(RULES)], count)
    none = Conformal.none(services, leads)
    if held.lgbm is None or origins < 2:
        return _Verdict(losses, count, coverage, best_rule, best_rule, none, none)
    mixed = 0.5 * (held.lgbm + _rule_z(held, table, best_rule[:-1]))
    shifts = []
    for name, z in ((LGBM, held.lgbm), (BLEND, mixed)):
        c = CANDIDATES.index(name)
        losses[:, c], coverage[:, c] = _losses(held, _cross_calibrated(z, held.actual))
        shifts.append(Conformal.fit(z, held.actual))
    choice = _select(losses, count)
    return _Verdict(losses, count, coverage, choice, best_rule, *shifts)


def _cross_calibrated(z: FloatArray, actual: FloatArray) -> FloatArray:
    """Each half of the origins, calibrated with the errors of the other."""
    services, origins = z.shape[:2]
    half, out = origins // 2, np.empty_like(z)
    for own, other in (
        (slice(0, half), slice(half, origins)),
        (slice(half, origins), slice(0, half)),
    ):
        shift = Conformal.fit(z[:, other], actual[:, other])
        for s in range(services):
            n = z[s, own].shape[0]
            out[s, own] = shift.apply(z[s, own], np.full(n, s))
    return out


def _rule_z(held: _Sample, table: FloatArray, rule: IntArray) -> FloatArray:
    """Log-ratio quantiles (S, N, L, Q) of each service's rule."""
    services, origins = held.actual.shape[:2]
    out = np.empty((*held.actual.shape, len(QUANTILES)))
    for s in range(services):
        errors = np.broadcast_to(table[s], (origins, *table[s].shape))
        out[s] = rule_quantiles(held.centres[s], errors, np.full(origins, rule[s]))
    return out


def _losses(held: _Sample, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean pinball loss over the service's mean load, and coverage of the 0.9 quantile, each (S,)."""
    scale, offset = (held.base + held.offset)[..., None], held.offset[..., None]
    actual = scale * np.exp(held.actual) - offset
    forecast = scale[..., None] * np.exp(np.minimum(z, MAX_Z)) - offset[..., None]
    forecast = np.clip(forecast, 0.0, held.most[..., None, None])
    loss = pinball_losses(actual, forecast, QUANTILES).mean(axis=-1)
    known = np.isfinite(loss)
    under = (actual <= forecast[..., QUANTILES.index(0.9)]) & known
    n = np.maximum(known.sum(axis=(1, 2)), 1)
    mean = np.where(known, actual, 0.0).sum(axis=(1, 2)) / n
    total = np.where(known, loss, 0.0).sum(axis=(1, 2)) / n
    seen = known.any(axis=(1, 2))
    return (
        np.where(seen, total / np.maximum(mean, 1e-9), np.nan),
        np.where(seen, under.sum(axis=(1, 2)) / n, np.nan),
    )


def _select(losses: FloatArray, count: IntArray) -> IntArray:
    """Index of the candidate for each service and, last, for services never seen, (S + 1,).

    A service's own verdict is leant on the fleet's by the number of its held-out origins.
    """
    relative = np.log(np.maximum(losses, 1e-6)) - np.log(np.maximum(losses[:, :1], 1e-6))
    seen = np.isfinite(relative)
    fleet = np.where(seen, relative, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    fleet = np.where(seen.any(axis=0), fleet, np.inf)
    if not np.isfinite(fleet).any():
        return np.full(losses.shape[0] + 1, LEVEL)
    weight = (count / (count + PRIOR_ORIGINS))[:, np.newaxis]
    own = np.where(seen, relative, fleet)
    finite = np.where(np.isfinite(fleet), fleet, 1e9)
    score = weight * np.where(np.isfinite(own), own, 1e9) + (1 - weight) * finite
    return np.append(score.argmin(axis=1), finite.argmin())


def _score(verdict: _Verdict, s: int, history_steps: int) -> dict[str, Any]:
    """JSON-able account of one service."""
    winner = int(verdict.choice[s])
    own = {
        name: round(float(loss), 6)
        for name, loss in zip(CANDIDATES, verdict.losses[s], strict=True)
        if np.isfinite(loss)
    }
    enough = int(verdict.origins[s]) >= MIN_ORIGINS
    trusted = enough and own.get(CANDIDATES[winner], np.inf) < own[RULES[0]]
    note = "beats the last value" if trusted else "does not beat the last value"
    if not enough:
        note = "too little held-out history: the fleet's choice serves"
    coverage = float(verdict.coverage[s, winner])
    return {
        "winner": CANDIDATES[winner],
        "pinball_loss_ratio": own,
        "coverage_p90_ratio": round(coverage, 4) if np.isfinite(coverage) else None,
        "trusted": bool(trusted),
        "history_steps": history_steps,
        "held_out_origins": int(verdict.origins[s]),
        "note": note,
    }

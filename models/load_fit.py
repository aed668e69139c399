"""Fitting the load model: honest held-out scores, calibration, then a final fit on everything.

|<---------------- history (28 days at most) ---------------->|
| first fit, rules' errors            | held out (<= 2 days)  |   -> weights, winner, calibration
| final fit                                                   |   -> what serves
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from models.features import IntArray
from models.frames import LoadSeries
from models.holiday_calendar import Holidays
from models.lgbm_quantile import MIN_ROWS, LgbmQuantile
from models.linear_quantile import LinearQuantile
from models.load_judge import TRUST_ERRORS, Verdict, judge
from models.load_model import CANDIDATES, CONTESTANTS, LGBM, LOCAL, Fitted, Learned, LoadModel
from models.load_sample import (
    MAX_SCALES,
    Data,
    error_origins,
    held_out_origins,
    own_rows,
    prepare,
    rich_services,
    sample,
    training_rows,
)
from models.local_trees import LocalTrees, OwnRows
from models.progress import Progress
from models.quantiles import QUANTILES, FloatArray
from models.simple_rules import RULES, error_quantiles, share_errors

LEAST_OWN_WEIGHT = 0.05  # in the blend: trees with less are not worth their cost
MIN_ORIGINS = 10  # held-out origins before a service's own scores are reported


def fit_load(
    series: LoadSeries,
    *,
    target: str,
    leads_steps: Sequence[int] | None,
    progress: Progress | None,
    holidays: Holidays | None = None,
) -> LoadModel:
    """Fit, select and calibrate. Raises ValueError on an unknown target, bad leads or no load at all."""
    data = prepare(series, target, leads_steps, holidays)
    report = progress or _silent
    steps = data.values.shape[1]
    first = _fit_models(data, data.split, "load model: held-out fit", report)
    own = _fit_local(data, data.split, rich_services(data, data.split), first.lgbm)
    first = replace(first, local=own)
    errors = sample(data, error_origins(data), until=data.split, fitted=None)
    seen = first if first.lgbm is not None else None
    held = sample(data, held_out_origins(data), until=steps, fitted=seen)
    table, _ = share_errors(*_error_table(errors.actual, errors.centres))
    days = (steps - data.split) / data.grid.day_steps
    verdict = judge(held, table, days=days, fitted=first.lgbm is not None, own=_rows_of(first))
    weights, earned = _earned(verdict.weights, verdict.winner)
    table, pool = share_errors(
        *_error_table(
            np.concatenate([errors.actual, held.actual], axis=1),
            np.concatenate([errors.centres, held.centres], axis=1),
        )
    )
    last = first
    if first.lgbm is not None:
        last = _fit_models(data, steps, "load model: final fit", report, line=first.linear)
        last = replace(last, local=_fit_local(data, steps, earned, last.lgbm))
    learned = Learned(
        services=data.services,
        rule_errors=np.concatenate([table, pool[np.newaxis]]),
        weights=weights,
        winner=verdict.winner,
        fitted=last,
        shift=verdict.shift,
        smoothing=data.smoothing,
    )
    known = np.isfinite(data.values).sum(axis=1)
    return LoadModel(
        target=target,
        step_seconds=series.step_seconds,
        leads_steps=data.leads_steps,
        learned=learned,
        holidays=holidays,
        scores={s: _score(verdict, i, int(known[i])) for i, s in enumerate(data.services)},
    )


def _silent(_what: str, _done: int, _total: int) -> None:
    return None


def _fit_models(
    data: Data, until: int, what: str, report: Progress, *, line: LinearQuantile | None = None
) -> Fitted:
    """Fit both models on targets before step `until`; none if there are too few rows.

    A `line` that is there stays: the rules' shares of it do not change in two days.
    """
    rows = training_rows(data, until)
    if rows is None or rows.target.size < MIN_ROWS:
        return Fitted()
    linear = line or LinearQuantile.fit(rows.columns, rows.target, rows.weight)
    lgbm = LgbmQuantile.fit(
        rows.matrix,
        rows.target,
        rows.weight,
        done=lambda n: report(what, n, len(QUANTILES)),
    )
    return Fitted(linear, lgbm)


def _fit_local(
    data: Data, until: int, rows: IntArray, whole: LgbmQuantile | None
) -> LocalTrees | None:
    """Fit the trees of single services on targets before step `until`."""
    if whole is None or rows.size == 0:
        return None

    def own(row: int) -> OwnRows | None:
        found = own_rows(data, row, until)
        return None if found is None else OwnRows(found.matrix, found.target, found.weight)

    return LocalTrees.fit(rows, own, whole)


def _rows_of(fitted: Fitted) -> frozenset[int]:
    return frozenset() if fitted.local is None else frozenset(fitted.local.rows.tolist())


def _earned(weights: FloatArray, winner: IntArray) -> tuple[FloatArray, IntArray]:
    """Give small shares (S + 1, K) of own trees to the global ones; return who keeps its own, too."""
    local, whole = CONTESTANTS.index(LOCAL), CONTESTANTS.index(LGBM)
    keeps = (weights[:, local] >= LEAST_OWN_WEIGHT) | (winner == CANDIDATES.index(LOCAL))
    out = weights.copy()
    out[~keeps, whole] += out[~keeps, local]
    out[~keeps, local] = 0.0
    return out, np.flatnonzero(keeps)


def _error_table(actual: FloatArray, centres: FloatArray) -> tuple[FloatArray, IntArray]:
    """Error quantiles of each service (S, L, C, Q) and their counts (S, L, C)."""
    found = [
        error_quantiles(np.clip(a[..., np.newaxis] - c, -MAX_SCALES, MAX_SCALES))
        for a, c in zip(actual, centres, strict=True)
    ]
    return np.stack([f[0] for f in found]), np.stack([f[1] for f in found])


def _score(verdict: Verdict, s: int, history_steps: int) -> dict[str, Any]:
    """JSON-able account of one service."""
    winner = int(verdict.winner[s])
    own = {
        name: round(float(loss), 6)
        for name, loss in zip(CANDIDATES, verdict.losses[s], strict=True)
        if np.isfinite(loss)
    }
    enough = int(verdict.origins[s]) >= MIN_ORIGINS
    gain = float(verdict.lead_over_last[s])
    better = own.get(CANDIDATES[winner], np.inf) < own.get(RULES[0], -np.inf)
    trusted = enough and better and not gain < TRUST_ERRORS
    note = "beats the last value" if trusted else "does not beat the last value beyond doubt"
    if not enough:
        note = "too little held-out history: the fleet's choice serves"
    coverage = float(verdict.coverage[s])
    return {
        "winner": CANDIDATES[winner],
        "pinball_loss_ratio": own,
        "coverage_p90_ratio": round(coverage, 4) if np.isfinite(coverage) else None,
        "gain_on_last_value_standard_errors": round(gain, 2) if np.isfinite(gain) else None,
        "trusted": bool(trusted),
        "history_steps": history_steps,
        "held_out_origins": int(verdict.origins[s]),
        "note": note,
    }

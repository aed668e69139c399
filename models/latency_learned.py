"""Learn what the physics leaves over, and prove that it is there: the gated correction of a latency fit.

LightGBM on the logarithm of measured over predicted time, a booster each for TTFT and TPOT, over load (as a
share of saturation), prompt and output length, with monotone constraints: it does not fall with load or
prompt. What is learned is bounded and tabulated (models.latency_correction).

Physics that is right leaves noise, and trees fit noise. So a correction is taken only where it shows a gain
on windows that it has not seen: they are cut into BLOCKS stretches of time, each is corrected as the others
teach, and the mean gain must be worth a percent of the time and be above zero by CONFIDENCE of Student's
distribution over the blocks (neighbours in time share their luck: blocks are independent, windows are not).
And learned without the highest fifth of loads, it must do no harm there: plans ask for loads that were never
seen. The physics is that of all windows, the judged ones included: in doubt it wins.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.latency_correction import KNOTS, LOADS, MIX, Table, Tables, ordered
from models.latency_tails import tails, tpot_quantile, ttft_quantile
from models.latency_windows import Limits, Windows, sample_level
from models.step_time import Coefficients, mean_field, request_work

FloatArray = NDArray[np.float64]
Rows = NDArray[np.bool_]
BLOCKS = 6
MIN_ROWS = 120  # windows with a residual: twenty a block
MAX_ROWS = 1_500  # more are thinned evenly
MIN_GAIN = 0.01  # of the time, of the mean absolute error: less is not worth another moving part
CONFIDENCE = 0.95  # one-sided
NO_HARM = 0.005  # of the time, at loads left out
UPPER = 0.8  # quantile of the load: above are loads "never seen"
FAR = 1.0  # log error beyond which a window weighs as this one: robust to outliers
SEEN = (0.02, 0.98)  # quantiles of load
LENGTHS = (0.05, 0.5, 0.95)  # quantiles of prompts and outputs at which the table is laid out
LEAST_STEP = 0.02  # between the logarithms of lengths of a table
ROUNDS = 40
PARAMETERS: Final[dict[str, Any]] = {
    "objective": "regression",
    "monotone_constraints": [1, 1, 0],  # load, prompt, output
    "learning_rate": 0.15,
    "num_leaves": 6,
    "lambda_l2": 1.0,
    "max_bin": 31,
    "feature_pre_filter": False,
    "seed": 20,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


@dataclass(frozen=True, slots=True)
class Residuals:
    """R windows of one metric, in order of time, shapes (R,): features, and the error to learn.

    load: share of saturation. log_off: logarithm of measured over predicted, of the percentiles together.
    """

    load: FloatArray
    log_isl: FloatArray
    log_osl: FloatArray
    log_off: FloatArray

    def take(self, rows: "Rows | NDArray[np.int64]") -> "Residuals":
        """Return the chosen windows."""
        return Residuals(
            self.load[rows], self.log_isl[rows], self.log_osl[rows], self.log_off[rows]
        )

    def __len__(self) -> int:
        return len(self.load)


def learned(
    c: Coefficients, windows: Windows, limits: Limits
) -> tuple[Table | None, dict[str, dict[str, Any]]]:
    """Return the correction of `c` (fields of shape (1,)) that its `windows` prove, and the judgement.

    `windows`: at the present pace, NaN where a latency says nothing of its load. The judgement has an entry
    for TTFT and TPOT where there was enough to try: taken or not, and the gains.
    """
    scores: dict[str, dict[str, Any]] = {}
    values = []
    mix = _Mix.of(windows)
    for n, (name, served) in enumerate((("ttft", limits.prefill), ("tpot", limits.decode))):
        rows = _residuals(c, windows, limits, n) if served else None
        table = None
        if rows is not None and len(rows) >= MIN_ROWS:
            table, scores[name] = _judged(rows, mix)
        values.append(np.zeros((MIX, MIX, KNOTS)) if table is None else table.values[0])
    stacked = np.stack(values)
    if not stacked.any():
        return None, scores
    return Table(mix.log_isl, mix.log_osl, stacked), scores


@dataclass(frozen=True, slots=True)
class _Mix:
    """Knots of a table, logarithms of lengths (MIX,)."""

    log_isl: FloatArray
    log_osl: FloatArray

    @classmethod
    def of(cls, windows: Windows) -> "_Mix":
        knots = [
            np.quantile(np.log(np.maximum(x, 1.0)), LENGTHS)
            for x in (windows.isl_tokens, windows.osl_tokens)
        ]
        apart = np.arange(MIX) - MIX // 2  # constant lengths: a table of one column, three times
        return cls(*(np.round(k + LEAST_STEP * apart, 6) for k in knots))


def _residuals(c: Coefficients, windows: Windows, limits: Limits, metric: int) -> Residuals:
    """Return what the physics leaves over of TTFT (`metric` 0) or TPOT (1), by window.

    Percentiles that were measured are averaged, each weighed by how little it scatters.
    """
    rows = np.flatnonzero(windows.steady)
    if len(rows) > MAX_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_ROWS).astype(np.int64)]
    w = windows.take(rows)
    work = request_work(c, w.isl_tokens, w.osl_tokens, prefill=limits.prefill, decode=limits.decode)
    batch = mean_field(c, work, w.rate_rps, w.replicas)
    t = tails(c, work, batch, w.rate_rps, w.replicas, w.length_seconds)
    said = (tpot_quantile if metric else ttft_quantile)(t, sample_level(w.finished).T)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.log(w.latency[:, 3 * metric : 3 * metric + 3]) - np.log(said).T
    known = np.isfinite(off)
    filled = np.where(known, off, 0.0)
    count = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, off - filled.sum(axis=0) / count, 0.0)
    weight = known / np.maximum((centred**2).sum(axis=0) / count, 1e-4)
    total = weight.sum(axis=1)
    mean = (weight * filled).sum(axis=1) / np.maximum(total, 1e-12)
    ok = total > 0
    return Residuals(
        np.clip(w.rate_rps * work.saturation_seconds, 0.0, 1.0)[ok],
        np.log(np.maximum(w.isl_tokens, 1.0))[ok],
        np.log(np.maximum(w.osl_tokens, 1.0))[ok],
        np.clip(mean, -FAR, FAR)[ok],
    )


def _judged(rows: Residuals, mix: _Mix) -> tuple[Table | None, dict[str, Any]]:
    """Return the correction learned from all rows if held-out ones prove it, and the gains."""
    from scipy.stats import t as student

    table = _fit(rows, mix)
    as_fitted = _gain(rows, table)
    if as_fitted < MIN_GAIN:  # on the very windows learned from: there is nothing to look for
        return None, {"taken": False, "gain_as_fitted_ratio": round(as_fitted, 4)}
    gains = np.array([_held_out(rows, mix, block) for block in _blocks(len(rows))])
    spread = gains.std(ddof=1) / np.sqrt(BLOCKS)
    sure = gains.mean() - student.ppf(CONFIDENCE, BLOCKS - 1) * spread
    upper = _held_out(rows, mix, rows.load > np.quantile(rows.load, UPPER))
    harmed = upper < -NO_HARM  # where there are such windows
    taken = gains.mean() >= MIN_GAIN and sure > 0.0 and not harmed
    return table if taken else None, {
        "taken": bool(taken),
        "gain_as_fitted_ratio": round(as_fitted, 4),
        "gain_ratio": round(float(gains.mean()), 4),
        "sure_gain_ratio": round(float(sure), 4),
        "gain_at_higher_loads_ratio": None if math.isnan(upper) else round(upper, 4),
    }


def _blocks(count: int) -> list[Rows]:
    """Return BLOCKS masks (count,): stretches of time of about as many windows."""
    label = np.arange(count) * BLOCKS // count
    return [label == block for block in range(BLOCKS)]


def _held_out(rows: Residuals, mix: _Mix, held: Rows) -> float:
    """Return the gain on the `held` windows of what the others teach."""
    return _gain(rows.take(held), _fit(rows.take(~held), mix))


def _gain(rows: Residuals, table: Table) -> float:
    """Return by how much the correction makes the mean absolute log error smaller: a share of the time.

    NaN without a window: where all loads are alike, none is higher.
    """
    if len(rows) == 0:
        return math.nan
    pair = ("", "")
    line = Tables({pair: table}).of([pair] * len(rows), np.exp(rows.log_isl), np.exp(rows.log_osl))
    assert line is not None  # noqa: S101 - narrowing: every row has the pair
    at = np.clip(rows.load, 0.0, 1.0) * (KNOTS - 1)
    cell = np.minimum(at.astype(np.int64), KNOTS - 2)
    each = np.arange(len(rows))
    low, high = line.ttft[each, cell], line.ttft[each, cell + 1]
    left = rows.log_off - (low + (at - cell) * (high - low))
    return float(np.abs(rows.log_off).mean() - np.abs(left).mean())


def _fit(rows: Residuals, mix: _Mix) -> Table:
    """Learn from `rows`; the table has the correction in the place of TTFT."""
    import lightgbm as lgb

    matrix = np.stack([rows.load, rows.log_isl, rows.log_osl], axis=1)
    parameters = PARAMETERS | {"min_data_in_leaf": max(15, len(rows) // 20)}
    data = lgb.Dataset(matrix, rows.log_off, params=dict(parameters))
    booster = lgb.train(parameters, data, num_boost_round=ROUNDS)
    isl, osl, load = np.meshgrid(mix.log_isl, mix.log_osl, LOADS, indexing="ij")
    asked = np.stack([load.ravel(), isl.ravel(), osl.ravel()], axis=1)
    values = np.asarray(booster.predict(asked)).reshape(1, MIX, MIX, KNOTS)
    low, high = np.quantile(rows.load, SEEN)
    seen = (float(low), float(high))
    return Table(mix.log_isl, mix.log_osl, ordered(np.concatenate([values, 0.0 * values]), seen))

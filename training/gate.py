"""Whether a challenger replaces what serves: only what beats it does.

        |<--------- both have seen this ---------->|<- neither has: judged here ->|
                                                   ^ where the incumbent's training ended

The incumbent is compared with a shadow of the challenger: the same recipe, fitted on the load up to
where the judged window begins, at the same cutoffs, by the same loss. The window is at most a day. The
latency and lead-time models describe the fleet as it is: newer replaces older.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.frames import LOAD_NUMBERS, LoadSeries
from models.load_model import LoadModel
from models.losses import pinball_losses
from models.quantiles import QUANTILES

DAY_SECONDS = 86_400.0
MIN_NEW_SECONDS = 2 * 3600.0  # of load that the incumbent has not seen, to judge on
MAX_CUTOFFS = 48  # of the comparison
TOLERANCE = 1.0  # ratio of losses above which the incumbent stays


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger serves, and why."""

    promoted: bool
    why: str
    ratio: float | None = None  # challenger's loss over the incumbent's, geometric mean


def judged_from(incumbent_until_seconds: float, series: LoadSeries) -> int | None:
    """Return the first step of the judged window; None if too little is new to judge on."""
    step = series.step_seconds
    last_day = series.values.shape[1] - round(DAY_SECONDS / step)
    new = int(np.ceil((incumbent_until_seconds - series.start_seconds) / step))
    first = max(new, last_day, 1)
    enough = (series.values.shape[1] - first) * step >= MIN_NEW_SECONDS
    return first if enough else None


def crop(series: LoadSeries, steps: int) -> LoadSeries:
    """Return the series up to a step."""
    values = series.values[:, :steps]
    return LoadSeries(series.services, series.start_seconds, series.step_seconds, values)


def judge_load(shadow: LoadModel, incumbent: LoadModel, series: LoadSeries, first: int) -> Verdict:
    """Compare both on the steps from `first` on, which neither has seen."""
    ours, theirs = evaluate(shadow, series, first), evaluate(incumbent, series, first)
    ratios = [ours[s] / theirs[s] for s in ours if theirs.get(s, 0.0) > 0]
    if not ratios:
        return Verdict(promoted=True, why="no load in the judged window: the newer data wins")
    ratio = float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-9)))))
    better = ratio <= TOLERANCE
    word = "not worse than" if better else "worse than"
    hours = (series.values.shape[1] - first) * series.step_seconds / 3600
    why = f"{word} the incumbent on {hours:.0f} h that neither has seen: {ratio:.3f} x its loss"
    return Verdict(better, why, ratio)


def evaluate(model: LoadModel, series: LoadSeries, first: int) -> dict[str, float]:
    """Return the pinball loss per service over the steps from `first` on, over its mean load there."""
    y = series.values[:, :, LOAD_NUMBERS.index(model.target)]
    steps = y.shape[1]
    cutoffs = _even(max(1, first), steps, MAX_CUTOFFS)
    losses: list[np.ndarray] = []
    actuals: list[np.ndarray] = []
    for cutoff in cutoffs:
        end = series.start_seconds + cutoff * series.step_seconds
        forecast = model.forecast(series.services, y[:, :cutoff], end)
        at = cutoff + forecast.leads_steps - 1
        actual = np.where(at < steps, y[:, np.minimum(at, steps - 1)], np.nan)
        actuals.append(actual)
        losses.append(pinball_losses(actual, forecast.values, QUANTILES).mean(axis=-1))
    if not losses:
        return {}
    loss, truth = np.stack(losses), np.stack(actuals)  # (cutoffs, S, L)
    known = np.isfinite(loss)
    total = np.where(known, loss, 0.0).sum(axis=(0, 2))
    load = np.where(known, truth, 0.0).sum(axis=(0, 2))
    return {s: float(total[i] / load[i]) for i, s in enumerate(series.services) if load[i] > 0}


def _even(first: int, until: int, most: int) -> Sequence[int]:
    if until <= first:
        return []
    return [int(x) for x in np.unique(np.linspace(first, until - 1, min(most, until - first)))]


def summary_of(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as the training summary shows it."""
    return {"promoted": verdict.promoted, "why": verdict.why, "loss_ratio": verdict.ratio}

"""Whether a challenger replaces what serves: only what beats it does.

A load model is judged by its pinball loss over the mean load on the last day, which the challenger's
held-out fit has not seen. Where the incumbent has seen that day the comparison would flatter it; then
the newer data wins. The latency and lead-time models describe the fleet as it is: newer replaces older.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.frames import LOAD_NUMBERS, LoadSeries
from models.load_model import LoadModel
from models.losses import pinball_losses
from models.quantiles import QUANTILES

MAX_CUTOFFS = 96  # of the comparison: a day of quarter hours
TOLERANCE = 1.0  # ratio of losses above which the incumbent stays


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger serves, and why."""

    promoted: bool
    why: str
    ratio: float | None = None  # challenger's loss over the incumbent's, geometric mean


def judge_load(
    challenger_losses: Mapping[str, float], incumbent: LoadModel, held_out: LoadSeries
) -> Verdict:
    """Compare losses per service on the held-out tail that neither has seen."""
    losses = evaluate(incumbent, held_out)
    ratios = [
        challenger_losses[s] / losses[s]
        for s in held_out.services
        if losses.get(s, 0.0) > 0 and np.isfinite(challenger_losses.get(s, np.nan))
    ]
    if not ratios:
        return Verdict(promoted=True, why="no service to compare on: the newer data wins")
    ratio = float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-9)))))
    better = ratio <= TOLERANCE
    word = "beats" if better else "does not beat"
    return Verdict(better, f"{word} the incumbent: {ratio:.3f} x its pinball loss", ratio)


def evaluate(model: LoadModel, series: LoadSeries) -> dict[str, float]:
    """Return the pinball loss per service over the last day of `series`, over its mean load then."""
    y = series.values[:, :, LOAD_NUMBERS.index(model.target)]
    steps = y.shape[1]
    most = int(model.leads_steps.max())
    day = round(86_400 / series.step_seconds)
    cutoffs = _even(max(1, steps - day - most), steps - most, MAX_CUTOFFS)
    losses: list[np.ndarray] = []
    actuals: list[np.ndarray] = []
    for cutoff in cutoffs:
        end = series.start_seconds + cutoff * series.step_seconds
        forecast = model.forecast(series.services, y[:, :cutoff], end)
        actual = y[:, cutoff + forecast.leads_steps - 1]
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

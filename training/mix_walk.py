"""The mix of requests at the cutoffs of a backtest, each from nothing but the load up to it."""

from dataclasses import dataclass

import numpy as np

from models.features import IntArray
from models.frames import LoadSeries
from models.mix_bins import binned, trailing
from models.mix_drift import Drift
from models.mix_model import MixModel
from models.quantiles import FloatArray


@dataclass(frozen=True, slots=True)
class MixWalk:
    """N cutoffs, H steps ahead; NaN where nothing is known."""

    lengths: FloatArray  # (N, H, 2), input and output tokens a request
    bounds: FloatArray  # (N, 2, 2), least and most of each
    drifts: tuple[Drift | None, ...]  # (N,)
    drifting: FloatArray  # (N, 2), lengths of the class that drifts


def walk_mix(
    series: LoadSeries, row: IntArray, step: IntArray, until: IntArray, horizon_steps: int
) -> MixWalk:
    """Forecast the mix of services `row` after `step` (N,), by models of the first `until` (N,) steps."""
    lengths = np.full((row.size, horizon_steps, 2), np.nan)
    bounds = np.full((row.size, 2, 2), np.nan)
    drifting = np.full((row.size, 2), np.nan)
    drifts: list[Drift | None] = [None] * row.size
    leads: FloatArray = (np.arange(horizon_steps) + 0.5) * np.float64(series.step_seconds)
    for fit_until in np.unique(until):
        inside = np.flatnonzero(until == fit_until)
        model = MixModel.fit(_up_to(series, int(fit_until)))
        for at in np.unique(step[inside]):
            here = inside[step[inside] == at]
            names = [series.services[r] for r in row[here]]
            kept = round(model.clock.kept * model.clock.seconds / series.step_seconds)
            past = _up_to(series, int(at) + 1, kept)
            sums, first = binned(past.values[row[here]], past.start_seconds, model.clock)
            recent = trailing(sums, first, model.clock.newest(past.end_seconds), model.clock.kept)
            found = model.forecast(names, recent, past.end_seconds, leads)
            lengths[here] = np.stack([found.isl_tokens, found.osl_tokens], axis=-1)
            bounds[here] = model.bounds(names)
            for n, name, drift in zip(here, names, found.drifts, strict=True):
                drifts[n] = drift
                if drift is not None:  # the classes no longer hold
                    bounds[n] = np.nan
                    drifting[n] = model.lengths(name)[drift.number]
    return MixWalk(lengths, bounds, tuple(drifts), drifting)


def _up_to(series: LoadSeries, steps: int, last: int | None = None) -> LoadSeries:
    """Return the first `steps` steps, of these the `last`."""
    first = 0 if last is None else max(0, steps - last)
    start = series.start_seconds + first * series.step_seconds
    return LoadSeries(series.services, start, series.step_seconds, series.values[:, first:steps])

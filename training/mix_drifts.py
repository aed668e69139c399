"""Which classes of traffic drifted at the cutoffs of a backtest."""

import numpy as np
import pandas as pd

from models.frames import LOAD_NUMBERS, LoadSeries
from models.mix_drift import DriftSpan, spans_of
from training.backtest import fit_steps, locate
from training.mix_walk import walk_mix


def mix_drifts(series: LoadSeries, cutoffs: pd.DataFrame) -> tuple[DriftSpan, ...]:
    """Return which classes of traffic drifted at `cutoffs` (service, cutoff); none where no tokens are told.

    Each cutoff is judged by the model of its last midnight, as `training.backtest.backtest` does.
    """
    values = series.values[:, :, LOAD_NUMBERS.index("requests")]
    row, step = locate(series, cutoffs)
    inside = step < values.shape[1]
    row, step = row[inside], step[inside]
    known = np.isfinite(series.values).all(axis=2).cumsum(axis=1)[row, step] > 0
    row, step = row[known], step[known]
    if row.size == 0:
        return ()
    walked = walk_mix(series, row, step, fit_steps(series, values, step), 1)
    names = [series.services[r] for r in row]
    seconds = np.float64(series.start_seconds) + (step + 1) * series.step_seconds
    return spans_of(names, seconds, walked.drifts, walked.drifting)

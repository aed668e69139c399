"""Exponential smoothing: the level of each service follows its steps by a share that a library fitted.

    level <- level + share * (step - level)        simple exponential smoothing; at a gap the level stays

The share is fitted by statsmodels, by the least squared miss of the next step, on the longest stretch without
a gap of the last two weeks. Only the share is kept: serving needs the recursion and no library.

Source: Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., §8.1. https://otexts.com/fpp3/
"""

import warnings
from typing import Final

import numpy as np
from numba import njit

from models.quantiles import FloatArray

USUAL_SHARE: Final = 0.37  # where no service has a history: half of the weight lies on 1.5 steps
LEAST_SHARE: Final = 0.03  # with less, steps before the window would still count
WINDOW_STEPS = 120  # that the recursion looks back
FIT_DAYS = 14
LEAST_FIT_STEPS = 60  # without a gap; from fewer no share is fitted
MOST_FIT_STEPS = 1008  # the newest of them: a week of ten minutes, 20 ms a fit
MOST_SERVICES = 300  # with the most load are fitted; the others take the median


def fit_shares(values: FloatArray, day_steps: int) -> FloatArray:
    """Return the share of each service of `values` (S, T), and last the fleet's, (S + 1,).

    The fleet's is the median; it speaks for services that are too young, constant or never seen.
    """
    recent = values[:, -FIT_DAYS * day_steps :]
    shares = np.full(values.shape[0] + 1, np.nan)
    load = np.nansum(recent, axis=1)
    for s in np.argsort(-load, kind="stable")[:MOST_SERVICES]:
        steps = _longest_stretch(recent[s])[-MOST_FIT_STEPS:]
        if steps.size >= LEAST_FIT_STEPS and np.ptp(steps) > 0:
            shares[s] = _fitted_share(steps)
    known = shares[np.isfinite(shares)]
    fleet = float(np.median(known)) if known.size else USUAL_SHARE
    return np.clip(np.where(np.isfinite(shares), shares, fleet), LEAST_SHARE, 1.0)


def smoothed(recent: FloatArray, share: FloatArray) -> FloatArray:
    """Return the level (R,) of windows `recent` (R, W), newest last, by each one's `share` (R,).

    It begins with the first known step of the window; NaN where none is known.
    """
    levels: FloatArray = _levels(recent[:, -WINDOW_STEPS:], share)
    return levels


@njit(cache=True, nogil=True)
def _levels(recent: FloatArray, share: FloatArray) -> FloatArray:
    levels = np.full(recent.shape[0], np.nan)
    for r in range(recent.shape[0]):
        level = np.nan
        for step in recent[r]:
            if np.isfinite(step):
                level = level + share[r] * (step - level) if np.isfinite(level) else step
        levels[r] = level
    return levels


def _fitted_share(steps: FloatArray) -> float:
    from statsmodels.tsa.holtwinters import SimpleExpSmoothing  # takes seconds: only who fits waits

    scaled = steps / np.abs(steps).max()  # the optimiser's tolerances are absolute
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence: what it came to is a share all the same
        model = SimpleExpSmoothing(scaled, initialization_method="known", initial_level=scaled[0])
        share = float(model.fit().params["smoothing_level"])
    return share if np.isfinite(share) else USUAL_SHARE


def _longest_stretch(values: FloatArray) -> FloatArray:
    """Return the longest run of known values (T,); of equal ones the newest."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.isfinite(values), [0]])))
    if edges.size == 0:
        return values[:0]
    begin, end = edges[::2], edges[1::2]
    last = begin.size - 1 - int(np.argmax((end - begin)[::-1]))
    return values[begin[last] : end[last]]

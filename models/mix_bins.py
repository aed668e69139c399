"""The recent mix of requests on a clock of quarter hours: what a forecast of the mix looks back on.

A mix moves slower than a load, and the means of single minutes are noisy: a week of quarter hours is all that
is kept, however short the steps are.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.features import DAY_SECONDS
from models.quantiles import FloatArray

BIN_SECONDS = 900.0
WEEK_DAYS = 7
SLACK = 1e-6  # of a bin: float noise in times


Sums = TypeVar("Sums", FloatArray, NDArray[np.float32])


@dataclass(frozen=True, slots=True)
class BinClock:
    """Bins of whole steps, counted from the epoch: bin n begins at n * seconds."""

    step_seconds: float

    @property
    def seconds(self) -> float:
        """Length of a bin: a quarter of an hour, or the step where that is longer."""
        return max(1, int(BIN_SECONDS // self.step_seconds)) * self.step_seconds

    @property
    def day_bins(self) -> int:
        """Bins of one day."""
        return max(1, round(DAY_SECONDS / self.seconds))

    @property
    def kept(self) -> int:
        """Bins that a forecast can make use of: a week, and the open one."""
        return WEEK_DAYS * self.day_bins + 1

    def holding(self, seconds: float) -> int:
        """Return the bin in which a time lies; the end of a bin lies in the next."""
        return int(np.floor(seconds / self.seconds + SLACK))

    def newest(self, end_seconds: float) -> int:
        """Return the bin, open or just full, of the last step that ended by `end_seconds`."""
        return int(np.ceil(end_seconds / self.seconds - SLACK)) - 1


def binned(values: FloatArray, start_seconds: float, clock: BinClock) -> tuple[FloatArray, int]:
    """Add up load (S, T, 3) by bin: sums (S, B, 3) of requests, input and output tokens; and the first bin.

    A step counts where all three are known. Tokens of a kind that a service never tells of count one a
    request, so that the other kind is not lost.
    """
    services, steps = values.shape[:2]
    first = clock.holding(start_seconds)
    if steps == 0:
        return np.zeros((services, 0, 3)), first
    told: NDArray[np.bool_] = np.any(np.isfinite(values), axis=1)  # (S, 3)
    filled = np.where(told[:, np.newaxis], values, values[..., :1])
    known: NDArray[np.bool_] = np.all(np.isfinite(filled), axis=2)
    filled = np.where(known[..., np.newaxis], filled, 0.0)
    begin = start_seconds + np.arange(steps) * clock.step_seconds
    place = np.floor(begin / clock.seconds + SLACK).astype(np.int64) - first
    edges = np.flatnonzero(np.diff(place, prepend=-1))
    sums = np.zeros((services, int(place[-1]) + 1, 3))
    sums[:, place[edges]] = np.add.reduceat(filled, edges, axis=1)
    return sums, first


def trailing(sums: Sums, first: int, newest: int, bins: int) -> Sums:
    """Return the `bins` bins (S, bins, 3) up to `newest`; those that are not there are empty."""
    out = np.zeros((sums.shape[0], bins, 3), sums.dtype)
    begin, end = newest + 1 - bins - first, newest + 1 - first
    low, high = max(0, begin), min(sums.shape[1], end)
    if high > low:
        out[:, low - begin : high - begin] = sums[:, low:high]
    return out


def mean_lengths(sums: FloatArray) -> FloatArray:
    """Return mean input and output lengths (..., 2) of sums (..., 3); NaN where nothing came."""
    requests = sums[..., :1]
    means: FloatArray = np.where(
        requests > 0, sums[..., 1:] / np.where(requests > 0, requests, 1.0), np.nan
    )
    return means

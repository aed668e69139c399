"""Recorded load on its way to who goes on from it: half as large while it waits, taken in part by part."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from models.frames import LoadSeries

PART_SERVICES = 10  # of a week of minutes: 2 MiB


@dataclass(frozen=True, slots=True)
class CompactLoad:
    """A LoadSeries in float32: counts are exact up to 16 million a step, larger ones to 7 digits."""

    services: tuple[str, ...]
    start_seconds: float
    step_seconds: float
    values: np.ndarray[tuple[int, int, int], np.dtype[np.float32]]

    @property
    def end_seconds(self) -> float:
        """End of the last step, in seconds since the epoch."""
        return self.start_seconds + self.values.shape[1] * self.step_seconds


Recorded = LoadSeries | CompactLoad


def parts_of(load: Recorded) -> Iterator[LoadSeries]:
    """Yield the load of a few services at a time, in float64."""
    for first in range(0, len(load.services), PART_SERVICES):
        some = slice(first, first + PART_SERVICES)
        values = load.values[some].astype(np.float64, copy=False)
        yield LoadSeries(load.services[some], load.start_seconds, load.step_seconds, values)

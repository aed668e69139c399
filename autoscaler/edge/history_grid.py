"""A grid of services and steps that rows of load are written into, and what they say of themselves."""

import numpy as np
from numpy.typing import NDArray

from autoscaler.edge.history_rows import Rows
from models.frames import LOAD_NUMBERS, OFF_GRID_STEPS, LoadSeries
from models.mend import ABSURD
from models.recorded import CompactLoad


class HistoryGrid:
    """S services, T steps. Notes in `again` whose rows must be looked at one by one.

    Rows of one step overwrite each other, so that what the grid holds of those services means nothing.
    """

    def __init__(
        self, services: tuple[str, ...], step_seconds: float, oldest: float, newest: float
    ) -> None:
        steps = round((newest - oldest) / step_seconds) + 1
        self.services = services
        self.step_seconds = step_seconds
        self.start_seconds = newest - (steps - 1) * step_seconds
        self.values = np.full((len(services), steps, len(LOAD_NUMBERS)), np.nan, np.float32)
        self.rows = np.zeros(len(services), np.int64)
        self.off_grid = np.zeros(len(services), np.bool_)
        self._impossible = np.zeros(len(services), np.bool_)
        self._there = np.zeros((len(services), steps), np.bool_)

    def write(self, rows: Rows) -> None:
        """Write rows of these services."""
        code = rows.code
        slot = (rows.seconds - self.start_seconds) / self.step_seconds
        at = np.rint(slot).astype(np.int64)
        self.off_grid[code[np.abs(slot - at) > OFF_GRID_STEPS]] = True
        bad = (rows.numbers < 0) | (rows.numbers >= ABSURD)
        self._impossible[code[bad.any(axis=1)]] = True
        self.values[code, at] = np.where(bad, np.nan, rows.numbers)
        self._there[code, at] = True
        self.rows += np.bincount(code, minlength=len(self.services))

    @property
    def again(self) -> NDArray[np.bool_]:
        """Services (S,) with a row that is doubled, impossible or off the grid."""
        doubled = self.rows != self._there.sum(axis=1)
        odd: NDArray[np.bool_] = doubled | self._impossible | self.off_grid
        return odd

    def replace(self, mended: LoadSeries) -> None:
        """Put in what was found of some services, on this grid from its start on."""
        where = [self.services.index(name) for name in mended.services]
        self.values[where] = np.nan
        self.values[where, : mended.values.shape[1]] = mended.values

    def distances(self) -> NDArray[np.int64]:
        """Return how often rows of a service that follow each other are 0, 1, 2 ... steps apart, (T,)."""
        found = np.zeros(self._there.shape[1], np.int64)
        for there in self._there:
            found += np.bincount(np.diff(np.flatnonzero(there)), minlength=found.size)
        return found

    def load(self) -> CompactLoad:
        """Return the grid from its first step with a row on; without a copy."""
        first = int(self._there.any(axis=0).argmax())
        start = self.start_seconds + first * self.step_seconds
        return CompactLoad(self.services, start, self.step_seconds, self.values[:, first:])

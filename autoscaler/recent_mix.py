"""The recent mix of requests of all services, by quarter of an hour: what its forecast looks back on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.outcome import FloatArray
from models.frames import LoadSeries
from models.mix_bins import BinClock, binned, trailing
from models.mix_model import MixForecast, MixModel

SERVICES_AT_ONCE = 128  # that are forecast: bounds memory


class RecentMix:
    """Requests and tokens of a week's bins; bounded, whatever the steps of the load are."""

    def __init__(self, services: Sequence[str], step_seconds: float) -> None:
        self.clock = BinClock(step_seconds)
        self.services = tuple(services)
        self._row = {name: i for i, name in enumerate(self.services)}
        self._sums = np.zeros((len(self.services), self.clock.kept, 3), dtype=np.float32)
        self._newest: int | None = None  # number of the last bin

    def seed(self, series: LoadSeries) -> None:
        """Take over what was recorded, where nothing was observed here."""
        recorded, first = binned(series.values, series.start_seconds, self.clock)
        newest = self.clock.newest(series.end_seconds)
        self._turn_to(newest if self._newest is None else max(newest, self._newest))
        found = trailing(recorded, first, self._newest or 0, self.clock.kept)
        for own, name in zip(found, series.services, strict=True):
            if (row := self._row.get(name)) is not None:
                empty = self._sums[row, :, 0] == 0.0
                self._sums[row, empty] = own[empty]

    def covering(self, services: Sequence[str]) -> "RecentMix":
        """Return the same for other services; what is new begins empty."""
        other = RecentMix(services, self.clock.step_seconds)
        other._newest = self._newest
        for row, name in enumerate(other.services):
            if (old := self._row.get(name)) is not None:
                other._sums[row] = self._sums[old]
        return other

    def add(
        self,
        rows: NDArray[np.int64],
        requests: FloatArray,
        tokens: FloatArray,
        at_seconds: float,
    ) -> None:
        """Add requests (n,) of mean lengths (n, 2), seen of the services `rows` from a time on."""
        known = np.isfinite(requests + tokens.sum(axis=1))
        if known.any():
            self._turn_to(self.clock.holding(at_seconds))
            each = np.column_stack([np.ones(len(rows)), tokens]) * requests[:, np.newaxis]
            self._sums[rows[known], -1] += each[known]

    def forecast(
        self, model: MixModel, end_seconds: float, leads_seconds: FloatArray
    ) -> MixForecast:
        """Return the mix that `model` expects at leads (L,) after the end of the last complete step."""
        self._turn_to(self.clock.newest(end_seconds))
        parts = [
            model.forecast(
                self.services[first : first + SERVICES_AT_ONCE],
                self._sums[first : first + SERVICES_AT_ONCE].astype(np.float64),
                end_seconds,
                leads_seconds,
            )
            for first in range(0, max(1, len(self.services)), SERVICES_AT_ONCE)
        ]
        return MixForecast.joined(parts)

    def _turn_to(self, newest: int) -> None:
        """Make `newest` the last bin; what is later, which nobody can know yet, is dropped."""
        if self._newest is not None and newest != self._newest:
            first = self._newest + 1 - self.clock.kept
            self._sums = trailing(self._sums, first, newest, self.clock.kept)
            if newest < self._newest:
                self._sums[:, -1] = 0.0  # full of what is later
        self._newest = newest

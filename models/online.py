"""Coverage followed from step to step: each quantile is moved as truth arrives.

Adaptive conformal inference (Gibbs & Candès, NeurIPS 2021) on the quantile itself, forgetting slowly:
with f the forecast that was given, w its width (q90 - q10) and a the shift in widths,

    a <- FORGET * a + RATE * (1[y > f] - (1 - q))

so a quantile that is passed more often than it should be rises until it is not. FORGET pulls the shift
back to what the fit learned: what happened a day ago says little about a service's next hour. A forecast
that is right makes a wander, too, with variance RATE^2 q (1 - q) / (1 - FORGET^2): only what is more than
CHANCE_ERRORS standard deviations away is acted on, and the rest, which would be noise, is not.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.conformal import forecast_width
from models.features import IntArray, Span
from models.load_model import CHUNK_ROWS, LoadModel
from models.quantiles import QUANTILES, FloatArray, LoadForecast

RATE = 0.04
FORGET = 0.995
MAX_SHIFT = 1.0  # widths
CHANCE_ERRORS = 2.0
SERVICES_AT_ONCE = 128  # that are forecast: 25 MiB, and no slower than all at once
ALL = slice(None)
Values = FloatArray | NDArray[np.float32]
LEVELS = np.asarray(QUANTILES)
CHANCE = CHANCE_ERRORS * RATE * np.sqrt(LEVELS * (1 - LEVELS) / (1 - FORGET**2))  # (Q,), widths


class Drift:
    """The shift of S services and L leads, and the forecasts whose truth has not come yet.

    What waits is bounded: for each lead, the forecasts of as many steps as the lead is long.
    """

    def __init__(self, services: int, leads_steps: IntArray) -> None:
        self.leads_steps = leads_steps
        self.shift = np.zeros((services, leads_steps.size, len(QUANTILES)))
        self._waiting: dict[int, list[tuple[int, FloatArray]]] = {}

    def settle(self, step: int, actual: Values) -> None:
        """Learn from the truth (S,) of `step`, NaN where it is unknown; forget what is older."""
        came = self._waiting.pop(step, ())
        if came:  # all leads together; each was forecast once, and else the newest counts
            leads = [lead for lead, _ in came]
            given = np.stack([quantiles for _, quantiles in came], axis=1)  # (S, leads, Q)
            before = self.shift[:, leads]
            over = actual[:, np.newaxis, np.newaxis] > given
            moved = FORGET * before + RATE * (over - (1 - LEVELS))
            moved = np.minimum(np.maximum(moved, -MAX_SHIFT), MAX_SHIFT)
            known = np.isfinite(actual)[:, np.newaxis] & np.isfinite(given[:, :, 0])
            self.shift[:, leads] = np.where(known[..., np.newaxis], moved, before)
        for old in [s for s in self._waiting if s < step]:
            del self._waiting[old]

    def correct(self, u: FloatArray, span: Span, some: slice = ALL) -> FloatArray:
        """Return quantiles `u` (s, L, Q) of all or some services shifted, in the target's unit."""
        shift = self.shift[some]
        beyond = np.sign(shift) * np.maximum(np.abs(shift) - CHANCE, 0.0)
        return span.expand(np.sort(u + beyond * forecast_width(u), axis=-1))

    def remember(self, step: int, given: FloatArray) -> None:
        """Keep what was forecast at `step`, (S, L, Q), until its truth comes."""
        for i, lead in enumerate(self.leads_steps):
            kept = given[:, i].astype(np.float32).astype(np.float64)
            self._waiting.setdefault(step + int(lead), []).append((i, kept))

    def take(self, rows: IntArray) -> Self:
        """Return the same for other services: row -1 is one that was not there."""
        other = type(self)(rows.size, self.leads_steps)
        there = rows >= 0
        other.shift[there] = self.shift[rows[there]]
        for step, given in self._waiting.items():
            other._waiting[step] = [
                (lead, np.where(there[:, np.newaxis], old[rows], np.nan)) for lead, old in given
            ]
        return other


def walk(
    model: LoadModel,
    services: Sequence[str],
    values: FloatArray,
    start_seconds: float,
    steps: tuple[IntArray, IntArray],
) -> FloatArray:
    """Forecast at steps[0] (N,), increasing: quantiles (N, S, L, Q).

    `values` (S, T) begins at `start_seconds`. The drift is learned from the forecasts made at the steps
    that are in steps[1], beginning with the first step; no forecast sees anything later than its step.
    """
    count, (asked, followed) = len(services), steps
    every = np.union1d(asked, followed)
    every = every[every <= asked[-1]]
    drift, settled = Drift(count, model.leads_steps), int(every[0])
    at_once = max(1, CHUNK_ROWS // max(1, count))
    out = np.empty((asked.size, count, model.leads_steps.size, len(QUANTILES)))
    for begin in range(0, every.size, at_once):
        part = every[begin : begin + at_once]
        origins = np.tile(np.arange(count), part.size), np.repeat(part, count)
        known, u = model.scaled(tuple(services) * part.size, values, start_seconds, origins)
        span = known.span()
        for n, step in enumerate(part):
            here = slice(n * count, (n + 1) * count)
            for came in range(settled + 1, int(step) + 1):
                drift.settle(came, values[:, came])
            settled = int(step)
            given = drift.correct(u[here], span.rows(here))
            out[asked == step] = given
            if step in followed:
                drift.remember(settled, given)
    return out


class Online:
    """A model and the drift of the services that it serves, one step after the other."""

    def __init__(self, model: LoadModel, services: Sequence[str]) -> None:
        self.model = model
        self.services = tuple(services)
        self._drift = Drift(len(self.services), model.leads_steps)
        self._step: int | None = None  # the newest that was learned from
        self._restored: dict[str, FloatArray] = {}  # shifts of services that may come yet

    def forecast(self, values: Values, end_seconds: float) -> LoadForecast:
        """Learn from what is new in `values` (S, T), then forecast as `LoadModel.forecast` does."""
        step = round(end_seconds / self.model.step_seconds) - 1
        came = min(values.shape[1], step - self._step) if self._step is not None else 0
        for back in range(came - 1, -1, -1):
            self._drift.settle(step - back, values[:, -1 - back])
        self._step = step
        start = end_seconds - values.shape[1] * self.model.step_seconds
        parts = [
            self._part(values, start, slice(first, first + SERVICES_AT_ONCE))
            for first in range(0, len(self.services), SERVICES_AT_ONCE)
        ]
        quantiles = np.concatenate(parts) if parts else np.empty_like(self._drift.shift)
        self._drift.remember(step, quantiles)
        return self.model.wrap(self.services, end_seconds, quantiles)

    def _part(self, values: Values, start_seconds: float, some: slice) -> FloatArray:
        """Return the quantiles (s, L, Q) of some services."""
        own = values[some].astype(np.float64)
        origins = np.arange(own.shape[0]), np.full(own.shape[0], own.shape[1] - 1)
        known, u = self.model.scaled(self.services[some], own, start_seconds, origins)
        return self._drift.correct(u, known.span(), some)

    def covering(self, services: Sequence[str]) -> "Online":
        """Return the same for other services; those that stay keep their drift."""
        place = {name: i for i, name in enumerate(self.services)}
        other = Online(self.model, services)
        other._step, other._restored = self._step, self._restored
        other._drift = self._drift.take(np.array([place.get(s, -1) for s in services], np.int64))
        other._put({s: n for s, n in self._restored.items() if s not in place})
        return other

    def shifts(self) -> dict[str, FloatArray]:
        """Return what was learned of each service, (L, Q): what must survive a restart."""
        return dict(zip(self.services, self._drift.shift.copy(), strict=True))

    def restore(self, shifts: Mapping[str, FloatArray]) -> None:
        """Take over what another process learned, also of services that come later.

        Of another shape (other leads), or not finite: as if nothing had been learned.
        """
        shape = self._drift.shift.shape[1:]
        self._restored = {
            name: np.clip(shift, -MAX_SHIFT, MAX_SHIFT)
            for name, shift in shifts.items()
            if shift.shape == shape and np.isfinite(shift).all()
        }
        self._put(self._restored)

    def _put(self, shifts: Mapping[str, FloatArray]) -> None:
        for row, name in enumerate(self.services):
            if name in shifts:
                self._drift.shift[row] = shifts[name]

"""From a stream of observations to outlooks: a bounded history, and a forecast once a step.

Pure state machine: time is what observations say. Intervals (15 s) gather into steps of the load
model (60 s); a step with nothing measured is a gap. History is bounded by what the features need.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.outcome import FloatArray, Outlook
from autoscaler.core.types import Observation, ServiceObservation
from autoscaler.recent_mix import RecentMix
from models.frames import LoadSeries
from models.lagged import LaggedAverage
from models.load_model import LoadModel
from models.mix_model import MixForecast, MixModel
from models.online import Online
from models.quantiles import QUANTILES, LoadForecast
from models.recorded import Recorded, parts_of

MIX_HALF_LIFE_SECONDS = 1800.0  # how fast the mean lengths follow the traffic
DECIMALS = 6  # of rates: what is logged is exactly what was decided on
SLACK_SECONDS = 1e-6  # float noise in times
AVERAGED_SECONDS = 300.0  # forecasts of the same moment, made within this, are averaged
RECENT_STEPS = 30  # whose mean rate tells how many requests a half-life has
STEP_COVER = 0.5  # of a step must be measured for it to count


@dataclass(frozen=True, slots=True)
class _Measured:
    """What an interval measured of n services."""

    rows: NDArray[np.int64]
    rates_rps: FloatArray
    tokens: FloatArray  # (n, 2), mean input and output length
    reachable: NDArray[np.bool_]  # else the rate says nothing of the demand


class History:
    """The recent load of all services on the model's grid, and the step that is being gathered."""

    def __init__(self, services: Sequence[str], step_seconds: float, steps: int) -> None:
        self.services = tuple(services)
        self.step_seconds = step_seconds
        self.steps = steps
        self.requests = np.full((len(services), steps), np.nan, dtype=np.float32)
        self.isl_tokens = np.full(len(services), np.nan)
        self.osl_tokens = np.full(len(services), np.nan)
        self.end_seconds = math.nan  # end of the last complete step
        self.mix = RecentMix(services, step_seconds)
        self._row = {name: i for i, name in enumerate(self.services)}
        self._sum = np.zeros(len(services))  # requests in the open step
        self._span = np.zeros(len(services))  # seconds of it that were measured

    def seed(self, series: LoadSeries) -> None:
        """Take over what was recorded; what was observed here already stays as it was seen."""
        if series.step_seconds != self.step_seconds:
            raise ValueError(
                f"history has steps of {series.step_seconds:g} s; "
                f"allowed: {self.step_seconds:g} s, as the load model was trained on"
            )
        self.mix.seed(series)
        if math.isnan(self.end_seconds):
            self.end_seconds = series.end_seconds
        ahead = round((series.end_seconds - self.end_seconds) / self.step_seconds)
        if ahead > 0:
            self._skip(ahead)
            self._sum[:] = self._span[:] = 0.0  # of a step that is recorded now
        behind = max(0, -ahead)  # steps that were observed since the record ended
        tail = series.values[:, -max(1, self.steps - behind) :, :]
        end = self.steps - behind
        for i, name in enumerate(series.services):
            row = self._row.get(name)
            if row is None or end <= 0:
                continue
            place = self.requests[row, end - tail.shape[1] : end]
            np.copyto(place, tail[i, :, 0], where=np.isnan(place), casting="same_kind")
            if math.isnan(self.isl_tokens[row]) or math.isnan(self.osl_tokens[row]):
                self.isl_tokens[row], self.osl_tokens[row] = _mix(tail[i], self.step_seconds)

    def covering(self, services: Sequence[str], steps: int) -> "History":
        """Return the same history for other services, `steps` long; what is new begins as gaps."""
        other = History(services, self.step_seconds, steps)
        other.end_seconds = self.end_seconds
        other.mix = self.mix.covering(services)
        kept = min(steps, self.steps)
        for row, name in enumerate(other.services):
            old = self._row.get(name)
            if old is None:
                continue
            other.requests[row, steps - kept :] = self.requests[old, self.steps - kept :]
            other.isl_tokens[row] = self.isl_tokens[old]
            other.osl_tokens[row] = self.osl_tokens[old]
            other._sum[row], other._span[row] = self._sum[old], self._span[old]
        return other

    def observe(self, observation: Observation) -> bool:
        """Add one interval; return whether a step was completed by it."""
        now, step = observation.now_seconds, self.step_seconds
        begin = now - observation.interval_seconds
        if math.isnan(self.end_seconds):
            self.end_seconds = math.floor(begin / step) * step
        completed = self._forget_after(now)
        missed = math.floor((begin - self.end_seconds + SLACK_SECONDS) / step)
        if missed > 0:  # the open step ended before this interval; the others are gaps
            self._close()
            self._skip(missed - 1)
            completed = True
        measured = self._measured(observation)
        self._follow_mix(measured, observation.interval_seconds)
        while True:  # an interval may be longer than a step, and lie across two
            covered = min(now, self.end_seconds + step) - max(begin, self.end_seconds)
            if covered > SLACK_SECONDS:
                self._gather(measured, covered)
            if now < self.end_seconds + step - SLACK_SECONDS:
                return completed
            self._close()
            completed = True

    def _forget_after(self, now_seconds: float) -> bool:
        """Drop recorded steps that end after now, which nobody can know; return whether any did."""
        ahead = math.ceil((self.end_seconds - now_seconds - SLACK_SECONDS) / self.step_seconds)
        if ahead <= 0:
            return False
        _move(self.requests, min(ahead, self.steps))
        self.end_seconds -= ahead * self.step_seconds
        return True

    def _skip(self, steps: int) -> None:
        """Append steps of which nothing is known."""
        _move(self.requests, -min(steps, self.steps))
        self.end_seconds += steps * self.step_seconds

    def _measured(self, observation: Observation) -> "_Measured":
        rows, rates, tokens, reachable = [], [], [], []
        for name, seen in observation.services.items():
            row = self._row.get(name)
            if row is not None and math.isfinite(seen.arrival_rate_rps):
                rows.append(row)
                rates.append(seen.arrival_rate_rps)
                tokens.append((seen.isl_tokens, seen.osl_tokens))
                reachable.append(not _unreachable(seen))
        return _Measured(
            np.array(rows, dtype=np.int64),
            np.array(rates, dtype=np.float64),
            np.array(tokens, dtype=np.float64).reshape(-1, 2),
            np.array(reachable, dtype=bool),
        )

    def _gather(self, measured: "_Measured", seconds: float) -> None:
        at = measured.reachable
        rows, requests = measured.rows[at], measured.rates_rps[at] * seconds
        self._sum[rows] += requests
        self._span[rows] += seconds
        self.mix.add(rows, requests, measured.tokens[at], self.end_seconds)

    def _follow_mix(self, measured: "_Measured", seconds: float) -> None:
        """Move mean lengths towards those measured, by their share of the requests of a half-life."""
        weights = measured.rates_rps * seconds
        recent = self._recent_rates()[measured.rows] * MIX_HALF_LIFE_SECONDS
        with np.errstate(invalid="ignore"):  # no requests at all: they do not count
            shares = np.minimum(weights / np.maximum(recent, weights), 1.0)
        for means, seen in zip((self.isl_tokens, self.osl_tokens), measured.tokens.T, strict=True):
            counts = np.isfinite(seen) & (weights > 0)
            rows, values = measured.rows[counts], seen[counts]
            before = means[rows]
            moved = before + (values - before) * shares[counts]
            means[rows] = np.where(np.isnan(before), values, moved)

    def _recent_rates(self) -> FloatArray:
        """Return (S,) the mean rate of the last half hour, 0 where nothing is known of it."""
        tails = np.ascontiguousarray(self.requests[:, -RECENT_STEPS:])
        means = tails.mean(axis=1).astype(np.float64)
        for row in np.flatnonzero(np.isnan(means)):
            known = tails[row][np.isfinite(tails[row])]
            means[row] = known.mean() if known.size else 0.0
        rates: FloatArray = means / self.step_seconds
        return rates

    def _close(self) -> None:
        """Complete the open step; too little of it measured makes it a gap."""
        covered = self._span >= STEP_COVER * self.step_seconds
        with np.errstate(divide="ignore", invalid="ignore"):
            full = np.where(covered, self._sum * self.step_seconds / self._span, np.nan)
        _move(self.requests, -1)
        self.requests[:, -1] = full
        self._sum[:] = 0.0
        self._span[:] = 0.0
        self.end_seconds += self.step_seconds


def _move(requests: NDArray[np.float32], steps: int) -> None:
    """Move each row (T,) of `requests` by at most T steps, towards later if above 0; gaps follow."""
    kept = requests.shape[1] - abs(steps)
    for row in requests:  # one at a time: NumPy copies what overlaps itself
        if steps > 0:
            row[steps:] = row[:kept]
            row[:steps] = np.nan
        else:
            row[:kept] = row[-steps:]
            row[kept:] = np.nan


def _unreachable(seen: ServiceObservation) -> bool:
    """Whether nobody could be served: then a rate of zero says nothing of the demand (models.outage)."""
    if seen.arrival_rate_rps > 0 or not seen.variants:
        return False
    none_ready = all(v.ready == 0 for v in seen.variants.values())
    return none_ready and any(v.starting > 0 for v in seen.variants.values())


def _mix(values: FloatArray, step_seconds: float) -> tuple[float, float]:
    """Return mean input and output tokens a request over the last hour that has any."""
    steps = max(1, round(3600.0 / step_seconds))
    for end in range(values.shape[0], 0, -steps):
        window = values[max(0, end - steps) : end]
        ok = np.isfinite(window).all(axis=1)
        requests, isl, osl = window[ok].sum(axis=0)
        if requests > 0:
            return float(isl / requests), float(osl / requests)
    return math.nan, math.nan


class Forecaster:
    """Keeps outlooks current: forecasts again whenever a step completes."""

    def __init__(
        self, services: Sequence[str], model: LoadModel | None, mix: MixModel | None = None
    ) -> None:
        self.model = model
        alike = (
            model is not None and mix is not None and model.step_seconds == mix.clock.step_seconds
        )
        self.mix = mix if alike else None
        steps = model.history_steps if model is not None else 60
        step_seconds = model.step_seconds if model is not None else 60.0
        self.history = History(services, step_seconds, steps)
        self._online = None if model is None else Online(model, services)
        self._lagged = LaggedAverage(AVERAGED_SECONDS)
        self._outlooks: dict[str, Outlook] = {}

    def seed(self, loads: Iterable[Recorded]) -> None:
        """Take over recorded history, which may come in parts, and forecast from all of it."""
        for part in chain.from_iterable(
            map(parts_of, loads)
        ):  # which keeps no load once it is through
            self.history.seed(part)
        if not math.isnan(self.history.end_seconds):
            self._forecast()

    def cover(self, services: Sequence[str]) -> None:
        """Go on with other services; those that stay keep their history."""
        self.history = self.history.covering(services, self.history.steps)
        self._online = None if self._online is None else self._online.covering(services)
        self._outlooks = {n: o for n, o in self._outlooks.items() if n in set(services)}

    def successor(
        self, services: Sequence[str], model: LoadModel | None, mix: MixModel | None = None
    ) -> "Forecaster":
        """Return a forecaster for other models, with this one's history where the steps are alike."""
        other = Forecaster(services, model, mix)
        if other.history.step_seconds == self.history.step_seconds:
            other.history = self.history.covering(services, other.history.steps)
            if not math.isnan(other.history.end_seconds):
                other._forecast()
        return other

    def calibration(self) -> dict[str, FloatArray]:
        """Return how each service's quantiles were shifted, (L, Q), to be kept over a restart."""
        return {} if self._online is None else self._online.shifts()

    def restore(self, calibration: Mapping[str, FloatArray]) -> None:
        """Go on with shifts that `calibration` returned, of services known now or later."""
        if self._online is not None:
            self._online.restore(calibration)

    def observe(self, observation: Observation) -> Mapping[str, Outlook]:
        """Add one interval and return the outlooks that hold now."""
        if self.history.observe(observation):
            self._forecast()
        return self._outlooks

    def _forecast(self) -> None:
        if self.model is None or self._online is None:
            return
        h = self.history
        newest = self._online.forecast(h.requests, h.end_seconds)
        forecast = replace(newest, values=self._lagged.of(newest))
        mix = None
        if self.mix is not None:
            leads = middles_of(forecast)
            mix = h.mix.forecast(self.mix, h.end_seconds, leads)
        self._outlooks = outlooks_of(forecast, h, self.model, mix)
        self._tell_drifts(mix)

    def _tell_drifts(self, mix: MixForecast | None) -> None:
        """Say in each outlook which class of traffic drifts."""
        if mix is None or self.mix is None:
            return
        for name, drift in zip(self.history.services, mix.drifts, strict=True):
            if drift is not None and name in self._outlooks:
                said = drift.in_words(self.mix.lengths(name)[drift.number])
                self._outlooks[name] = replace(self._outlooks[name], mix_drift=said)


def middles_of(forecast: LoadForecast) -> FloatArray:
    """Return the leads (L,) in seconds: a step's mean stands for its middle."""
    leads: FloatArray = (forecast.leads_steps.astype(np.float64) - 0.5) * forecast.step_seconds
    return leads


def outlooks_of(
    forecast: LoadForecast, history: History, model: LoadModel, mix: MixForecast | None = None
) -> dict[str, Outlook]:
    """Return an outlook for each service that has a forecast; rates rounded to DECIMALS.

    `mix` is of the same services and leads; a service whose classes it does not know, or that drifts, keeps
    its recent mean lengths.
    """
    step, leads = forecast.step_seconds, middles_of(forecast)
    rates = np.round(np.asarray(forecast.values, dtype=np.float64) / step, DECIMALS)
    quantiles = np.array(QUANTILES)
    outlooks = {}
    for i, name in enumerate(forecast.services):
        if not np.isfinite(rates[i]).all():
            continue
        score = model.scores.get(name, {})
        outlooks[name] = Outlook(
            cutoff_seconds=forecast.cutoff_seconds,
            leads_seconds=leads,
            quantiles=quantiles,
            arrival_rate_rps=rates[i],
            isl_tokens=round(float(history.isl_tokens[i]), DECIMALS),
            osl_tokens=round(float(history.osl_tokens[i]), DECIMALS),
            trusted=bool(score.get("trusted", False)),
            ahead_tokens=_lengths_ahead(mix, i),
        )
    return outlooks


def _lengths_ahead(mix: MixForecast | None, row: int) -> FloatArray | None:
    """Return the mean lengths (L, 2) that a service's classes make at each lead, if they do."""
    if mix is None or not np.isfinite(mix.shares[row]).all():
        return None
    lengths = np.stack([mix.isl_tokens[row], mix.osl_tokens[row]], axis=1)
    return np.round(lengths, DECIMALS) if np.isfinite(lengths).all() else None

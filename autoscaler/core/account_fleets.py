"""What fleets of given sizes would have attained, by the latency model, for all services at once.

S services; N lanes (service, variant), those of one service beside each other; T minutes; Q fleets. Lengths
are the hour's means: a load's mix moves less within an hour than its rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from autoscaler.core.drift import factors
from autoscaler.core.outcome import FloatArray, Forecasts, PaceDrift, ServiceState, State
from autoscaler.core.sizing import IntArray
from autoscaler.core.types import Policies, Role
from models import capacity
from models.latency_correction import Correction
from models.latency_drift import at_pace
from models.step_time import Coefficients, request_work

LANES_AT_ONCE = 64  # their arrays stay in the processor's cache, and a thousand services in bounds
BISECTIONS = 12  # of a replica's load: to a 4,000th of saturation


@dataclass(frozen=True, slots=True)
class _Lanes:
    """Lanes of one role, shape (n,) each."""

    index: IntArray
    coefficients: Coefficients
    isl_tokens: FloatArray
    osl_tokens: FloatArray
    targets: capacity.TargetArrays
    correction: Correction | None

    def attained(self, rows: IntArray, rates: FloatArray, replicas: FloatArray) -> FloatArray:
        """Return the share within the SLO of some lanes (k,) at rates (k, M) with replicas (k, M)."""
        goals, known = self.targets, self.correction
        return capacity.attainment(
            Coefficients.from_columns(self.coefficients.columns()[:, rows]).expand(),
            rates,
            replicas,
            self.isl_tokens[rows, np.newaxis],
            self.osl_tokens[rows, np.newaxis],
            capacity.TargetArrays(
                goals.ttft_seconds[rows],
                goals.tpot_seconds[rows],
                goals.e2e_seconds[rows],
                goals.role,
            ).expand(),
            correction=None if known is None else known.rows(rows).expand(),
        )


@dataclass(frozen=True, slots=True)
class Fleets:
    """The engines of S services. `first` (S,): each one's first lane; `phases`: lanes (N,) that serve it."""

    first: IntArray
    service: IntArray  # (N,)
    roles: tuple[_Lanes, ...]
    prefills: FloatArray  # (N,) 1 or 0
    decodes: FloatArray
    split: FloatArray  # (S,) 1 where the phases are served apart
    wanted: FloatArray  # (N,) the attainment asked for

    @classmethod
    def of(
        cls,
        services: Sequence[str],
        policies: Policies,
        forecasts: Forecasts,
        state: State,
        lengths: FloatArray,
    ) -> Self:
        """Return the engines as they are at the end of the hour; `lengths` (S, 2): tokens in and out."""
        owners = [policies.services[name] for name in services]
        lanes = [(s, v) for s, p in enumerate(owners) for v in p.variants]
        service = np.array([s for s, _ in lanes], dtype=np.int64)
        roles = np.array([v.role.value for _, v in lanes])
        split = [float(any(v.role is not Role.BOTH for v in p.variants)) for p in owners]
        made = []
        for role in sorted(set(roles.tolist())):
            index = np.flatnonzero(roles == role)
            keys = [(services[lanes[i][0]], lanes[i][1].name) for i in index]
            drifts = [_drift(state, *key) for key in keys]
            isl, osl = lengths[service[index]].T
            refs = [lanes[i][1].profile_ref for i in index]
            made.append(
                _Lanes(
                    index,
                    at_pace(forecasts.latency.coefficients(keys, refs), factors(drifts)),
                    isl,
                    osl,
                    capacity.TargetArrays.of([owners[lanes[i][0]].targets for i in index], role),
                    forecasts.latency.correction(keys, isl, osl),
                )
            )
        return cls(
            first=np.searchsorted(service, np.arange(len(services))),
            service=service,
            roles=tuple(made),
            prefills=(roles != Role.DECODE.value).astype(np.float64),
            decodes=(roles != Role.PREFILL.value).astype(np.float64),
            split=np.array(split),
            wanted=np.array([owners[s].attainment for s, _ in lanes]),
        )

    def by_lane(self, values: FloatArray) -> FloatArray:
        """Return values (S, T) as (N, T)."""
        return values[self.service]

    def mix(self, decided: FloatArray) -> FloatArray:
        """Return each lane's share (N, T) of its service's decided counts (N, T).

        As it was last while none is decided or known; even where that never was.
        """
        total = self._sum(np.nan_to_num(decided))[self.service]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(total > 0, decided / total, np.nan)
        known = np.isfinite(share)
        at = np.maximum.accumulate(np.where(known, np.arange(share.shape[1]), -1), axis=1)
        at = np.where(at < 0, np.argmax(known, axis=1)[:, np.newaxis], at)
        even = 1.0 / np.bincount(self.service)[self.service]
        found: FloatArray = np.take_along_axis(share, at, axis=1)
        return np.where(np.isfinite(found), found, even[:, np.newaxis])

    def replica_rps(self, mix: FloatArray, decided: FloatArray) -> FloatArray:
        """Return the load (S,) that a replica of the mix (N, T) carries within the SLO; NaN: none, unknown.

        Where as many share it as were decided (N, T), on average.
        """
        count = np.maximum(np.nan_to_num(decided).mean(axis=1), 1.0)
        each = np.full(len(self.service), np.nan)
        for b in self.roles:
            each[b.index] = capacity.replica_capacity_rps(
                b.coefficients,
                b.isl_tokens,
                b.osl_tokens,
                b.targets,
                self.wanted[b.index],
                count[b.index],
                correction=b.correction,
                bisections=BISECTIONS,
            )
        share = mix.mean(axis=1)
        parts = np.where(share > 0, share * each, 0.0)
        first, then = (
            self._sum((parts * p)[:, np.newaxis])[:, 0] for p in (self.prefills, self.decodes)
        )
        carried = np.where(self.split > 0, np.minimum(first, then), first)
        return np.where(carried > 0, carried, np.nan)

    def attained(self, rates: FloatArray, counts: FloatArray) -> FloatArray:
        """Return the share of requests within the SLO (Q, S, T) at rates (S, T) with ready counts (Q, N, T).

        A load divides over variants in proportion to what each count carries; every phase takes all of it.
        """
        carried = np.where(counts > 0, counts / self._saturation_seconds()[:, np.newaxis], 0.0)
        first, then = (
            self._shares(carried * p[:, np.newaxis]) for p in (self.prefills, self.decodes)
        )
        load = self.by_lane(rates) * np.maximum(first, then)
        got = self._lane_attained(load, counts)
        parts = [self._sum(np.where(share == 0, 0.0, share * got)) for share in (first, then)]
        split = self.split[:, np.newaxis] > 0
        return np.where(split, parts[0] * parts[1], parts[0])

    def _shares(self, carried: FloatArray) -> FloatArray:
        """Return each lane's part of its service; 0 where nothing is carried, NaN where it is not known."""
        total = self._sum(carried)[:, self.service]
        return np.where(total == 0, 0.0, carried / np.where(total == 0, 1.0, total))

    def _lane_attained(self, load: FloatArray, counts: FloatArray) -> FloatArray:
        """Return what each lane attains, (Q, N, T).

        A part of a replica, where a minute or a mix has one, is one at the load that it would have.
        """
        whole = np.maximum(counts, 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            load = np.where(counts > 0, load * whole / counts, 0.0)
        out = np.full(counts.shape, np.nan)
        for b in self.roles:
            for begin in range(0, len(b.index), LANES_AT_ONCE):
                rows = np.arange(begin, min(begin + LANES_AT_ONCE, len(b.index)))
                index = b.index[rows]
                got = b.attained(rows, _by_row(load[:, index]), _by_row(whole[:, index]))
                out[:, index] = np.moveaxis(got.reshape(len(rows), len(counts), -1), 1, 0)
        return out

    def _saturation_seconds(self) -> FloatArray:
        """Return the seconds of a replica (N,) that one request takes at saturation."""
        out = np.full(len(self.service), np.nan)
        for b in self.roles:
            work = request_work(
                b.coefficients,
                b.isl_tokens,
                b.osl_tokens,
                prefill=b.targets.role != capacity.DECODE,
                decode=b.targets.role != capacity.PREFILL,
            )
            out[b.index] = work.saturation_seconds
        return out

    def _sum(self, values: FloatArray) -> FloatArray:
        """Return sums (..., S, T) over the lanes of each service, of values (..., N, T)."""
        return np.add.reduceat(values, self.first, axis=-2)


def _drift(state: State, service: str, variant: str) -> PaceDrift:
    return state.services.get(service, ServiceState()).drifts.get(variant, PaceDrift())


def _by_row(values: FloatArray) -> FloatArray:
    """Return (Q, n, T) as (n, Q * T)."""
    return np.moveaxis(values, 0, 1).reshape(values.shape[1], -1)

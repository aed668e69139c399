"""Candidate plans of many services at once, with what each costs: what a price picks from.

A service may be covered to any of COVERS, its variants filled one after the other in any order, first those
that run or not; or all of it, the first of them filled to any of COVERS and to a whole replica less or not,
the others with the rest. What exists is kept beside it until that serves, or given up. That is not every
plan: a service alone has exact ways (autoscaler.core.separable, milp); these are those worth having where
accelerators have a price.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.milp import GIVEN_UP_PRICE, SHORT_PRICES, lack_prices_usd
from autoscaler.core.needs import COVER_SLACK, ServiceNeed

FloatArray = NDArray[np.float64]
COVERS = np.arange(7) / 6.0  # the thirds of the shortfall's price, and halfway between
MAX_PERMUTED = 3  # variants that are filled in every order; more of them in turn

Order = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """C candidate plans of each of S services, of V variants; a service with fewer has 0 of the others."""

    replicas: FloatArray  # (S, C, V)
    usd: FloatArray  # (S, C), the next hour's, with the price of what is not covered; infinite: not allowed


def columns_of(needs: Sequence[ServiceNeed]) -> Columns:
    """Return the candidate plans; their costs are the MILP's."""
    facts = _Facts(needs)
    replicas, usd = [], []
    for order in _orders(facts.variants):
        for lasting in (
            facts.filled(order, running_first=True),
            facts.filled(order, running_first=False),
            facts.shared(order, less=True),
            facts.shared(order, less=False),
        ):
            for kept in (facts.kept(lasting, order), lasting):
                replicas.append(kept)
                usd.append(facts.usd(lasting, kept))
    return Columns(
        np.concatenate(replicas).transpose(1, 0, 2), np.ascontiguousarray(np.concatenate(usd).T)
    )


def _orders(variants: int) -> list[Order]:
    """Return the orders in which variants are filled."""
    if variants <= MAX_PERMUTED:
        return list(itertools.permutations(range(variants)))
    return [tuple(np.roll(np.arange(variants), -i).tolist()) for i in range(variants)]


class _Facts:
    """The needs as arrays: (S, V) of variants, (S, P) of phases, (S,) of services."""

    def __init__(self, needs: Sequence[ServiceNeed]) -> None:
        self.variants = max(len(need.variants) for need in needs)

        def each(name: str, empty: float) -> FloatArray:
            out = np.full((len(needs), self.variants), empty)
            for s, need in enumerate(needs):
                out[s, : len(need.variants)] = [getattr(v, name) for v in need.variants]
            return out

        self.lower, self.upper = each("lower", 0.0), each("upper", 0.0)
        self.current, self.ready = each("current", 0.0), each("ready", 0.0)
        self.future, self.hold, self.present = (
            each(name, 1.0) for name in ("future", "hold", "present")
        )
        self.usd_per_hour, self.start_usd = each("usd_per_hour", 0.0), each("start_usd", 0.0)
        self.lasting_usd = self.usd_per_hour + each("restart_usd_per_hour", 0.0)
        self.budget = np.array([need.budget_usd_per_hour for need in needs])
        self.lack_usd = np.array(lack_prices_usd(needs))
        phases = max([1, *(len(need.phases()) for need in needs)])
        self.serves = np.zeros((phases, len(needs), self.variants))
        self.asked = np.zeros((phases, len(needs)))  # 1 where there is such a phase
        self.stays, self.stay_floor = np.zeros_like(self.serves), np.zeros_like(self.asked)
        for s, need in enumerate(needs):
            for p, phase in enumerate(need.phases()):
                self.serves[p, s, list(phase)] = 1.0
                self.asked[p, s] = 1.0
                if need.max_spot_ratio < 1:
                    self.stays[p, s, list(need.kinds(phase)[0])] = 1.0
                    self.stay_floor[p, s] = need.stay_floor(phase)
        self.excess_usd = np.array([need.excess_prices_usd() for need in needs]).T  # (2, S)
        self.hold_floor = np.minimum(self._share(self.current, self.hold), 1.0)
        self.ready_floor = np.minimum(self._share(self.ready, self.present), 1.0)

    def filled(self, order: Order, *, running_first: bool) -> FloatArray:
        """Return what covers each of COVERS, (covers, S, V), as far as it can be covered."""
        counts = np.repeat(self.lower[np.newaxis], COVERS.size, axis=0)
        if running_first:
            running = np.minimum(np.maximum(self.current, self.lower), self.upper)
            self._fill(counts, order, COVERS, running)
        self._fill(counts, order, COVERS, self.upper)
        return counts

    def shared(self, order: Order, *, less: bool) -> FloatArray:
        """Return what covers all, (covers - 1, S, V): of the first in order what covers COVERS, but 0."""
        covers = COVERS[1:]
        counts = np.repeat(self.lower[np.newaxis], covers.size, axis=0)
        self._fill(counts, order[:1], covers, self.upper, less=less)
        self._fill(counts, order, np.ones_like(covers), self.upper)
        return counts

    def _fill(
        self,
        counts: FloatArray,
        order: Order,
        covers: FloatArray,
        most: FloatArray,
        *,
        less: bool = False,
    ) -> None:
        """Raise counts (covers, S, V), one variant after the other, as far as their covers lack."""
        asked = covers[:, np.newaxis] * self.asked[:, np.newaxis]
        for i in order:
            more = self._most(asked - self._share(counts, self.future), i) * self.future[:, i]
            more = np.floor(more + COVER_SLACK) if less else np.ceil(more - COVER_SLACK)
            now = counts[..., i]
            counts[..., i] = np.minimum(now + np.maximum(more, 0.0), np.maximum(most[:, i], now))

    def kept(self, lasting: FloatArray, order: Order) -> FloatArray:
        """Return `lasting` (covers, S, V) with what exists and is needed until all of it serves."""
        counts = lasting.copy()
        for i in order:
            for exists, alone, floor in self._existing():
                have = np.minimum(counts, exists)
                lacking = floor[:, np.newaxis] - self._share(have, alone)
                more = np.ceil(self._most(lacking, i) * alone[:, i] - COVER_SLACK)
                kept = np.minimum(have[..., i] + np.maximum(more, 0.0), exists[:, i])
                kept = np.minimum(kept, self.upper[:, i])
                counts[..., i] = np.maximum(counts[..., i], kept)
        return counts

    def usd(self, lasting: FloatArray, replicas: FloatArray) -> FloatArray:
        """Return the cost (covers, S) of plans; infinite beyond a service's budget."""
        starts = np.maximum(lasting - self.current, 0.0) + replicas - lasting
        usd = (lasting * self.lasting_usd + starts * self.start_usd).sum(axis=-1)
        excess = (
            self.stay_floor[:, np.newaxis] - self._share(lasting, self.future, self.stays)
        ).max(axis=0)
        usd += np.where(excess > COVER_SLACK, self.excess_usd[0] + self.excess_usd[1] * excess, 0.0)
        short = self._worst(self.asked, lasting, self.future)
        part = 1.0 / len(SHORT_PRICES)
        lack = sum(
            times * np.minimum(np.maximum(short - n * part, 0.0), part)
            for n, times in enumerate(SHORT_PRICES)
        )
        given_up = [
            self._worst(floor, np.minimum(replicas, exists), alone)
            for exists, alone, floor in self._existing()
        ]
        usd += self.lack_usd * (lack + GIVEN_UP_PRICE * np.maximum(*given_up))
        spent = (replicas * self.usd_per_hour).sum(axis=-1)
        return np.where(spent <= self.budget * (1 + COVER_SLACK), usd, np.inf)

    def _existing(self) -> tuple[tuple[FloatArray, FloatArray, FloatArray], ...]:
        return (
            (self.current, self.hold, self.hold_floor),
            (self.ready, self.present, self.ready_floor),
        )

    def _share(
        self, counts: FloatArray, alone: FloatArray, serves: FloatArray | None = None
    ) -> FloatArray:
        """Return the share of each phase that counts (..., S, V) cover, (P, ..., S)."""
        part = counts / alone
        return np.stack(
            [(part * s).sum(axis=-1) for s in (self.serves if serves is None else serves)]
        )

    def _most(self, lacking: FloatArray, i: int) -> FloatArray:
        """Return the most that a phase which variant `i` serves lacks, of (P, ..., S)."""
        serves = self.serves[:, :, i].reshape(len(lacking), *(1,) * (lacking.ndim - 2), -1)
        most: FloatArray = np.where(serves > 0, lacking, 0.0).max(axis=0)
        return most

    def _worst(self, floor: FloatArray, counts: FloatArray, alone: FloatArray) -> FloatArray:
        lacking = (floor[:, np.newaxis] - self._share(counts, alone)).max(axis=0)
        return np.where(lacking > COVER_SLACK, lacking, 0.0)

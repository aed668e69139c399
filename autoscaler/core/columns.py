"""Candidate plans of many services at once, with what each costs: what a price picks from.

A service may be covered to any of COVERS, its variants filled one after the other in any order, first those
that run or not; or all of it, the first of them filled to any of COVERS and to a whole replica less or not,
the others with the rest. What exists is kept beside it until that serves, or given up. That is not every
plan: a service alone has exact ways (autoscaler.core.separable, milp); these are those worth having where
accelerators have a price.
"""

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.milp import SHORT_PRICES, given_up_times, lack_prices_usd
from autoscaler.core.needs import COVER_SLACK, ServiceNeed

FloatArray = NDArray[np.float64]
COVERS = np.arange(7) / 6.0  # the thirds of the shortfall's price, and halfway between
MAX_PERMUTED = 3  # variants that are filled in every order; more of them in turn
NUMBERS = (  # of a variant, and what stands in for one that a service does not have
    *(("lower", 0.0), ("upper", 0.0), ("current", 0.0), ("ready", 0.0)),
    *(("future", 1.0), ("hold", 1.0), ("present", 1.0)),
    *(("usd_per_hour", 0.0), ("start_usd", 0.0), ("restart_usd_per_hour", 0.0)),
)

Order = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """C candidate plans of each of S services, of V variants; a service with fewer has 0 of the others."""

    replicas: FloatArray  # (V, S, C)
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
            lack, excess_usd = facts.lack(lasting), facts.excess_usd(lasting)
            for kept in (facts.kept(lasting, order), lasting):
                replicas.append(kept)
                usd.append(facts.usd(lasting, kept, lack) + excess_usd)
    return _distinct(np.concatenate(replicas, axis=1).transpose(0, 2, 1), np.concatenate(usd).T)


def _distinct(replicas: FloatArray, usd: FloatArray) -> Columns:
    """Return plans (V, S, C) at their costs (S, C) without what is there twice; the cheaper one stays.

    Services with fewer plans than others keep some twice, after all others: they are never the first choice.
    """
    by_plan = np.lexsort((usd, *replicas), axis=1)
    alike = np.take_along_axis(replicas, by_plan[np.newaxis], axis=2)
    first = np.ones(usd.shape, dtype=bool)
    first[:, 1:] = (alike[:, :, 1:] != alike[:, :, :-1]).any(axis=0)
    again = np.empty_like(first)
    np.put_along_axis(again, by_plan, ~first, axis=1)
    kept = np.argsort(again, axis=1, kind="stable")[:, : first.sum(axis=1).max()]
    return Columns(
        np.take_along_axis(replicas, kept[np.newaxis], axis=2),
        np.take_along_axis(usd, kept, axis=1),
    )


def _orders(variants: int) -> list[Order]:
    """Return the orders in which variants are filled."""
    if variants <= MAX_PERMUTED:
        return list(itertools.permutations(range(variants)))
    return [tuple(np.roll(np.arange(variants), -i).tolist()) for i in range(variants)]


class _Facts:
    """The needs as arrays: (V, 1, S) of variants, (P, V, 1, S) of phases' variants, (S,) of services.

    Plans to cover K shares are (V, K, S): what is summed over, the variants, comes first.
    """

    def __init__(self, needs: Sequence[ServiceNeed]) -> None:
        self.variants = max(len(need.variants) for need in needs)
        numbers = self._numbers(needs)
        self.lower, self.upper, self.current, self.ready = numbers[:4]
        self.future, self.hold, self.present = numbers[4:7]
        self.usd_per_hour, self.start_usd, restart_usd = numbers[7:]
        self.lasting_usd = self.usd_per_hour + restart_usd
        self.budget = np.array([need.budget_usd_per_hour for need in needs])
        self.lack_usd = np.array(lack_prices_usd(needs))
        self.given_up_times = np.array([given_up_times(need) for need in needs])
        self._phases([need.phases() for need in needs])
        self._spot(needs)
        self.hold_floor = np.minimum(self._share(self.current, self.hold), 1.0)
        self.ready_floor = np.minimum(self._share(self.ready, self.present), 1.0)

    def _numbers(self, needs: Sequence[ServiceNeed]) -> FloatArray:
        """Return NUMBERS of every variant, (numbers, V, 1, S)."""
        names, empty = zip(*NUMBERS, strict=True)
        numbers = operator.attrgetter(*names)
        nothing = [empty] * self.variants
        each = [([numbers(v) for v in need.variants] + nothing)[: self.variants] for need in needs]
        return np.ascontiguousarray(np.array(each).transpose(2, 1, 0)[:, :, np.newaxis])

    def _phases(self, phases: Sequence[tuple[tuple[int, ...], ...]]) -> None:
        """Note which variants serve each phase, and 1 where there is such a phase to ask for."""
        most = max([1, *(len(own) for own in phases)])
        self.serves = np.zeros((most, self.variants, 1, len(phases)))
        self.asked = np.zeros((most, 1, len(phases)))
        for own in set(phases):
            here = [s for s, other in enumerate(phases) if other == own]
            for p, phase in enumerate(own):
                self.asked[p, 0, here] = 1.0
                for i in phase:
                    self.serves[p, i, 0, here] = 1.0

    def _spot(self, needs: Sequence[ServiceNeed]) -> None:
        """Note what must stay of each phase of the services that have a cap on spot."""
        self.stays, self.stay_floor = np.zeros_like(self.serves), np.zeros_like(self.asked)
        self.capped = [s for s, need in enumerate(needs) if need.max_spot_ratio < 1]
        self.excess_prices = np.zeros((2, len(needs)))
        for s in self.capped:
            need = needs[s]
            self.excess_prices[:, s] = need.excess_prices_usd()
            for p, phase in enumerate(need.phases()):
                self.stays[p, list(need.kinds(phase)[0]), 0, s] = 1.0
                self.stay_floor[p, 0, s] = need.stay_floor(phase)

    def filled(self, order: Order, *, running_first: bool) -> FloatArray:
        """Return what covers each of COVERS, (V, covers, S), as far as it can be covered."""
        counts = np.repeat(self.lower, COVERS.size, axis=1)
        if running_first:
            running = np.minimum(np.maximum(self.current, self.lower), self.upper)
            self._fill(counts, order, COVERS, running)
        self._fill(counts, order, COVERS, self.upper)
        return counts

    def shared(self, order: Order, *, less: bool) -> FloatArray:
        """Return what covers all, (V, covers - 1, S): of the first in order what covers COVERS, but 0."""
        covers = COVERS[1:]
        counts = np.repeat(self.lower, covers.size, axis=1)
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
        """Raise counts (V, covers, S), one variant after the other, as far as their covers lack."""
        asked = covers[:, np.newaxis] * self.asked
        for i in order:
            more = self._most(asked - self._share(counts, self.future), i) * self.future[i]
            more = np.floor(more + COVER_SLACK) if less else np.ceil(more - COVER_SLACK)
            now = counts[i]
            counts[i] = np.minimum(now + np.maximum(more, 0.0), np.maximum(most[i], now))

    def kept(self, lasting: FloatArray, order: Order) -> FloatArray:
        """Return `lasting` (V, covers, S) with what exists and is needed until all of it serves."""
        counts = lasting.copy()
        for i in order:
            for exists, alone, floor in self._existing():
                have = np.minimum(counts, exists)
                lacking = floor - self._share(have, alone)
                more = np.ceil(self._most(lacking, i) * alone[i] - COVER_SLACK)
                kept = np.minimum(have[i] + np.maximum(more, 0.0), exists[i])
                counts[i] = np.maximum(counts[i], np.minimum(kept, self.upper[i]))
        return counts

    def lack(self, lasting: FloatArray) -> FloatArray:
        """Return what plans do not cover (covers, S), in the prices of SHORT_PRICES."""
        short = self._worst(self.asked, lasting, self.future)
        part = 1.0 / len(SHORT_PRICES)
        lack = np.zeros_like(short)
        for n, times in enumerate(SHORT_PRICES):
            lack += times * np.minimum(np.maximum(short - n * part, 0.0), part)
        return lack

    def excess_usd(self, lasting: FloatArray) -> FloatArray | float:
        """Return the price (covers, S) of what rests on spot beyond the cap."""
        if not self.capped:
            return 0.0
        covered = self._share(lasting, self.future, self.stays)
        excess = (self.stay_floor - covered).max(axis=0)
        usd: FloatArray = self.excess_prices[0] + self.excess_prices[1] * excess
        return np.where(excess > COVER_SLACK, usd, 0.0)

    def usd(self, lasting: FloatArray, replicas: FloatArray, lack: FloatArray) -> FloatArray:
        """Return the cost (covers, S) of plans, with that of their `lack`; infinite beyond a budget."""
        starts = np.maximum(lasting - self.current, 0.0) + replicas - lasting
        usd = (lasting * self.lasting_usd + starts * self.start_usd).sum(axis=0)
        given_up = [
            self._worst(floor, np.minimum(replicas, exists), alone)
            for exists, alone, floor in self._existing()
        ]
        usd += self.lack_usd * (lack + self.given_up_times * np.maximum(*given_up))
        spent = (replicas * self.usd_per_hour).sum(axis=0)
        return np.where(spent <= self.budget * (1 + COVER_SLACK), usd, np.inf)

    def _existing(self) -> tuple[tuple[FloatArray, FloatArray, FloatArray], ...]:
        return (
            (self.current, self.hold, self.hold_floor),
            (self.ready, self.present, self.ready_floor),
        )

    def _share(
        self, counts: FloatArray, alone: FloatArray, serves: FloatArray | None = None
    ) -> FloatArray:
        """Return the share of each phase that counts (V, covers, S) cover, (P, covers, S)."""
        part = counts / alone
        return np.stack(
            [(part * s).sum(axis=0) for s in (self.serves if serves is None else serves)]
        )

    def _most(self, lacking: FloatArray, i: int) -> FloatArray:
        """Return the most (covers, S) that a phase which variant `i` serves lacks, of (P, covers, S)."""
        most: FloatArray = np.where(self.serves[:, i] > 0, lacking, 0.0).max(axis=0)
        return most

    def _worst(self, floor: FloatArray, counts: FloatArray, alone: FloatArray) -> FloatArray:
        lacking = (floor - self._share(counts, alone)).max(axis=0)
        return np.where(lacking > COVER_SLACK, lacking, 0.0)

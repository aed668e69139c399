"""Reads what load there is for services whose decision is too old, so that replicas follow it.

Four queries every ten seconds, however many policies; none while every decision is fresh. What cannot be
asked changes nothing: the floors of the last look hold until it can.
"""

import math
from collections.abc import Callable

from autoscaler.edge.keda.looks import Looks, QueryApi
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.keda.reactive import Floors, loads_of
from models.contract import Labels
from models.contract_queries import load_queries

LOOK_SECONDS = 10.0
AGE_SECONDS = 1.0  # how often ages are looked at
WINDOW_SECONDS = 60.0  # over which requests are a load and not an accident


class LoadLook(Looks):
    """Tells `plans` how many replicas the load needs where nobody decides any more."""

    name = "load"
    what = "load"
    until = "what it needed last is served where decisions are too old"

    def __init__(
        self, api: QueryApi, labels: Labels, plans: Plans, told: Callable[[bool], None]
    ) -> None:
        """`told`: whether a look succeeded."""
        queries = load_queries(labels, WINDOW_SECONDS)
        super().__init__(api, queries, plans.clock, told, AGE_SECONDS)
        self._labels = labels
        self._plans = plans
        self._floors = Floors()
        self._due_seconds = -math.inf  # monotonic: when to ask again
        self.tried = False  # since the policies are known: what is told is what can be known

    def look(self) -> None:
        """Look once, if a decision is too old and the last look was long enough ago."""
        plans = self._plans
        known, now = plans.listed, plans.clock.monotonic()
        aged = [p for p in plans.aged() if p.at_zero or any(v.concurrency for v in p.variants)]
        if not aged:
            self._due_seconds = -math.inf
            plans.raise_floors(self._floors.take((), {}, now))
        elif now >= self._due_seconds:
            self._due_seconds = now + LOOK_SECONDS
            answers = self.ask() or {}
            everybody = [dated.plan for dated in plans.all()]
            loads = loads_of(answers, aged, everybody, self._labels)
            plans.raise_floors(self._floors.take(aged, loads, now))
        self.tried = self.tried or known

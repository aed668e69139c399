"""What the policies' statuses say was decided, and how old it is. In memory; any replica has the same.

How old a decision is must not depend on two machines' clocks. While policies are watched, a
`lastDecisionTime` that is new has just been written: its age counts from then on this process' own
monotonic clock. Only what a list shows first (at the start, after a gap in the watch) is dated by its
text, and a new one is never older than the gap. The operator renews the time of policies in mode Keda
every minute.
"""

import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from autoscaler.edge.clock import Clock
from autoscaler.edge.keda.plan import Json, Plan, PlanError, plan_of, service_of
from autoscaler.edge.keda.trigger import Trigger

log = logging.getLogger("foreserve")
NO_FLOORS: Mapping[str, int] = {}
MAX_AGE_SECONDS = 180.0  # three times as long as the operator waits to say that it decides


@dataclass(frozen=True, slots=True)
class Dated:
    """A plan, and when it was decided on this process' monotonic clock (-inf: never, or not known)."""

    plan: Plan
    decided_at: float


class Plans:
    """All policies' plans by service. One thread writes them, another who is called; others just read."""

    def __init__(self, clock: Clock, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        """Older decisions than `max_age_seconds` give way, where a trigger does not say otherwise."""
        self.clock = clock
        self.max_age_seconds = max_age_seconds
        self.listed = False  # whether the policies are known at all: unknown is not empty
        self.contact_at = -math.inf  # monotonic: when the API server last said anything
        self._plans: dict[str, Dated] = {}
        self._called: frozenset[str] = frozenset()
        self._floors: Mapping[str, Mapping[str, int]] = {}
        self._asked: dict[tuple[str, str], Trigger] = {}
        self._problems: dict[str, str] = {}
        self._listener: Callable[[str], None] = lambda _: None
        self._lock = Lock()

    def listen(self, listener: Callable[[str], None]) -> None:
        """Have `listener` called with each service whose plan changed, from the writing thread."""
        self._listener = listener

    def get(self, service: str) -> Dated | None:
        """Return what is known of a service."""
        return self._plans.get(service)

    def all(self) -> list[Dated]:
        """Return what is known of every service."""
        return list(self._plans.values())

    def age_seconds(self, dated: Dated) -> float:
        """Return how long ago it was decided; inf if that is not known."""
        return max(self.clock.monotonic() - dated.decided_at, 0.0)

    def is_called(self, service: str) -> bool:
        """Whether requests wait at the gateway for a service at zero."""
        return service in self._called

    def call(self, services: Collection[str]) -> None:
        """Take in for whom requests wait; not for a thread's every look, only what is new is told."""
        before, self._called = self._called, frozenset(services)
        for service in before ^ self._called:
            self._listener(service)

    def asked(self, trigger: Trigger, variant: str) -> None:
        """Remember who was answered: whose limits hold for this variant."""
        self._asked[trigger.service, variant] = trigger

    def trigger_of(self, plan: Plan, variant: str) -> Trigger:
        """Return the trigger that last asked for a variant, or one that says nothing of its own."""
        known = self._asked.get((plan.service, variant))
        if known is not None:
            return known
        return Trigger(plan.namespace, plan.service.partition("/")[2], variant)

    def aged(self) -> list[Plan]:
        """Return the plans that give way to what runs: too old for one of those who ask."""
        return [d.plan for d in self.all() if d.plan.is_served and self._is_aged(d)]

    def _is_aged(self, dated: Dated) -> bool:
        plan, age, default = dated.plan, self.age_seconds(dated), self.max_age_seconds
        asked = (self._asked.get((plan.service, v.name)) for v in plan.variants)
        return any(age > (default if t is None else t.limit_seconds(default)) for t in asked)

    def floors(self, service: str) -> Mapping[str, int]:
        """Return what the load that is there needs of each variant, while the decision is too old."""
        return self._floors.get(service, NO_FLOORS)

    def raise_floors(self, floors: Mapping[str, Mapping[str, int]]) -> None:
        """Take in what the load needs; services that are not named have no floor."""
        before, self._floors = self._floors, floors
        for service in before.keys() | floors.keys():
            if before.get(service) != floors.get(service):
                self._listener(service)

    def heard(self) -> None:
        """Note that the API server is there, and has nothing new to tell."""
        self.contact_at = self.clock.monotonic()

    def replace(self, policies: Iterable[Json]) -> None:
        """Take in a whole list: what it does not name is gone."""
        gap = self.clock.monotonic() - self.contact_at
        new, seen = {}, set()
        for policy in policies:
            service, plan = service_of(policy), self._read(policy)
            seen.add(service)
            if plan is not None:
                new[service] = self._dated(plan, gap)
            elif (known := self.get(service)) is not None:
                new[service] = known
        with self._lock:
            before, self._plans = self._plans, new
            self.listed = True
        self._forget(before.keys() - new.keys())
        self._problems = {n: said for n, said in self._problems.items() if n in seen}
        self.heard()
        for service in before.keys() | new.keys():
            if before.get(service) != new.get(service):
                self._listener(service)

    def apply(self, event: str, policy: Json) -> None:
        """Take in a watch event, just now: ADDED, MODIFIED or DELETED."""
        self.heard()
        service = service_of(policy)
        if event == "DELETED":
            with self._lock:
                self._plans.pop(service, None)
            self._forget({service})
        elif (plan := self._read(policy)) is not None:
            with self._lock:
                self._plans[service] = self._dated(plan, 0.0)
        self._listener(service)

    def problem(self, service: str) -> str:
        """Return why a policy that there is cannot be understood; "" for any other."""
        return self._problems.get(service, "")

    def _read(self, policy: Json) -> Plan | None:
        """Return its plan; None where it makes no sense: that is logged, and what is known of it stays."""
        service = service_of(policy)
        try:
            plan = plan_of(policy)
        except PlanError as error:
            if self._problems.get(service) != str(error):
                log.warning("%s; what was known of it stays", error)
            self._problems[service] = str(error)
            return None
        self._problems.pop(service, None)
        return plan

    def _forget(self, services: Collection[str]) -> None:
        for service in services:
            self._problems.pop(service, None)
        for key in [k for k in list(self._asked) if k[0] in services]:
            self._asked.pop(key, None)

    def _dated(self, plan: Plan, most_seconds: float) -> Dated:
        """Date a plan that, if a known policy has it anew, is at most `most_seconds` old."""
        known = self._plans.get(plan.service)
        if known is not None and known.plan.decided == plan.decided:
            return Dated(plan, known.decided_at)
        if not plan.decided:
            return Dated(plan, -math.inf)
        by_text = max(self.clock.wall() - _epoch_seconds(plan.decided), 0.0)
        age = by_text if known is None else min(by_text, most_seconds)
        return Dated(plan, self.clock.monotonic() - age)


def _epoch_seconds(text: str) -> float:
    """Return an RFC 3339 time in epoch seconds; -inf where it is none: then it is as old as can be."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return -math.inf

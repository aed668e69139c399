"""What the policies' statuses say was decided, and how old it is. In memory; any replica has the same.

How old a decision is must not depend on two machines' clocks. While policies are watched, a
`lastDecisionTime` that is new has just been written: its age counts from then on this process' own
monotonic clock. Only what a list shows first (at the start, after a gap in the watch) is dated by its
text, and a new one is never older
than the gap. The operator renews the time of policies in mode Keda every minute.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any

from autoscaler.core.hpa import TargetType
from autoscaler.core.types import Role
from autoscaler.edge.clock import Clock
from autoscaler.edge.keda.hpa_facts import HpaFacts
from autoscaler.edge.keda.trigger import Trigger
from autoscaler.policy.schema import MAX_REPLICAS
from autoscaler.policy.status import MAX_REPLICA_CONCURRENCY

Json = Mapping[str, Any]
SERVED_MODE = "Keda"
NO_FLOORS: Mapping[str, int] = {}
DEFAULT_FALLBACK_AFTER_SECONDS = 600.0  # as in policy.schema
MAX_AGE_SECONDS = 180.0  # three times as long as the operator waits to say that it decides


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """One variant as the policy bounds it and its status last told of it; None: not known.

    `current` is what the workload asks for, `existing` what its status counts, `ready` what serves;
    `concurrency`: requests that a replica holds within the SLO.
    """

    name: str
    role: Role
    min_replicas: int
    max_replicas: int
    desired: int | None
    current: int | None
    existing: int | None = None
    ready: int | None = None
    hpa: HpaFacts | None = None
    concurrency: float | None = None

    @property
    def standing(self) -> int | None:
        """The larger of what was decided and what the workload asked for: nothing that serves is less."""
        known = [n for n in (self.desired, self.current) if n is not None]
        return max(known, default=None)


@dataclass(frozen=True, slots=True)
class Plan:
    """One policy's last decision. `decided` is its time as the status has it, "" if there is none."""

    service: str
    model: str
    mode: str
    is_paused: bool
    variants: tuple[VariantPlan, ...]
    fallback_after_seconds: float
    fallback_replicas: int | None
    decided: str

    @property
    def namespace(self) -> str:
        """The service's namespace."""
        return self.service.partition("/")[0]

    @property
    def is_served(self) -> bool:
        """Whether counts are told of it: it is in mode Keda, and not paused."""
        return self.mode == SERVED_MODE and not self.is_paused

    @property
    def at_zero(self) -> bool:
        """Whether KEDA is to have the whole service at zero."""
        return self.is_served and all(v.desired == 0 for v in self.variants)


@dataclass(frozen=True, slots=True)
class Dated:
    """A plan, and when it was decided on this process' monotonic clock (-inf: never, or not known)."""

    plan: Plan
    decided_at: float


def plan_of(policy: Json) -> Plan:
    """Return what is needed of a ScalingPolicy as the API server has it."""
    metadata, spec, status = (_part(policy, key) for key in ("metadata", "spec", "status"))
    behavior, fallback = _part(spec, "behavior"), _part(spec, "fallback")
    told = {v.get("name"): v for v in status.get("variants") or ()}
    return Plan(
        service=f"{metadata.get('namespace')}/{metadata.get('name')}",
        model=str(spec.get("model", "")),
        mode=str(behavior.get("mode", "Recommend")),
        is_paused=status.get("mode") == "Paused",
        variants=tuple(_variant(v, told.get(v.get("name"), {})) for v in spec.get("variants", ())),
        fallback_after_seconds=float(fallback.get("afterSeconds", DEFAULT_FALLBACK_AFTER_SECONDS)),
        fallback_replicas=_count(fallback.get("replicas")),
        decided=str(status.get("lastDecisionTime") or ""),
    )


def _variant(spec: Json, told: Json) -> VariantPlan:
    delivery = _part(told, "delivery")
    return VariantPlan(
        name=str(spec.get("name")),
        role=Role(spec.get("role", "Both")),
        min_replicas=int(spec.get("minReplicas", 1)),
        max_replicas=int(spec.get("maxReplicas", MAX_REPLICAS)),
        desired=_count(told.get("desired")),
        current=_count(told.get("current")),
        existing=_count(delivery.get("existing")),
        ready=_count(told.get("ready")),
        hpa=_hpa(delivery),
        concurrency=_concurrency(told.get("replicaConcurrency")),
    )


def _hpa(delivery: Json) -> HpaFacts | None:
    """Return the HPA as the operator saw it; None if it told of none, or of one that cannot be."""
    try:
        facts = HpaFacts(
            target_type=TargetType(delivery["metricType"]),
            target=float(delivery["target"]),
            min_replicas=int(delivery["minReplicas"]),
            max_replicas=int(delivery["maxReplicas"]),
            tolerance_up=float(delivery["toleranceUp"]),
            tolerance_down=float(delivery["toleranceDown"]),
        )
        facts.view(0, 0, 0)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return facts


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
        new = {}
        for policy in policies:
            plan = plan_of(policy)
            new[plan.service] = self._dated(plan, gap)
        with self._lock:
            before, self._plans = self._plans, new
            self.listed = True
        self._forget(before.keys() - new.keys())
        self.heard()
        for service in before.keys() | new.keys():
            if before.get(service) != new.get(service):
                self._listener(service)

    def apply(self, event: str, policy: Json) -> None:
        """Take in a watch event, just now: ADDED, MODIFIED or DELETED."""
        self.heard()
        plan = plan_of(policy)
        with self._lock:
            if event == "DELETED":
                self._plans.pop(plan.service, None)
            else:
                self._plans[plan.service] = self._dated(plan, 0.0)
        if event == "DELETED":
            self._forget({plan.service})
        self._listener(plan.service)

    def _forget(self, services: Collection[str]) -> None:
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
    except ValueError:
        return -math.inf


def _part(value: Json, key: str) -> Json:
    part = value.get(key)
    return part if isinstance(part, Mapping) else {}


def _concurrency(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 1 <= value <= MAX_REPLICA_CONCURRENCY else None


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None

"""One turn of the operator: collect, decide, act, report. The only place that joins core and cluster.

Every replica of the operator takes turns, so that a follower is warm; only the holder of the Lease writes.
Nothing here raises for what the cluster or telemetry does: a turn that cannot be taken is logged, and the
next one begins from what is there.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from autoscaler.core.outcome import State
from autoscaler.core.types import Mode, Observation, Policies
from autoscaler.edge.clock import Clock, SteadyTime
from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.kube.conflicts import (
    CONFLICT,
    NO_SCALED_OBJECT,
    Conflict,
    PolicyFacts,
    conflicts,
    hpa_record,
    scaled_object_record,
)
from autoscaler.edge.kube.quantities import seconds_of
from autoscaler.edge.metrics import OperatorMetrics
from autoscaler.edge.reading import Reading
from autoscaler.edge.tracing import TickTraces
from autoscaler.loop import Controller, Step
from autoscaler.operate.authority import Standing, standing_of
from autoscaler.operate.collect import (
    Replicas,
    VariantKey,
    accelerators,
    limited,
    merged,
    only_seen,
)
from autoscaler.operate.coverage import whole
from autoscaler.operate.effects import Outcome, Write, carry_out, writes_of
from autoscaler.operate.facts import FactFinder, Facts
from autoscaler.operate.keda import Falls
from autoscaler.operate.memory import Memory
from autoscaler.operate.record import Recorder
from autoscaler.operate.restraints import Lowering, as_acted, withheld

log = logging.getLogger("foreserve")


class Telemetry(Protocol):
    """Where load and latency come from: Prometheus or an OTLP store."""

    def read(self, policies: Policies, now_seconds: float) -> Reading:
        """Return the last interval of all services; what failed is said, never raised."""


class Leadership(Protocol):
    """Who may act."""

    def left_seconds(self) -> float:
        """Return for how long this process may act without another renewal; 0: not at all."""

    @property
    def tenure(self) -> str:
        """Another text with every acquisition."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn saw, decided and did."""

    now_seconds: float
    facts: Facts
    reading: Reading
    step: Step
    standings: Mapping[str, Standing]
    outcomes: tuple[Outcome, ...]
    led: bool
    state: State  # after the step
    partly: Mapping[str, str]  # services of which telemetry tells a part, and which
    withheld: Mapping[str, str]  # services whose decision is written later, and when
    lowering: Mapping[str, str]  # services of which more runs than their maximum


@dataclass(frozen=True, slots=True)
class Parts:
    """What an operator joins: `finder` knows the cluster, `memory` survives restarts.

    `time` is the time of turns; `before_writes` is called with the workloads that are about to be lowered;
    `recorder` keeps the leader's ticks.
    """

    api: KubeApi
    finder: FactFinder
    telemetry: Telemetry
    controller: Controller
    lease: Leadership
    memory: Memory
    metrics: OperatorMetrics
    traces: TickTraces
    clock: Clock
    time: SteadyTime
    before_writes: Callable[[Facts, Sequence[Write]], None] | None = None
    recorder: Recorder | None = None


class Operator:
    """Takes turns."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._falls = Falls()
        self._lowering = Lowering()
        self._forbidden: set[str] = set()  # services that we were not allowed to scale

    def leads(self) -> bool:
        """Whether this process may act now."""
        return self._parts.lease.left_seconds() > 0.0

    def turn(self, *, may_grow: bool, may_lower: bool) -> Turn:
        """Take one turn and write what may be written; NotReadyError, StepError, KubeError: there is none."""
        parts, controller, clock = self._parts, self._parts.controller, self._parts.clock
        begun = clock.monotonic()
        now = parts.time.now(controller.last_seconds)
        with parts.traces.phase("collect"):
            facts = parts.finder.find(now)
            policies = limited(facts.roll.policies, facts.quotas.limits)
            policies = only_seen(policies, facts.replicas)
            reading = parts.telemetry.read(policies, now)
            if parts.time.compare():  # asked in a wrong time: once more, before anything follows
                now = parts.time.now(controller.last_seconds)
                reading = parts.telemetry.read(policies, now)
            telemetry, partly = whole(reading, policies, facts.replicas)
            observation = _observed(telemetry, policies, facts, facts.replicas)
            replicas = self._falls.carried_out(facts, now)
            to_decide_from = _observed(telemetry, policies, facts, replicas)
            standings = standings_of(facts)
            policies = as_acted(policies, standings, self._forbidden)
            led = self.leads() and parts.memory.recall(controller, parts.lease.tenure)
        collected = clock.monotonic()
        parts.metrics.observe_phase("collect", collected - begun)
        with parts.traces.phase("decide"):
            policies, lowering = self._lowering.gently(
                policies, standings, facts.replicas, controller.state, now
            )
            controller.declare(policies)
            fresh = parts.memory.take_note(controller, standings, facts.replicas, now)
            controller.forget(parts.memory.gone(facts.roll.members, now))
            before = controller.state
            step = controller.step(to_decide_from)
            if led and parts.recorder is not None:  # before anything is done about it
                parts.recorder.record(controller, before, step)
            step = replace(step, observation=observation)
            self._falls.note(_told_keda(step, standings))
        decided = clock.monotonic()
        parts.metrics.observe_phase("decide", decided - collected)
        outcomes: tuple[Outcome, ...] = ()
        if led and may_grow:
            with parts.traces.phase("actuate"):
                outcomes = self._act(step, facts, standings, fresh, may_lower=may_lower)
        parts.metrics.observe_phase("actuate", clock.monotonic() - decided)
        return Turn(
            now_seconds=now,
            facts=facts,
            reading=reading,
            step=step,
            standings=standings,
            outcomes=outcomes,
            led=led,
            state=controller.state,
            partly=partly,
            withheld=withheld(fresh, step, standings, may_grow=may_grow, may_lower=may_lower),
            lowering=lowering,
        )

    def _act(
        self,
        step: Step,
        facts: Facts,
        standings: Mapping[str, Standing],
        fresh: frozenset[str],
        *,
        may_lower: bool,
    ) -> tuple[Outcome, ...]:
        """Write the scales that may be written; not of services whose authority has just changed."""
        may = [n for n, s in standings.items() if s.writes and n not in fresh]
        writes = writes_of(step.decisions, facts.targets(), facts.scales, may)
        doubtful = [w for w in writes if w.service in self._forbidden]
        writes = [w for w in writes if w.service not in self._forbidden]
        refused = self._ask_again(doubtful)
        growing, going = [w for w in writes if not w.lowers], [w for w in writes if w.lowers]
        outcomes = [*refused, *self._carry_out(growing)]  # which waits for nothing
        if not may_lower:
            return tuple(outcomes)
        if going and self._parts.before_writes is not None:
            self._parts.before_writes(facts, going)
        return (*outcomes, *self._carry_out(going))

    def _carry_out(self, writes: Sequence[Write]) -> Sequence[Outcome]:
        if not writes:
            return ()
        outcomes = carry_out(self._parts.api, writes, self._parts.lease.left_seconds)
        self._forbidden |= {o.write.service for o in outcomes if o.forbidden}
        return outcomes

    def _ask_again(self, writes: Sequence[Write]) -> list[Outcome]:
        """Write what is there already, to learn whether it is allowed now; return what is refused still.

        Not the decision: it was made as advice, without regard to what is left for it.
        """
        outcomes = self._carry_out([replace(w, replicas=w.view.replicas) for w in writes])
        refused = [o for o in outcomes if o.problem]
        self._forbidden -= {w.service for w in writes} - {o.write.service for o in refused}
        return refused


def _told_keda(step: Step, standings: Mapping[str, Standing]) -> dict[VariantKey, int]:
    """Return the counts that KEDA is told of this turn."""
    return {
        (name, variant): count
        for name, standing in standings.items()
        if standing.mode is Mode.KEDA and not standing.paused_by and name in step.decisions.services
        for variant, count in step.decisions.services[name].variants.items()
    }


def _observed(
    telemetry: Observation,
    policies: Policies,
    facts: Facts,
    replicas: Mapping[VariantKey, Replicas],
) -> Observation:
    declared = [
        c.name for body in facts.roll.pool_bodies for c in body.spec.classes if c.quota is not None
    ]
    usable = accelerators(policies, facts.replicas, facts.inventory.usable, declared)
    return merged(telemetry, policies, replicas, usable, facts.free_on_nodes)


def standings_of(facts: Facts) -> dict[str, Standing]:
    """Return what may be done for each service that is decided."""
    rivals = rivals_of(facts)
    out = {}
    for name, member in facts.roll.members.items():
        if not member.decided or member.policy is None:
            continue
        rival = rivals.get(name)
        unknown = _rivals_unknown(facts) if member.policy.behavior.mode.value == "Scale" else ""
        if rival is None or (rival.reason == NO_SCALED_OBJECT and facts.scaled_objects is None):
            rival = Conflict(CONFLICT, unknown)
        out[name] = standing_of(
            member, facts.scales, paused_by(name, facts), rival.message, rival.reason
        )
    return out


def paused_by(service: str, facts: Facts) -> str:
    """Return who paused a service, in one sentence; "" if nobody did."""
    if facts.paused_all:
        return "everything is paused by the operator's ConfigMap"
    namespace = service.split("/", 1)[0]
    if facts.paused_namespaces is None:
        return "namespaces cannot be read, so nobody knows which are paused"
    if namespace in facts.paused_namespaces:
        return f"namespace {namespace} is paused by its annotation"
    member = facts.roll.members.get(service)
    if member is not None and member.seen.paused:
        return "the policy is paused by its annotation"
    return ""


def rivals_of(facts: Facts) -> dict[str, Conflict]:
    """Return who else writes to a service's workloads."""
    policies = [
        PolicyFacts(
            namespace=m.policy.namespace,
            name=name.split("/", 1)[1],
            uid=m.seen.uid,
            created_seconds=seconds_of(m.seen.created or None),
            mode=m.policy.behavior.mode,
            targets=tuple(v.target_ref for v in m.policy.variants),
        )
        for name, m in facts.roll.members.items()
        if m.decided and m.policy is not None
    ]
    hpas = [hpa_record(o) for o in facts.hpas or ()]
    scaled = [scaled_object_record(o) for o in facts.scaled_objects or ()]
    return conflicts(policies, hpas, scaled)


def _rivals_unknown(facts: Facts) -> str:
    """Return why it is not known who else writes: then nothing is written."""
    for kind, what in (
        ("horizontalpodautoscalers", facts.hpas),
        ("scaledobjects", facts.scaled_objects),
    ):
        if what is None:
            return f"{kind} cannot be read, so nobody knows who else scales: {facts.problems[kind]}"
    return ""

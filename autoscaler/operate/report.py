"""What a turn tells: status of policies and pools, Events, one log line a decision. Never what it does."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from autoscaler.core.outcome import ServiceDecision
from autoscaler.core.types import Mode
from autoscaler.edge.kube.api import KubeApi, KubeConflict, KubeError, KubeForbidden, KubeNotFound
from autoscaler.edge.kube.conditions import ClassFacts, Obstacle, PoolInputs, StatusInputs
from autoscaler.edge.kube.deliveries import Asks
from autoscaler.edge.kube.events import EventAggregator, EventPoster, ObjectRef, changes, scaled
from autoscaler.edge.kube.pods import lacking
from autoscaler.edge.kube.status import merge_patch, policy_status, pool_status, worth_writing
from autoscaler.edge.metrics import OperatorMetrics
from autoscaler.operate.facts import Facts
from autoscaler.operate.keda import asks_in, delivered
from autoscaler.operate.roster import Member, Seen
from autoscaler.operate.troubles import Troubles
from autoscaler.operate.turn import Turn
from autoscaler.policy.schema import AcceleratorPool

log = logging.getLogger("foreserve.decision")
PARALLEL = 8
SECONDS_PER_HOUR = 3600.0
STATUS_SECONDS = 5.0  # of a turn, for statuses: a slow server must not slow decisions
Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _StatusWrite:
    """One status to be written, and what stood there before."""

    uid: str
    about: ObjectRef
    previous: Status
    status: Status


class Reporter:
    """Writes statuses and Events of what has happened, and remembers what was written last."""

    def __init__(
        self,
        api: KubeApi,
        instance: str,
        metrics: OperatorMetrics,
        stale_after_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._api = api
        self._metrics = metrics
        self._stale_after = stale_after_seconds
        self._events = EventAggregator(instance)
        self._poster = EventPoster(api, self._events, log)
        self._written: dict[str, tuple[float, Status]] = {}  # uid -> when and what
        self._tried: dict[str, float] = {}  # uid -> when it was last to be written
        self._last_telemetry: dict[str, float] = {}
        self._said: dict[str, tuple[object, ...]] = {}
        self._troubles = Troubles("scale", over="no write fails any more")
        self._status_troubles = Troubles("status", over="no write fails any more")
        self._unwritten: dict[str, str] = {}  # in this turn, and why

    def report(self, turn: Turn, lead_seconds: Mapping[str, float], model_version: str) -> None:
        """Tell what one turn saw and did. A follower only logs and counts."""
        for name, seen in turn.step.observation.services.items():
            if math.isfinite(seen.arrival_rate_rps):
                age = turn.reading.stale.get(name, 0.0)
                self._last_telemetry[name] = turn.now_seconds - age
        names = turn.facts.roll.members
        self._last_telemetry = {n: t for n, t in self._last_telemetry.items() if n in names}
        self._metrics.observe_step(turn.step, turn.facts.roll.policies)
        self._metrics.set_leader(held=turn.led)
        self._log(turn)
        for outcome in turn.outcomes:
            result = "ok" if not outcome.problem else "conflict" if outcome.conflict else "failed"
            self._metrics.count_write("scale", result)
        if not turn.led:
            self._written.clear()  # another leader writes them now: what the cluster has counts
            return
        self._announce(turn)
        asks = asks_in(turn.facts)
        statuses = [
            (m.seen, "ScalingPolicy", self._policy(turn, m, asks, lead_seconds, model_version))
            for m in turn.facts.roll.members.values()
        ]
        statuses += [
            (p, "AcceleratorPool", _pool(turn, p, self._previous(p))) for p in turn.facts.roll.pools
        ]
        self._write(statuses, turn.now_seconds)
        self._poster.post(turn.now_seconds)
        known = {seen.uid for seen, _, _ in statuses}
        self._written = {uid: w for uid, w in self._written.items() if uid in known}
        self._tried = {uid: t for uid, t in self._tried.items() if uid in known}

    def _policy(
        self,
        turn: Turn,
        member: Member,
        asks: Asks,
        lead_seconds: Mapping[str, float],
        model_version: str,
    ) -> Status:
        name = member.seen.name
        policy = member.policy
        deliveries, verdict = delivered(turn, member, asks)
        last = self._last_telemetry.get(name, math.nan)
        finished, attained = _recent(turn, name)
        inputs = StatusInputs(
            mode=Mode.RECOMMEND if policy is None else policy.behavior.mode,
            decision=turn.step.decisions.services.get(name),
            observation=turn.step.observation.services.get(name),
            telemetry_age_seconds=turn.now_seconds - last,
            stale_after_seconds=self._stale_after,
            lead_seconds=lead_seconds.get(name, math.nan),
            model_version=model_version,
            partly=turn.partly.get(name, ""),
            withheld=turn.withheld.get(name, ""),
            lowering=turn.lowering.get(name, ""),
            attainment=math.nan if policy is None else policy.attainment,
            attained_ratio=attained,
            finished_requests=finished,
            problems=_obstacles(turn, member),
            deliveries=deliveries,
            delivered=verdict,
        )
        generation = member.generation or member.seen.generation
        if member.invalid:
            generation = member.seen.generation  # this generation was looked at, and refused
        return policy_status(self._previous(member.seen), generation, inputs, turn.now_seconds)

    def _previous(self, seen: Seen) -> Status:
        """Return the status as last written; as read from the cluster by a new leader."""
        written = self._written.get(seen.uid)
        return seen.status if written is None else written[1]

    def _write(self, statuses: Iterable[tuple[Seen, str, Status]], now: float) -> None:
        due = []
        for seen, kind, status in statuses:
            previous = self._previous(seen)
            when = self._written.get(seen.uid, (-math.inf, {}))[0]
            if not worth_writing(previous, status, when, now):
                continue
            namespace, _, name = seen.name.rpartition("/")
            about = ObjectRef(kind, namespace, name, seen.uid)
            due.append(_StatusWrite(seen.uid, about, previous, status))
        due.sort(key=lambda w: self._tried.get(w.uid, -math.inf))  # whoever waits longest
        end = self._monotonic() + STATUS_SECONDS

        def put(write: _StatusWrite) -> bool:
            if self._monotonic() >= end:
                return False
            self._tried[write.uid] = now
            return self._put(write)

        self._unwritten.clear()
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="status") as pool:
            for write, done in zip(due, pool.map(put, due), strict=True):
                if not done:
                    continue  # tried again next turn; its news is told then
                self._written[write.uid] = (now, write.status)
                for happening in changes(write.about, write.previous, write.status):
                    self._events.add(happening, now)
        self._status_troubles.follow(self._unwritten, now)

    def _put(self, write: "_StatusWrite") -> bool:
        about = write.about
        try:
            path = self._api.path_of(
                about.api_version, about.kind, about.namespace or None, about.name, "status"
            )
            # with the uid: a policy of the same name made anew must not get the status of the old one
            patch = merge_patch(write.previous, write.status)
            self._api.patch(path, {"metadata": {"uid": about.uid}, "status": patch})
        except (KubeNotFound, KubeConflict):
            self._metrics.count_write("status", "gone")
            return False
        except KubeError as error:
            self._metrics.count_write("status", "failed")
            self._unwritten[f"{about.kind} {about.name}"] = str(error)
            return False
        self._metrics.count_write("status", "ok")
        return True

    def _announce(self, turn: Turn) -> None:
        failed = {
            f"{o.write.service} {o.write.variant}": o.problem for o in turn.outcomes if o.problem
        }
        self._troubles.follow(failed, turn.now_seconds)
        counts: dict[str, dict[str, tuple[int, int]]] = {}
        for outcome in turn.outcomes:
            write = outcome.write
            if outcome.problem:
                continue
            of_service = counts.setdefault(write.service, {})
            of_service[write.variant] = (write.view.replicas, write.replicas)
        for service, moved in counts.items():
            namespace, _, name = service.rpartition("/")
            uid = turn.facts.roll.members[service].seen.uid
            decision = turn.step.decisions.services[service]
            why = f"{decision.reason.value}: {decision.detail}"
            for happening in scaled(ObjectRef("ScalingPolicy", namespace, name, uid), moved, why):
                self._events.add(happening, turn.now_seconds)

    def _log(self, turn: Turn) -> None:
        """Log each decision that is another than the last one, or was written, in one line."""
        written = {o.write.service for o in turn.outcomes if not o.problem}
        for name, decision in turn.step.decisions.services.items():
            now = (dict(decision.variants), decision.reason, turn.led)
            news = self._said.get(name) != now or name in written
            self._said[name] = now
            level = logging.INFO if news and turn.led else logging.DEBUG
            if log.isEnabledFor(level):
                _log_decision(level, turn, name, decision, wrote=name in written)
        self._said = {n: s for n, s in self._said.items() if n in turn.step.decisions.services}


def _log_decision(
    level: int, turn: Turn, name: str, decision: ServiceDecision, *, wrote: bool
) -> None:
    seen = turn.step.observation.services.get(name)
    current = {} if seen is None else {n: v.desired for n, v in seen.variants.items()}
    numbers = {
        "service": name,
        "from": current,
        "to": dict(decision.variants),
        "reason": decision.reason.value,
        "detail": decision.detail,
        "mode": turn.standings[name].mode.value,
        "written": wrote,
        "arrival_rate_rps": _number(math.nan if seen is None else seen.arrival_rate_rps),
        "forecast_upper_rps": _number(decision.forecast_upper_rps),
        "horizon_seconds": _number(decision.horizon_seconds),
        "cost_usd_per_hour": _number(decision.cost_usd_per_hour),
    }
    counts = ", ".join(
        f"{v} {n}" if current.get(v, n) == n else f"{v} {current[v]} -> {n}"
        for v, n in decision.variants.items()
    )
    done = "written" if wrote else numbers["mode"]
    text = f"{name}: {counts}; {done}; {decision.reason.value}: {decision.detail}"
    log.log(level, "%s", text, extra={"decision": numbers})


def _number(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _recent(turn: Turn, service: str) -> tuple[float, float]:
    """Return how many requests ended in this hour and the last, and the share of them within the SLO."""
    state = turn.state.services.get(service)
    hour = int(turn.now_seconds // SECONDS_PER_HOUR)
    hours = [] if state is None else [h for h in state.budget if h.hour >= hour - 1]
    finished = math.fsum(h.finished for h in hours)
    if finished <= 0:
        return 0.0, math.nan
    return finished, 1.0 - math.fsum(h.missed for h in hours) / finished


def _obstacles(turn: Turn, member: Member) -> dict[Obstacle, str]:
    """Return what keeps a policy from having its way, a sentence each."""
    out: dict[Obstacle, str] = {}
    if member.invalid:
        out[Obstacle.INVALID_SPEC] = member.invalid
    if member.conflict:
        out[Obstacle.CONFLICT] = member.conflict
    standing = turn.standings.get(member.seen.name)
    if standing is None:
        return out
    if standing.conflict:
        out[Obstacle(standing.conflict_reason)] = standing.conflict
    if standing.paused_by:
        out[Obstacle.PAUSED] = standing.paused_by
    for variant, error in standing.unreadable.items():
        out.setdefault(_kind_of(error), f"{variant}: {error}")
    for outcome in turn.outcomes:
        if outcome.write.service == member.seen.name and outcome.problem:
            kind = Obstacle.FORBIDDEN if outcome.forbidden else Obstacle.WRITE_FAILED
            out.setdefault(kind, f"{outcome.write.variant}: {outcome.problem}")
    lack = _lacking(turn.facts, member)
    if lack:
        out[Obstacle.ACCELERATORS_LACKING] = lack
    return out


def _kind_of(error: KubeError) -> Obstacle:
    if isinstance(error, KubeNotFound):
        return Obstacle.TARGET_NOT_FOUND
    return Obstacle.FORBIDDEN if isinstance(error, KubeForbidden) else Obstacle.NOTHING_KNOWN


def _lacking(facts: Facts, member: Member) -> str:
    if member.policy is None:
        return ""
    resources = {c.name: c.resource_name for b in facts.roll.pool_bodies for c in b.spec.classes}
    for v in member.policy.variants:
        resource = resources.get(v.accelerator_class)
        own = facts.groups.get((member.seen.name, v.name), [])
        found = lacking(own, resource) if resource is not None else None
        if found is not None:
            wait = "pod waits" if found.pods == 1 else "pods wait"
            return f"{v.name}: {found.pods} {wait} for {found.accelerators} {resource}: {found.message}"
    return ""


def _pool(turn: Turn, seen: Seen, previous: Status) -> Status:
    facts = turn.facts
    in_use: dict[str, int] = {}
    for name, policy in facts.roll.policies.services.items():
        for v in policy.variants:
            own = facts.replicas.get((name, v.name))
            if own is not None:
                held = own.desired * v.accelerators_per_replica
                in_use[v.accelerator_class] = in_use.get(v.accelerator_class, 0) + held
    classes = seen.body.spec.classes if isinstance(seen.body, AcceleratorPool) else []
    inputs = PoolInputs(
        classes=[
            ClassFacts(
                name=c.name,
                usd_per_hour=c.usd_per_hour,
                usable=facts.inventory.usable.get(c.name),
                in_use=in_use.get(c.name, 0),
                problem=facts.inventory.problems.get(c.name, ""),
            )
            for c in classes
        ],
        invalid=facts.roll.pool_problems.get(seen.name, ""),
        excluded=facts.inventory.excluded_nodes.get(seen.name, {}),
    )
    return pool_status(previous, seen.generation, inputs, turn.now_seconds)

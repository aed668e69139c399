"""Replicas that the load which is there now needs, from requests alone: a floor while nobody decides. Pure.

The operator tells in the policy's status how many requests (running and waiting) a replica of each variant
holds within its SLO. What engines and gateway hold now, over that, is a count. It only ever raises what
runs, and it falls no faster than an HPA by default: to the most of the last five minutes.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from autoscaler.core.guard import Holds, stabilized
from autoscaler.edge.keda.plan import Plan
from models.contract import DEFAULT_VARIANT, Labels
from models.contract_api import Row
from models.phases import phases_of

WINDOW_SECONDS = 300.0  # a floor is the most of these: Kubernetes' default for a fall
SLACK = 1e-9  # of a replica, for sums that are whole but for rounding
MOST = 1e6  # replicas: whatever a broken engine tells, a number that can be counted to
Place = tuple[str, str]  # (namespace, model), as a gateway names a service


@dataclass(frozen=True, slots=True)
class Load:
    """What one service holds: requests on the engines of a variant, pods of it that serve, and a queue.

    A variant that is not measured is absent.
    """

    requests: Mapping[str, float] = field(default_factory=dict)
    pods: Mapping[str, float] = field(default_factory=dict)
    queued: float = 0.0  # at the gateway


def queues_of(rows: Iterable[Row], labels: Labels) -> dict[Place, float]:
    """Return the requests that a gateway holds back by (namespace, model); NaN is none known."""
    out: dict[Place, float] = {}
    for row in rows:
        value = float(row.values[-1])
        if math.isfinite(value) and value > 0:
            named = labels.gateway_namespace
            namespace = row.labels.get(named, "") if named else ""
            place = (namespace, row.labels.get(labels.gateway_model_name, ""))
            out[place] = out.get(place, 0.0) + value
    return out


def sole(plans: Collection[Plan]) -> frozenset[Place]:
    """Return the places that one service alone has: of others nobody knows whose a queue is."""
    shared = Counter((p.namespace, p.model) for p in plans)
    return frozenset(place for place, services in shared.items() if services == 1)


def loads_of(
    answers: Mapping[str, Sequence[Row]],
    asked: Collection[Plan],
    plans: Collection[Plan],
    labels: Labels,
) -> dict[str, Load]:
    """Return the load of each service of `asked` from answers to `models.contract_queries.load_queries`."""
    columns = {name: _by_row(answers.get(name, ()), labels) for name in COLUMNS}
    queues, own = queues_of(answers.get("gateway_queue", ()), labels), sole(plans)
    out = {}
    for plan in asked:
        place = (plan.namespace, plan.model)
        told = {name: _of_plan(plan, numbers) for name, numbers in columns.items()}
        running, waiting = told["running"], told["waiting"]
        out[plan.service] = Load(
            {v: n + waiting.get(v, 0.0) for v, n in running.items()},
            told["ready_replicas"],
            queues.get(place, 0.0) if place in own else 0.0,
        )
    return out


COLUMNS = ("running", "waiting", "ready_replicas")


def _by_row(rows: Iterable[Row], labels: Labels) -> dict[tuple[str, str], float]:
    out = {}
    for row in rows:
        key, value = labels.row(row.labels), float(row.values[-1])
        if key is not None and math.isfinite(value) and value >= 0:
            out[key] = value
    return out


def _of_plan(plan: Plan, numbers: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Return numbers by variant; a service of one variant may carry no variant label."""
    out = {}
    for v in plan.variants:
        value = numbers.get((plan.service, v.name))
        if value is None and len(plan.variants) == 1:
            value = numbers.get((plan.service, DEFAULT_VARIANT))
        if value is not None:
            out[v.name] = value
    return out


def needed(plan: Plan, load: Load) -> dict[str, int]:
    """Return the replicas that a load needs, of variants of which it is known what a replica holds.

    Each engine's requests are its variant's; what is beyond a variant's maximum, or still at the gateway
    and more than has room, goes to the first variants of the phase. Of another variant that has requests
    one thing is known: it must not go to zero.
    """
    counts = {
        v.name: min(int(load.requests[v.name] > 0), v.max_replicas)
        for v in plan.variants
        if v.concurrency is None and v.name in load.requests
    }
    for phase in phases_of([v.role for v in plan.variants]):
        each = [plan.variants[i] for i in phase]
        known = [(v, v.concurrency) for v in each if v.concurrency is not None]
        beyond = load.queued
        for v, concurrency in known:
            held = load.requests.get(v.name)
            wanted = 0 if held is None else _replicas(held / concurrency)
            counts[v.name] = max(counts.get(v.name, 0), min(wanted, v.max_replicas))
            if held is not None:
                beyond += held - max(counts[v.name], v.standing or 0) * concurrency
        for v, concurrency in known:
            standing = max(counts[v.name], v.standing or 0)
            more = max(0, min(_replicas(beyond / concurrency), v.max_replicas - standing))
            if more:
                counts[v.name] = standing + more
                beyond -= more * concurrency
    return counts


def _replicas(replicas: float) -> int:
    return math.ceil(min(max(replicas, 0.0), MOST) - SLACK)


class Floors:
    """The most that each variant needed of late, while its policy's decision is too old."""

    def __init__(self) -> None:
        self._past: dict[str, dict[str, Holds]] = {}

    def take(
        self, plans: Collection[Plan], loads: Mapping[str, Load], now_seconds: float
    ) -> dict[str, dict[str, int]]:
        """Return the floors of `plans` by service and variant; other services are forgotten.

        What is measured first stands beside the pods that serve: nothing falls because we have just begun.
        What is not measured keeps its floor.
        """
        past = {plan.service: dict(self._past.get(plan.service, {})) for plan in plans}
        for plan in plans:
            own, load = past[plan.service], loads.get(plan.service, Load())
            for name, count in needed(plan, load).items():
                if count or name in load.requests:
                    own[name], _ = stabilized(
                        own.get(name, ()),
                        now_seconds,
                        count,
                        WINDOW_SECONDS,
                        round(load.pods.get(name, 0.0)),
                    )
        self._past = past
        return {
            service: {name: max(n for _, n in holds) for name, holds in own.items()}
            for service, own in past.items()
        }

"""Marks the idlest pods of Deployments before they are scaled down, and keeps places warm."""

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from autoscaler.core.outcome import Decisions
from autoscaler.core.types import Mode
from autoscaler.edge.kube.api import KubeApi, KubeConflict, KubeError, KubeNotFound
from autoscaler.edge.kube.deletion_cost import cost_patch, deletion_costs
from autoscaler.edge.kube.warm import (
    History,
    deployment_name,
    placeholder_deployment,
    placeholders,
    settled,
)
from autoscaler.edge.metrics import OperatorMetrics
from autoscaler.operate.effects import Write
from autoscaler.operate.facts import Facts
from autoscaler.operate.turn import Turn

log = logging.getLogger("foreserve")
Loads = Callable[[], Mapping[tuple[str, str], float]]
OURS = "app.kubernetes.io/name=foreserve-placeholder,app.kubernetes.io/managed-by=foreserve"
MARKED_KINDS = ("Deployment", "ReplicaSet")
MARK_SECONDS = 3.0  # of a turn, for marks


def mark_idle_pods(
    api: KubeApi,
    loads: Loads,
    metrics: OperatorMetrics,
    monotonic: Callable[[], float] = time.monotonic,
) -> Callable[[Facts, Sequence[Write]], None]:
    """Return what is to be done before writes: the pods that should go first get a lower cost.

    Which pods go is Kubernetes' to decide; a mark that cannot be set, or not within MARK_SECONDS, costs a
    busy pod, never a scale.
    """
    api = api.within(min(api.timeout_seconds, MARK_SECONDS))

    def before(facts: Facts, writes: Sequence[Write]) -> None:
        lowered = [w for w in writes if w.lowers and w.target.kind in MARKED_KINDS]
        if not lowered:
            return
        by_pod = loads()
        end = monotonic() + MARK_SECONDS
        for write in lowered:
            pods = facts.pods.get((write.service, write.variant), [])
            own = {name: load for (ns, name), load in by_pod.items() if ns == write.namespace}
            names = {p.uid: p.name for p in pods}
            costs = deletion_costs(pods, own, write.view.replicas - write.replicas)
            for uid, cost in costs.items():
                if monotonic() >= end:
                    log.warning("marks of idle pods take too long: the others stay without")
                    return
                _mark(api, metrics, (write.namespace, names[uid]), cost)

    return before


def _mark(api: KubeApi, metrics: OperatorMetrics, pod: tuple[str, str], cost: int | None) -> None:
    try:
        api.patch(api.path_of("v1", "Pod", *pod), cost_patch(cost))
    except (KubeNotFound, KubeConflict):
        metrics.count_write("deletion-cost", "gone")
    except KubeError as error:
        metrics.count_write("deletion-cost", "failed")
        log.warning("pod %s/%s is not marked as idle: %s", *pod, error)
    else:
        metrics.count_write("deletion-cost", "ok")


class WarmPlaces:
    """Keeps the placeholder Deployments of classes with `warmCapacity` at the planned size."""

    def __init__(self, api: KubeApi, namespace: str, metrics: OperatorMetrics) -> None:
        self._api = api
        self._namespace = namespace
        self._metrics = metrics
        self._kept: dict[str, int] = {}  # Deployment -> accelerators as last written
        self._looked = False  # for what an earlier process left
        self._history: History = ()

    def follow(self, turn: Turn) -> None:
        """Write what differs; only the leader calls this, and not while all is paused."""
        if turn.facts.paused_all:
            return
        bodies = turn.facts.roll.pool_bodies
        wanted = placeholders(
            _followed(turn), turn.facts.roll.policies, bodies, turn.facts.inventory.usable
        )
        wanted, self._history = settled(self._history, turn.now_seconds, wanted)
        each = _accelerators_each(turn)
        self._give_up(
            {deployment_name(c) for b in bodies for c in b.spec.classes if c.name in wanted}
        )
        for body in bodies:
            for c in body.spec.classes:
                count = wanted.get(c.name)
                if count is None or self._kept.get(deployment_name(c), 0) == count:
                    continue
                try:
                    manifest = placeholder_deployment(
                        c, count, self._namespace, accelerators_each=each.get(c.name, 1)
                    )
                    self._put(manifest)
                except (KubeError, ValueError) as error:
                    self._metrics.count_write("placeholder", "failed")
                    log.warning("placeholders of class %s: %s", c.name, error)
                else:
                    self._metrics.count_write("placeholder", "ok")
                    self._kept[deployment_name(c)] = count

    def _give_up(self, wanted: set[str]) -> None:
        """Delete the placeholders of classes that ask for none any more."""
        base = self._api.path_of("apps/v1", "Deployment", self._namespace)
        try:
            if not self._looked:
                found = self._api.list(base, {"labelSelector": OURS})
                self._kept |= {d["metadata"]["name"]: -1 for d in found}
                self._looked = True
            for name in set(self._kept) - wanted:
                with contextlib.suppress(KubeNotFound):
                    self._api.delete(f"{base}/{name}")
                del self._kept[name]
        except KubeError as error:
            log.warning("placeholders that are no longer wanted: %s", error)

    def _put(self, manifest: dict[str, object]) -> None:
        metadata = manifest["metadata"]
        assert isinstance(metadata, dict)  # noqa: S101 - made by placeholder_deployment
        path = self._api.path_of("apps/v1", "Deployment", self._namespace, metadata["name"])
        try:
            self._api.patch(path, {"spec": manifest["spec"]})
        except KubeNotFound:
            base = self._api.path_of("apps/v1", "Deployment", self._namespace)
            self._api.create(base, manifest)


def _followed(turn: Turn) -> Decisions:
    """Return the decisions; those that nobody follows ask for no place beside what runs."""
    services = dict(turn.step.decisions.services)
    for name, decision in services.items():
        seen = turn.step.observation.services.get(name)
        if turn.standings[name].mode is Mode.RECOMMEND:
            runs = {} if seen is None else {v: o.desired for v, o in seen.variants.items()}
            services[name] = replace(decision, variants=runs, forecast_upper_rps=math.nan)
    return replace(turn.step.decisions, services=services)


def _accelerators_each(turn: Turn) -> dict[str, int]:
    """Return what one replica holds of each class: the most, so that its place is large enough."""
    out: dict[str, int] = {}
    for policy in turn.facts.roll.policies.services.values():
        for v in policy.variants:
            name = v.accelerator_class
            out[name] = max(out.get(name, 1), v.accelerators_per_replica)
    return out

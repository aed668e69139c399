"""An operator on a test API server: real effects, scripted telemetry, a clock that is told what to say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from apiserver import ApiServer

from autoscaler.core.types import (
    Observation,
    Policies,
    ServiceObservation,
    VariantObservation,
)
from autoscaler.edge.artifacts import ServingModels
from autoscaler.edge.clock import Clock, SteadyTime
from autoscaler.edge.decision_folder import DecisionFolder
from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.kube.cluster import Cluster
from autoscaler.edge.metrics import OperatorMetrics
from autoscaler.edge.reading import Reading
from autoscaler.edge.tracing import TickTraces
from autoscaler.loop import Controller
from autoscaler.operate.facts import FactFinder, reducers
from autoscaler.operate.marks import WarmPlaces, mark_idle_pods
from autoscaler.operate.memory import Memory
from autoscaler.operate.process import Backfill, History, Process
from autoscaler.operate.record import Recorder
from autoscaler.operate.report import Reporter
from autoscaler.operate.starts import StartLearner
from autoscaler.operate.turn import Leadership, Parts, Turn
from models.frames import LoadSeries
from models.latency import LatencyModel
from models.lead_time import LeadTimeModel

INTERVAL_SECONDS = 15.0
EVERY_SECONDS = 31.0  # between turns: nobody watches, so lists are due again after 30 s
PER_REPLICA = 8.0  # concurrency that one replica is given where nothing is learned
BEGIN_SECONDS = 1_795_759_200.0
OWN_NAMESPACE = "foreserve-system"
Json = dict[str, Any]


@dataclass
class Script:
    """Telemetry as a test wants it: requests in flight by service; absent: silent."""

    running: dict[str, float] = field(default_factory=dict)

    def read(self, policies: Policies, now_seconds: float) -> Reading:
        services = {}
        for name, policy in policies.services.items():
            if name not in self.running:
                continue
            each = self.running[name] / len(policy.variants)
            variants = {
                v.name: VariantObservation(0, 0, 0, 0, running=each, waiting=0.0)
                for v in policy.variants
            }
            services[name] = ServiceObservation(self.running[name], 500.0, 100.0, variants)
        observation = Observation(now_seconds, INTERVAL_SECONDS, services, {})
        silent = tuple(n for n in policies.services if n not in services)
        return Reading(observation, {}, silent, {}, {}, ())


@dataclass
class Always:
    """A Lease that a test holds or not."""

    held: bool = True
    tenure: str = "first"

    def left_seconds(self) -> float:
        return 7.0 if self.held else 0.0


@dataclass
class FailingHistory:
    """A server of which no history can be read."""

    asked: int = 0

    def __call__(self, _policies: Policies, _now_seconds: float) -> LoadSeries | None:
        self.asked += 1
        raise OSError("no route to host")


@dataclass
class Time:
    """Both clocks of a test."""

    seconds: float = BEGIN_SECONDS

    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, lambda: self.seconds)


class Rig:
    """One operator process without its threads. `turn` takes a turn and reports it."""

    def __init__(
        self,
        kube: ApiServer,
        script: Script,
        time: Time,
        lease: Leadership | None = None,
        *,
        token: str | None = None,
        loads: Mapping[tuple[str, str], float] | None = None,
        timeout_seconds: float = 5.0,
        models: ServingModels | None = None,
        history: History | None = None,
        decision_log: DecisionFolder | None = None,
    ) -> None:
        models = nothing_learned() if models is None else models
        self.kube, self.script, self.time = kube, script, time
        self.api = KubeApi(kube.admin() if token is None else kube.client(token), timeout_seconds)
        self.lease = lease if lease is not None else Always()
        self.cluster = Cluster(reducers())
        clock = time.clock()
        self.metrics = OperatorMetrics("test")
        self.api.count_errors(self.metrics.count_api_error)
        self.memory = Memory(self.api, OWN_NAMESPACE, clock)
        self.controller = Controller(Policies({}, ()), models)
        finder = FactFinder(self.api, self.cluster, OWN_NAMESPACE, clock, lambda: False)
        parts = Parts(
            api=self.api,
            finder=finder,
            telemetry=script,
            controller=self.controller,
            lease=self.lease,
            memory=self.memory,
            metrics=self.metrics,
            traces=TickTraces(),
            clock=clock,
            time=SteadyTime(clock),
            before_writes=mark_idle_pods(self.api, lambda: dict(loads or {}), self.metrics),
            recorder=None if decision_log is None else Recorder(decision_log, self.metrics),
        )
        self.process = Process(
            parts,
            Reporter(self.api, "test", self.metrics, 60.0),
            Backfill(history, clock),
            StartLearner(self.memory, models.lead_time, None),
            lambda: (models.generation, lambda: models),
            WarmPlaces(self.api, OWN_NAMESPACE, self.metrics),
            INTERVAL_SECONDS,
        )

    def turn(self, times: int = 1, every_seconds: float = EVERY_SECONDS) -> Turn | None:
        """Take turns, an interval apart; return the last one, None if it was not taken."""
        turn = None
        for _ in range(times):
            turn = self.process.once()
            self.time.seconds += every_seconds
        return turn


def nothing_learned() -> ServingModels:
    return ServingModels("none", None, LatencyModel((), np.zeros((0, 0)), {}), LeadTimeModel({}))


def deployment(namespace: str, name: str, replicas: int, labels: Json | None = None) -> Json:
    own = {"app": name, **(labels or {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": own},
                "spec": {"containers": [{"name": "vllm", "image": "vllm"}]},
            },
        },
    }


def policy(
    namespace: str, name: str, *, mode: str = "Scale", target: str = "", **spec: Any
) -> Json:
    variant = {
        "name": "default",
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target or name},
        "acceleratorClass": "any",
        "minReplicas": 1,
        "maxReplicas": 50,
    }
    return {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": "ScalingPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": name,
            "slo": {"objectives": [{"metric": "ttft", "targetSeconds": 1.0}]},
            "variants": [variant],
            "behavior": {"mode": mode, "scaleDown": {"stabilizationWindowSeconds": 120}},
            **spec,
        },
    }


class Workloads:
    """Puts objects on the server and plays the controllers that an API server alone does not have."""

    def __init__(self, kube: ApiServer, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace

    def ask(self, method: str, path: str, body: Json | None = None, **more: Any) -> Json:
        code, answer = self.kube.request(method, path, body, **more)
        assert code < 300, (method, path, code, answer)
        return answer

    def put(self, *objects: Json) -> None:
        for o in objects:
            self.ask("POST", _collection(o), o)

    def replicas(self, name: str) -> int:
        return int(self.ask("GET", self._deployment(name))["spec"]["replicas"])

    def version(self, name: str) -> str:
        """Return the Deployment's resourceVersion: another one if anybody wrote."""
        return str(self.ask("GET", self._deployment(name))["metadata"]["resourceVersion"])

    def scale(self, name: str, replicas: int) -> None:
        """Scale as a person would."""
        self._merge(f"{self._deployment(name)}/scale", {"spec": {"replicas": replicas}})

    def edit(self, name: str, change: Json) -> None:
        """Edit a policy."""
        self._merge(f"{POLICIES.format(self.namespace)}/{name}", change)

    def status(self, name: str) -> Json:
        answer = self.ask("GET", f"{POLICIES.format(self.namespace)}/{name}")
        return dict(answer.get("status", {}))

    def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        """Return status, reason and message of a policy's condition."""
        found = next(c for c in self.status(name)["conditions"] if c["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def run_pods(self, name: str, *, ready: bool = True, ready_after_seconds: float = 0.0) -> None:
        """Make as many pods as the Deployment asks for, and no more; ready as if so long after creation."""
        wanted = self.replicas(name)
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        found = self.ask("GET", path, params={"labelSelector": f"app={name}"})["items"]
        for pod in found[wanted:]:
            self.ask(
                "DELETE", f"{path}/{pod['metadata']['name']}", params={"gracePeriodSeconds": "0"}
            )
        for _ in range(wanted - len(found)):
            made = self.ask("POST", path, _pod(self.namespace, name))
            if ready:
                created = made["metadata"]["creationTimestamp"]
                status = {"status": _ready(created, _later(created, ready_after_seconds))}
                self._merge(f"{path}/{made['metadata']['name']}/status", status)

    def pods(self, name: str) -> list[Json]:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        return list(self.ask("GET", path, params={"labelSelector": f"app={name}"})["items"])

    def events(self) -> list[Json]:
        return list(self.ask("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"])

    def _merge(self, path: str, body: Json) -> None:
        self.ask("PATCH", path, body, content_type="application/merge-patch+json")

    def _deployment(self, name: str) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}"


POLICIES = "/apis/foreserve.dev/v1alpha1/namespaces/{}/scalingpolicies"
_PLURALS = {
    "Deployment": "apis/apps/v1/namespaces/{}/deployments",
    "ScalingPolicy": POLICIES.removeprefix("/"),
    "AcceleratorPool": "apis/foreserve.dev/v1alpha1/acceleratorpools",
    "ConfigMap": "api/v1/namespaces/{}/configmaps",
    "HorizontalPodAutoscaler": "apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers",
    "Node": "api/v1/nodes",
}


def _collection(o: Json) -> str:
    return "/" + _PLURALS[o["kind"]].format(o["metadata"].get("namespace", ""))


def _pod(namespace: str, app: str) -> Json:
    owner = {
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": "0-0", "controller": True,
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{app}-",
            "namespace": namespace,
            "labels": {"app": app},
            "ownerReferences": [owner],
        },
        "spec": {"containers": [{"name": "vllm", "image": "vllm"}]},
    }


def _ready(since: str, ready: str) -> Json:
    times = {"PodScheduled": since, "Initialized": since, "Ready": ready, "ContainersReady": ready}
    conditions = [
        {"type": k, "status": "True", "lastTransitionTime": at} for k, at in times.items()
    ]
    return {"phase": "Running", "conditions": conditions}


def _later(stamp: str, seconds: float) -> str:
    moment = datetime.fromisoformat(stamp) + timedelta(seconds=seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

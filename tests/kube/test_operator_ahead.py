"""Ahead of demand: trained on days of a load, replayed against an API server, as the shipped account.

A Deployment and a LeaderWorkerSet serve the same load: quiet until 09:00, then ten times as much within
half an hour, every day. Replicas must be asked for a start's time before the load needs them, by the
shipped ServiceAccount.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))

from apiserver import ApiServer
from builders import latency_model
from foreign_crds import LEADER_WORKER_SET
from operating import OWN_NAMESPACE, Rig, Time, Workloads, deployment, policy
from test_manifests_applied import install, remove

from autoscaler.core.types import Observation, Policies, ServiceObservation, VariantObservation
from autoscaler.edge.artifacts import ServingModels
from autoscaler.edge.reading import Reading
from models.frames import LoadSeries
from models.lead_time import LeadTimeModel
from models.load_fit import fit_load

DAY_SECONDS = 86_400.0
MIDNIGHT = 1_795_737_600.0  # 2026-11-27T00:00:00Z
STEP_SECONDS = 60.0
RISE_SECONDS = 9 * 3600.0
RAMP_SECONDS = 1800.0
START_SECONDS = 150.0
QUIET_RPS, BUSY_RPS = 10.0, 100.0
DAYS = 4
NEARLY = (
    0.9  # of what the load will need: one replica of fourteen is a risk the error budget may take
)
LWS = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/{}/leaderworkersets"


def rate_rps(seconds: float) -> float:
    """Return the load at a time of day: up from 09:00 within half an hour, down after 17:00."""
    of_day = seconds % DAY_SECONDS
    up = np.clip((of_day - RISE_SECONDS) / RAMP_SECONDS, 0.0, 1.0)
    down = np.clip((of_day - 17 * 3600.0) / 3600.0, 0.0, 1.0)
    return float(QUIET_RPS + (BUSY_RPS - QUIET_RPS) * (up - down))


def history(services: tuple[str, ...], end_seconds: float) -> LoadSeries:
    steps = int(DAYS * DAY_SECONDS / STEP_SECONDS)
    rng = np.random.default_rng(7)
    ends = end_seconds - STEP_SECONDS * np.arange(steps - 1, -1, -1)
    mean = np.array([rate_rps(e - STEP_SECONDS / 2) for e in ends]) * STEP_SECONDS
    requests = rng.poisson(mean, size=(len(services), steps)).astype(np.float64)
    values = np.stack([requests, requests * 1000.0, requests * 100.0], axis=-1)
    return LoadSeries(services, end_seconds - steps * STEP_SECONDS, STEP_SECONDS, values)


@dataclass
class Replay:
    """Telemetry of the replayed load; requests are served in time, which is not what is tested."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))

    def read(self, policies: Policies, now_seconds: float) -> Reading:
        seen = {}
        for name in policies.services:
            rate = self.rng.poisson(rate_rps(now_seconds - 30.0) * STEP_SECONDS) / STEP_SECONDS
            variant = VariantObservation(0, 0, 0, 0, running=rate, waiting=0.0)
            seen[name] = ServiceObservation(rate, 1000.0, 100.0, {"default": variant})
        return Reading(Observation(now_seconds, STEP_SECONDS, seen, {}), {}, (), {}, {}, ())


@pytest.fixture
def account(kube: ApiServer) -> Iterator[str]:
    """The token of the shipped ServiceAccount with the rights of the overlay `scale`."""
    paths = install(kube, "scale")
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert kube.request("POST", crds, LEADER_WORKER_SET)[0] in {201, 409}
    yield kube.service_account_token(OWN_NAMESPACE, "foreserve")
    remove(kube, paths)


def models(*services: str) -> ServingModels:
    series = history(services, MIDNIGHT)
    load = fit_load(series, target="requests", leads_steps=None, progress=None)
    keys = [(name, "default") for name in services]
    return ServingModels("g-test", load, latency_model(*keys), LeadTimeModel({}))


def leader_worker_set(kube: ApiServer, namespace: str, replicas: int) -> None:
    path = LWS.format(namespace)
    end = time.monotonic() + 30.0
    while kube.request("GET", path)[0] != 200:
        assert time.monotonic() < end, "the CRD is not served"
        time.sleep(0.05)
    body = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {"name": "code", "namespace": namespace},
        "spec": {"replicas": replicas, "leaderWorkerTemplate": {"size": 2, "workerTemplate": {}}},
    }
    assert kube.request("POST", path, body)[0] == 201


def groups(kube: ApiServer, namespace: str) -> int:
    return int(kube.request("GET", f"{LWS.format(namespace)}/code")[1]["spec"]["replicas"])


@pytest.mark.slow
def test_replicas_are_asked_for_before_the_load_comes(
    kube: ApiServer, namespace: str, account: str
) -> None:
    world = Workloads(kube, namespace)
    world.put(deployment(namespace, "chat", 1), policy(namespace, "chat"))
    groups_policy = policy(namespace, "code")
    groups_policy["spec"]["variants"][0]["targetRef"] = {
        "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "name": "code",
    }  # fmt: skip
    world.put(groups_policy)
    leader_worker_set(kube, namespace, 1)
    begin = MIDNIGHT + 8.5 * 3600.0
    clock = Time(begin)
    services = (f"{namespace}/chat", f"{namespace}/code")
    rig = Rig(kube, Replay(), clock, token=account, models=models(*services))  # type: ignore[arg-type]
    rig.turn(1, STEP_SECONDS)
    rig.controller.seed(history(services, begin))
    asked: dict[float, tuple[int, int]] = {}
    for _ in range(80):  # 08:31 to 09:51
        world.run_pods("chat", ready_after_seconds=START_SECONDS)
        now = clock.seconds - MIDNIGHT
        assert rig.turn(1, STEP_SECONDS) is not None, rig.wrong()
        asked[now] = (world.replicas("chat"), groups(kube, namespace))
    chat = np.array([own for own, _ in asked.values()])
    code = np.array([own for _, own in asked.values()])
    ramp = np.array([RISE_SECONDS <= s < RISE_SECONDS + RAMP_SECONDS for s in asked])
    load = np.array([rate_rps(MIDNIGHT + s) for s in asked])
    soon = np.array([rate_rps(MIDNIGHT + s + START_SECONDS) for s in asked])
    each_rps = BUSY_RPS / np.median(chat[-10:])  # that a replica serves, once all is quiet again
    need = NEARLY * soon[ramp] / each_rps
    for own in (chat, code):
        quiet = own[: sum(s < RISE_SECONDS for s in asked)].min()
        assert own[-1] >= 3 * quiet, own
        ahead = own[ramp] >= need
        assert ahead.mean() >= 0.9, own  # sized for what comes when a start is through
    assert (np.ceil(load[ramp] / each_rps) >= need).mean() < 0.8  # which reacting is not
    assert world.condition("chat", "ModelTrusted")[0] == "True"
    assert world.condition("code", "Ready")[1] == "Scaling"

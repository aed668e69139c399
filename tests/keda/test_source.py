"""Policies read from an API server: pushed within a second, and what happens while it is away."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from apidouble import ApiDouble
from crd_setup import GROUP, install
from operating import policy as policy_document
from scaler_rig import Served, ref, stamp, until

from autoscaler.edge.clock import Clock
from autoscaler.edge.keda import source
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.keda.source import PolicySource
from autoscaler.edge.kube.api import KubeApi

POLICIES = f"{GROUP}/namespaces/prod/scalingpolicies"
CHAT = f"{POLICIES}/chat/status"


class Cluster:
    """An API server with one policy, what reads it, and a scaler that serves it."""

    def __init__(self, kube: ApiDouble) -> None:
        self.kube = kube
        install(kube)
        self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "prod"}})
        self.ask("POST", POLICIES, policy_document("prod", "chat", mode="Keda"))
        self.served = Served()
        self.plans = self.served.plans
        self.source = PolicySource(KubeApi(kube.admin(), timeout_seconds=1.0), self.plans)

    def ask(self, method: str, path: str, body: dict[str, Any]) -> None:
        code, answer = self.kube.request(method, path, body)
        assert code in (200, 201), answer

    def decide(self, desired: int, elapsed: float = 0.0) -> None:
        status = {
            "mode": "Keda",
            "variants": [{"name": "default", "desired": desired, "current": 1}],
            "lastDecisionTime": stamp(elapsed),
        }
        path, kind = CHAT, "application/merge-patch+json"
        code, answer = self.kube.request("PATCH", path, {"status": status}, content_type=kind)
        assert code == 200, answer

    def sees(self, desired: int) -> bool:
        dated = self.plans.get("prod/chat")
        return dated is not None and dated.plan.variants[0].desired == desired

    def close(self) -> None:
        self.source.close()
        self.served.close()


@pytest.fixture
def cluster(double: ApiDouble) -> Iterator[Cluster]:
    it = Cluster(double)
    yield it
    it.close()


def watched(cluster: Cluster, desired: int = 3) -> None:
    cluster.decide(desired)
    cluster.source.start()
    until(lambda: cluster.sees(desired))
    until(lambda: cluster.source._response is not None)


def test_a_status_reaches_open_streams_within_a_second(cluster: Cluster) -> None:
    watched(cluster, 0)
    stream = cluster.served.keda().stream()
    assert next(stream).result is False
    begun = time.monotonic()
    cluster.decide(2, 15.0)
    assert next(stream).result is True
    assert time.monotonic() - begun < 1.0
    assert cluster.served.keda().count(ref(variant="default")) == 2.0


def test_policies_come_and_go(cluster: Cluster) -> None:
    watched(cluster)
    cluster.ask("POST", POLICIES, policy_document("prod", "code", mode="Keda"))
    until(lambda: cluster.plans.get("prod/code") is not None)
    cluster.ask("DELETE", f"{POLICIES}/code", {})
    until(lambda: cluster.plans.get("prod/code") is None)
    assert cluster.sees(3)


@pytest.mark.parametrize("end", ["expire_watches", "break_watches"])
def test_a_stream_that_ends_is_begun_anew_from_a_list(cluster: Cluster, end: str) -> None:
    watched(cluster)
    getattr(cluster.kube, end)()
    cluster.decide(8, 60.0)
    until(lambda: cluster.sees(8))


def test_while_the_source_is_away_the_last_decision_is_told_then_what_runs(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "AGAIN_SECONDS", (0.05,))
    watched(cluster, 3)
    keda = cluster.served.keda()
    cluster.kube.stop()
    until(lambda: cluster.source.problem != "")
    assert keda.count() == 3.0
    assert keda.is_active() is True
    cluster.served.hands.elapsed = 3600.0
    assert keda.count() == 3.0  # the larger of 3 decided and 1 that ran
    assert cluster.served.exported('foreserve_scaler_answers_total{source="running"}') == 1.0
    assert cluster.served.exported("foreserve_scaler_api_silence_seconds") == 3600.0
    age = 'foreserve_scaler_decision_age_seconds{service="prod/chat"}'
    assert cluster.served.exported(age) == 3600.0
    assert keda.spec().metricSpecs
    cluster.kube.start()
    until(lambda: cluster.source.problem == "")
    cluster.decide(6, 3600.0)
    until(lambda: cluster.sees(6))
    assert keda.count() == 6.0


def test_an_api_server_that_is_not_there_at_the_start(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "AGAIN_SECONDS", (0.05,))
    cluster.decide(3)
    cluster.kube.stop()
    cluster.source.start()
    until(lambda: "cannot connect" in cluster.source.problem)
    assert cluster.served.keda().spec().metricSpecs
    cluster.kube.start()
    until(lambda: cluster.sees(3))
    assert cluster.source.problem == ""


def test_a_forbidden_list_is_told_and_tried_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "AGAIN_SECONDS", (0.05,))
    cluster.decide(3)
    cluster.kube.fail("GET", "scalingpolicies", 403, times=3)
    cluster.source.start()
    until(lambda: cluster.sees(3))
    assert cluster.source.alive


def test_closing_does_not_wait_for_the_stream(double: ApiDouble) -> None:
    install(double)
    it = PolicySource(KubeApi(double.admin()), Plans(Clock()))
    it.start()
    until(lambda: it._response is not None)
    begun = time.monotonic()
    it.close()
    assert time.monotonic() - begun < 2.0
    assert not it.alive

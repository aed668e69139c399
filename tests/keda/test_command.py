"""`foreserve scaler` as a process of its own, from start to SIGTERM."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from apidouble import ApiDouble
from apiserver import free_ports
from crd_setup import GROUP, install
from operating import policy as policy_document
from running import Prometheus, Traffic
from scaler_rig import Keda, ref, until

from autoscaler.edge.clock import Clock
from autoscaler.edge.keda.load import WINDOW_SECONDS
from autoscaler.edge.kube.api import KubeApi
from models.contract import Labels
from models.contract_api import UnavailableError
from models.contract_queries import load_queries

STARTED_SECONDS = 30.0
POLICIES = f"{GROUP}/namespaces/prod/scalingpolicies"
NOW = "2999-01-01T00:00:00Z"  # never old


@pytest.fixture
def start(tmp_path: Path, double: ApiDouble) -> Iterator[Callable[..., "Process"]]:
    begun: list[Process] = []

    def start(*arguments: str) -> Process:
        begun.append(Process(double.kubeconfig(tmp_path / "config"), *arguments))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()


class Process:
    def __init__(self, kubeconfig: Path, *arguments: str) -> None:
        self.port, self.http = free_ports(2)
        self.child = subprocess.Popen(
            [
                *(sys.executable, "-c", "from autoscaler.cli import main; main()", "scaler"),
                *("--kubeconfig", str(kubeconfig)),
                *("--listen", f"127.0.0.1:{self.port}", "--http", f"127.0.0.1:{self.http}"),
                *arguments,
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.keda = Keda(self.channel)

    def page(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=5) as page:
                return page.status, page.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ends(self) -> tuple[int, str]:
        """Send SIGTERM and return the exit status and what was logged."""
        self.child.send_signal(signal.SIGTERM)
        log = self.child.communicate(timeout=20)[1]
        return self.child.returncode, log

    def kill(self) -> None:
        self.channel.close()
        if self.child.poll() is None:
            self.child.kill()
        self.child.communicate()


def put(double: ApiDouble, desired: int, decided: str = NOW, **more: Any) -> None:
    install(double)
    double.request("POST", "/api/v1/namespaces", {"metadata": {"name": "prod"}})
    double.request("POST", POLICIES, policy_document("prod", "chat", mode="Keda"))
    variants = [{"name": "default", "desired": desired, "current": desired} | more]
    status = {"mode": "Keda", "variants": variants, "lastDecisionTime": decided}
    kind = "application/merge-patch+json"
    path = f"{POLICIES}/chat/status"
    code, answer = double.request("PATCH", path, {"status": status}, content_type=kind)
    assert code == 200, answer


def test_two_replicas_say_the_same_and_end_in_peace(
    double: ApiDouble, start: Callable[..., Process]
) -> None:
    put(double, 5)
    replicas = [start(), start("--log-format", "json")]
    for replica in replicas:
        until(lambda replica=replica: replica.page("/readyz")[0] == 200, STARTED_SECONDS)
        assert replica.keda.count(ref(variant="default")) == 5.0
        assert replica.keda.is_active() is True
        code, page = replica.page("/metrics")
        assert code == 200
        assert 'foreserve_scaler_decision_age_seconds{service="prod/chat"} ' in page
        assert replica.page("/healthz") == (200, "ok\n")
    stream = replicas[0].keda.stream()
    assert next(stream).result is True
    code, log = replicas[0].ends()
    assert code == 0, log
    assert "ended" in log
    assert "Traceback" not in log
    assert list(stream) == []
    assert replicas[1].keda.count() == 5.0
    assert replicas[1].ends()[0] == 0


def test_a_decision_of_long_ago_follows_the_load(
    double: ApiDouble, start: Callable[..., Process]
) -> None:
    """A scaler that starts while nobody decides: not ready before it knows what the load needs."""
    put(double, 3, "2020-01-01T00:00:00Z", replicaConcurrency=10.0)
    prometheus = Prometheus(Traffic({"prod/chat": 45.0}))
    queries = load_queries(Labels(), WINDOW_SECONDS)
    prometheus.names |= {text: name for name, text in queries.items()}
    replica = start("--prometheus", prometheus.url, "--max-age-seconds", "60")
    try:
        until(lambda: replica.page("/readyz")[0] == 200, STARTED_SECONDS)
        assert replica.keda.count() == 5.0
        _, page = replica.page("/metrics")
        stage = 'foreserve_scaler_decision_stage{service="prod/chat",stage="reactive",'
        assert f'{stage}variant="default"}} 1.0' in page
        assert replica.ends()[0] == 0
    finally:
        prometheus.end()


def test_without_an_api_server_the_spec_is_served_and_it_is_not_ready_at_once(
    double: ApiDouble, start: Callable[..., Process]
) -> None:
    double.stop()
    replica = start()
    until(lambda: replica.page("/healthz")[0] == 200, STARTED_SECONDS)
    code, why = replica.page("/readyz")
    assert code == 503
    assert "read" in why or "connect" in why
    assert replica.keda.spec().metricSpecs[0].metricName == "foreserve-chat"
    with pytest.raises(grpc.RpcError) as error:
        replica.keda.metrics()
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert replica.ends()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--listen", ":x"), "--listen"),
        (("--listen", ":6000", "--http", "x"), "--http"),
        (("--listen", ":6000", "--tls-key", "k"), "--tls-cert"),
        (("--listen", ":6000", "--client-ca", "c"), "--client-ca"),
        (("--listen", ":6000", "--kubeconfig", "/nowhere"), "--kubeconfig"),
        (("--listen", ":6000", "--max-age-seconds", "0"), "--max-age-seconds"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_option(
    arguments: tuple[str, ...],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from autoscaler.cli import run

    monkeypatch.setattr(sys, "argv", ["foreserve", "scaler", *arguments])
    assert run() == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_ready_after_a_while_whatever_is_known(double: ApiDouble) -> None:
    """GetMetricSpec needs no policies, and KEDA's fallback needs GetMetricSpec."""
    from autoscaler.edge.keda.serve import UNREAD_SECONDS, Scaler

    now = [0.0]
    it = Scaler(KubeApi(double.admin()), "test", Clock(monotonic=lambda: now[0]))
    assert it.readiness() == "not serving"
    it._serving = True
    assert it.readiness() == "the policies have not been read yet"
    now[0] = UNREAD_SECONDS + 0.1
    assert it.readiness() == ""
    assert it.health() == "policies are no longer read"  # its thread was not begun


def test_it_is_not_asked_before_it_has_looked_at_the_load(double: ApiDouble) -> None:
    """One that starts in the middle of an outage knows less than what the load was told to have."""
    from autoscaler.edge.keda.serve import UNREAD_SECONDS, Scaler

    class Away:
        def instant(self, *_: object) -> list[Any]:
            raise UnavailableError("no answer")

        def server_seconds(self) -> float:
            return float("nan")

    now = [0.0]
    it = Scaler(KubeApi(double.admin()), "test", Clock(monotonic=lambda: now[0]))
    it.look_at(Away(), Labels())
    it._serving = True
    assert it.load is not None
    it.load.look()
    assert it.readiness() == "the policies have not been read yet"
    it.plans.replace([])
    assert it.readiness() == "the load has not been looked at yet"
    it.load.look()  # what cannot be asked changes nothing
    assert it.readiness() == ""
    other = Scaler(KubeApi(double.admin()), "test", Clock(monotonic=lambda: now[0]))
    other.look_at(Away(), Labels())
    other._serving = True
    other.plans.replace([])
    now[0] = UNREAD_SECONDS + 0.1
    assert other.readiness() == ""
    assert "no longer looked at" in other.health()  # its threads were not begun

"""The scaler inside the operator: one process decides, says so in the status, and answers KEDA."""

from pathlib import Path

import grpc
import pytest
from apidouble import ApiDouble
from apiserver import free_ports
from crd_setup import install
from operating import OWN_NAMESPACE, PER_REPLICA, Workloads, deployment, policy
from running import Prometheus, Running, Traffic
from scaler_rig import Keda, ref, until

from autoscaler.edge.keda.serve import Scaler, ScalerBeside
from autoscaler.edge.keda.server import Listening
from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.metrics import OperatorMetrics

SECONDS = 60.0


def test_it_begins_and_ends_with_the_operator_and_exports_beside_it(double: ApiDouble) -> None:
    install(double)
    metrics = OperatorMetrics("test")
    scaler = Scaler(KubeApi(double.admin()), "test", registry=metrics.registry)
    beside = ScalerBeside(scaler, Listening("127.0.0.1", 0, drain_seconds=1.0))
    assert beside.health() == "the scaler has ended"  # not begun
    beside.start()
    assert beside.health() == ""
    channel = grpc.insecure_channel(f"127.0.0.1:{scaler.port}")
    assert Keda(channel).spec().metricSpecs
    page = metrics.render("")[0].decode()
    assert 'foreserve_scaler_requests_total{code="OK",method="GetMetricSpec"} 1.0' in page
    assert page.count("# HELP foreserve_build_info") == 1
    beside.close()
    channel.close()
    assert beside.health() == "the scaler has ended"


def test_an_address_that_is_taken_is_an_error_at_the_start(double: ApiDouble) -> None:
    scaler = Scaler(KubeApi(double.admin()), "test")
    first = ScalerBeside(scaler, Listening("127.0.0.1", 0))
    first.start()
    second = Scaler(KubeApi(double.admin()), "test")
    with pytest.raises(OSError, match=str(scaler.port)):
        ScalerBeside(second, Listening("127.0.0.1", scaler.port)).start()
    first.close()


def test_what_run_decides_it_answers(double: ApiDouble, tmp_path: Path) -> None:
    install(double)
    double.request("POST", "/api/v1/namespaces", {"metadata": {"name": OWN_NAMESPACE}})
    double.request("POST", "/api/v1/namespaces", {"metadata": {"name": "prod"}})
    world = Workloads(double, "prod")
    world.put(deployment("prod", "chat", 2), policy("prod", "chat", mode="Keda"))
    world.run_pods("chat")
    prometheus = Prometheus(Traffic({"prod/chat": 5 * PER_REPLICA}))
    (port,) = free_ports(1)
    running = Running(
        double, prometheus.url, tmp_path, "one", "--scaler-listen", f"127.0.0.1:{port}"
    )
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    keda = Keda(channel)

    def told() -> float:
        try:
            return keda.count(ref())
        except grpc.RpcError:
            return -1.0

    try:
        until(lambda: told() == 5.0, SECONDS)
        assert keda.is_active(ref()) is True
        assert world.condition("chat", "Ready")[:2] == ("False", "NoScaledObject")
        assert world.condition("chat", "Delivered")[:2] == ("False", "NotAsked")
        assert world.replicas("chat") == 2  # KEDA's business
    finally:
        channel.close()
        running.kill()
        prometheus.end()

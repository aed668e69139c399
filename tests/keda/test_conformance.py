"""A real gRPC client asks in the order of KEDA's operator: spec, value, activity; then what may go wrong."""

import socket
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from scaler_rig import DEADLINE_SECONDS, SERVICE, Keda, Served, policy, ref, until

from autoscaler.edge.keda import externalscaler_pb2 as pb

Code = grpc.StatusCode


def refused(code: Code, *words: str) -> "pytest.RaisesExc[grpc.RpcError]":
    return pytest.RaisesExc(
        grpc.RpcError,
        check=lambda e: e.code() is code and all(word in e.details() for word in words),
    )


def test_the_operators_order_gives_the_planned_count(served: Served) -> None:
    served.plans.replace([policy(desired=7)])
    keda = served.keda()
    for _ in range(3):  # every poll asks for all of it
        (spec,) = keda.spec().metricSpecs
        assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == ("foreserve-chat", 1, 1)
        value = keda.metrics(name=spec.metricName)
        assert value.metricName == spec.metricName
        assert (value.metricValue, value.metricValueFloat) == (7, 7.0)
        assert keda.is_active() is True
    assert served.exported('foreserve_scaler_answers_total{source="plan"}') == 3.0
    assert served.exported('foreserve_scaler_requests_total{code="OK",method="IsActive"}') == 3.0


def test_a_decided_zero_is_told_as_zero_and_inactive(served: Served) -> None:
    served.plans.replace([policy(desired=0, current=0)])
    keda = served.keda()
    assert keda.count() == 0.0
    assert keda.is_active() is False


def test_the_spec_needs_nothing_but_the_request(served: Served) -> None:
    keda = served.keda()
    (spec,) = keda.spec(ref("lm/chat-70b.v2", variant="H100_tp4")).metricSpecs
    assert spec.metricName == "foreserve-chat-70b-v2-h100_tp4"  # fit for a path of the API
    with refused(Code.UNAVAILABLE, "not been read yet"):
        keda.metrics()
    with refused(Code.UNAVAILABLE, "not been read yet"):
        keda.is_active()


def test_an_unknown_policy_is_not_found_and_never_zero(served: Served) -> None:
    served.plans.replace([policy("other")])
    keda = served.keda()
    assert keda.spec().metricSpecs
    for ask in (keda.metrics, keda.is_active):
        with refused(Code.NOT_FOUND, "prod/chat"):
            ask()


def test_a_policy_of_another_namespace_is_named_with_it(served: Served) -> None:
    served.plans.replace([policy(namespace="models", desired=3)])
    assert served.keda().count(ref("models/chat")) == 3.0


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"policy": ""}, ("policy", "missing", "ScalingPolicy")),
        ({"policy": "a/b/c"}, ("policy", "'a/b/c'", "namespace/name")),
        ({"variant": "no variant"}, ("variant", "'no variant'")),
        ({"maxAgeSeconds": "0"}, ("maxAgeSeconds", "from 1 to 86400")),
        ({"fallbackReplicas": "-1"}, ("fallbackReplicas", "whole number from 0 to 100000")),
        ({"polcy": "chat"}, ("'polcy'", "policy, variant, maxAgeSeconds, fallbackReplicas")),
    ],
)
def test_bad_metadata_are_invalid_and_name_the_key(
    served: Served, metadata: dict[str, str], words: tuple[str, ...]
) -> None:
    served.plans.replace([policy()])
    keda = served.keda()
    asked = ref(**metadata) if metadata.get("policy") != "" else ref("")
    for ask in (keda.spec, keda.metrics, keda.is_active):
        with refused(Code.INVALID_ARGUMENT, *words):
            ask(asked)
    for method in ("StreamIsActive", "StreamMetricSpec"):
        with refused(Code.INVALID_ARGUMENT, *words):
            next(keda.stream(method, asked))


def test_a_variant_that_the_policy_lacks_is_invalid_and_names_those_it_has(served: Served) -> None:
    served.plans.replace([policy()])
    with refused(Code.INVALID_ARGUMENT, "variant", "'b200'", "h100"):
        served.keda().metrics(ref(variant="b200"))


@pytest.mark.parametrize("mode", ["Recommend", "Scale"])
def test_kedas_hands_are_kept_off_in_other_modes(served: Served, mode: str) -> None:
    served.plans.replace([policy(mode=mode)])
    for ask in (served.keda().metrics, served.keda().is_active):
        with refused(Code.FAILED_PRECONDITION, f"mode is {mode}"):
            ask()


@pytest.mark.parametrize("method", ["IsActive", "GetMetricSpec", "GetMetrics"])
@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x1f\x8b\x08\x00"])
def test_a_malformed_message_is_invalid_and_harms_nobody(
    served: Served, method: str, body: bytes
) -> None:
    served.plans.replace([policy()])
    keda = served.keda()
    with refused(Code.INVALID_ARGUMENT, "no externalscaler."):
        keda._ask(method, pb.IsActiveResponse)(body, timeout=DEADLINE_SECONDS)
    assert keda.count() == 7.0


def test_a_message_beyond_the_limit_is_refused(served: Served) -> None:
    served.plans.replace([policy()])
    keda = served.keda()
    with refused(Code.RESOURCE_EXHAUSTED):
        keda.spec(ref(variant="x" * 70_000))
    assert keda.count() == 7.0


def test_a_method_that_there_is_not_is_unimplemented(served: Served) -> None:
    with refused(Code.UNIMPLEMENTED):
        served.keda()._ask("GetTea", pb.IsActiveResponse)(ref(), timeout=DEADLINE_SECONDS)


def test_bytes_that_are_no_http2_and_a_client_that_says_nothing_harm_nobody(served: Served) -> None:
    served.plans.replace([policy()])
    host, port = served.address.split(":")
    with socket.create_connection((host, int(port))) as mute:
        with socket.create_connection((host, int(port))) as rude:
            rude.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 64)
            assert served.keda().count() == 7.0
        assert mute.fileno() >= 0
        assert served.keda().count() == 7.0


def test_calls_whose_message_never_comes_hold_up_nobody(served: Served) -> None:
    served.plans.replace([policy()])
    never = threading.Event()

    def silence() -> Iterator[bytes]:
        never.wait(10.0)
        yield from ()

    slow = served.keda().channel.stream_unary(f"{SERVICE}GetMetrics")
    calls = [slow.future(silence()) for _ in range(100)]
    assert served.keda().count() == 7.0
    for call in calls:
        call.cancel()
    never.set()


def test_health_and_reflection_know_the_service(served: Served) -> None:
    keda = served.keda()
    stub = health_pb2_grpc.HealthStub(keda.channel)
    for name in ("", "externalscaler.ExternalScaler"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=DEADLINE_SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    told = ProtoReflectionDescriptorDatabase(keda.channel)
    assert "externalscaler.ExternalScaler" in told.get_services()
    service = DescriptorPool(told).FindServiceByName("externalscaler.ExternalScaler")
    assert [m.name for m in service.methods] == [
        "IsActive",
        "StreamIsActive",
        "GetMetricSpec",
        "GetMetrics",
        "StreamMetricSpec",
    ]


def test_the_interface_has_kedas_names_and_numbers() -> None:
    numbers = {
        m.name: {f.name: f.number for f in m.fields}
        for m in pb.DESCRIPTOR.message_types_by_name.values()
    }
    assert (
        numbers
        == {  # pkg/scalers/externalscaler/externalscaler.proto of KEDA's main, August 2026
            "ScaledObjectRef": {"name": 1, "namespace": 2, "scalerMetadata": 3},
            "IsActiveResponse": {"result": 1},
            "GetMetricSpecResponse": {"metricSpecs": 1},
            "MetricSpec": {"metricName": 1, "targetSize": 2, "targetSizeFloat": 3},
            "GetMetricsRequest": {"scaledObjectRef": 1, "metricName": 2},
            "GetMetricsResponse": {"metricValues": 1},
            "MetricValue": {"metricName": 1, "metricValue": 2, "metricValueFloat": 3},
        }
    )


def test_calls_in_flight_end_and_streams_end_in_peace_on_sigterm(served: Served) -> None:
    served.plans.replace([policy()])
    keda = served.keda()
    streams = [keda.stream(), keda.stream("StreamMetricSpec")]
    for stream in streams:
        next(stream)
    failures: list[Code] = []
    asked = threading.Event()

    def ask_on(keda: Keda) -> None:
        while not asked.is_set():
            try:
                keda.metrics()
            except grpc.RpcError as error:
                failures.append(error.code())
                return

    thread = threading.Thread(target=ask_on, args=(served.keda(),))
    thread.start()
    until(lambda: (served.exported('foreserve_scaler_answers_total{source="plan"}') or 0) > 20)
    begun = time.monotonic()
    served.stop()
    assert time.monotonic() - begun < 2.0  # nobody held it up to the limit
    for stream in streams:
        assert list(stream) == []  # io.EOF for Go: KEDA comes back in two seconds
        assert stream.code() is Code.OK
    asked.set()
    thread.join(5.0)
    # a call that comes in at that very moment has no answer: KEDA's next poll goes to another replica
    assert set(failures) <= {Code.UNAVAILABLE, Code.CANCELLED}


def test_service_path() -> None:
    assert f"/{pb.DESCRIPTOR.services_by_name['ExternalScaler'].full_name}/" == SERVICE

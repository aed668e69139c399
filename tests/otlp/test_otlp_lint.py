import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from otlp_builders import DELTA, T0, counter, export, fold_all, gauge, histogram
from typer.testing import CliRunner

from autoscaler.cli import app
from autoscaler.edge.lint import Finding, Status
from autoscaler.edge.lint_otlp import StoreFacts, judge_store, look_at_store
from autoscaler.edge.otlp_store import OtlpStore
from models.otlp_fold import Fold
from models.otlp_identity import Identity
from models.otlp_points import Request

RESOURCE = {
    "k8s.namespace.name": "prod",
    "service.name": "chat",
    "k8s.deployment.name": "h100",
    "k8s.pod.name": "a",
    "k8s.pod.start_time": "2026-01-04T23:00:00Z",
}
NOW = T0 + 610.0
POLICY = """
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: mail, namespace: prod}
spec:
  model: mail
  slo:
    objectives:
      - {metric: ttft, targetSeconds: 0.7}
      - {metric: tpot, targetSeconds: 0.1}
  variants:
    - name: h100
      acceleratorClass: h100
      targetRef: {apiVersion: apps/v1, kind: Deployment, name: mail}
      maxReplicas: 20
"""


def vllm(
    at: float, resource: Mapping[str, str] = RESOURCE, *, unit: float = 1.0
) -> ExportMetricsServiceRequest:
    """Everything that the contract asks of an engine."""
    return export(
        gauge("vllm:num_requests_running", 4.0, at),
        gauge("vllm:num_requests_waiting", 1.0, at),
        gauge("vllm:kv_cache_usage_perc", 0.25, at),
        counter("vllm:request_success_total", at, at, 0),
        counter("vllm:admission_rejections_total", 0, at, 0),
        counter("vllm:prefix_cache_queries_total", at, at, 0),
        counter("vllm:prefix_cache_hits_total", at, at, 0),
        histogram("vllm:request_prompt_tokens", [100.0] * int(at), at, 0, unit=""),
        histogram("vllm:request_generation_tokens", [20.0] * int(at), at, 0, unit=""),
        histogram("vllm:time_to_first_token_seconds", [0.3 * unit] * int(at), at, 0),
        histogram("vllm:request_time_per_output_token_seconds", [0.05 * unit] * int(at), at, 0),
        resource=resource,
    )


def stored(folder: Path, fold: Fold) -> StoreFacts:
    with OtlpStore(folder, bin_seconds=30) as store:
        store.flush(fold)
    return look_at_store(folder, Identity(), NOW)


def findings(facts: StoreFacts, now_seconds: float = NOW) -> dict[str, Finding]:
    return {f.quantity: f for f in judge_store(facts, now_seconds)}


def every_minute(**options: Any) -> Fold:
    return fold_all(*(vllm(60.0 * i, **options) for i in range(1, 11)))


def lint(*words: "str | Path") -> tuple[int, str]:
    result = CliRunner().invoke(app, ["lint", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.stdout.split())


def test_a_complete_store_passes(tmp_path: Path) -> None:
    facts = stored(tmp_path, every_minute())
    found = findings(facts)
    assert {f.status for f in found.values()} == {Status.OK, Status.MISSING}
    assert [n for n, f in found.items() if f.status is Status.MISSING] == [
        "gateway_requests",
        "gateway_queue",
    ]
    assert facts.services == ("prod/chat",)
    assert found["completions"].names == ("vllm:request_success_total (cumulative)",)
    assert found["running"].names == ("vllm:num_requests_running (instant)",)
    assert found["ttft"].series == 1
    assert found["ttft"].age_seconds == pytest.approx(10.0)
    assert facts.means["ttft"] == pytest.approx(0.3, rel=1e-5)
    assert facts.bounds["ttft"] == (0.1, 0.5, 1.0, 5.0)
    at = "2026-01-05T00:10:10Z"
    out = tmp_path / "lint.json"
    status, text = lint("--otlp-store", tmp_path, "--at", at, "--json", out)
    assert status == 0
    assert "vllm:time_to_first_token_seconds" in text
    content = json.loads(out.read_text())
    assert content["services"] == ["prod/chat"]
    assert {f["quantity"] for f in content["findings"]} == set(found)


def test_what_is_missing_fails_with_what_gives_it(tmp_path: Path) -> None:
    message = export(counter("vllm:request_success_total", 5, 600, 0), resource=RESOURCE)
    found = findings(stored(tmp_path, fold_all(message)))
    assert found["completions"].status is Status.OK
    assert found["running"].fails
    assert "no vllm:num_requests_running or" in found["running"].detail
    assert "prometheus receiver" in found["running"].remedy
    assert not found["kv_usage"].fails  # optional
    status, text = lint("--otlp-store", tmp_path, "--at", "2026-01-05T00:10:10Z")
    assert status == 1
    assert "arrivals cannot be rebuilt" in text


def test_old_series_are_stale(tmp_path: Path) -> None:
    facts = stored(tmp_path, every_minute())
    found = findings(facts, NOW + 1000.0)
    assert found["running"].status is Status.STALE
    assert found["running"].fails
    assert "1010 s old; fresh is up to 180 s" in found["running"].detail


def test_replicas_that_look_alike_and_sources_without_a_name_fail(tmp_path: Path) -> None:
    alike = {k: v for k, v in RESOURCE.items() if k != "k8s.pod.name"}
    found = findings(stored(tmp_path / "a", every_minute(resource=alike)))
    assert found["running"].status is Status.LABELS
    assert "replicas look like one" in found["running"].detail
    nameless = {"k8s.namespace.name": "prod", "k8s.pod.name": "a"}
    found = findings(stored(tmp_path / "b", every_minute(resource=nameless)))
    assert found["running"].status is Status.LABELS
    assert "1 of 1 series are of no service or variant" in found["running"].detail
    assert "k8s.pod.name=a" in found["running"].detail


def test_seconds_that_are_milliseconds_are_implausible(tmp_path: Path) -> None:
    found = findings(stored(tmp_path, every_minute(unit=1000.0)))
    assert found["tpot"].status is Status.IMPLAUSIBLE  # 50 s a token
    assert "milliseconds" in found["tpot"].detail


def test_what_stands_for_a_quantity_is_told(tmp_path: Path) -> None:
    fold = fold_all(
        *(
            export(
                histogram("gen_ai.server.request.duration", [1.0], at, at - 60, temporality=DELTA),
                counter("vllm:prompt_tokens_total", 100 * at, at, 0),
                resource={k: v for k, v in RESOURCE.items() if "start" not in k},
            )
            for at in (540.0, 600.0)
        )
    )
    source = next(iter(fold.sources))
    end = int((T0 + 595) * 1e9)
    span = Request(source, b"1", end - 10**9, end, 100.0, 20.0, 0.2, 1.0)
    assert not fold.add_requests([span], 0.0)
    found = findings(stored(tmp_path, fold))
    assert found["completions"].status is Status.CAVEAT
    assert found["completions"].names == (
        "gen_ai.server.request.duration (delta)",
        "trace spans (per request)",
    )
    assert "aborted" in found["completions"].detail
    assert "two counters" in found["input_tokens"].detail
    assert found["ttft"].names == ("trace spans (per request)",)
    assert "sampled" in found["ttft"].detail
    assert found["pod_created"].status is Status.MISSING


def test_policies_without_telemetry_and_targets_between_buckets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored(tmp_path, every_minute())
    policies = tmp_path / "p.yaml"
    policies.write_text(POLICY)
    at = ("--at", "2026-01-05T00:10:10Z")
    assert lint("--otlp-store", tmp_path, *at, "--policies", policies)[0] == 0
    assert "prod/mail: a policy, but no source is named so" in caplog.text
    policies.write_text(POLICY.replace("mail", "chat").replace("name: h100", "name: b200"))
    assert lint("--otlp-store", tmp_path, *at, "--policies", policies)[0] == 0
    assert "prod/chat: variant 'h100' speaks but is not in the policy" in caplog.text
    assert "TTFT target of 0.7 s is between the buckets 0.5 s and 1 s" in caplog.text


@pytest.mark.parametrize("words", [(), ("--url", "http://x", "--otlp-store", "s")])
def test_one_of_both_is_needed(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, ["lint", *words], standalone_mode=False)
    assert "one of both" in str(result.exception)

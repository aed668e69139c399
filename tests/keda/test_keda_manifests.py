"""The examples for KEDA: what the scaler is asked by them, and what an HPA makes of them.

KEDA's own CRDs are not shipped here. Where a server has them (a cluster with KEDA), its validation is
asked as well: `KUBECONFIG_WITH_KEDA` names the kubeconfig.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hpa_world import TARGET

sys.path.insert(0, str(Path(__file__).parent.parent / "kube"))

from manifest_files import MANIFESTS, documents, kubectl, named, overlay

from autoscaler.core.types import Mode, TargetRef
from autoscaler.edge.keda.trigger import trigger_of
from autoscaler.edge.kube.deliveries import Planned, asks_of, deliveries
from autoscaler.policy.parse import parse_policies

Json = dict[str, Any]
FOLDER = MANIFESTS / "examples" / "keda"
FILES = sorted(FOLDER.glob("scaledobject*.yaml"))
KINDS = {  # fields that KEDA 2.20 knows, as far as the examples use them
    "spec": {
        "scaleTargetRef", "pollingInterval", "minReplicaCount", "maxReplicaCount", "advanced",
        "fallback", "triggers",
    },
    "advanced": {"horizontalPodAutoscalerConfig", "scalingModifiers"},
    "fallback": {"failureThreshold", "replicas", "behavior"},
    "trigger": {"type", "name", "metricType", "metadata", "authenticationRef"},
}  # fmt: skip


def spec_of(path: Path) -> Json:
    (found,) = documents(path)
    assert (found["apiVersion"], found["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    spec: Json = found["spec"]
    return spec


def ours(spec: Json) -> Json:
    (trigger,) = [t for t in spec["triggers"] if t["type"].startswith("external")]
    return dict(trigger)


@pytest.fixture(scope="module")
def policy() -> Any:
    files = [FOLDER / "policy.yaml", MANIFESTS / "examples" / "pool.yaml"]
    (found,) = parse_policies([(p.name, p.read_text()) for p in files]).services.values()
    return found


def test_there_is_one_of_each_kind() -> None:
    assert [p.name for p in FILES] == [
        "scaledobject-max.yaml",
        "scaledobject-with-fallback.yaml",
        "scaledobject-with-floor.yaml",
        "scaledobject.yaml",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_it_has_only_fields_that_keda_knows(path: Path) -> None:
    spec = spec_of(path)
    assert spec.keys() <= KINDS["spec"]
    assert spec["advanced"].keys() <= KINDS["advanced"]
    assert spec.get("fallback", {}).keys() <= KINDS["fallback"]
    for trigger in spec["triggers"]:
        assert trigger.keys() <= KINDS["trigger"]
        assert trigger["metricType"] == "AverageValue"
        assert all(isinstance(v, str) for v in trigger["metadata"].values())


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_it_asks_the_scaler_of_the_overlay_for_the_policy_beside_it(
    path: Path, policy: Any
) -> None:
    (found,) = documents(path)
    trigger = ours(found["spec"])
    service = named(overlay("keda"), "Service", "foreserve-scaler")
    host, port = trigger["metadata"]["scalerAddress"].split(":")
    place = service["metadata"]
    assert host == f"{place['name']}.{place['namespace']}.svc"
    assert int(port) in {p["port"] for p in service["spec"]["ports"] if p["name"] == "grpc"}
    asked = trigger_of(found["metadata"]["namespace"], trigger["metadata"])
    assert asked.service == policy.service
    assert policy.behavior.mode is Mode.KEDA
    (variant,) = policy.variants
    planned = {variant.name: Planned(variant.target_ref, 3, 2, 2, 2)}
    out, verdict = deliveries(policy.service, Mode.KEDA, planned, asks_of([found], []), single=True)
    assert verdict is not None
    assert verdict.reason.value == "NoHPA"  # asked for: only the HPA is still to be made
    assert out[variant.name].metric == 3.0
    assert found["spec"]["minReplicaCount"] <= variant.min_replicas
    assert found["spec"]["maxReplicaCount"] >= variant.max_replicas
    assert variant.target_ref == TargetRef(
        TARGET.api_version, TARGET.kind, found["spec"]["scaleTargetRef"]["name"]
    )


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_the_hpa_neither_damps_nor_slows_what_the_policy_has_damped(path: Path) -> None:
    behavior = spec_of(path)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    for rules in (behavior["scaleUp"], behavior["scaleDown"]):
        assert rules["stabilizationWindowSeconds"] == 0
        assert rules["policies"] == [{"type": "Pods", "value": 1000, "periodSeconds": 15}]


def test_the_formula_names_its_triggers_and_counts_replicas() -> None:
    spec = spec_of(FOLDER / "scaledobject-max.yaml")
    modifiers = spec["advanced"]["scalingModifiers"]
    names = {t["name"] for t in spec["triggers"]}
    assert modifiers == {
        "formula": "max(foreserve, floor)",
        "target": "1",
        "metricType": "AverageValue",
    }
    assert names == {"foreserve", "floor"}


def test_the_secret_of_the_trigger_authentication_has_what_keda_reads() -> None:
    (found,) = documents(FOLDER / "triggerauthentication.yaml")
    assert found["kind"] == "TriggerAuthentication"
    said = {r["parameter"]: r["key"] for r in found["spec"]["secretTargetRef"]}
    assert said == {"caCert": "ca.crt", "tlsClientCert": "tls.crt", "tlsClientKey": "tls.key"}
    for path in FILES:  # the commented lines of the examples name it
        assert f"name: {found['metadata']['name']}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "path", [*FILES, FOLDER / "triggerauthentication.yaml"], ids=lambda p: p.name
)
def test_a_server_with_keda_accepts_it(path: Path) -> None:
    config, program = os.environ.get("KUBECONFIG_WITH_KEDA"), kubectl()
    if not config or program is None:
        pytest.skip("KUBECONFIG_WITH_KEDA is not set: no server that has KEDA's CRDs")
    command = [program, "--kubeconfig", config, "apply", "--dry-run=server", "--validate=strict"]
    answer = subprocess.run(
        [*command, "-f", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 0, answer.stderr

"""The CRDs come from the models: structural, bounded, described, and what manifests/crds holds."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaler.cli.crds import Kind, crd_yaml, crds
from autoscaler.policy.cel import RULES
from autoscaler.policy.crds import DEFINITIONS, crd_documents
from autoscaler.policy.errors import Place
from autoscaler.policy.parse import parse_document
from autoscaler.policy.schema import RESOURCES
from autoscaler.policy.status import ConditionReason, ConditionType

ROOT = Path(__file__).parents[2]
MAX_BYTES = 256 << 10  # what `kubectl apply` can keep in its annotation
Node = dict[str, Any]

BY_KIND = {d["spec"]["names"]["kind"]: d for d in crd_documents()}
KINDS = sorted(BY_KIND)


def schema(kind: str) -> Node:
    (version,) = BY_KIND[kind]["spec"]["versions"]
    node = version["schema"]["openAPIV3Schema"]
    assert isinstance(node, dict)
    return node


def walk(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Yield (path, schema) of every field below `node`, depth first."""
    for name, field in node.get("properties", {}).items():
        at = f"{path}.{name}".removeprefix(".")
        yield at, field
        yield from walk(field, at)
    if "items" in node:
        yield f"{path}[]", node["items"]
        yield from walk(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield f"{path}{{}}", node["additionalProperties"]


def fields(kind: str) -> dict[str, Node]:
    return dict(walk(schema(kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifests_are_what_the_models_say(kind: str) -> None:
    # to renew: foreserve crds --kind KIND > manifests/crds/PLURAL.yaml
    file = ROOT / "manifests" / "crds" / f"{BY_KIND[kind]['spec']['names']['plural']}.yaml"
    assert file.read_text(encoding="utf-8") == crd_yaml(BY_KIND[kind])
    assert len(json.dumps(BY_KIND[kind])) < MAX_BYTES
    listed = yaml.safe_load((file.parent / "kustomization.yaml").read_text(encoding="utf-8"))
    assert file.name in listed["resources"]


def printed(capsys: pytest.CaptureFixture[str], kind: Kind | None, as_json: bool) -> str:
    crds(kind, as_json)
    return capsys.readouterr().out


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(yaml.safe_load_all(printed(capsys, None, as_json=False))) == crd_documents()
    only = printed(capsys, Kind.SCALING_POLICY, as_json=False)
    assert yaml.safe_load(only) == BY_KIND["ScalingPolicy"]
    both = {"apiVersion": "v1", "kind": "List", "items": crd_documents()}
    assert json.loads(printed(capsys, None, as_json=True)) == both
    only = printed(capsys, Kind.ACCELERATOR_POOL, as_json=True)
    assert json.loads(only) == BY_KIND["AcceleratorPool"]


def test_it_is_a_command_with_an_example() -> None:
    command = [str(Path(sys.executable).with_name("foreserve")), "crds", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "foreserve crds | kubectl apply --server-side -f -" in shown


def test_every_kind_has_a_definition() -> None:
    assert set(DEFINITIONS) == set(RESOURCES) == {kind.value for kind in Kind}


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_is_structural(kind: str) -> None:
    forbidden = {"$ref", "anyOf", "oneOf", "allOf", "not", "title", "const"}
    for path, field in walk(schema(kind)):
        assert "type" in field, path
        assert field["type"] != "null", path
        assert not forbidden & set(field), path
        for key in ("exclusiveMinimum", "exclusiveMaximum"):  # OpenAPI 3.0: a flag, no number
            assert field.get(key, True) is True, path
        assert not ("properties" in field and "additionalProperties" in field), path
        if field["type"] == "array":
            assert field["x-kubernetes-list-type"] in ("map", "set", "atomic"), path
            assert "maxItems" in field, f"{path} has no bound: no rule may walk it"
        for key in field.get("x-kubernetes-list-map-keys", ()):
            assert key in field["items"]["required"], path


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_reads_as_sentences(kind: str) -> None:
    for path, field in walk(schema(kind)):
        if path == "metadata" or path.endswith(("[]", "{}")):
            continue
        text = field["description"]
        assert text.endswith("."), path
        assert ".." not in text, path
        assert text == " ".join(text.split()), path
        assert not text[0].islower() or text.split()[0].endswith(":") or path == "apiVersion", path


def test_what_explain_says() -> None:
    spec = fields("ScalingPolicy")
    assert spec["spec.slo"]["description"] == "What requests must meet."
    assert spec["spec.slo.attainment"]["description"] == (
        "Share of requests that must meet every objective. "
        "Allowed: a number above 0 and below 1. Default: 0.99."
    )
    assert spec["spec.slo.objectives"]["description"] == (
        "Each metric at most once; a request must meet all. Allowed: a list of 1 to 3 entries."
    )
    assert spec["spec.behavior.mode"]["description"].endswith("KEDA asks. Default: Recommend.")


def test_bounds_defaults_and_lists() -> None:
    spec = fields("ScalingPolicy")
    attainment = spec["spec.slo.attainment"]
    assert {k: attainment[k] for k in attainment if k != "description"} == {
        "type": "number",
        "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True,
        "default": 0.99,
    }  # fmt: skip
    assert spec["spec.slo.objectives"]["x-kubernetes-list-map-keys"] == ["metric"]
    assert spec["spec.variants"]["x-kubernetes-list-map-keys"] == ["name"]
    assert spec["spec.schedule"]["x-kubernetes-list-map-keys"] == ["name"]
    assert spec["spec.schedule[].days"]["x-kubernetes-list-type"] == "set"
    assert spec["status.conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    # the inner defaults fill an empty mapping in
    assert spec["spec.behavior"]["default"] == {}
    assert spec["spec.behavior.scaleDown"]["default"] == {}
    assert spec["spec.behavior.scaleDown.stabilizationWindowSeconds"]["default"] == 60
    # absent and empty lists mean the same: no noise in `kubectl get -o yaml`
    assert "default" not in spec["spec.schedule"]
    assert spec["spec.telemetry"]["x-kubernetes-preserve-unknown-fields"] is True
    pool = fields("AcceleratorPool")
    assert pool["spec.classes"]["x-kubernetes-list-map-keys"] == ["name"]
    assert pool["spec.classes[].quota.fromNodes"]["enum"] == [True]
    assert pool["spec.namespaceQuotas{}"] == {
        "type": "integer", "format": "int64", "minimum": 0,
        "description": "Allowed: an integer of at least 0.",
    }  # fmt: skip


def test_every_rule_stands_where_it_applies() -> None:
    found = [
        rule
        for kind in KINDS
        for _, field in walk(schema(kind))
        for rule in field.get("x-kubernetes-validations", ())
    ]
    written = [rule.manifest() for rules in RULES.values() for rule in rules]
    assert sorted(json.dumps(r) for r in found) == sorted(json.dumps(r) for r in written)
    for rule in found:  # a sentence that says what may be instead
        assert re.search(r"allowed: |required: ", rule["message"]), rule
        assert "\n" not in rule["message"]


def test_names_columns_and_subresources() -> None:
    policy, pool = BY_KIND["ScalingPolicy"]["spec"], BY_KIND["AcceleratorPool"]["spec"]
    assert (policy["names"]["shortNames"], policy["scope"]) == (["sp", "spol"], "Namespaced")
    assert (pool["names"]["shortNames"], pool["scope"]) == (["ap", "apool"], "Cluster")
    for spec in (policy, pool):
        assert spec["names"]["categories"] == ["foreserve"]
        (version,) = spec["versions"]
        assert version["subresources"] == {"status": {}}  # no scale: nobody scales a policy
        assert (version["name"], version["served"], version["storage"]) == ("v1alpha1", True, True)
    columns = policy["versions"][0]["additionalPrinterColumns"]
    assert [c["name"] for c in columns if not c.get("priority")] == [
        "Mode", "Ready", "Desired", "Serving", "Reason", "Budget Left", "Cost/h", "Age",
    ]  # fmt: skip
    assert [c["name"] for c in columns if c.get("priority")] == [
        "Model", "Forecast rps", "Lead Time", "Model Version",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_columns_point_at_fields(kind: str) -> None:
    known = fields(kind) | {"metadata.creationTimestamp": {"type": "string"}}
    for column in BY_KIND[kind]["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = re.sub(r"\[\?\(@\.type==\"(\w+)\"\)\]", "[]", column["jsonPath"]).removeprefix(".")
        if condition := re.search(r'@\.type=="(\w+)"', column["jsonPath"]):
            assert condition[1] in [c.value for c in ConditionType]
        types = {"date": "string"}.get(column["type"], column["type"])
        assert known[path]["type"] == types, column


def test_reasons_fit_the_standard_schema() -> None:
    pattern = fields("ScalingPolicy")["status.conditions[].reason"]["pattern"]
    assert all(re.search(pattern, reason.value) for reason in ConditionReason)


def test_a_status_is_ignored_where_policies_are_read() -> None:
    document = {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": "AcceleratorPool",
        "metadata": {"name": "a", "generation": 3, "managedFields": []},
        "spec": {"classes": [{"name": "a", "usdPerHour": 1.0}]},
        "status": {"conditions": []},
    }
    assert not isinstance(parse_document(Place("x", 1), document), list)


def test_the_docs_know_every_reason_and_no_other() -> None:
    page = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    table = page[page.index("| condition | True |") :].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", table)) - {kind.value for kind in ConditionType}
    assert named == {reason.value for reason in ConditionReason}

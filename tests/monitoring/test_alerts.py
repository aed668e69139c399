"""Alerts: PromQL that parses, metrics that exist, a runbook entry each; each fires and keeps quiet."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifest_files import MANIFESTS, ROOT, documents

from autoscaler.edge.clock import Clock
from autoscaler.edge.keda.metrics import ScalerMetrics
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.metrics import OperatorMetrics

Json = dict[str, Any]
WALKS = Path(__file__).with_name("alert_walks.yaml")
with_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool on PATH (Debian: apt install prometheus)"
)


def spec() -> Json:
    (rules,) = documents(MANIFESTS / "monitoring" / "alerts.yaml")
    found: Json = rules["spec"]
    return found


def alerts() -> list[Json]:
    return [r for g in spec()["groups"] for r in g["rules"] if "alert" in r]


def promtool(*arguments: str) -> None:
    command = ["promtool", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_rules_ask_for_metrics_that_exist() -> None:
    operator = OperatorMetrics("1").registry
    scaler = ScalerMetrics("1", Plans(Clock())).registry
    exported = {
        name
        for family in (*operator.collect(), *scaler.collect())
        for name in (family.name, f"{family.name}_total", f"{family.name}_bucket")
    }
    exported |= {"foreserve_scaler_api_silence_seconds"}  # from the first contact on
    recorded = [r["record"] for g in spec()["groups"] for r in g["rules"] if "record" in r]
    for rule in (r for g in spec()["groups"] for r in g["rules"]):
        expression = rule["expr"]
        for name in recorded:
            expression = expression.replace(name, "")
        used = set(re.findall(r"foreserve_\w+", expression))
        assert used or expression != rule["expr"]
        assert used <= exported


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    entries = re.findall(r"^### (Foreserve\w+)$", text, re.M)
    assert sorted(entries) == sorted(a["alert"] for a in alerts())
    for alert in alerts():
        assert alert["annotations"]["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"


@with_promtool
def test_the_rules_are_promql(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec()))
    promtool("check", "rules", str(tmp_path / "rules.yaml"))


def test_each_alert_is_walked_both_ways() -> None:
    fires, quiet = set(), set()
    for test in yaml.safe_load(WALKS.read_text())["tests"]:
        for case in test["alert_rule_test"]:
            (fires if case["exp_alerts"] else quiet).add(case["alertname"])
    assert fires == quiet == {a["alert"] for a in alerts()}


@with_promtool
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    rules = spec()
    for rule in (r for g in rules["groups"] for r in g["rules"]):
        rule.pop("annotations", None)  # words are not what is tested
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    shutil.copy(WALKS, tmp_path)
    promtool("test", "rules", str(tmp_path / WALKS.name))


@with_promtool
def test_a_summary_reads_as_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(spec()))
    (tmp_path / "walk.yaml").write_text(SUMMARIES)
    promtool("test", "rules", str(tmp_path / "walk.yaml"))


SUMMARIES = """
rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
- interval: 1m
  input_series:
  - {series: 'foreserve_shortfall_ratio{service="prod/code"}', values: '0.25x40'}
  - {series: 'foreserve_decisions_total{service="prod/code",reason="quota"}', values: '0+4x40'}
  alert_rule_test:
  - eval_time: 30m
    alertname: ForeserveConstrainedByQuota
    exp_alerts:
    - exp_labels: {service: prod/code, severity: warning}
      exp_annotations:
        summary: "25% of what prod/code needs finds no accelerators, or no quota."
        runbook: docs/operations.md#foreserveconstrainedbyquota
"""

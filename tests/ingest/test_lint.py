"""`foreserve lint` against real servers, and its verdicts on what is wrong."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import samples
from foreserve_process import Done, run

from autoscaler.edge.lint import Facts, Finding, Status, judge, look, target_findings
from autoscaler.edge.prometheus_api import Access, PrometheusApi
from models.contract import Labels

NOW = float(samples.START + 3590)


def lint(url: str, *more: str) -> Done:
    return run("lint", "--url", url, *more)


def test_a_complete_server_passes(fleet_url: str, tmp_path: Path) -> None:
    out = tmp_path / "lint.json"
    done = lint(fleet_url, "--at", str(samples.START + 3590), "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert "vllm:time_to_first_token_seconds (vLLM V1)" in done.stdout
    findings = {f["quantity"]: f for f in json.loads(out.read_text())["findings"]}
    assert {n for n, f in findings.items() if f["status"] != "ok"} == {"rejections"}
    assert findings["running"]["series"] == 4 + 1  # chat-0 twice, mail, mail-l4, idle
    assert findings["running"]["age_seconds"] == 5


def test_an_empty_server_fails_and_names_what_is_missing(fleet_url: str) -> None:
    done = lint(fleet_url, "--at", str(samples.START - 86_400))
    assert done.returncode == 1
    assert "required and not usable: completions, running" in done.stderr
    assert "a PodMonitor" in " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def facts(fleet_url: str) -> Facts:
    with PrometheusApi(Access(fleet_url)) as api:
        return look(api, Labels(), NOW)


def verdict(facts: Facts, quantity: str, labels: Labels | None = None, at: float = NOW) -> Finding:
    return next(f for f in judge(facts, labels or Labels(), at) if f.quantity == quantity)


def test_a_label_that_is_missing(fleet_url: str) -> None:
    labels = Labels(service="app")
    with PrometheusApi(Access(fleet_url)) as api:
        finding = verdict(look(api, labels, NOW), "running", labels)
    assert finding.status is Status.LABELS
    assert "no label 'app'" in finding.detail
    assert finding.fails


def test_stale_series(facts: Facts) -> None:
    finding = verdict(facts, "running", at=NOW + 100)
    assert finding.status is Status.STALE
    assert finding.detail == "newest sample 105 s old; fresh is up to 60 s"


def test_milliseconds_are_found_implausible(facts: Facts) -> None:
    finding = verdict(replace(facts, values={"ttft": 870.0}), "ttft")
    assert finding.status is Status.IMPLAUSIBLE
    assert "milliseconds" in finding.detail
    assert (
        verdict(replace(facts, values={"kv_usage": 25.0}), "kv_usage").status is Status.IMPLAUSIBLE
    )
    assert (
        verdict(replace(facts, values={"ttft": math.nan}), "ttft").status is Status.OK
    )  # no traffic


def test_an_old_alias_is_usable_with_its_difference_told(facts: Facts) -> None:
    def renamed(names: dict[str, float]) -> dict[str, float]:
        return {n.replace("vllm:request_time_per", "vllm:time_per"): x for n, x in names.items()}

    labelled = {label: renamed(dict(names)) for label, names in facts.labelled.items()}
    old = replace(
        facts,
        counts=renamed(dict(facts.counts)),
        newest=renamed(dict(facts.newest)),
        labelled=labelled,
    )
    finding = verdict(old, "tpot")
    assert finding.status is Status.CAVEAT
    assert "per token" in finding.detail
    assert not finding.fails


def test_targets_between_buckets_are_told(facts: Facts) -> None:
    found = target_findings(facts, [("prod/chat", 0.5, 0.3)])
    assert [(service, what, target) for service, what, target, _ in found] == [
        ("prod/chat", "tpot", 0.3)
    ]
    assert "0.25 s and 0.5 s" in found[0][3]

"""What a variation changes, and nothing else; what it cannot change is one sentence."""

from pathlib import Path
from typing import Any

import pytest

from autoscaler.edge.policy_files import load_policies
from autoscaler.whatif.changes import changed_policies, changed_scenario
from autoscaler.whatif.observed import startup_of
from autoscaler.whatif.scenario import Change, Scenario, ScenarioError, load_scenario

POLICIES = """
apiVersion: foreserve.dev/v1alpha1
kind: AcceleratorPool
metadata: {name: gpus}
spec:
  classes:
    - {name: old, resourceName: nvidia.com/gpu, usdPerHour: 4.0, quota: {count: 10}}
    - {name: new, resourceName: nvidia.com/gpu, usdPerHour: 6.0, quota: {count: 6}}
    - {name: spot, resourceName: nvidia.com/gpu, usdPerHour: 2.0, capacityType: Spot}
---
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: code, namespace: prod}
spec:
  model: m
  slo:
    objectives: [{metric: ttft, targetSeconds: 1.0}]
    attainment: 0.95
  variants:
    - name: main
      acceleratorClass: old
      acceleratorsPerReplica: 2
      targetRef: {apiVersion: apps/v1, kind: Deployment, name: code}
      minReplicas: 1
      maxReplicas: 12
"""
SCENARIO = """
name: a day
trace: bundled:azure2024-code
profile: llama2-70b-h100-80gb-tp4
policies: policies.yaml
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    return load_scenario(tmp_path / "scenario.yaml")


def changed(scenario: Scenario, **change: Any) -> Any:
    policies = load_policies([scenario.policies])
    return changed_policies(policies, Change.model_validate(change), scenario)


def classes(policies: Any) -> dict[str, Any]:
    return {c.name: c for pool in policies.pools for c in pool.classes}


def test_nothing_changes_by_itself(scenario: Scenario) -> None:
    assert changed(scenario, name="same") == load_policies([scenario.policies])


def test_slo_attainment_and_budget(scenario: Scenario) -> None:
    got = changed(
        scenario, ttftSeconds=2.0, tpotSeconds=0.1, attainment=0.9, budgetUsdPerHour=50
    ).services["prod/code"]
    assert (got.targets.ttft_seconds, got.targets.tpot_seconds) == (2.0, 0.1)
    assert (got.attainment, got.budget_usd_per_hour) == (0.9, 50.0)


def test_moving_to_another_class_takes_the_quota_along(scenario: Scenario) -> None:
    got = changed(scenario, accelerators={"old": "new"})
    assert got.services["prod/code"].variants[0].accelerator_class == "new"
    assert classes(got)["new"].quota_count == 16
    limited = changed(scenario, accelerators={"old": "new"}, quota={"new": 4})
    assert classes(limited)["new"].quota_count == 4


def test_a_share_of_spot_is_cheaper_where_capacity_was_on_demand(scenario: Scenario) -> None:
    got = classes(changed(scenario, spotShare=0.5))
    assert got["old"].usd_per_hour == pytest.approx(4.0 * (0.5 + 0.5 * 0.4))
    assert got["old"].interruptions_per_hour == pytest.approx(
        0.5 * 0.2
    )  # a mixture, in plans as well
    assert (got["spot"].usd_per_hour, got["spot"].interruptions_per_hour) == (2.0, 0.2)


@pytest.mark.parametrize(
    "change", [{"accelerators": {"old": "b200"}}, {"quota": {"b200": 1}}, {"prices": {"b200": 1}}]
)
def test_a_gpu_without_a_price_is_one_sentence(scenario: Scenario, change: Any) -> None:
    with pytest.raises(ScenarioError, match="no accelerator class 'b200' in the policies"):
        changed(scenario, **change)


def test_other_start_ups_are_the_scenarios(scenario: Scenario) -> None:
    other = changed_scenario(scenario, Change(startup_seconds=40.0))
    assert startup_of(other, "prod/code", "main").median_seconds == 40.0  # type: ignore[union-attr]
    assert Change(startup_seconds=40.0).learns_anew
    assert not Change(attainment=0.9).learns_anew


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("axes: {ttftSeconds: [1, 2]}", ["ttftSeconds 1", "ttftSeconds 2"]),
        (
            "axes: {ttftSeconds: [1], trafficFactor: [2, 3]}\ncombine: true",
            ["ttftSeconds 1, trafficFactor 2", "ttftSeconds 1, trafficFactor 3"],
        ),
        (
            "axes: {accelerators: [{old: new}]}\nvariations: [{name: half, spotShare: 0.5}]",
            ["half", "accelerators old → new"],
        ),
    ],
)
def test_axes_make_variations(tmp_path: Path, text: str, labels: list[str]) -> None:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    (tmp_path / "s.yaml").write_text(SCENARIO + text)
    assert [c.label for c in load_scenario(tmp_path / "s.yaml").changes] == labels


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("axes: {ttft: [1]}", "no axis 'ttft'; allowed: ttftSeconds, tpotSeconds"),
        ("axes: {ttftSeconds: [-1]}", "ttftSeconds: -1: Input should be greater than 0"),
        ("axes: {ttftSeconds: []}", "axes.ttftSeconds"),
        ("variations: [{speed: 3}]", "variations.0.speed: is not a field"),
        ("variations: [{}]", "changes nothing, or is there twice"),
        ("axes: {ttftSeconds: [1, 1]}", "'ttftSeconds 1' changes nothing, or is there twice"),
        ("spot: {priceRatio: 2}", "spot.priceRatio: 2: Input should be less than or equal to 1"),
        ("seeds: 0", "seeds: 0: Input should be greater than or equal to 1"),
    ],
)
def test_a_mistake_in_a_sweep_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "policies.yaml").write_text(POLICIES)
    (tmp_path / "s.yaml").write_text(SCENARIO + text)
    with pytest.raises(ScenarioError) as error:
        load_scenario(tmp_path / "s.yaml")
    assert sentence in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "s.yaml"))

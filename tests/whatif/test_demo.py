from importlib import resources
from pathlib import Path

import pytest

from autoscaler.edge.policy_files import load_policies
from autoscaler.whatif import demo
from autoscaler.whatif.arrivals import BUNDLE
from autoscaler.whatif.results import Comparison
from autoscaler.whatif.scenario import Scenario, load_scenario


def no_training(telemetry: Path, models: Path) -> None:
    raise AssertionError(f"the comparison is replaced in this test: {telemetry}, {models}")


def test_the_demo_is_a_scenario_that_a_user_can_run_again(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Scenario] = []

    def instead(scenario: Scenario, **_: object) -> Comparison:
        given.append(scenario)
        return comparison

    monkeypatch.setattr(demo, "compare", instead)
    got = demo.run_demo(tmp_path / "demo", train=no_training, progress=lambda *_: None)
    assert got is comparison
    assert load_scenario(tmp_path / "demo" / "scenario.yaml") == given[0]
    policy = load_policies([given[0].policies]).services["prod/code"]
    assert policy.attainment == 0.99
    assert policy.targets.ttft_seconds == 2.5
    assert policy.variants[0].accelerators_per_replica == 4
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "CC-BY-4.0" in page
    assert (tmp_path / "demo" / "report.json").exists()


def test_the_notice_names_every_bundled_table() -> None:
    folder = resources.files("autoscaler.whatif") / "bundle"
    names = [item.name for item in folder.iterdir() if item.name != "DATA_NOTICE.md"]
    notice = (folder / "DATA_NOTICE.md").read_text(encoding="utf-8")
    assert set(BUNDLE.values()) <= set(names)
    for name in names:
        assert f"`{name}`" in notice

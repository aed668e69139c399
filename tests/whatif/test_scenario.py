from pathlib import Path

import pytest

from autoscaler.whatif.scenario import Scenario, ScenarioError, load_scenario

GOOD = """
name: a day
trace: bundled:azure2024-code
profile: llama2-70b-h100-80gb-tp4
policies: policies.yaml
prices: {h100-80gb: 6.88}
startup: {medianSeconds: 150, sigma: 0.3}
judgedHours: 12
autoscalers:
  - foreserve
  - {name: hpa, setting: 4}
  - {name: static, setting: best}
"""


def write(folder: Path, text: str) -> Path:
    (folder / "policies.yaml").write_text("---\n")
    path = folder / "scenario.yaml"
    path.write_text(text)
    return path


def load(folder: Path, text: str) -> Scenario:
    return load_scenario(write(folder, text))


def test_a_good_scenario_is_read_with_its_defaults(tmp_path: Path) -> None:
    scenario = load(tmp_path, GOOD)
    assert scenario.judged_hours == 12.0
    assert scenario.tick_seconds == 15.0  # default
    assert [(a.name, a.setting) for a in scenario.autoscalers] == [
        ("foreserve", "best"),
        ("hpa", 4.0),
        ("static", "best"),
    ]
    assert scenario.policies == tmp_path / "policies.yaml"  # relative to the scenario's folder
    assert scenario.trace == "bundled:azure2024-code"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("judgedHours: 12", "judgedHours: -1"), "judgedHours: -1: Input should be greater than 0"),
        (("judgedHours", "judgedHour"), "judgedHour: is not a field; allowed: name, telemetry, "),
        (("name: a day", ""), "name: is required"),
        (("name: hpa", "name: vpa"), "autoscalers.1.name: 'vpa': Input should be 'foreserve'"),
        (("profile: llama2-70b-h100-80gb-tp4", ""), "name a profile too"),
        (("trace: bundled:azure2024-code", ""), "give either telemetry or trace"),
        (("trace: bundled:azure2024-code", "trace: no.csv"), "trace: "),
        (("policies: policies.yaml", "policies: no.yaml"), "no such file or folder"),
        (("setting: 4", "setting: much"), "autoscalers.1.setting"),
        (("- foreserve", "- {name: foreserve, setting: 3}"), "foreserve has no setting here"),
        (("- foreserve", "- hpa"), "names one of them twice"),
        (("judgedHours: 12", "judgedHours: 0.1"), "warmUpSeconds must be shorter"),
        (("sigma: 0.3", "sigma: .nan"), "startup"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_field(
    tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    with pytest.raises(ScenarioError) as error:
        load(tmp_path, GOOD.replace(*change))
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'scenario.yaml'}: ")
    assert sentence in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [1\n"])
def test_what_is_not_a_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ScenarioError, match=r"scenario\.yaml: "):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read: No such file"):
        load_scenario(tmp_path / "none.yaml")

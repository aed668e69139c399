"""docs/policies.md is what the models say, and its example is one that they accept."""

import re
from pathlib import Path

import pytest

from autoscaler.policy import parse_policies
from autoscaler.policy.reference import reference_table

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["ScalingPolicy", "AcceleratorPool"])
def test_the_tables_are_the_models(kind: str) -> None:
    # to renew: print(autoscaler.policy.reference.reference_table(kind)) below the marker
    assert f"<!-- table: {kind} -->\n\n{reference_table(kind)}\n" in PAGE


def test_every_field_says_what_it_means() -> None:
    for kind in ("ScalingPolicy", "AcceleratorPool"):
        for row in reference_table(kind).splitlines()[2:]:
            _, path, allowed, default, meaning, _ = row.split("|")
            assert path.strip()
            assert allowed.strip()
            assert default.strip()
            assert meaning.strip(), path


def test_the_example_is_accepted() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    policies = parse_policies([("docs", example)])
    assert list(policies.services) == ["prod/chat"]
    assert [w.name for w in policies.services["prod/chat"].schedule] == ["office-hours", "launch"]
    assert [c.name for pool in policies.pools for c in pool.classes] == ["h100-80gb", "l40s"]


def test_the_example_of_an_error_is_what_is_printed() -> None:
    assert "spec.slo.attainment: 1.5 is not allowed; allowed: a number above 0 and below 1" in PAGE

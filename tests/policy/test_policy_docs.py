"""The reference is what the models say, and the example of docs/policies.md is one that they accept."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from autoscaler.cli import app
from autoscaler.policy import parse_policies
from autoscaler.policy.crds import crd_documents
from autoscaler.policy.reference import reference_page, reference_table

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "policies.md").read_text(encoding="utf-8")
KINDS = ("ScalingPolicy", "AcceleratorPool")


def test_the_reference_is_what_the_command_writes() -> None:
    written = CliRunner().invoke(app, ["crds", "--reference"]).stdout
    assert (DOCS / "crd-reference.md").read_text(encoding="utf-8") == written


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_every_field_rule_and_column_that_the_cluster_has(kind: str) -> None:
    (document,) = [d for d in crd_documents() if d["spec"]["names"]["kind"] == kind]
    (version,) = document["spec"]["versions"]
    page = reference_page()
    for path, node in walk("", version["schema"]["openAPIV3Schema"]):
        if path.startswith(("spec.", "status.")) and not path.endswith("[]"):
            assert f"| `{path}` |" in page
        for rule in node.get("x-kubernetes-validations", ()):
            assert f"| `{path}` | {rule['message']} |\n" in page
    for column in version["additionalPrinterColumns"]:
        assert re.search(rf"^\| {re.escape(column['name'])}( \(wide\))? \|", page, re.M)


def walk(path: str, node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from walk(f"{path}.{name}" if path else name, inner)
    if "items" in node:
        yield from walk(f"{path}[]", node["items"])


def test_every_field_says_what_it_means() -> None:
    for kind in KINDS:
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

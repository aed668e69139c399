"""The optional manifest says what the contract says, and Prometheus accepts it."""

import subprocess
from pathlib import Path

import servers
import yaml

from models.contract import Labels
from models.contract_queries import serving_queries

MANIFEST = Path(__file__).parents[2] / "manifests" / "recording-rules.yaml"


def test_the_manifest_is_the_contract() -> None:
    (group,) = yaml.safe_load(MANIFEST.read_text())["spec"]["groups"]
    rules = {rule["record"]: rule["expr"] for rule in group["rules"]}
    expected = serving_queries(Labels(), 75.0, 15.0)
    assert rules == {f"foreserve:{name}": query for name, query in expected.items()}


def test_prometheus_accepts_it(tmp_path: Path) -> None:
    servers.needs("promtool")
    plain = tmp_path / "rules.yaml"
    plain.write_text(yaml.safe_dump(yaml.safe_load(MANIFEST.read_text())["spec"]))
    done = subprocess.run(
        [*("promtool", "check", "rules"), str(plain)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "18 rules found" in done.stdout

"""`foreserve run` before it runs: its options, and no cluster to run in."""

import os
from importlib import import_module
from pathlib import Path

import pytest
from foreserve_process import run
from typer.testing import CliRunner

from autoscaler.cli import app, wiring


@pytest.mark.parametrize("given", [True, False])
def test_starts_are_kept_only_where_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, given: bool
) -> None:
    places: list[wiring.Place] = []
    monkeypatch.setattr(wiring, "serve", lambda place, *_, **__: places.append(place))
    # by name: the package has a function `run`, too
    monkeypatch.setattr(import_module("autoscaler.cli.run"), "log_as", lambda *_: None)
    words = ["run", "--models", str(tmp_path), "--otlp-store", str(tmp_path)]
    words += ["--starts", str(tmp_path / "telemetry")] if given else []
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert places[0].starts == (tmp_path / "telemetry" if given else None)
    assert (wiring._keep_in(places[0].starts) is not None) == given


def test_without_a_cluster_it_says_so_in_one_line(tmp_path: Path) -> None:
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "HOME"))}
    asked = ["run", "--models", str(tmp_path), "--prometheus", "http://127.0.0.1:1"]
    result = run(
        *(*asked, "--kubeconfig", tmp_path / "none"), env=outside | {"HOME": str(tmp_path)}
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert "--kubeconfig" in last
    assert "no way to the API server" in last

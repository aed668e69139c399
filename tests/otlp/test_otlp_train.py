"""Without a Prometheus: what was received trains models, seeds the controller and makes it decide."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
from otlp_builders import T0
from typer.testing import CliRunner

from autoscaler.cli import app
from autoscaler.cli.telemetry import telemetry_folder
from autoscaler.core.types import Policies
from autoscaler.edge.artifacts import load_models
from autoscaler.edge.kube.starts import Start
from autoscaler.edge.otlp_reader import OtlpReader, read_load_history
from autoscaler.edge.otlp_store import OtlpStore
from autoscaler.edge.policy_files import load_policies
from autoscaler.edge.starts_file import StartsFile
from autoscaler.loop import Controller
from models.otlp_cells import Amount, Cell
from models.otlp_fold import Fold
from models.otlp_identity import Identity
from training.telemetry import read_telemetry

HOURS = 18
END = T0 + 3600 * HOURS
POLICY = """
apiVersion: foreserve.dev/v1alpha1
kind: AcceleratorPool
metadata: {name: gpus}
spec:
  classes:
    - {name: h100, usdPerHour: 4.0, quota: {count: 32}}
---
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: chat, namespace: prod}
spec:
  model: chat
  slo:
    objectives:
      - {metric: ttft, targetSeconds: 1.0}
      - {metric: tpot, targetSeconds: 0.1}
  variants:
    - name: h100
      acceleratorClass: h100
      targetRef: {apiVersion: apps/v1, kind: Deployment, name: chat}
      maxReplicas: 20
"""


def busy(begin: float) -> Cell:
    """One pod in one bin of 30 s of a load that goes up and down within two hours."""
    seen = (begin, begin + 30.0)
    requests = 60.0 + 30.0 * math.sin(2 * math.pi * (begin - T0) / 7200.0)
    return {
        "success": Amount(*seen, requests),
        "running": Amount(*seen, 30.0 * requests / 10.0, 30.0),
        "waiting": Amount(*seen, 0.0, 30.0),
        "input_length": Amount(*seen, 500.0 * requests, requests),
        "output_length": Amount(*seen, 100.0 * requests, requests),
        "ttft": Amount(*seen, 0.2 * requests, requests, 0.0, {(0.1, 0.25): requests}),
        "tpot": Amount(*seen, 0.02 * requests, requests, 0.0, {(0.01, 0.025): requests}),
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    fold = Fold(bin_seconds=30)
    with OtlpStore(folder, bin_seconds=30) as opened:
        for number in range(T0 // 30, END // 30):
            fold.sources = {
                tuple(
                    sorted(
                        {
                            "k8s.namespace.name": "prod",
                            "service.name": "chat",
                            "variant": "h100",
                            "k8s.pod.name": pod,
                        }.items()
                    )
                ): i
                for i, pod in enumerate(("a", "b"), 1)
            }
            for source in fold.sources.values():
                fold.cells[number, source] = busy(number * 30.0)
            if number % 20 == 19:
                opened.flush(fold)
    return folder


def run(*words: "str | Path") -> None:
    result = CliRunner().invoke(app, [str(w) for w in words])
    if result.exception is not None:
        raise result.exception


def test_train_reads_a_store_as_it_reads_its_folder(store: Path, tmp_path: Path) -> None:
    run("ingest", "otlp-store", "--store", store, "--out", tmp_path / "telemetry")
    for source, name in ((tmp_path / "telemetry", "folder"), (store, "store")):
        run(
            *("train", "--telemetry", source, "--models", tmp_path / name),
            *("--json", tmp_path / f"{name}.json"),
        )
    summaries = [json.loads((tmp_path / f"{n}.json").read_text()) for n in ("folder", "store")]
    assert summaries[0] == summaries[1]
    assert summaries[0]["missing_files"] == ["startups.parquet"]

    policies = tmp_path / "policies.yaml"
    policies.write_text(POLICY)
    decided(store, tmp_path / "store", load_policies([policies]))


def test_starts_that_the_operator_watched_are_in_the_store_s_telemetry(
    store: Path, tmp_path: Path
) -> None:
    beside = tmp_path / "store"
    shutil.copytree(store, beside)
    seen = Start("prod/chat", "h100", "a", T0, T0 + 2.0, T0 + 9.0, T0 + 90.0, math.nan)
    assert StartsFile(beside).keep([seen])
    with telemetry_folder(beside, Identity()) as folder:
        read = read_telemetry(folder)
    assert list((read.startups.ready_ts - read.startups.created_ts).dt.total_seconds()) == [90.0]
    assert read.missing == ()


def decided(store: Path, models: Path, policies: Policies) -> None:
    """The controller of a live cluster, on what the store holds."""
    serving = load_models(models)
    assert serving.load is not None
    history = read_load_history(
        store,
        Identity(),
        policies,
        step_seconds=serving.load.step_seconds,
        keep_steps=serving.load.history_steps,
        now_seconds=END + 65.0,
    )
    assert history is not None
    assert history.values.shape == (1, 60 * HOURS, 3)
    controller = Controller(policies, serving, history)
    with OtlpReader(store, Identity()) as reader:
        reading = reader.read(policies, END + 5.0)
    assert reading.failed == {}
    assert reading.partial == {}
    step = controller.step(reading.observation)
    seen = step.observation.services["prod/chat"]
    assert seen.arrival_rate_rps == pytest.approx(4.0, rel=0.15)  # 2 x 60 in 30 s, as it crosses
    assert seen.variants["h100"].ready == 2
    assert seen.variants["h100"].ttft_within_slo_ratio == 1.0
    assert "prod/chat" in step.forecasts.outlooks


def test_backtest_reads_a_store(store: Path, tmp_path: Path) -> None:
    run("ingest", "otlp-store", "--store", store, "--out", tmp_path / "telemetry")
    cutoffs = pd.DataFrame(
        {"service": ["prod/chat"], "cutoff": [pd.Timestamp(END - 7200, unit="s", tz="UTC")]}
    )
    cutoffs.to_parquet(tmp_path / "cutoffs.parquet")
    for source, name in ((tmp_path / "telemetry" / "load.parquet", "a"), (store, "b")):
        run(
            *("backtest", "--load", source, "--cutoffs", tmp_path / "cutoffs.parquet"),
            *("--horizon-steps", "6", "--out", tmp_path / name),
        )
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / name) for name in "ab"))

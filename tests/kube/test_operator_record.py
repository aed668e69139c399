"""What the operator logs, `replay` decides again: whatever was edited, restored or learned meanwhile."""

import gzip
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))

from apidouble import ApiDouble
from builders import latency_model
from crd_setup import install
from operating import OWN_NAMESPACE, Always, Rig, Script, Time, Workloads, deployment, policy

from autoscaler.cli.replay import replay as replay_command
from autoscaler.core.types import Policies
from autoscaler.edge.artifacts import ServingModels, nothing_learned
from autoscaler.edge.decision_changes import KINDS
from autoscaler.edge.decision_folder import DecisionFolder, files_of
from autoscaler.edge.decision_log import LogError, read_log
from autoscaler.replay import replay
from models.lead_time import LeadTimeModel
from models.quantiles import QUANTILES, LoadForecast

NAMESPACE = "llm"
LIMIT_BYTES = 64 << 20
POOL = {
    "apiVersion": "foreserve.dev/v1alpha1",
    "kind": "AcceleratorPool",
    "metadata": {"name": "fleet"},
    "spec": {
        "classes": [
            {
                "name": "any",
                "resourceName": "nvidia.com/gpu",
                "usdPerHour": 2.5,
                "quota": {"count": 12},
            }
        ]
    },
}


@dataclass
class AsNow:
    """A load model that expects in an hour half as much again as in the last step."""

    step_seconds: float = 60.0
    history_steps: int = 30
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)

    leads_steps: Any = field(default_factory=lambda: np.array([1, 5, 30, 60]))

    def scaled(self, services: Any, values: Any, _start: float, at: Any) -> tuple[Any, Any]:
        """Return the scale, which is one, and quantiles."""
        del services
        last = np.nan_to_num(values[at[0], at[1]], nan=60.0)
        growth = 1.0 + self.leads_steps / 120.0
        spread = np.linspace(0.8, 1.2, len(QUANTILES))
        return self, last[:, None, None] * growth[None, :, None] * spread[None, None, :]

    def span(self) -> "AsNow":
        return self

    def expand(self, quantiles: Any) -> Any:
        return quantiles

    def wrap(self, services: Sequence[str], cutoff_seconds: float, values: Any) -> LoadForecast:
        who = tuple(services)
        rules = ("fake",) * len(who)
        return LoadForecast(who, cutoff_seconds, self.step_seconds, self.leads_steps, values, rules)


def learned() -> ServingModels:
    return ServingModels(
        "g-fake", AsNow(), latency_model(("llm/chat", "default")), LeadTimeModel({})
    )  # type: ignore[arg-type]


@pytest.fixture
def world(double: ApiDouble) -> Workloads:
    install(double)
    for name in (OWN_NAMESPACE, NAMESPACE):
        double.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    world = Workloads(double, NAMESPACE)
    for name in ("chat", "code"):
        world.put(deployment(NAMESPACE, name, 2), policy(NAMESPACE, name))
        world.run_pods(name)
    return world


def load(chat: float, code: float) -> Script:
    return Script({f"{NAMESPACE}/chat": chat, f"{NAMESPACE}/code": code})


def an_eventful_hour(double: ApiDouble, world: Workloads, folder: Path) -> int:
    """Let everything happen that enters a decision; return how many turns were led."""
    time, script = Time(), load(3.0, 1.0)
    log = DecisionFolder(folder, "first", LIMIT_BYTES)
    lease = Always()
    rig = Rig(double, script, time, lease, models=learned(), decision_log=log)
    rig.turn(4)
    script.running[f"{NAMESPACE}/chat"] = 40.0
    rig.turn(3)
    world.run_pods("chat", ready_after_seconds=45.0)  # starts are learned
    rig.turn(2)
    world.edit(
        "chat", {"spec": {"slo": {"objectives": [{"metric": "ttft", "targetSeconds": 2.5}]}}}
    )
    world.put(POOL)  # and a limit
    rig.turn(2)
    world.edit("code", {"metadata": {"annotations": {"foreserve.dev/paused": "true"}}})
    rig.turn(2)
    world.edit("code", {"metadata": {"annotations": {"foreserve.dev/paused": None}}})
    rig.turn(2)
    lease.held = False  # another one leads for a while
    rig.turn(2)
    lease.held, lease.tenure = True, "second"
    world.scale("code", 5)
    rig.turn(2)
    del script.running[f"{NAMESPACE}/code"]  # silent
    rig.turn(2)
    world.ask("DELETE", f"/apis/foreserve.dev/v1alpha1/namespaces/{NAMESPACE}/scalingpolicies/code")
    rig.turn(1)
    log.close()
    again = DecisionFolder(folder, "second", LIMIT_BYTES)  # a restart: the checkpoint is restored
    rig = Rig(double, script, time, models=learned(), decision_log=again)
    rig.turn(3)
    again.close()
    return 20 + 3


def test_an_eventful_hour_is_decided_again_byte_for_byte(
    double: ApiDouble, world: Workloads, tmp_path: Path
) -> None:
    led = an_eventful_hour(double, world, tmp_path)
    files = files_of(tmp_path)
    assert [f.name.rpartition("-")[2] for f in files] == ["first.jsonl.gz", "second.jsonl.gz"]
    again = [
        replayed
        for file in files
        for replayed in replay(Policies({}, ()), learned(), read_log(file)[1])
    ]
    assert len(again) == led
    assert [r.entry.number for r in again if not r.agrees] == []
    counts = {r.decisions.services[f"{NAMESPACE}/chat"].variants["default"] for r in again}
    assert len(counts) > 2, counts  # something was decided


@pytest.mark.parametrize("kind", KINDS)
def test_without_any_kind_of_record_it_would_not(
    double: ApiDouble, world: Workloads, tmp_path: Path, kind: str
) -> None:
    an_eventful_hour(double, world, tmp_path)
    file = files_of(tmp_path)[0]
    lines = gzip.decompress(file.read_bytes()).decode().splitlines(keepends=True)
    first = next(n for n, text in enumerate(lines) if json.loads(text)["kind"] == "tick")
    kept = [t for n, t in enumerate(lines) if n < first or json.loads(t)["kind"] != kind]
    assert len(kept) < len(lines)
    plain = tmp_path / "plain.jsonl"  # which is read as well
    plain.write_text("".join(kept))
    agreed = [r.agrees for r in replay(Policies({}, ()), learned(), read_log(plain)[1])]
    assert agreed[0]
    assert not all(agreed)


@pytest.mark.usefixtures("world")
def test_a_restart_keeps_the_calibration_of_the_same_models(double: ApiDouble) -> None:
    time, script = Time(), load(3.0, 1.0)
    first = Rig(double, script, time, models=learned())
    first.turn(12, 15.0)  # whole steps: less than half of one measured is a gap
    script.running = {f"{NAMESPACE}/chat": 30.0, f"{NAMESPACE}/code": 0.1}  # nobody foresaw it
    first.turn(12, 15.0)
    kept = first.controller.calibration()
    assert any(np.abs(shift).max() > 0.01 for shift in kept.values())
    first.memory.write(first.controller, now=True)
    second = Rig(double, script, time, models=learned())
    second.turn(1)
    found = second.controller.calibration()
    assert found.keys() == kept.keys()
    for name, shift in kept.items():  # within a step: the turn has learned from one more, or none
        assert np.abs(found[name] - shift).max() <= 0.03
        assert np.abs(found[name]).max() > 0.01
    others = replace(learned(), generation="g-other")
    third = Rig(double, script, time, models=others)
    third.turn(1)
    assert all(not shift.any() for shift in third.controller.calibration().values())


@pytest.mark.usefixtures("world")
def test_the_command_replays_a_folder_and_shows_a_moment(
    double: ApiDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, time = tmp_path / "log", Time()
    log = DecisionFolder(folder, "pod_1", LIMIT_BYTES)
    rig = Rig(double, load(16.0, 40.0), time, decision_log=log)
    begun = time.seconds
    rig.turn(4, every_seconds=30.0)
    replay_command(folder, tmp_path, None)  # models "none": nothing is in the registry
    assert "4 decisions replayed, 0 differ" in capsys.readouterr().out
    replay_command(folder, tmp_path, str(begun + 40.0))
    shown = json.loads(capsys.readouterr().out)
    assert shown["now_seconds"] == pytest.approx(begun + 30.0)
    assert shown["services"][f"{NAMESPACE}/code"]["variants"]["default"]["replicas"] == 5  # 40 / 8
    file = files_of(folder)[0]
    log.close()
    damaged = gzip.decompress(file.read_bytes()).replace(b'"replicas":5', b'"replicas":4', 1)
    file.write_bytes(gzip.compress(damaged))
    with pytest.raises(typer.Exit):
        replay_command(folder, tmp_path, None)
    assert f"{file}: line" in capsys.readouterr().err


@pytest.mark.usefixtures("world")
def test_it_needs_the_models_that_decided(double: ApiDouble, tmp_path: Path) -> None:
    log = DecisionFolder(tmp_path / "log", "p", LIMIT_BYTES)
    Rig(double, load(3.0, 1.0), Time(), models=learned(), decision_log=log).turn(1)
    log.close()
    with pytest.raises(LogError, match=r"decided with models g-fake: .*no generation g-fake"):
        replay_command(tmp_path / "log", tmp_path, None)


@pytest.mark.usefixtures("world")
def test_a_new_generation_begins_a_file(double: ApiDouble, tmp_path: Path) -> None:
    log, time = DecisionFolder(tmp_path, "p", LIMIT_BYTES), Time()
    rig = Rig(double, load(3.0, 1.0), time, models=nothing_learned(), decision_log=log)
    rig.turn(2)
    rig.controller.declare(rig.controller.policies, learned())
    rig.turn(2)
    log.close()
    headers = [read_log(file)[0].generation for file in files_of(tmp_path)]
    assert headers == ["none", "g-fake"]
    for file, models in zip(files_of(tmp_path), (nothing_learned(), learned()), strict=True):
        assert [r.agrees for r in replay(Policies({}, ()), models, read_log(file)[1])] == [True] * 2


def test_a_folder_that_cannot_be_written_costs_no_decision(
    double: ApiDouble, world: Workloads, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    log = DecisionFolder(tmp_path / "log", "p", LIMIT_BYTES)
    rig = Rig(double, load(48.0, 8.0), Time(), decision_log=log)
    rig.turn(3)
    assert world.replicas("chat") == 6  # 48 / 8
    told = [r for r in caplog.records if "decision log" in r.getMessage()]
    assert len(told) == 1
    (tmp_path / "log").unlink()
    with caplog.at_level("INFO"):
        rig.turn(4)
    log.close()
    assert "decisions are logged again" in caplog.text
    assert sum(1 for _ in read_log(files_of(tmp_path / "log")[0])[1]) >= 2
    shown = rig.metrics.render()[0].decode()
    assert 'foreserve_writes_total{result="failed",what="decision-log"}' in shown

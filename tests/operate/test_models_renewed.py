"""New models are taken over once, damaged or vanished ones never: what is in use stays."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import policies, policy

from autoscaler.cli.wiring import _models_of
from autoscaler.edge.artifacts import ServingModels
from autoscaler.edge.clock import Clock
from autoscaler.edge.metrics import OperatorMetrics
from autoscaler.loop import Controller
from autoscaler.operate.process import MODELS_SECONDS, Backfill, Process
from models.artifact import CURRENT, ArtifactError
from models.latency import LatencyModel
from models.lead_time import LeadTimeModel


def models(generation: str) -> ServingModels:
    return ServingModels(
        generation, None, LatencyModel((), np.zeros((0, 0)), {}), LeadTimeModel({})
    )


class Renewing:
    """As much of a process as looks after models."""

    def __init__(self) -> None:
        self.seconds, self.loads, self.pointer = 0.0, 0, "a"
        self.found: ServingModels | str = models("g-1")
        self.controller = Controller(policies(policy()), models("g-1"))
        self.backfill = Backfill(lambda *_: None, Clock(lambda: 0.0, lambda: self.seconds))
        process: Any = Process.__new__(Process)
        process._clock = Clock(lambda: self.seconds, lambda: self.seconds)
        process._models, process._controller = self.current, self.controller
        process._learner, process._backfill = self, self.backfill
        process._metrics = OperatorMetrics("test")
        process._models_at, process._pointer, process._bad_models = -1e9, "", ""
        self.process = process

    def better(self, lead_time: LeadTimeModel) -> LeadTimeModel:
        return lead_time

    def current(self) -> tuple[str, Any]:
        return self.pointer, self.load

    def load(self) -> ServingModels:
        self.loads += 1
        if isinstance(self.found, str):
            raise ArtifactError(self.found)
        return self.found

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.process._renew_models()
            self.seconds += MODELS_SECONDS


def test_the_same_models_are_not_loaded_again_and_again() -> None:
    it = Renewing()
    it.turns(5)
    assert it.loads == 1  # to know which generation the pointer means
    assert not it.backfill._again


def test_a_new_generation_is_taken_over_with_its_history() -> None:
    it = Renewing()
    it.turns(1)
    it.pointer, it.found = "b", models("g-2")
    it.turns(3)
    assert it.loads == 2
    assert it.controller.models.generation == "g-2"
    assert it.backfill._again


def test_what_is_damaged_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    it = Renewing()
    it.turns(1)
    it.pointer, it.found = "b", "models/g-2: damaged"
    with caplog.at_level(logging.WARNING):
        it.turns(3)
    assert caplog.text.count("the models in use stay") == 1
    assert it.controller.models.generation == "g-1"
    it.found = models("g-2")  # was being written
    it.turns(1)
    assert it.controller.models.generation == "g-2"


def test_a_registry_that_cannot_be_read_takes_no_models_away(tmp_path: Path) -> None:
    it = Renewing()
    it.turns(1)
    it.process._models = _models_of(tmp_path)  # an empty folder: not mounted
    it.turns(2)
    assert it.controller.models.generation == "g-1"
    (tmp_path / CURRENT).write_text(json.dumps({"generation": "../.."}))
    it.turns(1)
    assert it.controller.models.generation == "g-1"

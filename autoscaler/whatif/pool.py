"""Runs in other processes: each worker holds the case, gets a setting, sends back what it measured."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Self

from autoscaler.edge.artifacts import load_models
from autoscaler.edge.history import read_history
from autoscaler.loop import Controller
from autoscaler.whatif.case import Case
from autoscaler.whatif.rivals import Setting, make_rival
from autoscaler.whatif.run import Driven, Foreserve, drive

MAX_WORKERS = 8  # a comparison has no more runs at a time
Train = Callable[[Path, Path], None]  # (telemetry folder, models folder); importable by name
_cases: dict[str, Case] = {}  # the case of this worker process, set once by _receive


class Pool:
    """Two or more processes with the same case. A context manager: leaving it ends them."""

    def __init__(self, case: Case, workers: int | None = None) -> None:
        """`workers`: None for one per core."""
        self._executor = ProcessPoolExecutor(
            max_workers=min(workers or os.cpu_count() or 1, MAX_WORKERS),
            # a fork would copy the threads' locks of numba and LightGBM
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_receive,
            initargs=(case,),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def rival(self, setting: Setting) -> "Future[Driven]":
        """Run a rival with a setting."""
        return self._executor.submit(_run_rival, setting)

    def foreserve(self, models: Path, history: Path | None) -> "Future[Driven]":
        """Run Foreserve with the models in a registry, seeded with a load history."""
        return self._executor.submit(_run_foreserve, models, history)

    def train(self, train: Train, telemetry: Path, models: Path) -> "Future[None]":
        """Train models from a telemetry folder."""
        return self._executor.submit(train, telemetry, models)


def foreserve_run(case: Case, models: Path, history: Path | None) -> Driven:
    """Drive a case with Foreserve's own controller."""
    serving = load_models(models)
    step = serving.load.step_seconds if serving.load is not None else None
    keep = serving.load.history_steps if serving.load is not None else 0
    past = None if history is None else read_history(history, set(case.services), step, keep)
    return drive(case, Foreserve(Controller(case.policies, serving, past)))


def _receive(case: Case) -> None:
    _cases["case"] = case


def _run_rival(setting: Setting) -> Driven:
    case = _cases["case"]
    return drive(case, make_rival(case, setting))


def _run_foreserve(models: Path, history: Path | None) -> Driven:
    return foreserve_run(_cases["case"], models, history)

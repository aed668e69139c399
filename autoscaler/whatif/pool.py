"""Runs in other processes: each is told a case and a setting, and sends back what it measured.

Requests lie in files that all workers map: fifty million arrivals are not copied to each of them.
"""

import gc
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from autoscaler.edge.artifacts import load_models
from autoscaler.edge.history import read_history
from autoscaler.loop import Controller
from autoscaler.sim.workload import Requests
from autoscaler.whatif.cache import digest
from autoscaler.whatif.case import Case
from autoscaler.whatif.rivals import Setting, make_rival
from autoscaler.whatif.run import Driven, Foreserve, drive
from autoscaler.whatif.turns import Turns

# Who goes first: Foreserve's run is by far the longest, and waits for the training.
TRAINING, FORESERVE, RIVAL = range(3)
MAX_WORKERS = 8  # a comparison has no more runs at a time
Train = Callable[[Path, Path], None]  # (telemetry folder, models folder); importable by name
ARRAYS = ("arrive_seconds", "input_tokens", "output_tokens")
NOBODY = Requests(np.empty(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Held:
    """A case whose requests are in files: small enough to be sent to a worker with every task."""

    key: str  # its digest
    case: Case  # without requests
    folder: Path


def hold(case: Case, folder: Path) -> Held:
    """Write the requests of a case below `folder`."""
    key = digest(case)
    target = folder / key
    target.mkdir(parents=True, exist_ok=True)
    for n, service in enumerate(case.services.values()):
        for name in ARRAYS:
            np.save(target / f"{n}-{name}.npy", getattr(service.requests, name))
    bare = {name: replace(s, requests=NOBODY) for name, s in case.services.items()}
    return Held(key, replace(case, services=bare), target)


def case_of(held: Held) -> Case:
    """Return the case with its requests."""
    services = {
        name: replace(service, requests=_requests(held.folder, n))
        for n, (name, service) in enumerate(held.case.services.items())
    }
    return replace(held.case, services=services)


@lru_cache(maxsize=16)
def _requests(folder: Path, n: int) -> Requests:
    arrays = [np.load(folder / f"{n}-{name}.npy", mmap_mode="r") for name in ARRAYS]
    return Requests(*(np.asarray(a) for a in arrays))


class Pool:
    """Worker processes. A context manager: leaving it ends them."""

    def __init__(self, workers: int | None = None) -> None:
        """`workers`: None for one per core."""
        count = min(workers or os.cpu_count() or 1, MAX_WORKERS)
        # a fork of this process would copy the threads' locks of numba and LightGBM; one of a server
        # that has only imported does not, and the imports take each worker two seconds otherwise
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        executor = ProcessPoolExecutor(max_workers=count, mp_context=context)
        self._turns = Turns(executor, count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._turns.close()

    def rival(self, held: Held, setting: Setting) -> "Future[Driven]":
        """Run a rival with a setting."""
        return self._turns.submit(RIVAL, _run_rival, held, setting)

    def foreserve(self, held: Held, models: Path, history: Path | None) -> "Future[Driven]":
        """Run Foreserve with the models in a registry, seeded with a load history."""
        return self._turns.submit(FORESERVE, _run_foreserve, held, models, history)

    def train(self, train: Train, telemetry: Path, models: Path) -> "Future[None]":
        """Train models from a telemetry folder."""
        return self._turns.submit(TRAINING, train, telemetry, models)


def foreserve_run(case: Case, models: Path, history: Path | None) -> Driven:
    """Drive a case with Foreserve's own controller."""
    serving = load_models(models)
    step = serving.load.step_seconds if serving.load is not None else None
    keep = serving.load.history_steps if serving.load is not None else 0
    past = None if history is None else read_history(history, set(case.services), step, keep)
    return drive(case, Foreserve(Controller(case.policies, serving, past)))


def _run_rival(held: Held, setting: Setting) -> Driven:
    case = _settled(held)
    return drive(case, make_rival(case, setting))


def _run_foreserve(held: Held, models: Path, history: Path | None) -> Driven:
    return foreserve_run(_settled(held), models, history)


def _settled(held: Held) -> Case:
    """Return the case; libraries, which stay anyway, are no longer searched for garbage: a tenth of a run."""
    gc.collect()
    gc.freeze()
    return case_of(held)

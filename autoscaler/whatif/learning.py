"""What Foreserve knows beforehand: the telemetry that precedes the judged hours, and models of it."""

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from autoscaler.whatif.arrivals import Arrivals
from autoscaler.whatif.cache import RunCache, code_digest, digest, file_digest
from autoscaler.whatif.case import Case
from autoscaler.whatif.history import FILES, cut_history, simulate_history, write_load
from autoscaler.whatif.pool import Held, Pool, Train
from autoscaler.whatif.scenario import Scenario
from models.progress import Progress

TRAINING, HISTORY = "training", "history"  # what the progress speaks of
COUNTS = ("requests", "input_tokens", "output_tokens")


@dataclass(slots=True)
class Learned:
    """Models and the load that Foreserve is seeded with; `training` is under way until it is None."""

    models: Path
    history: Path
    training: "Future[None] | None" = None
    keep: tuple[str, Path] | None = None  # key and folder, once trained


@dataclass(frozen=True, slots=True)
class Learner:
    """How to train, where, and what is kept of it."""

    train: Train
    pool: Pool
    kept: RunCache
    progress: Progress


def is_load_only(scenario: Scenario) -> bool:
    """Whether a telemetry folder tells of load alone, and a profile can stand in for the rest."""
    folder = scenario.telemetry
    if folder is None or scenario.profile is None or scenario.models is not None:
        return False
    return not (folder / FILES[1]).exists()


def learn_from_telemetry(scenario: Scenario, since: float, work: Path, learner: Learner) -> Learned:
    """Cut the user's telemetry where the judged hours begin, and train on it unless models are given."""
    assert scenario.telemetry is not None  # noqa: S101  (the caller asked)
    cut_history(scenario.telemetry, since, work / "telemetry")
    history = work / "telemetry" / FILES[0]
    if scenario.models is not None:
        return Learned(scenario.models, history)
    key = digest("telemetry", file_digest(work / "telemetry"), code_digest())
    models = work / "models"
    learner.progress(TRAINING, 0, 1)
    if not learner.kept.learned(key, work):
        learner.train(work / "telemetry", models)
        learner.kept.keep_learned(key, work)
    learner.progress(TRAINING, 1, 1)
    return Learned(models, history)


def learn_from_trace(
    held: Held,
    case: Case,
    arrivals: Arrivals,
    work: Path,
    learner: Learner,
    *,
    models: Path | None = None,
) -> Learned:
    """Simulate what replicas did before the judged hours, and start to train on it."""
    history = work / "telemetry" / FILES[0]
    if models is not None:
        write_load(case, arrivals, work / "telemetry")
        return Learned(models, history)
    before = [
        r.between(arrivals.start_seconds, case.since_seconds) for r in arrivals.services.values()
    ]
    key = digest("trace", held.key, before, code_digest())
    if learner.kept.learned(key, work):
        return Learned(work / "models", history)
    learner.progress(HISTORY, 0, 1)
    simulate_history(case, arrivals, work / "telemetry")
    learner.progress(HISTORY, 1, 1)
    training = learner.pool.train(learner.train, work / "telemetry", work / "models")
    return Learned(work / "models", history, training, (key, work))


def with_more_load(learned: Learned, factor: float, path: Path) -> Learned:
    """Return what is learned with a history as if the load had always been `factor` times as much."""
    frame = pd.read_parquet(learned.history)
    for column in COUNTS:
        frame[column] = frame[column] * factor
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path)
    return Learned(learned.models, path, learned.training, None)

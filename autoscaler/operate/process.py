"""The operator's process: turns at a steady pace, history read beside them, models taken over."""

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import replace

from autoscaler.core.types import Policies
from autoscaler.edge.artifacts import ServingModels
from autoscaler.edge.clock import Clock
from autoscaler.edge.kube.api import KubeError
from autoscaler.loop import Controller, StepError
from autoscaler.operate.facts import NotReadyError
from autoscaler.operate.marks import WarmPlaces
from autoscaler.operate.report import Reporter
from autoscaler.operate.starts import StartLearner
from autoscaler.operate.troubles import Troubles
from autoscaler.operate.turn import Operator, Parts, Turn
from models.artifact import ArtifactError
from models.recorded import Recorded

log = logging.getLogger("foreserve")
MODELS_SECONDS = 30.0  # how often a new generation is looked for
HISTORY_AGAIN_SECONDS = 600.0  # after it failed, or for services that came later
HISTORY_PATIENCE_SECONDS = 900.0  # then decisions are made without it

History = Callable[[Policies, float], Recorded | None]
# a text that differs with every generation, "" for none; and how to load what is current
Models = Callable[[], tuple[str, Callable[[], ServingModels]]]


class Backfill:
    """Reads load history in a thread of its own; the loop takes it over between two turns."""

    def __init__(self, history: History | None, clock: Clock) -> None:
        self._history = history
        self._clock = clock
        self._begun = clock.monotonic()
        self._asked_at = -math.inf
        self._covered: frozenset[str] = frozenset()
        self._answer: tuple[Recorded | None, frozenset[str]] | None = None  # and whose it is
        self._thread: threading.Thread | None = None
        self._complete = history is None
        self._failed = False
        self._again = False

    def may_lower(self) -> bool:
        """Whether replicas may be given up: history was read, or was waited for long enough."""
        waited = self._clock.monotonic() - self._begun
        return self._complete or waited > HISTORY_PATIENCE_SECONDS

    def may_grow(self) -> bool:
        """Whether replicas may be added: as above, and as soon as reading has failed once."""
        return self._failed or self.may_lower()

    def again(self) -> None:
        """Read everybody's history once more: a new model may look further back, or in other steps."""
        self._again = True

    def follow(self, controller: Controller, policies: Policies, now_seconds: float) -> None:
        """Ask for the history of services that have none, and hand over what has come."""
        if self._history is None:
            return
        if self._thread is not None:
            if self._thread.is_alive():
                return
            self._thread = None
            self._hand_over(controller)
        if self._again:
            self._covered, self._asked_at, self._again = frozenset(), -math.inf, False
        self._covered &= policies.services.keys()  # who was away has lost it
        missing = frozenset(policies.services) - self._covered
        since = self._clock.monotonic() - self._asked_at
        if missing and since >= HISTORY_AGAIN_SECONDS:
            self._asked_at = self._clock.monotonic()
            self._thread = threading.Thread(
                target=self._read, args=(policies, now_seconds), name="history", daemon=True
            )
            self._thread.start()
        elif not policies.services:
            self._complete = True

    def _read(self, policies: Policies, now_seconds: float) -> None:
        assert self._history is not None  # noqa: S101 - follow() checked
        try:
            series = self._history(policies, now_seconds)
        except Exception as error:  # noqa: BLE001 - a thread's error must be told, whatever it is
            log.warning("load history cannot be read: %s", error)
            self._failed = True
            return
        self._answer = series, frozenset(policies.services)

    def _hand_over(self, controller: Controller) -> None:
        answer, self._answer = self._answer, None
        if answer is None:
            return
        series, self._covered = answer
        self._complete = True  # from the next turn on, which is the first one to know of it
        if series is None:
            return
        try:
            controller.seed(series)
        except ValueError as error:
            log.warning("load history cannot be used: %s", error)
            return
        log.info("load history: %d services, to %.0f", len(series.services), series.end_seconds)


class Process:
    """Takes turns until stopped."""

    def __init__(
        self,
        parts: Parts,
        reporter: Reporter,
        backfill: Backfill,
        learner: StartLearner,
        models: Models,
        warm_places: WarmPlaces,
        interval_seconds: float = 15.0,
        helpers: Callable[[], str] = str,
    ) -> None:
        """`helpers` returns which thread that must run has ended, "" if none has."""
        self._parts = parts
        self._operator = Operator(parts)
        self._controller = parts.controller
        self._reporter = reporter
        self._memory = parts.memory
        self._backfill = backfill
        self._learner = learner
        self._models = models
        self._warm_places = warm_places
        self._metrics = parts.metrics
        self._traces = parts.traces
        self._clock = parts.clock
        self._interval_seconds = interval_seconds
        self._helpers = helpers
        self._cluster_troubles = Troubles("cluster")
        self._telemetry_troubles = Troubles("telemetry")
        self._models_at = -math.inf
        self._pointer = ""  # to the models that were loaded last
        self._bad_models = ""  # why others could not be
        self._beat = self._clock.monotonic()  # the loop goes round
        self._turned = -math.inf  # a turn was taken
        self._wrong = "no turn has been taken yet"

    def run(self, stop: threading.Event) -> None:
        """Take turns until `stop`; then write the memory."""
        while not stop.is_set():
            begun = self._clock.monotonic()
            self._beat = begun
            self.once()
            self._beat = self._clock.monotonic()
            spent = self._beat - begun
            stop.wait(max(0.0, self._interval_seconds - spent))
        if self._may_remember():
            self._tell(self._memory.write(self._controller, now=True))

    def health(self) -> str:
        """Return why the process should be restarted, "" if it need not be."""
        still = self._clock.monotonic() - self._beat
        allowed = max(120.0, 6 * self._interval_seconds)
        return f"the loop has stood still for {still:.0f} s" if still > allowed else self._helpers()

    def readiness(self) -> str:
        """Return why nothing is decided, "" if turns are taken."""
        still = self._clock.monotonic() - self._turned
        return self._wrong if still > max(60.0, 3 * self._interval_seconds) else ""

    def once(self) -> Turn | None:
        """Take one turn and tell of it; None, with the reason logged, if none could be taken."""
        try:
            with self._traces.tick():
                return self._turn()
        except (NotReadyError, StepError, KubeError) as error:
            self._wrong = str(error)
            log.warning("no turn: %s", error)
        except Exception as error:  # the loop must outlive whatever one turn meets
            self._wrong = f"{type(error).__name__}: {error}"
            log.exception("a turn failed")
        self._memory.interrupt()
        return None

    def _turn(self) -> Turn:
        self._renew_models()
        turn = self._operator.turn(
            may_grow=self._backfill.may_grow(), may_lower=self._backfill.may_lower()
        )
        self._learner.follow(turn, self._controller)
        self._backfill.follow(self._controller, turn.facts.roll.policies, turn.now_seconds)
        self._turned = self._clock.monotonic()
        with self._traces.phase("report"):
            leads = {n: d.horizon_seconds for n, d in turn.step.decisions.services.items()}
            self._reporter.report(turn, leads, self._controller.models.generation)
            if turn.led and self._may_remember():
                scaled = any(not o.problem for o in turn.outcomes)
                self._tell(self._memory.write(self._controller, now=scaled))
                self._warm_places.follow(turn)
        self._note(turn)
        return turn

    def _may_remember(self) -> bool:
        """Whether this process leads still, or again, and nobody else has written a memory meanwhile."""
        return self._operator.leads() and self._memory.knows(self._parts.lease.tenure)

    def _note(self, turn: Turn) -> None:
        self._traces.note(
            {
                "policies": len(turn.facts.roll.members),
                "writes": len(turn.outcomes),
                "plan_status": turn.step.decisions.plan_status,
                "plan_gap_ratio": turn.step.decisions.plan_gap_ratio,
                "leader": turn.led,
            }
        )
        now = self._clock.monotonic()
        self._cluster_troubles.follow(turn.facts.problems, now)
        self._telemetry_troubles.follow(turn.reading.failed, now)

    def _renew_models(self) -> None:
        now = self._clock.monotonic()
        if now - self._models_at < MODELS_SECONDS:
            return
        self._models_at = now
        try:
            pointer, load = self._models()
            if pointer == self._pointer:
                return
            models = load()
        except ArtifactError as error:
            if str(error) != self._bad_models:
                log.warning("%s; the models in use stay", error)
            self._bad_models = str(error)
            return
        self._pointer, self._bad_models = pointer, ""
        if models.generation == self._controller.models.generation:
            return
        models = replace(models, lead_time=self._learner.better(models.lead_time))
        self._controller.declare(self._controller.policies, models)
        self._backfill.again()
        self._metrics.set_model(models.generation)
        log.info("models: generation %s", models.generation)

    def _tell(self, problem: str | None) -> None:
        if problem is None:
            return
        self._metrics.count_write("checkpoint", "failed" if problem else "ok")
        if problem:
            log.warning("%s", problem)

"""Lead times from the pods that are watched: a new variant is known after its first starts."""

import logging
import math
from collections.abc import Callable

from autoscaler.edge.kube.checkpoint import StartupRow
from autoscaler.edge.kube.starts import Seen, Start, startups, startups_frame
from autoscaler.loop import Controller
from autoscaler.operate.memory import Memory
from autoscaler.operate.turn import Turn
from models.lead_time import LeadTimeModel

log = logging.getLogger("foreserve")
MAX_UNKEPT = 5000  # the newest starts that could not be kept yet


class StartLearner:
    """Follows pods from creation to readiness.

    `keep` stores starts for training and says whether it did; what it could not store, and what was seen
    while another process led, is offered again. It keeps each pod once.
    """

    def __init__(
        self, memory: Memory, trained: LeadTimeModel, keep: Callable[[list[Start]], bool] | None
    ) -> None:
        self._memory = memory
        self._trained = trained
        self._keep = keep
        self._unkept: tuple[Start, ...] = ()
        self._seen: dict[tuple[str, str], Seen] = {}
        self._used: tuple[StartupRow, ...] = ()

    def follow(self, turn: Turn, controller: Controller) -> None:
        """Take in what the pods of this turn tell; plan with what was learned from now on."""
        found, self._seen = startups(turn.facts.pods, self._seen)
        known = set(self._memory.starts)
        new = [s for s in found if _row(s) not in known]
        self._memory.learn(_row(s) for s in new if not math.isnan(s.ready_seconds))
        self._store(found, led=turn.led)
        _tell(new)
        if self._memory.starts != self._used:
            controller.learn_starts(self.better(self._trained))

    def _store(self, found: list[Start], *, led: bool) -> None:
        if self._keep is None:
            return
        self._unkept = (*self._unkept, *found)[-MAX_UNKEPT:]
        if led and self._unkept and self._keep(list(self._unkept)):
            self._unkept = ()

    def better(self, trained: LeadTimeModel) -> LeadTimeModel:
        """Return the trained model with the watched starts where these are more."""
        self._trained = trained
        self._used = self._memory.starts
        if not self._used:
            return trained
        frame = startups_frame(_start(row) for row in self._used)
        newest = max(row[5] for row in self._used)
        return trained.with_more(LeadTimeModel.fit(frame, end_seconds=newest))


def _tell(new: list[Start]) -> None:
    """Log the replicas that became ready, a line a variant: the first turn sees all that run."""
    took: dict[tuple[str, str], list[float]] = {}
    for s in new:
        if not math.isnan(s.ready_seconds):  # else given up before it was ready
            took.setdefault((s.service, s.variant), []).append(s.ready_seconds - s.created_seconds)
    for (service, variant), seconds in took.items():
        count, first, last = len(seconds), round(min(seconds)), round(max(seconds))
        who = "a replica" if count == 1 else f"{count} replicas"
        span = f"{last} s" if first == last else f"{first} to {last} s"
        log.info("%s %s: %s became ready after %s", service, variant, who, span)


def _row(start: Start) -> StartupRow:
    return (
        start.service,
        start.variant,
        start.created_seconds,
        start.scheduled_seconds,
        start.initialized_seconds,
        start.ready_seconds,
    )


def _start(row: StartupRow) -> Start:
    service, variant, created, scheduled, initialized, ready = row
    return Start(service, variant, "", created, scheduled, initialized, ready, math.nan)

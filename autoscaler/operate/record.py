"""Keeps every tick of the leader for `foreserve replay`, before anything is done about it."""

import logging

from autoscaler.core.outcome import State
from autoscaler.edge.decision_changes import Inputs
from autoscaler.edge.decision_folder import DecisionFolder, LoggedTick
from autoscaler.edge.metrics import OperatorMetrics
from autoscaler.loop import Controller, Step
from autoscaler.operate.troubles import Troubles

log = logging.getLogger("foreserve")


class Recorder:
    """Writes ticks into a folder; one that cannot be written costs the log, never a decision."""

    def __init__(self, folder: DecisionFolder, metrics: OperatorMetrics) -> None:
        self._folder = folder
        self._metrics = metrics
        self._troubles = Troubles("decision log", over="decisions are logged again")

    def record(self, controller: Controller, before: State, step: Step) -> None:
        """Keep the step that the controller has just taken from the state `before`."""
        given = Inputs(controller.policies, step.forecasts.starts, before)
        problem = self._folder.write(
            LoggedTick(
                generation=controller.models.generation,
                given=given,
                observation=step.observation,
                outlooks=step.forecasts.outlooks,
                decisions=step.decisions,
                after=controller.state,
                accounts=step.accounts,
            )
        )
        self._metrics.count_write("decision-log", "failed" if problem else "ok")
        now = step.observation.now_seconds
        self._troubles.follow({"not written": problem} if problem else {}, now)

    def close(self) -> None:
        """End the file that is open."""
        self._folder.close()

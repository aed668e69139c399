"""One controller for everybody: `foreserve decide`, the what-if simulator and the operator."""

import math
from dataclasses import dataclass

from autoscaler.core.outcome import Decisions, Forecasts, StartLead, State
from autoscaler.core.tick import tick
from autoscaler.core.types import Observation, Policies
from autoscaler.edge.artifacts import ServingModels
from autoscaler.outlook import Forecaster
from models.frames import LoadSeries
from models.lead_time import LeadTimeModel

TYPICAL_START = 0.5  # quantiles of the start-up time that planning uses
UPPER_START = 0.9


class StepError(ValueError):
    """An observation that does not follow the one before it; `field` names what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the controller, with everything that a replay needs."""

    observation: Observation
    forecasts: Forecasts
    decisions: Decisions


class Controller:
    """Forecasts, remembers and decides. Deterministic; holds no clock and does no I/O."""

    def __init__(
        self, policies: Policies, models: ServingModels, history: LoadSeries | None = None
    ) -> None:
        self.policies = policies
        self.models = models
        self.state = State()
        self._last_seconds = -math.inf
        self._forecaster = Forecaster(sorted(policies.services), models.load)
        self._starts = start_leads(policies, models.lead_time)
        if history is not None:
            self._forecaster.seed(history)

    def step(self, observation: Observation) -> Step:
        """Take one observation and decide.

        Raises StepError, and changes nothing, if time goes backwards.
        """
        now = observation.now_seconds
        if now <= self._last_seconds:
            raise StepError(
                "now_seconds",
                f"{now} is not after {self._last_seconds}; allowed: time that goes on",
            )
        self._last_seconds = now
        outlooks = self._forecaster.observe(observation)
        forecasts = Forecasts(outlooks, self.models.latency, self._starts)
        self.state, decisions = tick(self.policies, forecasts, self.state, observation)
        return Step(observation, forecasts, decisions)


def start_leads(policies: Policies, lead_time: LeadTimeModel) -> dict[tuple[str, str], StartLead]:
    """Return the start-up times to plan with, for every variant of every policy."""
    return {
        (service, v.name): StartLead(
            lead_time.quantile_seconds(service, v.name, TYPICAL_START),
            lead_time.quantile_seconds(service, v.name, UPPER_START),
        )
        for service, policy in policies.services.items()
        for v in policy.variants
    }

"""One controller for everybody: `foreserve decide`, the what-if simulator and the operator."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from autoscaler.core.accounting import Ledger
from autoscaler.core.accounts import Account
from autoscaler.core.leads import StartLeads, leads_now
from autoscaler.core.outcome import (
    Decisions,
    FloatArray,
    Forecasts,
    ServiceState,
    StartLead,
    State,
    Told,
)
from autoscaler.core.tick import tick
from autoscaler.core.types import Observation, Policies
from autoscaler.edge.artifacts import ServingModels
from autoscaler.outlook import Forecaster
from models.lead_time import LeadTimeModel
from models.recorded import Recorded
from models.start_curves import ANY, NEW, THERE

TYPICAL_START = 0.5  # quantiles of the start-up time that planning uses
UPPER_START = 0.9


class StepError(ValueError):
    """An observation that does not follow the one before it; `field` names what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the controller, with everything that a replay needs.

    `accounts`: of the hour that this step has closed, by service; empty in all other steps.
    """

    observation: Observation
    forecasts: Forecasts
    decisions: Decisions
    accounts: Mapping[str, Account] = field(default_factory=dict)


class Controller:
    """Forecasts, remembers and decides. Deterministic; holds no clock and does no I/O."""

    def __init__(
        self, policies: Policies, models: ServingModels, history: Recorded | None = None
    ) -> None:
        self.policies = policies
        self.models = models
        self.state = State()
        self._ledger = Ledger()
        self._last_seconds = -math.inf
        self._forecaster = Forecaster(sorted(policies.services), models.load, models.mix)
        self._starts = start_leads(policies, models.lead_time)
        if history is not None:
            self.seed(history)

    @property
    def last_seconds(self) -> float:
        """Return the time of the last step; -inf before the first."""
        return self._last_seconds

    def step(self, observation: Observation) -> Step:
        """Take one observation, decide, and keep the accounts.

        Raises StepError, and changes nothing, if time goes backwards.
        """
        step = self.decide(observation)
        accounts = self._ledger.take_in(
            self.policies, step.forecasts, self.state, observation, step.decisions
        )
        return replace(step, accounts=accounts)

    def decide(self, observation: Observation) -> Step:
        """Do as `step` does, for those who never ask for accounts: none are kept."""
        now = observation.now_seconds
        if now <= self._last_seconds:
            raise StepError(
                "now_seconds",
                f"{now} is not after {self._last_seconds}; allowed: time that goes on",
            )
        self._last_seconds = now
        outlooks = self._forecaster.observe(observation)
        starts = leads_now(self.policies, self._starts, outlooks, observation)
        forecasts = Forecasts(outlooks, self.models.latency, starts)
        after, decisions = tick(self.policies, forecasts, self.state, observation)
        self.state = State({**self.state.services, **after.services})  # the undecided keep theirs
        return Step(observation, forecasts, decisions)

    def declare(self, policies: Policies, models: ServingModels | None = None) -> None:
        """Go on with these policies, and with these models if given; what is remembered stays.

        Load recorded so far stays where the models' steps allow; otherwise it must be seeded again.
        """
        services = sorted(policies.services)
        if models is not None and models is not self.models:
            self.models = models
            self._forecaster = self._forecaster.successor(services, models.load, models.mix)
        elif services != list(self._forecaster.history.services):
            self._forecaster.cover(services)
        self.policies = policies
        self._starts = start_leads(policies, self.models.lead_time)

    def learn_starts(self, lead_time: LeadTimeModel) -> None:
        """Plan with these start-up times from now on."""
        self.models = replace(self.models, lead_time=lead_time)
        self._starts = start_leads(self.policies, lead_time)

    def seed(self, history: Recorded) -> None:
        """Take over recorded load, of some or all services."""
        self.seed_parts([history])

    def seed_parts(self, parts: Iterable[Recorded]) -> None:
        """Take over recorded load that is read in parts, each of other services; none is kept."""
        self._forecaster.seed(parts)

    def calibration(self) -> dict[str, FloatArray]:
        """Return what was learned of each service's forecasts; for `restore`."""
        return self._forecaster.calibration()

    def restore(self, state: State, calibration: Mapping[str, FloatArray] | None = None) -> None:
        """Remember what another controller, or this one before a restart, wrote down.

        `calibration`: of the same generation of models, else it means nothing.
        """
        self.state = state
        if calibration is not None:
            self._forecaster.restore(calibration)

    def begin_anew(self, service: str, current: Mapping[str, int], now_seconds: float) -> None:
        """Forget a service's damping: its windows begin now, with what runs.

        For when somebody else may have set the counts meanwhile. Its error budget stays. A variant that
        `current` lacks cannot be read just now and keeps the count that was known.
        """
        known = self.state.services.get(service, ServiceState())
        counts = {**known.desired, **current}
        holds = {name: ((now_seconds, n),) for name, n in counts.items()}
        fresh = replace(known, desired=counts, changes=(), holds=holds, rises={}, told=Told())
        self.state = State({**self.state.services, service: fresh})

    def forget(self, services: Iterable[str]) -> None:
        """Drop what is remembered of services that are gone."""
        gone = set(services)
        self.state = State({n: s for n, s in self.state.services.items() if n not in gone})


def start_leads(policies: Policies, lead_time: LeadTimeModel) -> dict[tuple[str, str], StartLeads]:
    """Return the start-up times to plan with, for every variant of every policy, by the node."""
    return {
        (service, v.name): StartLeads(
            _lead(lead_time, service, v.name, ANY),
            *(
                _lead(lead_time, service, v.name, node)
                if lead_time.knows_node(v.name, node)
                else None
                for node in (THERE, NEW)
            ),
        )
        for service, policy in policies.services.items()
        for v in policy.variants
    }


def _lead(lead_time: LeadTimeModel, service: str, variant: str, node: str) -> StartLead:
    return StartLead(
        lead_time.quantile_seconds(service, variant, TYPICAL_START, node),
        lead_time.quantile_seconds(service, variant, UPPER_START, node),
    )

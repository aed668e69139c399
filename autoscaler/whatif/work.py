"""The parts of a comparison that its base, its variations and its other worlds have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoscaler.core.types import Policies
from autoscaler.edge.artifacts import load_models
from autoscaler.whatif.arrivals import Arrivals
from autoscaler.whatif.case import Case, build_case, drawn_engines, fitted_engines, measured_engines
from autoscaler.whatif.learning import Learned, Learner
from autoscaler.whatif.pool import hold
from autoscaler.whatif.race import SEARCH_RUNS, Contest, Heat, Race
from autoscaler.whatif.results import FORESERVE
from autoscaler.whatif.rivals import RECORDED, WINDOWS, Setting, searches
from autoscaler.whatif.scenario import AutoscalerSpec, Scenario


@dataclass(slots=True)
class Work:
    """What the parts of one comparison share."""

    scenario: Scenario
    policies: Policies  # of the services that are compared
    folder: Path
    learner: Learner
    race: Race
    learned: Learned | None = None  # from the telemetry as it is
    notes: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    @property
    def specs(self) -> tuple[AutoscalerSpec, ...]:
        """The autoscalers that were asked for."""
        return self.scenario.autoscalers

    @property
    def has_foreserve(self) -> bool:
        """Whether Foreserve is among them."""
        return any(spec.name == FORESERVE for spec in self.specs)


def build(
    shared: Work,
    scenario: Scenario,
    policies: Policies,
    arrivals: Arrivals,
) -> Case:
    """Put a case together, its engines drawn around the profile or the fit."""
    if scenario.profile is not None:
        engines = measured_engines(scenario, policies)
    else:
        assert shared.learned is not None  # noqa: S101  (a trace without a profile is refused)
        engines = fitted_engines(load_models(shared.learned.models).latency, policies)
    return build_case(scenario, policies, arrivals, drawn_engines(scenario, engines))


def enter(
    shared: Work,
    case: Case,
    specs: Sequence[AutoscalerSpec],
    settings: Mapping[str, Setting] | None = None,
) -> Heat:
    """Start the rivals of a case, with the settings that are given or in search of them."""
    heat = Heat(hold(case, shared.folder / "cases"), contests_of(case, specs, settings or {}))
    shared.race.enter(heat)
    return heat


def contests_of(
    case: Case, specs: Sequence[AutoscalerSpec], settings: Mapping[str, Setting]
) -> list[Contest]:
    """Return a contest for every rival: for a setting that is given, or in search of the best."""
    attainments = {name: service.attainment for name, service in case.services.items()}
    contests: list[Contest] = []
    for spec in specs:
        if spec.name == FORESERVE:
            continue
        fixed = settings.get(spec.name)
        if spec.name == RECORDED:
            fixed = Setting(RECORDED, 1.0)
        elif isinstance(spec.setting, float):
            window = WINDOWS.get(spec.name, 0.0)
            fixed = Setting(spec.name, spec.setting, window_seconds=window)
        if fixed is not None:
            contests.append(Contest(spec.name, attainments, [], tuned=False, fixed=fixed))
        else:
            contests.append(Contest(spec.name, attainments, searches(case, spec.name, SEARCH_RUNS)))
    return contests

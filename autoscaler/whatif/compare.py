"""A whole comparison: read the scenario's inputs, learn, run everybody, keep the best setting of each."""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoscaler.core.types import Policies
from autoscaler.edge.artifacts import load_models
from autoscaler.edge.policy_files import load_policies
from autoscaler.whatif.arrivals import Arrivals, read_arrivals
from autoscaler.whatif.case import (
    Case,
    build_case,
    drawn_engines,
    fitted_engines,
    judged_window,
    measured_engines,
    priced,
)
from autoscaler.whatif.history import FILES, cut_history, simulate_history, write_load
from autoscaler.whatif.pool import Pool, Train
from autoscaler.whatif.results import FORESERVE, Comparison, Measures, RunResult, combine
from autoscaler.whatif.rivals import RECORDED, WINDOWS, Setting, searches
from autoscaler.whatif.run import Driven
from autoscaler.whatif.scenario import AutoscalerSpec, Scenario, ScenarioError
from autoscaler.whatif.tuning import Search
from models.progress import Progress

SEARCH_RUNS = 5  # at most, for each averaging window of a rival
MODELS_GIVEN = (
    "The models were given, not trained here: if they have seen the judged hours, Foreserve's "
    "forecasts are flattered."
)
LOAD_ONLY = (
    "The telemetry tells of load alone: what replicas did with it before the judged hours was "
    "simulated with the profile, and Foreserve learned from that."
)
FLUID = (
    "The fleets were simulated as fluids, not request by request: percentiles and shares are those of "
    "steady loads, some per cent off (docs/simulator.md)."
)
RUNS, TRAINING, HISTORY = "simulated days", "training", "history"  # what the progress speaks of


@dataclass(slots=True)
class Contest:
    """The search for one rival's best setting; holds the best run so far."""

    name: str
    attainments: Mapping[str, float]
    open: list[tuple[Setting, Search]]  # empty: the setting is fixed
    tried: int = 0
    best: tuple[Setting, Driven] | None = None
    tuned: bool = True

    def next_setting(self) -> tuple[Setting, Search] | None:
        """Return what to run next; None when every search is done."""
        while self.open:
            template, search = self.open[0]
            value = search.next_setting()
            if value is not None:
                return replace(template, value=value), search
            self.open.pop(0)
        return None

    def take(self, setting: Setting, search: Search | None, driven: Driven) -> None:
        """Note a finished run."""
        self.tried += 1
        if search is not None:
            search.tell(setting.value, attained(driven.services, self.attainments))
        if self.best is None or self._better(driven, self.best[1]):
            self.best = setting, driven

    def _better(self, new: Driven, old: Driven) -> bool:
        """Meeting the attainment counts first, then cost; of two that miss, the nearer one."""
        highest = max(self.attainments.values())
        a, b = (attained(d.services, self.attainments) for d in (new, old))
        if (a >= highest) != (b >= highest):
            return a >= highest
        return _cost(new) < _cost(old) if a >= highest else a > b


def attained(services: Mapping[str, Measures], asked: Mapping[str, float]) -> float:
    """Return one attainment for all services: the worst, on the scale of the strictest.

    Missed shares are compared with what each service may miss: 2 % missed of 4 % allowed is as good
    as 0.5 % of 1 %.
    """
    scale = 1.0 - max(asked.values())
    used = [
        (1.0 - m.slo_attainment_ratio) / (1.0 - asked[name])
        for name, m in services.items()
        if math.isfinite(m.slo_attainment_ratio)
    ]
    return 1.0 - scale * max(used, default=0.0)


@dataclass(slots=True)
class _Inputs:
    """What a scenario names, read."""

    scenario: Scenario
    policies: Policies
    arrivals: Arrivals
    models: Path | None  # None: to be trained
    history: Path | None  # load.parquet that Foreserve is seeded with
    notes: list[str] = field(default_factory=list)


def compare(
    scenario: Scenario,
    *,
    work: Path,
    train: Train,
    progress: Progress,
    workers: int | None = None,
) -> Comparison:
    """Run a scenario. `work` receives the telemetry and the models that are made for it.

    `train` (telemetry folder, models folder) runs in another process: a function of a module. Raises
    ScenarioError, PolicyError, FrameError or ArtifactError on inputs that cannot be used.
    """
    policies = priced(load_policies([scenario.policies]), scenario.prices)
    arrivals = read_arrivals(scenario, sorted(policies.services))
    since, _ = judged_window(scenario, arrivals)
    if since <= arrivals.start_seconds and any(a.name == FORESERVE for a in scenario.autoscalers):
        raise ScenarioError(
            "judgedHours: nothing precedes them, and Foreserve learns from what does; "
            "allowed: fewer hours than the load covers"
        )
    inputs = _Inputs(scenario, policies, arrivals, scenario.models, None)
    needed = scenario.profile is None or any(a.name == FORESERVE for a in scenario.autoscalers)
    load_only = _is_load_only(scenario)
    if scenario.telemetry is not None and needed and not load_only:
        _learn_from_telemetry(inputs, work, train, progress)
    case = _case(inputs)
    specs = _possible(case, inputs)
    contests, fixed = _contests(case, specs)
    names = [spec.name for spec in specs]
    with Pool(case, workers) as pool:
        training = None
        if FORESERVE in names and (scenario.telemetry is None or load_only):
            training = _learn_from_trace(inputs, case, pool, work, train, progress)
        race = _Race(pool, inputs, contests, progress, training)
        results = race.run(fixed, FORESERVE in names)
    runs = tuple(results[name] for name in names)
    return Comparison(
        scenario=_plain(scenario),
        attainments={name: s.attainment for name, s in case.services.items()},
        ttft_targets_seconds={n: s.targets.ttft_seconds for n, s in case.services.items()},
        runs=runs,
        notes=tuple(inputs.notes),
    )


class _Race:
    """Keeps the pool busy: the next setting of each search as soon as the one before is known."""

    def __init__(
        self,
        pool: Pool,
        inputs: _Inputs,
        contests: Sequence[Contest],
        progress: Progress,
        training: "Future[None] | None",
    ) -> None:
        self._pool, self._inputs, self._contests = pool, inputs, contests
        self._progress, self._training = progress, training
        self._waiting: dict[Future[Driven], Callable[[Driven], None]] = {}
        self._results: dict[str, RunResult] = {}
        self._done = 0

    def run(self, fixed: Mapping[str, Setting], with_foreserve: bool) -> dict[str, RunResult]:
        """Return the result of every autoscaler by name."""
        if with_foreserve and self._training is None:
            self._start_foreserve()
        for contest in self._contests:
            if contest.name in fixed:
                self._submit(contest, fixed[contest.name], None)
            else:
                self._advance(contest)
        if self._training is not None:
            self._progress(TRAINING, 0, 1)
        while self._waiting or self._training is not None:
            self._take_finished()
        for contest in self._contests:
            self._results[contest.name] = _result_of(contest)
        self._progress(RUNS, self._done, self._done)
        return self._results

    def _take_finished(self) -> None:
        futures: list[Future[Any]] = [*self._waiting]
        if self._training is not None:
            futures.append(self._training)
        finished, _ = wait(futures, return_when=FIRST_COMPLETED)
        if self._training is not None and self._training in finished:
            self._training.result()  # a failure of the training is raised here
            self._training = None
            self._progress(TRAINING, 1, 1)
            self._start_foreserve()
        for future in [f for f in self._waiting if f in finished]:
            then = self._waiting.pop(future)
            self._done += 1
            then(future.result())
            self._progress(RUNS, self._done, self._expected())

    def _expected(self) -> int:
        """Guess how many runs there will be: those done, those asked for, and what may follow."""
        more = sum(SEARCH_RUNS * max(0, len(c.open) - 1) for c in self._contests)
        return self._done + len(self._waiting) + more + (self._training is not None)

    def _start_foreserve(self) -> None:
        assert self._inputs.models is not None  # noqa: S101  (trained or given by now)
        future = self._pool.foreserve(self._inputs.models, self._inputs.history)
        self._waiting[future] = self._keep_foreserve

    def _keep_foreserve(self, driven: Driven) -> None:
        self._results[FORESERVE] = _result(FORESERVE, "as its policies say", driven)

    def _advance(self, contest: Contest) -> None:
        found = contest.next_setting()
        if found is not None:
            self._submit(contest, *found)

    def _submit(self, contest: Contest, setting: Setting, search: Search | None) -> None:
        def then(driven: Driven) -> None:
            contest.take(setting, search, driven)
            if search is not None:
                self._advance(contest)

        self._waiting[self._pool.rival(setting)] = then


def _learn_from_telemetry(inputs: _Inputs, work: Path, train: Train, progress: Progress) -> None:
    """Cut the user's telemetry where the judged hours begin, and train on it unless models are given."""
    scenario = inputs.scenario
    assert scenario.telemetry is not None  # noqa: S101  (the caller asked)
    since, _ = judged_window(scenario, inputs.arrivals)
    if since <= inputs.arrivals.start_seconds:
        raise ScenarioError(
            "judgedHours: nothing precedes them; allowed: less than the load covers"
        )
    cut_history(scenario.telemetry, since, work / "telemetry")
    inputs.history = work / "telemetry" / "load.parquet"
    if inputs.models is None:
        progress(TRAINING, 0, 1)
        inputs.models = work / "models"
        train(work / "telemetry", inputs.models)
        progress(TRAINING, 1, 1)
    else:
        inputs.notes.append(MODELS_GIVEN)


def _is_load_only(scenario: Scenario) -> bool:
    """Whether a telemetry folder tells of load alone, and a profile can stand in for the rest."""
    folder = scenario.telemetry
    if folder is None or scenario.profile is None or scenario.models is not None:
        return False
    return not (folder / FILES[1]).exists()


def _learn_from_trace(
    inputs: _Inputs, case: Case, pool: Pool, work: Path, train: Train, progress: Progress
) -> "Future[None] | None":
    """Write what precedes the judged hours of a trace; return the training, unless models are given."""
    inputs.history = work / "telemetry" / "load.parquet"
    if inputs.models is not None:
        write_load(case, inputs.arrivals, work / "telemetry")
        inputs.notes.append(MODELS_GIVEN)
        return None
    if inputs.scenario.telemetry is not None:
        inputs.notes.append(LOAD_ONLY)
    progress(HISTORY, 0, 1)
    simulate_history(case, inputs.arrivals, work / "telemetry")
    progress(HISTORY, 1, 1)
    inputs.models = work / "models"
    return pool.train(train, work / "telemetry", inputs.models)


def _case(inputs: _Inputs) -> Case:
    scenario = inputs.scenario
    if scenario.profile is not None:
        engines = measured_engines(scenario, inputs.policies)
    else:
        assert inputs.models is not None  # noqa: S101  (a trace without a profile is refused)
        engines = fitted_engines(load_models(inputs.models).latency, inputs.policies)
    case = build_case(scenario, inputs.policies, inputs.arrivals, drawn_engines(scenario, engines))
    several = [name for name, s in case.services.items() if len(s.variants) > 1]
    if case.fluid:
        inputs.notes.append(FLUID)
    if several:
        inputs.notes.append(
            f"Rivals scale one variant each: the first one of {', '.join(several)}; "
            "the others stay at their minimum."
        )
    return case


def _possible(case: Case, inputs: _Inputs) -> tuple[AutoscalerSpec, ...]:
    """Return the autoscalers that can be run, and note which one cannot and why."""
    specs = inputs.scenario.autoscalers
    unknown = [name for name, s in case.services.items() if not s.recorded]
    if not unknown or all(spec.name != RECORDED for spec in specs):
        return specs
    inputs.notes.append(
        "Today's fleet could not be computed: telemetry records no replicas in the judged hours of "
        f"{', '.join(unknown)} (serving.parquet)."
    )
    rest = tuple(spec for spec in specs if spec.name != RECORDED)
    if not rest:
        raise ScenarioError(f"autoscalers: recorded alone: {inputs.notes[-1]}")
    return rest


def _contests(
    case: Case, specs: Sequence[AutoscalerSpec]
) -> tuple[list[Contest], dict[str, Setting]]:
    attainments = {name: service.attainment for name, service in case.services.items()}
    contests: list[Contest] = []
    fixed: dict[str, Setting] = {}
    for spec in specs:
        if spec.name == FORESERVE:
            continue
        if spec.name == RECORDED:
            fixed[spec.name] = Setting(RECORDED, 1.0)
            contests.append(Contest(spec.name, attainments, [], tuned=False))
        elif isinstance(spec.setting, float):
            fixed[spec.name] = Setting(
                spec.name, spec.setting, window_seconds=WINDOWS.get(spec.name, 0.0)
            )
            contests.append(Contest(spec.name, attainments, [], tuned=False))
        else:
            contests.append(Contest(spec.name, attainments, searches(case, spec.name, SEARCH_RUNS)))
    return contests, fixed


def _result_of(contest: Contest) -> RunResult:
    assert contest.best is not None  # noqa: S101  (every contest runs at least once)
    setting, driven = contest.best
    result = _result(contest.name, setting.words(), driven)
    return replace(result, tuned=contest.tuned, tried=contest.tried)


def _result(name: str, setting: str, driven: Driven) -> RunResult:
    return RunResult(
        name=name,
        setting=setting,
        tuned=False,
        tried=1,
        measures=combine(driven.services, driven.max_replicas),
        services=driven.services,
        series=driven.series,
    )


def _cost(driven: Driven) -> float:
    return sum(m.cost_usd for m in driven.services.values())


def _plain(scenario: Scenario) -> dict[str, object]:
    return dict(scenario.model_dump(mode="json", by_alias=True))

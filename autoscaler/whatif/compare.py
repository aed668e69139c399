"""A whole comparison: read the scenario's inputs, learn, run everybody, keep the best setting of each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoscaler.edge.policy_files import load_policies
from autoscaler.whatif.arrivals import Arrivals, read_arrivals
from autoscaler.whatif.cache import RunCache
from autoscaler.whatif.case import Case, judged_window, priced
from autoscaler.whatif.learning import (
    Learner,
    is_load_only,
    learn_from_telemetry,
    learn_from_trace,
)
from autoscaler.whatif.pool import Pool, Train
from autoscaler.whatif.race import Heat, Race
from autoscaler.whatif.recommend import recommended_text
from autoscaler.whatif.results import Comparison, RunResult, Variation
from autoscaler.whatif.rivals import RECORDED
from autoscaler.whatif.scenario import AutoscalerSpec, Scenario, ScenarioError
from autoscaler.whatif.vary import varied_result, vary
from autoscaler.whatif.work import Work, build, enter
from models.progress import Progress

DAY_SECONDS = 86_400.0
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


def compare(
    scenario: Scenario,
    *,
    work: Path,
    train: Train,
    progress: Progress,
    workers: int | None = None,
    cache: Path | None = None,
) -> Comparison:
    """Run a scenario. `work` receives the telemetry and the models that are made for it.

    `train` (telemetry folder, models folder) runs in another process: a function of a module. `cache`
    keeps runs and models for the next time; None keeps nothing. Raises ScenarioError, PolicyError,
    FrameError or ArtifactError on inputs that cannot be used.
    """
    policies = priced(load_policies([scenario.policies]), scenario.prices)
    kept = RunCache(cache)
    with Pool(workers) as pool:
        race = Race(pool, kept, progress)
        learner = Learner(train, pool, kept, progress)
        shared = Work(scenario, policies, work, learner, race)
        arrivals = _busy(shared, read_arrivals(scenario, sorted(policies.services)))
        shared.policies = replace(
            policies, services={name: policies.services[name] for name in arrivals.services}
        )
        comparison = _run(shared, arrivals)
    kept.prune()
    return comparison


def _run(shared: Work, arrivals: Arrivals) -> Comparison:
    scenario = shared.scenario
    _check_history(shared, arrivals)
    since, _ = judged_window(scenario, arrivals)
    needed = scenario.profile is None or shared.has_foreserve
    if scenario.telemetry is not None and needed and not is_load_only(scenario):
        shared.learned = learn_from_telemetry(scenario, since, shared.folder, shared.learner)
        if scenario.models is not None:
            shared.notes.append(MODELS_GIVEN)
    case = build(shared, scenario, shared.policies, arrivals)
    _note_case(shared, case)
    specs = _possible(case, shared)
    base = enter(shared, case, specs)
    if shared.has_foreserve and shared.learned is None:  # while the rivals run
        shared.learned = learn_from_trace(
            base.held, case, arrivals, shared.folder, shared.learner, models=scenario.models
        )
        if scenario.models is not None:
            shared.notes.append(MODELS_GIVEN)
        elif scenario.telemetry is not None:
            shared.notes.append(LOAD_ONLY)
    if shared.has_foreserve:
        base.learned = shared.learned
    varied = [vary(shared, arrivals, specs, change, n) for n, change in enumerate(scenario.changes)]
    shared.race.finish()
    names = [spec.name for spec in specs]
    runs = _in_other_worlds(shared, names, base)
    return Comparison(
        scenario=_plain(scenario),
        attainments={name: s.attainment for name, s in case.services.items()},
        ttft_targets_seconds={n: s.targets.ttft_seconds for n, s in case.services.items()},
        runs=runs,
        notes=tuple(shared.notes),
        gaps=tuple(shared.gaps),
        variations=tuple(
            v if isinstance(v, Variation) else varied_result(*v, names) for v in varied
        ),
        capacity_rps={name: s.capacity.rate_rps for name, s in case.services.items()},
        tpot_targets_seconds={n: s.targets.tpot_seconds for n, s in case.services.items()},
        policies_text=recommended_text(scenario.policies, sorted(case.services)),
    )


def _busy(shared: Work, arrivals: Arrivals) -> Arrivals:
    """Return the services that have traffic in the judged hours, and note the others."""
    since, until = judged_window(shared.scenario, arrivals)
    busy = {
        name: requests
        for name, requests in arrivals.services.items()
        if len(requests.between(since, until).arrive_seconds)
    }
    mine = shared.scenario.service  # a trace is one service's
    wanted = shared.policies.services if shared.scenario.telemetry is not None else busy
    idle = sorted({*wanted, *arrivals.services} - set(busy))
    if not busy:
        which = mine or ", ".join(idle)
        raise ScenarioError(f"judgedHours: no request of {which} arrives in them")
    shared.gaps += [
        f"{name}: no request arrived in the judged hours, so cost and attainment could not be computed."
        for name in idle
    ]
    return replace(arrivals, services=busy)


def _check_history(shared: Work, arrivals: Arrivals) -> None:
    """Say what is too short to be learned from; refuse where Foreserve would have nothing at all."""
    if not shared.has_foreserve:
        return
    since, _ = judged_window(shared.scenario, arrivals)
    before = since - arrivals.start_seconds
    if before <= 0:
        raise ScenarioError(
            "judgedHours: nothing precedes them, and Foreserve learns from what does; "
            "allowed: fewer hours than the load covers"
        )
    if before < DAY_SECONDS and shared.scenario.models is None:
        shared.gaps.append(
            f"What Foreserve does after a day of history could not be computed: {before / 3600:.3g} "
            "hours precede the judged ones, so its forecasts know no daily cycle."
        )


def _note_case(shared: Work, case: Case) -> None:
    for name, service in case.services.items():
        if not service.capacity.is_reachable:
            shared.gaps.append(
                f"{name}: the SLO is out of reach: even a replica that is all but idle meets it for "
                f"fewer than {service.attainment:.4g} of the requests, so no rival could be tuned to it."
            )
    several = [name for name, s in case.services.items() if len(s.variants) > 1]
    if case.fluid:
        shared.notes.append(FLUID)
    if several:
        shared.notes.append(
            f"Rivals scale one variant each: the first one of {', '.join(several)}; "
            "the others stay at their minimum."
        )


def _in_other_worlds(shared: Work, names: Sequence[str], base: Heat) -> tuple[RunResult, ...]:
    """Run everybody with the setting that was found in the worlds of the other seeds."""
    scenario, runs = shared.scenario, base.results
    settings = {
        contest.name: contest.best[0] for contest in base.contests if contest.best is not None
    }
    specs = [AutoscalerSpec(name=name) for name in names]  # type: ignore[arg-type]
    heats = []
    for seed in range(scenario.seed + 1, scenario.seed + scenario.seeds):
        other = scenario.model_copy(update={"seed": seed})
        read = read_arrivals(other, sorted(base.held.case.services))
        heat = enter(shared, build(shared, other, shared.policies, read), specs, settings)
        heat.learned = base.learned
        heats.append(heat)
    if heats:
        shared.race.finish()
    return tuple(
        replace(
            runs[name],
            worlds=(*runs[name].worlds, *(w for h in heats for w in h.results[name].worlds)),
        )
        for name in names
    )


def _possible(case: Case, shared: Work) -> tuple[AutoscalerSpec, ...]:
    """Return the autoscalers that can be run, and note which one cannot and why."""
    specs = shared.specs
    unknown = [name for name, s in case.services.items() if not s.recorded]
    if not unknown or all(spec.name != RECORDED for spec in specs):
        return specs
    shared.gaps.append(
        "Today's fleet could not be computed: telemetry records no replicas in the judged hours of "
        f"{', '.join(unknown)} (serving.parquet)."
    )
    rest = tuple(spec for spec in specs if spec.name != RECORDED)
    if not rest:
        raise ScenarioError(f"autoscalers: recorded alone: {shared.gaps[-1]}")
    return rest


def _plain(scenario: Scenario) -> dict[str, object]:
    return dict(scenario.model_dump(mode="json", by_alias=True))

"""Variations: the scenario run again with one thing changed, beside the scenario as it is."""

from collections.abc import Sequence
from dataclasses import replace

from autoscaler.sim.engine import SimulationError
from autoscaler.whatif.arrivals import Arrivals, read_arrivals
from autoscaler.whatif.changes import changed_policies, changed_scenario
from autoscaler.whatif.learning import learn_from_trace, with_more_load
from autoscaler.whatif.race import Heat
from autoscaler.whatif.results import Variation
from autoscaler.whatif.scenario import AutoscalerSpec, Change, ScenarioError
from autoscaler.whatif.work import Work, build, enter


def vary(
    shared: Work,
    arrivals: Arrivals,
    specs: Sequence[AutoscalerSpec],
    change: Change,
    number: int,
) -> Variation | tuple[Change, Heat]:
    """Start one variation; a Variation is one that cannot be computed."""
    work = shared.folder / f"variation-{number}"
    try:
        scenario = changed_scenario(shared.scenario, change)
        policies = changed_policies(shared.policies, change, shared.scenario)
        factor = change.traffic_factor or 1.0
        if factor != 1.0:
            arrivals = _only(arrivals, read_arrivals(scenario, sorted(policies.services), factor))
        case = build(shared, scenario, policies, arrivals)
    except (ScenarioError, SimulationError) as error:
        return Variation(change.label, _written(change), {}, (), gap=str(error))
    heat = enter(shared, case, specs)
    if not shared.has_foreserve:
        return change, heat
    assert shared.learned is not None  # noqa: S101  (the base comparison learned)
    if change.learns_anew:
        heat.learned = learn_from_trace(heat.held, case, arrivals, work, shared.learner)
    elif factor != 1.0:
        heat.learned = with_more_load(shared.learned, factor, work / "load.parquet")
    else:
        heat.learned = shared.learned
    return change, heat


def _only(known: Arrivals, read: Arrivals) -> Arrivals:
    return replace(read, services={name: read.services[name] for name in known.services})


def varied_result(change: Change, heat: Heat, names: Sequence[str]) -> Variation:
    """Return what a variation found, once the race is over."""
    services = heat.held.case.services
    hard = [name for name, s in services.items() if not s.capacity.is_reachable]
    return Variation(
        label=change.label,
        change=_written(change),
        attainments={name: s.attainment for name, s in services.items()},
        runs=tuple(heat.results[name] for name in names),
        gap=f"The SLO is out of reach for {', '.join(hard)}." if hard else None,
    )


def _written(change: Change) -> dict[str, object]:
    return dict(change.model_dump(mode="json", by_alias=True, exclude_none=True))

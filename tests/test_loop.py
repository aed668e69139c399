"""The controller between ticks: policies come and go, memory is taken over, given up, begun anew."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import (
    NOW,
    SERVICE,
    latency_model,
    observation,
    policies,
    policy,
    seen,
    silence,
    variant,
)

from autoscaler.core.outcome import BudgetHour, ServiceState, State
from autoscaler.core.types import Observation
from autoscaler.edge.artifacts import ServingModels
from autoscaler.loop import Controller, StepError
from models.frames import LoadSeries, validate_startups
from models.lead_time import LeadTimeModel

OTHER = "prod/other"
WINDOW_SECONDS = 300.0


def models(**changes: float) -> ServingModels:
    keys = [(SERVICE, "h100"), (OTHER, "h100")]
    return ServingModels("g-1", None, latency_model(*keys, **changes), LeadTimeModel({}))


def both() -> Observation:
    own = observation(rate=2.0, h100=seen(3))
    return replace(own, services={SERVICE: own.services[SERVICE], OTHER: own.services[SERVICE]})


def at(now: float, rate: float, count: int) -> Observation:
    return observation(now, rate=rate, h100=seen(count))


def recorded(
    minutes: int, *, services: tuple[str, ...] = (SERVICE,), end: float = NOW
) -> LoadSeries:
    values = np.full((len(services), minutes, 3), 120.0)
    return LoadSeries(services, end - 60.0 * minutes, 60.0, values)


def gathered(controller: Controller, service: str = SERVICE) -> list[float]:
    """Return the steps of a service's history that are known."""
    history = controller._forecaster.history
    row = history.requests[history.services.index(service)]
    return [float(x) for x in row[np.isfinite(row)]]


def test_time_goes_on_and_a_refused_step_changes_nothing() -> None:
    controller = Controller(policies(policy()), models())
    assert controller.last_seconds == -math.inf
    controller.step(at(NOW, 2.0, 3))
    before = controller.state
    for now in (NOW, NOW - 1.0):
        with pytest.raises(StepError, match="is not after") as error:
            controller.step(at(now, 2.0, 3))
        assert error.value.field == "now_seconds"
    assert controller.state is before
    assert controller.last_seconds == NOW


def test_who_joins_begins_with_gaps_and_who_stays_keeps_its_history() -> None:
    controller = Controller(policies(policy()), models())
    controller.seed(recorded(10))
    assert len(gathered(controller)) == 10
    joined = policies(policy(), replace(policy(), service=OTHER))
    controller.declare(joined)
    assert len(gathered(controller)) == 10
    assert gathered(controller, OTHER) == []
    decisions = controller.step(replace(both(), now_seconds=NOW + 15.0)).decisions
    assert set(decisions.services) == {SERVICE, OTHER}
    controller.declare(policies(replace(policy(), service=OTHER)))
    assert set(controller.step(at(NOW + 30.0, 2.0, 3)).decisions.services) == {OTHER}
    assert SERVICE in controller.state.services  # not declared is not forgotten
    controller.forget([SERVICE, "never/known"])
    assert set(controller.state.services) == {OTHER}


def test_a_changed_policy_is_in_force_at_the_next_step() -> None:
    controller = Controller(policies(policy()), models())
    controller.step(at(NOW, 2.0, 3))
    least = policy(variants=(variant("h100", min_replicas=7),))
    controller.declare(policies(least))
    assert controller.step(at(NOW + 15.0, 2.0, 3)).decisions.services[SERVICE].variants == {
        "h100": 7
    }


def test_the_same_policies_again_touch_no_history() -> None:
    controller = Controller(policies(policy()), models())
    controller.seed(recorded(10))
    history = controller._forecaster.history
    controller.declare(policies(policy()))
    assert controller._forecaster.history is history


def test_new_models_keep_state_and_history() -> None:
    controller = Controller(policies(policy()), models())
    controller.seed(recorded(10))
    controller.step(at(NOW + 15.0, 2.0, 3))
    state = controller.state
    newer = models(base_seconds=0.03)
    controller.declare(controller.policies, newer)
    assert controller.models is newer
    assert controller.state is state
    assert len(gathered(controller)) == 10


def test_history_may_come_after_the_first_steps_and_replaces_nothing_seen() -> None:
    controller = Controller(policies(policy()), models())
    for i in range(8):  # two minutes of 3 req/s
        controller.step(at(NOW + 15.0 * (i + 1), 3.0, 3))
    controller.seed(recorded(5, end=NOW + 60.0))  # read up to the first of them
    assert gathered(controller) == [120.0] * 4 + [180.0, 180.0]


def test_a_window_begun_anew_holds_what_runs_and_keeps_the_budget() -> None:
    """Hand-worked: 9 replicas run and one is enough; nothing goes until the window of 300 s is over."""
    controller = Controller(policies(policy()), models())
    budget = (BudgetHour(math.floor(NOW / 3600), 1000.0, 7.0),)
    old = ServiceState(
        desired={"h100": 2},
        holds={"h100": ((NOW - 3000.0, 2),)},
        changes=((NOW - 10.0, {"h100": 2}),),
        budget=budget,
    )
    controller.restore(State({SERVICE: old}))
    controller.begin_anew(SERVICE, {"h100": 9}, NOW)
    state = controller.state.services[SERVICE]
    assert (state.desired, state.holds) == ({"h100": 9}, {"h100": ((NOW, 9),)})
    assert (state.changes, state.rises, state.budget) == ((), {}, budget)
    step = controller.step(at(NOW + 15.0, 0.5, 9))
    assert step.decisions.services[SERVICE].variants == {"h100": 9}
    step = controller.step(at(NOW + WINDOW_SECONDS - 1.0, 0.5, 9))
    assert step.decisions.services[SERVICE].variants == {"h100": 9}
    step = controller.step(at(NOW + 2 * WINDOW_SECONDS, 0.5, 9))
    assert step.decisions.services[SERVICE].variants["h100"] < 9


def test_a_variant_that_cannot_be_read_keeps_the_count_that_was_known() -> None:
    two = policy(variants=(variant("h100"), variant("a100")))
    controller = Controller(policies(two), models())
    controller.restore(State({SERVICE: ServiceState(desired={"h100": 2, "a100": 4})}))
    controller.begin_anew(SERVICE, {"h100": 3}, NOW)
    state = controller.state.services[SERVICE]
    assert state.desired == {"h100": 3, "a100": 4}
    assert state.holds == {"h100": ((NOW, 3),), "a100": ((NOW, 4),)}
    decided = controller.step(at(NOW + 15.0, 2.0, 3)).decisions.services[SERVICE]
    assert decided.variants == {"h100": 3, "a100": 4}  # not its maximum, which nobody asked for


def test_beginning_anew_is_possible_for_who_was_never_decided() -> None:
    controller = Controller(policies(policy()), models())
    controller.begin_anew(SERVICE, {"h100": 4}, NOW)
    assert controller.state.services[SERVICE].desired == {"h100": 4}


def test_what_one_controller_wrote_down_another_goes_on_with() -> None:
    first = Controller(policies(policy()), models())
    steps = [at(NOW + 15.0 * i, rate, 6) for i, rate in enumerate((8.0, 8.0, 1.0, 1.0, 1.0))]
    for taken in steps[:3]:
        first.step(taken)
    second = Controller(policies(policy()), models())
    second.restore(first.state)
    for taken in steps[3:]:
        # as texts: NaN, for what does not apply, equals nothing
        assert repr(second.step(taken).decisions) == repr(first.step(taken).decisions)
    assert second.state == first.state


def test_who_never_asks_for_accounts_gets_the_same_decisions() -> None:
    kept, plain = (Controller(policies(policy()), models()) for _ in range(2))
    for taken in [at(NOW + 900.0 * i, 4.0, 3) for i in range(9)]:  # two hours are closed
        assert repr(plain.decide(taken).decisions) == repr(kept.step(taken).decisions)
    assert plain.state == kept.state


def starts_told_apart() -> LeadTimeModel:
    """Sixty starts of a minute on nodes that were there, sixty of ten minutes on new ones."""
    created = pd.Timestamp(NOW - 86_400.0, unit="s", tz="UTC") + pd.to_timedelta(
        np.arange(120) * 60, unit="s"
    )
    waited = np.where(np.arange(120) % 2, 300.0, 1.0)
    took = np.where(np.arange(120) % 2, 600.0, 60.0)
    frame = pd.DataFrame(
        {
            "service": SERVICE,
            "variant": "h100",
            "created_ts": created,
            "ready_ts": created + pd.to_timedelta(took, unit="s"),
            "phase_schedule_seconds": waited,
        }
    )
    return LeadTimeModel.fit(validate_startups(frame, "startups"), end_seconds=NOW)


def test_a_plan_looks_as_far_ahead_as_the_node_that_is_there_or_not() -> None:
    told = replace(models(), lead_time=starts_told_apart())

    def horizon(free: dict[str, tuple[int, ...]]) -> float:
        controller = Controller(policies(policy()), told)
        step = controller.step(replace(at(NOW, 2.0, 3), free_on_nodes=free))
        return step.decisions.services[SERVICE].horizon_seconds

    assert horizon({"h100": (8,)}) < 90.0
    assert horizon({}) > 500.0  # the mix: one of ten may wait for a node
    assert horizon({"h100": ()}) >= horizon({})
    # of a cluster where starts tell no phases, nothing is known of the node
    blind = Controller(policies(policy()), models())
    plain = blind.step(at(NOW, 2.0, 3)).decisions.services[SERVICE].horizon_seconds
    other = Controller(policies(policy()), models())
    free = other.step(replace(at(NOW, 2.0, 3), free_on_nodes={"h100": (8,)}))
    assert free.decisions.services[SERVICE].horizon_seconds == plain


def test_a_service_out_of_sight_for_a_tick_keeps_its_memory() -> None:
    controller = Controller(policies(policy()), models())
    controller.step(at(NOW, 2.0, 3))
    budget = controller.state.services[SERVICE].budget
    controller.step(silence(NOW + 15.0))
    assert controller.state.services[SERVICE].budget == budget
    assert controller.state.services[SERVICE].desired == {"h100": 3}

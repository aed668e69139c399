import numpy as np
import pytest
from builders import NOW, SERVICE, forecasts, observation, outlook, policies, policy, seen, variant

from autoscaler.core.outcome import ServiceDecision, State
from autoscaler.core.tick import tick
from autoscaler.edge.codec import decoder, encoder

SERVED = policies(policy(variants=(variant(max_replicas=60),)))


def after(ticks: int, times: float, **changes: float) -> tuple[State, ServiceDecision]:
    """A steady load on forty replicas whose tokens take `times` as long as the fit says."""
    state = State()
    known = forecasts({SERVICE: outlook(120.0)})
    for n in range(ticks):
        now = NOW + 15.0 * n
        shown = {"tpot_p50_seconds": 0.0205 * times, "running": 80.0, **changes}
        observed = observation(now, rate=120.0, h100=seen(40, **shown))
        state, decisions = tick(SERVED, known, state, observed)
    return state, decisions.services[SERVICE]


def test_an_engine_that_became_slower_needs_more_replicas() -> None:
    _, usual = after(20, 1.0)
    state, slower = after(90, 1.25)
    drift = state.services[SERVICE].drifts["h100"]
    assert np.exp(drift.log_factor) == pytest.approx(1.165, abs=0.04)  # on its way to 1.25
    assert slower.required_replicas > usual.required_replicas
    assert "not believed" not in slower.detail


def test_what_is_beyond_belief_is_told_and_changes_nothing() -> None:
    _, usual = after(20, 1.0)
    state, odd = after(20, 1000.0)
    assert state.services[SERVICE].drifts["h100"].log_factor == 0.0
    assert odd.required_replicas == usual.required_replicas
    assert odd.detail.endswith(
        "; tokens of h100 take over 3 times or under a third of what was fitted: not believed"
    )


def test_silence_keeps_what_was_learned() -> None:
    state, _ = after(45, 1.25)
    before = state.services[SERVICE].drifts
    known = forecasts({SERVICE: outlook(120.0)})
    quiet = observation(NOW + 1000.0, rate=120.0, h100=seen(40, tpot_p50_seconds=float("nan")))
    state, _ = tick(SERVED, known, state, quiet)
    assert state.services[SERVICE].drifts == before


def test_the_drift_survives_a_restart() -> None:
    state, _ = after(45, 1.25)
    assert decoder(State)(encoder(State)(state)) == state

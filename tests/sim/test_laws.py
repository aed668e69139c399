"""Laws that every queue obeys, whatever the engine, routing, roles or interruptions; and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim_builders import PROFILE, after, fleet, requests, variant

from autoscaler.sim.engine import EngineProfile, SimulationError
from autoscaler.sim.fleet import ROUTINGS, FleetVariant, KvTransfer, Spot
from autoscaler.sim.workload import Requests

LONG = 20_000.0  # seconds: all is over by then


@st.composite
def loads(draw: st.DrawFn) -> Requests:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 60))
    inputs = rng.integers(1, 300, n)
    return Requests(
        np.cumsum(rng.exponential(draw(st.sampled_from([0.02, 0.3, 3.0])), n)),
        inputs,
        rng.integers(1, 80, n),
        prefix_group=rng.integers(-1, 4, n),
        prefix_tokens=np.minimum(inputs, 96),
    )


@st.composite
def engines(draw: st.DrawFn) -> EngineProfile:
    return replace(
        PROFILE,
        max_num_seqs=draw(st.integers(1, 12)),
        max_num_batched_tokens=draw(st.integers(12, 256)),
        kv_capacity_tokens=draw(st.integers(25, 100)) * 16,
        async_scheduling=draw(st.booleans()),
        prefix_caching=draw(st.booleans()),
        prompt_step_seconds=draw(st.sampled_from([0.0, 0.05])),
    )


def fleets_of(profile: EngineProfile, roles: bool) -> list[FleetVariant]:
    gpu = variant(profile, initial_replicas=2)
    if not roles:
        return [gpu]
    back = replace(gpu, name="back", role="decode")
    return [replace(gpu, role="prefill", transfer=KvTransfer(0.1, 0.001)), back]


@given(loads(), engines(), st.booleans(), st.sampled_from(sorted(ROUTINGS)))
@settings(max_examples=150, deadline=None)
def test_littles_law_and_nobody_is_lost(
    load: Requests, profile: EngineProfile, roles: bool, routing: str
) -> None:
    """Requests in the system, integrated over time, are the sum of the times that each spent in it."""
    sim = fleet(load, *fleets_of(profile, roles), routing=routing)
    held = 0.0
    for seconds in (7.3, 11.0, LONG):  # telemetry in pieces must add up
        seen = sim.advance(seconds).variants.values()
        held += sum((v.running + v.waiting) * seconds for v in seen)
    done = sim.outcomes()
    assert done.end_seconds.notna().all()
    assert held == pytest.approx((done.end_seconds - done.arrive_seconds).sum(), rel=1e-9)
    assert (sim._f.state["load"] == 0).all()  # nothing may be left behind:
    alive = sim._f.state["blocks"] > 0
    state = sim._f.state[alive]
    np.testing.assert_array_equal(state["free"] + state["late_blocks"], state["blocks"])


@given(loads(), engines(), st.floats(0.5, 30.0), st.floats(0.0, 5.0))
@settings(max_examples=100, deadline=None)
def test_littles_law_holds_through_interruptions(
    load: Requests, profile: EngineProfile, told: float, notice: float
) -> None:
    sim = fleet(load, variant(profile, initial_replicas=2, startup=after(10.0)))
    held = 0.0
    for seconds in (told, LONG):
        v = sim.advance(seconds).variants["gpu"]
        held += (v.running + v.waiting) * seconds
        if seconds == told:
            sim.interrupt("gpu", 2, notice)
    done = sim.outcomes()
    assert done.end_seconds.notna().all()
    assert held == pytest.approx((done.end_seconds - done.arrive_seconds).sum(), rel=1e-9)


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_utilisation_law(seed: int, ahead: bool) -> None:
    """The share of time that an engine of one sequence is busy is its throughput times its service time."""
    rng = np.random.default_rng(seed)
    n = 400
    arrive = np.cumsum(rng.exponential(0.25, n))
    profile = replace(PROFILE, max_num_seqs=1, async_scheduling=ahead)
    sim = fleet(Requests(arrive, np.full(n, 90), np.full(n, 1)), variant(profile))
    seconds = float(arrive[-1])
    seen = sim.advance(seconds).variants["gpu"]
    service = 0.1 + 0.001 + 90 * 0.0001
    under_way = service / seconds  # the one that is served at the end counts in part
    assert seen.running == pytest.approx(
        seen.finished_requests / seconds * service, abs=2 * under_way
    )


def test_more_load_is_never_faster() -> None:
    rng = np.random.default_rng(9)
    gaps, inputs, outputs = rng.exponential(1, 2000), rng.integers(1, 900, 2000), np.full(2000, 20)
    p95 = []
    for rate in (1.0, 3.0, 5.0, 7.0):
        sim = fleet(Requests(np.cumsum(gaps) / rate, inputs, outputs), variant())
        sim.advance(LONG)
        p95.append(sim.verdict(0.0, LONG).ttft_p95_seconds)
    assert p95 == sorted(p95)


@pytest.mark.parametrize(
    ("row", "changes", "why"),
    [
        ((0.0, 10, 0), {}, "no-output-token"),
        ((0.0, 900, 101), {"max_model_len": 1000}, "beyond-context-window"),
        ((0.0, 1700, 5), {"kv_capacity_tokens": 1600}, "beyond-kv-cache"),
        ((0.0, 900, 100), {"max_model_len": 1000}, ""),
    ],
)
def test_what_vllm_refuses_is_refused_with_its_reason_and_the_next_one_is_served(
    row: tuple[float, int, int], changes: dict[str, int], why: str
) -> None:
    sim = fleet(requests(row, (0.0, 10, 5)), variant(replace(PROFILE, **changes)))
    sim.advance(100.0)
    done = sim.outcomes()
    assert done.refused.tolist() == [why, ""]
    assert done.end_seconds.notna().tolist() == [why == "", True]
    assert sim.verdict(0.0, 1.0).unserved_requests == (why != "")


def test_no_traffic_is_no_work() -> None:
    sim = fleet(requests(), variant(role="prefill"), variant(name="back", role="decode"))
    seen = sim.advance(60.0)
    assert seen.arrival_rate_rps == 0.0
    assert [v.running + v.waiting for v in seen.variants.values()] == [0.0, 0.0]
    assert not sim.busy


def test_a_prompt_that_is_cached_is_not_computed_again() -> None:
    profile = replace(PROFILE, prefix_caching=True)
    load = Requests(
        np.array([0.0, 10.0]),
        np.array([320, 330]),
        np.array([2, 2]),
        prefix_group=np.array([5, 5]),
        prefix_tokens=np.array([320, 320]),
    )
    sim = fleet(load, variant(profile))
    sim.advance(100.0)
    done = sim.outcomes()
    assert done.hit_tokens.tolist() == [0, 320]  # 20 blocks of 16
    # the second computes 10 tokens of prompt: 0.1 + 0.001 + 10 x 0.0001
    assert done.first_seconds[1] == pytest.approx(10.0 + 0.102)


def test_a_prompt_computed_elsewhere_waits_for_its_transfer() -> None:
    two = fleets_of(PROFILE, roles=True)
    sim = fleet(requests((0.0, 1000, 3)), *two)
    seen = sim.advance(100.0)
    # prompt 0.1 + 0.001 + 1000 x 0.0001; transfer 0.1 + 1000 x 0.001; first token: the last token of
    # the prompt is computed again where it decodes, 0.1 + 0.001 + 0.0001
    first = 0.201 + 1.1 + 0.1011
    assert sim.outcomes().first_seconds[0] == pytest.approx(first)
    assert seen.variants["gpu"].finished_requests == 0.0
    assert seen.variants["back"].finished_requests == 1.0


def test_the_scheduler_that_is_a_step_ahead_sees_a_request_a_step_later() -> None:
    profile = replace(PROFILE, async_scheduling=True)
    sim = fleet(requests((0.0, 100, 50), (0.3, 100, 1)), variant(profile))
    sim.advance(100.0)
    done = sim.outcomes()
    # steps end at 0.111 (prompt), 0.21301, 0.31503: the second comes in the third step, is not in the
    # fourth, which is planned already (to 0.41706), but in the fifth: 0.1 + 0.002 + 104 x 1e-5 + 0.01
    assert done.seen_seconds[1] == pytest.approx(0.31503)
    assert done.first_seconds[1] == pytest.approx(0.41706 + 0.11304)


def test_an_interrupted_replica_drains_then_loses_what_begins_again_elsewhere() -> None:
    # one replica, told at 1 s and lost at 2 s; the next one is ready at 61 s
    sim = fleet(requests((0.0, 100, 5), (0.0, 100, 50), (1.5, 100, 1)), variant())
    sim.advance(1.0)
    sim.interrupt("gpu", 1, 1.0)
    seen = sim.advance(100.0).variants["gpu"]
    done = sim.outcomes()
    assert done.end_seconds[0] < 2.0
    # both that are left start in one step: 0.1 + 2 x 0.001 + 200 x 0.0001
    assert done.first_seconds.tolist()[1:] == pytest.approx([61.122, 61.122])
    assert seen.ready == 1
    assert sim.starts().ready_seconds.tolist() == [61.0]
    assert sim.accelerator_seconds()["gpu"] == pytest.approx(4 * (2.0 + 100.0))


def test_spot_replicas_are_taken_back_at_their_rate_and_replaced() -> None:
    gpu = variant(initial_replicas=5, startup=after(60.0), spot=Spot(2.0, 30.0))
    sim = fleet(requests(), gpu, seed=4)
    sim.advance(100 * 3600.0)
    # 5 replicas x 100 h, each living half an hour on average and then a minute in its start-up
    expected = 5 * 100 * 3600 / (1800 + 60 - 0)
    assert len(sim.starts()) == pytest.approx(expected, rel=0.1)


def test_mistakes_of_the_new_kinds_are_refused_in_a_sentence() -> None:
    with pytest.raises(SimulationError, match="max_model_len is 0; allowed: 1 to kv_capacity"):
        replace(PROFILE, max_model_len=0)
    with pytest.raises(SimulationError, match="role is 'idle'; allowed: both, prefill, decode"):
        variant(role="idle")
    with pytest.raises(SimulationError, match="need each other"):
        fleet(requests(), variant(role="prefill"))
    with pytest.raises(SimulationError, match="notice of -1"):
        fleet(requests()).interrupt("gpu", 1, -1.0)
    with pytest.raises(SimulationError, match="2 interrupted; allowed: 0 to 1"):
        fleet(requests()).interrupt("gpu", 2, 1.0)
    with pytest.raises(SimulationError, match="interruptions_per_hour"):
        variant(spot=Spot(-1.0))

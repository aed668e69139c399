"""The kernels against times worked out by hand, and against a step-by-step engine in plain Python."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim_builders import PROFILE, fleet, requests, variant
from slow_engine import Job
from slow_fleet import SlowFleet

from autoscaler.sim.engine import EngineProfile, SimulationError
from autoscaler.sim.workload import Requests


def test_one_request_alone_takes_its_prompt_steps_and_a_step_a_token() -> None:
    sim = fleet(requests((1.0, 3000, 11)))
    sim.advance(100.0)
    row = sim.outcomes().iloc[0]
    # prompt: 2048 tokens in 0.1 + 0.001 + 0.2048 = 0.3058 s, the other 952 in 0.1 + 0.001 + 0.0952 = 0.1962 s
    assert row.first_seconds == pytest.approx(1.0 + 0.3058 + 0.1962)
    # 10 decode steps read 3001 .. 3010 tokens: 10 x 0.101 + 30055 x 0.00001 = 1.31055 s
    assert row.end_seconds == pytest.approx(row.first_seconds + 1.31055)


def test_two_requests_share_steps() -> None:
    sim = fleet(requests((0.0, 100, 3), (0.0, 200, 2)))
    sim.advance(100.0)
    done = sim.outcomes()
    # both prompts in one step: 0.1 + 2 x 0.001 + 300 x 0.0001 = 0.132
    assert list(done.first_seconds) == pytest.approx([0.132, 0.132])
    # second step, both decode: 0.1 + 0.002 + (101 + 201) x 0.00001 = 0.10502; third, the first alone:
    # 0.1 + 0.001 + 102 x 0.00001 = 0.10202
    assert list(done.end_seconds) == pytest.approx([0.132 + 0.10502 + 0.10202, 0.132 + 0.10502])


def test_decodes_take_their_tokens_first_and_prompts_get_the_rest_of_the_budget() -> None:
    profile = replace(PROFILE, max_num_seqs=4, max_num_batched_tokens=8)
    sim = fleet(requests((0.0, 8, 50), (0.05, 14, 1)), variant(profile))
    sim.advance(100.0)
    # step 1: 8 prompt tokens of the first, 0.1018 s; the second came meanwhile.
    # steps 2 and 3: one decode and 7 of the 14 prompt tokens: 0.1 + 0.002 + context + 0.0007, context
    # 9 and 10 tokens
    expected = 0.1018 + 2 * 0.1027 + (9 + 10) * 0.00001
    assert sim.outcomes().first_seconds[1] == pytest.approx(expected)


def test_no_more_sequences_run_than_max_num_seqs() -> None:
    profile = replace(PROFILE, max_num_seqs=1)
    sim = fleet(requests((0.0, 10, 2), (0.0, 10, 1)), variant(profile))
    sim.advance(100.0)
    done = sim.outcomes()
    # the second waits for the end of the first, then takes one prompt step of 0.1 + 0.001 + 0.001
    assert done.first_seconds[1] == pytest.approx(done.end_seconds[0] + 0.102)


def test_blocks_that_run_out_preempt_the_latest_request_which_computes_again() -> None:
    profile = replace(PROFILE, kv_capacity_tokens=64)  # 4 blocks of 16
    sim = fleet(requests((0.0, 16, 30), (0.0, 16, 30)), variant(profile))
    sim.advance(100.0)
    # Both prompts fill one block each, the first decode takes a second block each: none is left. With
    # 32 tokens cached, after 17 steps and 17 tokens, both need a third: the second one is preempted. It
    # needs 33 tokens = 3 blocks, the first holds 3 of 4: it waits for the end of the first, which at
    # step 30 has all its tokens. It then computes 33 tokens in one step, its 18th token, and decodes 12.
    assert sim.preemptions == 1
    done = sim.outcomes()
    assert done.first_seconds[0] == done.first_seconds[1]
    again = 0.1 + 0.001 + 33 * 0.0001
    decodes = 12 * 0.101 + sum(range(34, 46)) * 0.00001
    assert done.end_seconds[1] == pytest.approx(done.end_seconds[0] + again + decodes)


def test_a_request_that_can_never_fit_is_refused_and_others_are_served() -> None:
    profile = replace(PROFILE, kv_capacity_tokens=64)
    sim = fleet(
        requests((0.0, 60, 6), (0.0, 60, 5)), variant(profile)
    )  # 65 and 64 tokens at the end
    sim.advance(100.0)
    assert list(np.isfinite(sim.outcomes().end_seconds)) == [False, True]
    assert sim.verdict(0.0, 100.0).unserved_requests == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("base_seconds", 0.0),
        ("per_sequence_seconds", -1.0),
        ("per_prompt_token_seconds", float("nan")),
        ("block_tokens", 0),
        ("max_num_batched_tokens", 255),
    ],
)
def test_an_impossible_engine_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(SimulationError, match=f"'test'.*{field}"):
        replace(PROFILE, **{field: value})


lengths = st.tuples(st.floats(0.0, 2.0), st.integers(1, 90), st.integers(1, 60))


@st.composite
def engines(draw: st.DrawFn) -> EngineProfile:
    sequences = draw(st.integers(1, 6))
    block = draw(st.sampled_from([1, 4, 16]))
    return replace(
        PROFILE,
        per_context_token_seconds=draw(st.sampled_from([0.0, 0.0001])),
        max_num_seqs=sequences,
        max_num_batched_tokens=draw(st.integers(sequences, 64)),
        kv_capacity_tokens=draw(st.integers(160 // block + 1, 400 // block)) * block,
        block_tokens=block,
    )


@given(engines(), st.lists(lengths, min_size=1, max_size=20), st.floats(2.0, 50.0))
@settings(max_examples=400, deadline=None)
def test_a_replica_agrees_with_the_step_by_step_engine(
    profile: EngineProfile, rows: list[tuple[float, int, int]], interval: float
) -> None:
    # an odd offset: whether 0.1 + 0.2 comes just before or after 0.3 is not the question here
    arrive = np.cumsum([row[0] for row in rows]) + np.pi * 1e-4 * np.arange(len(rows))
    inputs, outputs = (np.array([row[k] for row in rows]) for k in (1, 2))
    jobs = [Job(*job) for job in zip(arrive, inputs.tolist(), outputs.tolist(), strict=True)]
    slow = SlowFleet(profile)
    slow.run(jobs)
    sim = fleet(Requests(arrive, inputs, outputs), variant(profile))
    while sim.now_seconds <= jobs[-1].arrive or sim.verdict(0.0, 1e9).unserved_requests:
        sim.advance(interval)
    done = sim.outcomes()
    assert list(done.first_seconds) == pytest.approx([job.first for job in jobs], rel=1e-9)
    assert list(done.end_seconds) == pytest.approx([job.end for job in jobs], rel=1e-9)
    assert sim.preemptions == slow.alive[0].preemptions


def test_a_long_mixed_run_agrees_with_the_step_by_step_engine() -> None:
    rng = np.random.default_rng(5)
    n = 400
    load = Requests(
        np.cumsum(rng.exponential(0.4, n)),
        np.clip(rng.lognormal(5.5, 1.0, n), 1, 3000).astype(np.int64),
        np.clip(rng.lognormal(3.5, 1.0, n), 1, 800).astype(np.int64),
    )
    profile = replace(PROFILE, max_num_seqs=32, kv_capacity_tokens=8000, max_num_batched_tokens=512)
    columns = (load.arrive_seconds, load.input_tokens, load.output_tokens)
    jobs = [Job(*job) for job in zip(*(c.tolist() for c in columns), strict=True)]
    slow = SlowFleet(profile)
    slow.run(jobs)
    sim = fleet(load, variant(profile))
    sim.advance(5000.0)
    assert slow.alive[0].preemptions > 10  # the run has what it is meant to have
    assert sim.preemptions == slow.alive[0].preemptions
    assert list(sim.outcomes().end_seconds) == pytest.approx([job.end for job in jobs], rel=1e-9)

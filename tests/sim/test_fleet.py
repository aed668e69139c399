"""Fleets: starts, drains, costs, the gateway's queue, telemetry, and laws that every queue obeys."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sim_builders import PROFILE, after, fleet, requests, variant

from autoscaler.core.types import ServiceObservation
from autoscaler.sim.engine import SimulationError
from autoscaler.sim.fleet import Fleet
from autoscaler.sim.workload import Requests
from models.slo import SloTargets


def busy_load(n: int = 3000, rate_rps: float = 12.0, seed: int = 3) -> Requests:
    rng = np.random.default_rng(seed)
    return Requests(
        np.cumsum(rng.exponential(1 / rate_rps, n)),
        rng.integers(1, 800, n),
        rng.integers(1, 60, n),
    )


def test_without_a_ready_replica_the_gateway_holds_what_arrives() -> None:
    sim = fleet(requests((2.0, 100, 1), (4.0, 100, 1)), variant(initial_replicas=0))
    sim.scale("gpu", 1)  # ready at 60 s
    seen = sim.advance(10.0)
    assert seen.arrival_rate_rps == pytest.approx(0.2)
    assert seen.variants["gpu"].waiting == pytest.approx((8.0 + 6.0) / 10.0)  # request-seconds
    assert np.isnan(seen.variants["gpu"].kv_cache_usage_ratio)
    sim.advance(60.0)
    # both start with the replica, in one step of 0.1 + 2 x 0.001 + 200 x 0.0001 s
    assert list(sim.outcomes().first_seconds) == pytest.approx([60.122, 60.122])


def test_starting_replicas_are_given_up_first_the_youngest_of_them_before_the_others() -> None:
    sim = fleet(requests(), variant())
    sim.scale("gpu", 2)
    sim.advance(10.0)
    sim.scale("gpu", 3)
    seen = sim.advance(10.0).variants["gpu"]
    assert (seen.ready, seen.starting, seen.desired) == (1, 2, 3)
    sim.scale("gpu", 2)
    starts = sim.starts()
    assert list(starts.created_seconds) == [0.0, 10.0]
    assert starts.ready_seconds.isna().all()
    assert starts.ended_seconds.tolist()[1] == 20.0
    assert np.isnan(starts.ended_seconds[0])
    sim.advance(60.0)
    assert sim.starts().ready_seconds[0] == 60.0
    assert (sim.scale_ups, sim.scale_downs) == (2, 1)


def test_the_idlest_replica_drains_finishes_what_it_has_and_takes_nothing_new() -> None:
    # round-robin: the first replica gets the long request, the second one the short ones
    load = requests((0.0, 10, 400), (0.1, 10, 20), (5.0, 10, 5), (6.0, 10, 5))
    sim = fleet(load, variant(initial_replicas=2), routing="round-robin")
    sim.advance(1.0)
    sim.scale(
        "gpu", 1
    )  # each has one request: the younger one goes; both are as old, the first goes
    seen = sim.advance(10.0).variants["gpu"]
    assert (seen.ready, seen.draining) == (1, 1)
    sim.advance(100.0)
    done = sim.outcomes()
    assert done.end_seconds.notna().all()
    # cost: the drained replica until its request ended, the other one throughout; 4 accelerators each
    assert sim.accelerator_seconds()["gpu"] == pytest.approx(4 * (done.end_seconds[0] + 111.0))


def test_an_idle_replica_that_is_given_up_ends_at_once() -> None:
    sim = fleet(requests(), variant(initial_replicas=3))
    sim.advance(10.0)
    sim.scale("gpu", 1)
    sim.advance(10.0)
    assert sim.accelerator_seconds()["gpu"] == pytest.approx(4 * (10 + 10 + 20))


def test_a_starting_replica_costs_from_its_creation() -> None:
    sim = fleet(requests(), variant(initial_replicas=0))
    sim.scale("gpu", 2)
    sim.advance(15.0)
    assert sim.accelerator_seconds()["gpu"] == pytest.approx(4 * 2 * 15.0)


def test_slots_are_found_however_many_replicas_drain() -> None:
    rng = np.random.default_rng(0)
    load = Requests(np.sort(rng.uniform(0, 400, 2000)), np.full(2000, 50), np.full(2000, 900))
    sim = fleet(load, variant(initial_replicas=2, max_replicas=2, startup=after(1.0)))
    for step in range(100):  # every 4 s one is replaced; each drains for minutes
        sim.scale("gpu", 1 + step % 2)
        seen = sim.advance(4.0).variants["gpu"]
    assert seen.draining > 10  # more than the slots that a fleet begins with
    assert sim.advance(12_000.0).variants["gpu"].draining == 0
    assert sim.verdict(0.0, 400.0).unserved_requests == 0


def test_no_more_replicas_than_the_maximum() -> None:
    sim = fleet(requests(), variant(max_replicas=3))
    sim.scale("gpu", 50)
    seen = sim.advance(1.0).variants["gpu"]
    assert (seen.ready, seen.starting, seen.desired) == (1, 2, 3)


@pytest.mark.parametrize("routing", ["least-load", "round-robin", "power-of-two"])
def test_the_same_seed_and_calls_give_the_same_run(routing: str) -> None:
    def run() -> tuple[list[ServiceObservation], pd.DataFrame, pd.DataFrame]:
        gpu = variant(startup=lambda rng: float(rng.uniform(5, 50)))
        sim = fleet(busy_load(), gpu, seed=11, routing=routing, targets=SloTargets(2.0, 0.2))
        seen = []
        for step in range(40):
            sim.scale("gpu", 2 + step % 3)
            seen.append(sim.advance(10.0))
        return seen, sim.outcomes(), sim.starts()

    one, two = run(), run()
    assert repr(one[0]) == repr(two[0])
    pd.testing.assert_frame_equal(one[1], two[1])
    pd.testing.assert_frame_equal(one[2], two[2])


def test_the_interval_of_the_calls_does_not_change_what_happens() -> None:
    ends = []
    for interval in (0.37, 15.0, 600.0):
        sim = fleet(busy_load(rate_rps=6.0), variant(initial_replicas=2))
        while sim.now_seconds < 1200.0:
            sim.advance(interval)
        ends.append(sim.outcomes().end_seconds.to_numpy())
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-9)
    np.testing.assert_allclose(ends[2], ends[0], rtol=1e-9)


def test_time_may_count_from_the_epoch() -> None:
    epoch, load = 1.7e9, busy_load(300)
    late = Requests(load.arrive_seconds + epoch, load.input_tokens, load.output_tokens)
    sims = [fleet(load), fleet(late, start_seconds=epoch)]
    for sim in sims:
        sim.advance(200.0)
    shifted = sims[1].outcomes().end_seconds - epoch
    np.testing.assert_allclose(shifted, sims[0].outcomes().end_seconds, atol=1e-5)
    assert sims[1].now_seconds == epoch + 200.0
    assert sims[1].verdict(epoch, epoch + 200.0).requests == sims[0].verdict(0.0, 200.0).requests


def test_telemetry_says_what_happened_to_the_requests() -> None:
    targets = SloTargets(ttft_seconds=0.6, tpot_seconds=0.17)
    sim = fleet(busy_load(rate_rps=5.0), variant(initial_replicas=2), targets=targets)
    sim.advance(30.0)
    seen = sim.advance(60.0)
    gpu, done = seen.variants["gpu"], sim.outcomes()
    arrived = done[(done.arrive_seconds >= 30) & (done.arrive_seconds < 90)]
    started = done[(done.first_seconds >= 30) & (done.first_seconds < 90)]
    ended = done[(done.end_seconds >= 30) & (done.end_seconds < 90)]
    ttft = started.first_seconds - started.arrive_seconds
    tpot = (ended.end_seconds - ended.first_seconds) / (ended.output_tokens - 1).clip(lower=1)
    long = ended.output_tokens >= 8
    quick = ended.first_seconds - ended.arrive_seconds <= 0.6
    smooth = (tpot <= 0.17) | ~long
    assert seen.arrival_rate_rps == pytest.approx(len(arrived) / 60)
    assert seen.isl_tokens == pytest.approx(arrived.input_tokens.mean())
    assert seen.osl_tokens == pytest.approx(ended.output_tokens.mean())
    assert gpu.finished_requests == len(ended)
    assert gpu.ttft_p95_seconds == pytest.approx(ttft.quantile(0.95))
    assert gpu.tpot_p50_seconds == pytest.approx(tpot[long].quantile(0.5))
    assert gpu.ttft_within_slo_ratio == pytest.approx(quick.mean())
    assert gpu.tpot_within_slo_ratio == pytest.approx(smooth.mean())
    assert gpu.slo_attainment_ratio == pytest.approx((quick & smooth).mean())
    assert 0.1 < gpu.slo_attainment_ratio < 0.98  # the case can tell


def test_nothing_finished_is_nan_and_not_zero_latency() -> None:
    seen = fleet(requests()).advance(15.0)
    assert seen.arrival_rate_rps == 0.0
    assert np.isnan(seen.isl_tokens)
    assert np.isnan(seen.variants["gpu"].ttft_p95_seconds)
    assert np.isnan(seen.variants["gpu"].slo_attainment_ratio)
    assert seen.variants["gpu"].finished_requests == 0.0


def test_a_request_of_few_tokens_is_judged_on_its_first_one_alone() -> None:
    load = requests((0.0, 10, 7), (0.0, 10, 8))
    sim = fleet(load, targets=SloTargets(tpot_seconds=0.001))
    sim.advance(10.0)
    verdict = sim.verdict(0.0, 10.0)
    assert verdict.slo_attainment_ratio == 0.5
    # one of them has a TPOT that counts: six steps together, one alone, with 11 .. 17 tokens each
    together = 6 * 0.102 + 2 * sum(range(11, 17)) * 0.00001
    assert verdict.tpot_p95_seconds == pytest.approx((together + 0.101 + 17 * 0.00001) / 7)


def test_unserved_requests_are_missed() -> None:
    sim = fleet(requests((0.0, 10, 1), (9.0, 10, 500)))
    sim.advance(10.0)
    verdict = sim.verdict(0.0, 10.0)
    assert (verdict.requests, verdict.unserved_requests) == (2, 1)
    assert verdict.slo_attainment_ratio == 0.5


def test_littles_law() -> None:
    sim = fleet(busy_load(), variant(initial_replicas=2))
    seen = sim.advance(2000.0)  # all is over by then
    done = sim.outcomes()
    sojourn = (done.end_seconds - done.arrive_seconds).sum()
    gpu = seen.variants["gpu"]
    assert (gpu.running + gpu.waiting) * 2000.0 == pytest.approx(sojourn, rel=1e-9)


def test_an_engine_of_one_sequence_and_one_token_is_a_queue_with_deterministic_service() -> None:
    rng, n = np.random.default_rng(8), 300_000
    profile = replace(PROFILE, max_num_seqs=1)
    service, load = 0.1 + 0.001 + 0.009, 0.7
    arrive = np.cumsum(rng.exponential(service / load, n))
    sim = fleet(Requests(arrive, np.full(n, 90), np.full(n, 1)), variant(profile))
    sim.advance(arrive[-1] + 100.0)
    done = sim.outcomes()
    wait = (done.first_seconds - done.arrive_seconds).mean() - service
    # M/D/1 (Pollaczek-Khinchine): mean wait = load x service / (2 (1 - load))
    assert wait == pytest.approx(load * service / (2 * (1 - load)), rel=0.03)


def test_every_request_is_served_once_by_any_routing_while_the_fleet_changes() -> None:
    for routing in ("least-load", "round-robin", "power-of-two"):
        sim = fleet(busy_load(), variant(max_replicas=6, startup=after(7.0)), routing=routing)
        rng = np.random.default_rng(2)
        finished = 0.0
        for _ in range(200):
            sim.scale("gpu", int(rng.integers(1, 7)))
            finished += sim.advance(5.0).variants["gpu"].finished_requests
        assert finished == 3000
        done = sim.outcomes()
        assert (done.end_seconds >= done.first_seconds).all()
        assert (done.first_seconds > done.arrive_seconds).all()


def test_kv_usage_is_the_share_of_blocks_held() -> None:
    profile = replace(PROFILE, kv_capacity_tokens=1600)  # 100 blocks
    sim = fleet(requests((0.0, 160, 160)), variant(profile))
    seen = sim.advance(10.0).variants[
        "gpu"
    ]  # still running: 10 blocks at first, one more per 16 steps
    done = sim.outcomes()
    assert np.isnan(done.end_seconds[0])
    # a step takes about 0.1026 s, so 96 decode steps are done after 10 s: 10 to 16 blocks, 13.0 on average
    assert seen.kv_cache_usage_ratio == pytest.approx(0.13, abs=0.006)


def test_least_load_spreads_what_round_robin_piles_up() -> None:
    # every other request is heavy: in turn, one of two replicas gets all of those
    n = 400
    heavy = np.arange(n) % 2 == 0
    load = Requests(np.arange(n) * 0.5, np.where(heavy, 3000, 10), np.where(heavy, 200, 1))

    def p95(routing: str) -> float:
        sim = fleet(load, variant(initial_replicas=2), routing=routing)
        sim.advance(3000.0)
        return sim.verdict(0.0, 3000.0).ttft_p95_seconds

    assert p95("least-load") < 0.8 * p95("round-robin")
    assert p95("power-of-two") < 0.8 * p95("round-robin")


def test_two_variants_share_the_load_and_report_apart() -> None:
    slow = variant(replace(PROFILE, base_seconds=0.3), name="old", accelerators_per_replica=2)
    sim = fleet(busy_load(rate_rps=2.0), variant(name="new"), slow)
    seen = sim.advance(200.0)
    assert seen.variants["old"].tpot_p50_seconds > 2 * seen.variants["new"].tpot_p50_seconds
    assert seen.variants["new"].finished_requests > seen.variants["old"].finished_requests > 0
    assert sim.accelerator_seconds() == {"new": 800.0, "old": 400.0}


def build_without_variants() -> Fleet:
    return Fleet(requests(), [], SloTargets(), start_seconds=0.0, seed=0)


def test_mistakes_are_refused_in_a_sentence() -> None:
    with pytest.raises(SimulationError, match="allowed: least-load, round-robin"):
        fleet(requests(), routing="random")
    with pytest.raises(SimulationError, match="at least one variant"):
        build_without_variants()
    with pytest.raises(SimulationError, match="no variant 'cpu'; allowed: gpu"):
        fleet(requests()).scale("cpu", 1)
    with pytest.raises(SimulationError, match="-1 replicas"):
        fleet(requests()).scale("gpu", -1)
    with pytest.raises(SimulationError, match="advance by 0"):
        fleet(requests()).advance(0)
    with pytest.raises(SimulationError, match="initial_replicas is 11"):
        fleet(requests(), variant(initial_replicas=11))
    with pytest.raises(SimulationError, match="a start takes nan s"):
        fleet(requests(), variant(startup=after(float("nan")))).scale("gpu", 2)

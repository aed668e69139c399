"""Fleets against the slow reference: percentiles within 5 % on loads with everything that can happen."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from sim_builders import PROFILE, after, fleet, variant
from slow_engine import Job
from slow_fleet import SlowFleet, two_of

from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.fleet import Fleet, KvTransfer
from autoscaler.sim.workload import Requests

WITHIN = 0.05
AHEAD = replace(PROFILE, async_scheduling=True, prompt_step_seconds=0.02)
SMALL = {"max_num_seqs": 32, "kv_capacity_tokens": 8000, "max_num_batched_tokens": 512}


def mixed_load(
    rate_rps: float, *, seed: int, groups: int = 0, n: int = 600, sigma: float = 1.0
) -> Requests:
    """Lognormal lengths; with `groups`, each begins with 512 tokens that its group shares."""
    rng = np.random.default_rng(seed)
    arrive = np.cumsum(rng.exponential(1 / rate_rps, n))
    inputs = np.clip(rng.lognormal(5.5, sigma, n), 1, 3000).astype(np.int64)
    outputs = np.clip(rng.lognormal(3.5, sigma, n), 1, 800).astype(np.int64)
    if not groups:
        return Requests(arrive, inputs, outputs)
    return Requests(
        arrive,
        inputs + 512,
        outputs,
        prefix_group=rng.integers(0, groups, n),
        prefix_tokens=np.full(n, 512),
    )


def jobs_of(load: Requests) -> list[Job]:
    columns = (load.arrive_seconds, load.input_tokens, load.output_tokens)
    rows = zip(*(c.tolist() for c in (*columns, load.groups, load.prefixes)), strict=True)
    return [Job(*row) for row in rows]


@dataclass
class Case:
    load: Requests
    profile: EngineProfile
    replicas: int = 1
    decoders: int = 0
    routing: str = "least-load"
    interrupted: list[tuple[float, float]] = field(default_factory=list)

    def slow(self) -> tuple[SlowFleet, list[Job]]:
        jobs = jobs_of(self.load)
        slow = SlowFleet(
            self.profile,
            self.replicas,
            self.decoders,
            routing=self.routing,
            transfer=(0.03, 0.0001),
            interrupted=self.interrupted,
            startup=60.0,
        )
        slow.run(jobs)
        return slow, jobs

    def fast(self) -> Fleet:
        mine = variant(self.profile, initial_replicas=self.replicas, startup=after(60.0))
        both: list[Any] = [mine]
        if self.decoders:
            both = [
                replace(mine, role="prefill", transfer=KvTransfer(0.03, 0.0001)),
                replace(mine, name="back", role="decode", initial_replicas=self.decoders),
            ]
        sim = fleet(self.load, *both, routing=self.routing)
        for told, lost in self.interrupted:
            sim.advance(told - sim.now_seconds)
            sim.interrupt("gpu", 1, lost - told)
        sim.advance(5000.0)
        return sim


def caching(**changes: Any) -> EngineProfile:
    return replace(AHEAD, prefix_caching=True, **changes)


CASES: dict[str, Callable[[int], Case]] = {
    "asynchronous": lambda seed: Case(mixed_load(4.0, seed=seed), AHEAD),
    "preempted": lambda seed: Case(mixed_load(2.0, seed=seed), replace(PROFILE, **SMALL)),
    "preempted-asynchronous": lambda seed: Case(
        mixed_load(2.0, seed=seed), replace(AHEAD, **SMALL)
    ),
    "preempted-cached": lambda seed: Case(mixed_load(2.0, seed=seed), caching(**SMALL)),
    "fleet": lambda seed: Case(mixed_load(12.0, seed=seed), AHEAD, 3),
    "round-robin": lambda seed: Case(mixed_load(12.0, seed=seed), AHEAD, 3, routing="round-robin"),
    "power-of-two": lambda seed: Case(
        mixed_load(16.0, seed=seed), AHEAD, 4, routing="power-of-two"
    ),
    "power-of-two-preempted": lambda seed: Case(
        mixed_load(6.0, seed=seed), replace(AHEAD, **SMALL), 3, routing="power-of-two"
    ),
    "least-load-preempted": lambda seed: Case(
        mixed_load(6.0, seed=seed), replace(AHEAD, **SMALL), 3
    ),
    "round-robin-preempted": lambda seed: Case(
        mixed_load(6.0, seed=seed), replace(PROFILE, **SMALL), 3, routing="round-robin"
    ),
    "power-of-two-roles": lambda seed: Case(
        mixed_load(8.0, seed=seed), PROFILE, 2, 3, routing="power-of-two"
    ),
    "prefix-aware-preempted": lambda seed: Case(
        # (overloaded: just below, one other choice decides whether a queue forms at all)
        mixed_load(8.0, seed=seed, groups=12, n=700, sigma=0.4),
        caching(**SMALL, async_scheduling=False),
        3,
        routing="prefix-aware",
    ),
    "prefix": lambda seed: Case(mixed_load(3.0, seed=seed, groups=5), caching()),
    "prefix-evicted": lambda seed: Case(mixed_load(1.0, seed=seed, groups=20), caching(**SMALL)),
    "prefix-aware": lambda seed: Case(
        mixed_load(6.0, seed=seed, groups=12),
        # (asynchronous, the oracle knows a prefix a step earlier: other replicas, other luck)
        caching(kv_capacity_tokens=40_000, async_scheduling=False),
        3,
        routing="prefix-aware",
    ),
    "roles": lambda seed: Case(mixed_load(6.0, seed=seed), PROFILE, 1, 2),
    "roles-preempted": lambda seed: Case(mixed_load(3.0, seed=seed), replace(AHEAD, **SMALL), 1, 2),
    "spot": lambda seed: Case(
        mixed_load(6.0, seed=seed), AHEAD, 2, interrupted=[(20.3, 24.1), (85.2, 85.9)]
    ),
}


# One block freed a step later sends a request to another replica, and its followers: draws differ by up to
# 25 %, with either sign. The percentiles of so many draws together differ by 1 % at most.
CHAOTIC = {
    "least-load-preempted": 32,
    "power-of-two-preempted": 32,
    "prefix-aware-preempted": 32,  # of half as many, by 3 %
}
CALM_SEEDS = (4, 11, 12)


@dataclass
class Measured:
    """TTFT and TPOT of one engine's requests, in seconds, and its preemptions."""

    ttft: list[float] = field(default_factory=list)
    tpot: list[float] = field(default_factory=list)
    preemptions: int = 0

    def add_slow(self, case: Case) -> None:
        slow, jobs = case.slow()
        self.ttft += [j.first - j.arrive for j in jobs]
        self.tpot += [
            (j.end - j.first) / (j.output_tokens - 1) for j in jobs if j.output_tokens >= 8
        ]
        self.preemptions += sum(r.preemptions for r in slow.alive)

    def add_fast(self, case: Case) -> None:
        sim = case.fast()
        done = sim.outcomes()
        assert done.end_seconds.notna().all()
        self.ttft += (done.first_seconds - done.arrive_seconds).tolist()
        many = done[done.output_tokens >= 8]
        self.tpot += ((many.end_seconds - many.first_seconds) / (many.output_tokens - 1)).tolist()
        self.preemptions += sim.preemptions


def both_engines(name: str, seeds: Iterable[int]) -> tuple[Measured, Measured]:
    """Serve the same draws of a case's load with both engines; all draws of each together."""
    ours, theirs = Measured(), Measured()
    for seed in seeds:
        case = CASES[name](seed)
        theirs.add_slow(case)
        ours.add_fast(case)
    return ours, theirs


def assert_agree(ours: Measured, theirs: Measured) -> None:
    at = [0.5, 0.95, 0.99]
    for what in ("ttft", "tpot"):
        exact = np.quantile(getattr(theirs, what), at)
        mine = np.quantile(getattr(ours, what), at)
        np.testing.assert_allclose(mine, exact, rtol=WITHIN, err_msg=what)


@pytest.mark.parametrize("seed", CALM_SEEDS)
@pytest.mark.parametrize("name", [n for n in CASES if n not in CHAOTIC])
def test_percentiles_agree_with_the_slow_reference(name: str, seed: int) -> None:
    ours, theirs = both_engines(name, [seed])
    assert_agree(ours, theirs)
    if "preempted" in name:  # the case has what it is meant to have
        assert theirs.preemptions > 10
        assert ours.preemptions == pytest.approx(theirs.preemptions, rel=0.15)


@pytest.mark.parametrize("name", CHAOTIC)
def test_percentiles_of_many_draws_agree_where_one_is_luck(name: str) -> None:
    draws = CHAOTIC[name]
    ours, theirs = both_engines(name, range(100, 100 + draws))
    assert_agree(ours, theirs)
    assert theirs.preemptions > 10 * draws
    assert ours.preemptions == pytest.approx(theirs.preemptions, rel=0.03)


def test_a_prefix_draws_requests_while_its_prompt_is_still_computed() -> None:
    load = Requests(
        np.array([0.0, 0.2]),
        np.array([1500, 1500]),
        np.array([4, 4]),
        prefix_group=np.array([0, 0]),
        prefix_tokens=np.array([1024, 1024]),
    )
    # (three chunks of 512: the second request comes in the second one)
    case = Case(load, caching(max_num_batched_tokens=512), 2, routing="prefix-aware")
    _, jobs = case.slow()
    done = case.fast().outcomes()
    assert done.hit_tokens.tolist() == [0, 1024]
    np.testing.assert_allclose(done.end_seconds, [j.end for j in jobs], rtol=1e-9)


def test_the_two_choices_are_any_two_replicas_alike_often() -> None:
    for count in (2, 5):
        pairs = [two_of(count, number, seed=7) for number in range(20_000)]
        assert all(one != other for one, other in pairs)
        expected = 20_000 / (count * (count - 1))
        often = np.array([pairs.count(p) for p in sorted(set(pairs))])
        assert len(often) == count * (count - 1)
        # chi square of as many cells; five standard deviations
        off = ((often - expected) ** 2 / expected).sum()
        assert off < len(often) + 5.0 * np.sqrt(2.0 * len(often))

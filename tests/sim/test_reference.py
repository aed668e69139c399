"""Fleets against the slow reference: percentiles within 5 % on loads with everything that can happen."""

from collections.abc import Callable
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
    rate_rps: float, *, groups: int = 0, n: int = 600, seed: int = 4, sigma: float = 1.0
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


CASES: dict[str, Callable[[], Case]] = {
    "asynchronous": lambda: Case(mixed_load(4.0), AHEAD),
    "preempted": lambda: Case(mixed_load(2.0), replace(PROFILE, **SMALL)),
    "preempted-asynchronous": lambda: Case(mixed_load(2.0), replace(AHEAD, **SMALL)),
    "preempted-cached": lambda: Case(mixed_load(2.0), caching(**SMALL)),
    "fleet": lambda: Case(mixed_load(12.0), AHEAD, 3),
    "round-robin": lambda: Case(mixed_load(12.0), AHEAD, 3, routing="round-robin"),
    "power-of-two": lambda: Case(mixed_load(16.0), AHEAD, 4, routing="power-of-two"),
    "power-of-two-preempted": lambda: Case(
        mixed_load(6.0), replace(AHEAD, **SMALL), 3, routing="power-of-two"
    ),
    "least-load-preempted": lambda: Case(mixed_load(6.0), replace(AHEAD, **SMALL), 3),
    "round-robin-preempted": lambda: Case(
        mixed_load(6.0), replace(PROFILE, **SMALL), 3, routing="round-robin"
    ),
    "power-of-two-roles": lambda: Case(mixed_load(8.0), PROFILE, 2, 3, routing="power-of-two"),
    "prefix-aware-preempted": lambda: Case(
        # (overloaded: just below, one other choice decides whether a queue forms at all)
        mixed_load(8.0, groups=12, n=1500, sigma=0.4),
        caching(**SMALL, async_scheduling=False),
        3,
        routing="prefix-aware",
    ),
    "prefix": lambda: Case(mixed_load(3.0, groups=5), caching()),
    "prefix-evicted": lambda: Case(mixed_load(1.0, groups=20), caching(**SMALL)),
    "prefix-aware": lambda: Case(
        mixed_load(6.0, groups=12),
        # (asynchronous, the oracle knows a prefix a step earlier: other replicas, other luck)
        caching(kv_capacity_tokens=40_000, async_scheduling=False),
        3,
        routing="prefix-aware",
    ),
    "roles": lambda: Case(mixed_load(6.0), PROFILE, 1, 2),
    "roles-preempted": lambda: Case(mixed_load(3.0), replace(AHEAD, **SMALL), 1, 2),
    "spot": lambda: Case(mixed_load(6.0), AHEAD, 2, interrupted=[(20.3, 24.1), (85.2, 85.9)]),
}


@pytest.mark.parametrize("name", CASES)
def test_percentiles_agree_with_the_slow_reference(name: str) -> None:
    case = CASES[name]()
    slow, jobs = case.slow()
    sim = case.fast()
    done = sim.outcomes()
    assert done.end_seconds.notna().all()
    many = done.output_tokens >= 8
    ours = {
        "ttft": done.first_seconds - done.arrive_seconds,
        "tpot": ((done.end_seconds - done.first_seconds) / (done.output_tokens - 1))[many],
    }
    theirs = {
        "ttft": [j.first - j.arrive for j in jobs],
        "tpot": [(j.end - j.first) / (j.output_tokens - 1) for j in jobs if j.output_tokens >= 8],
    }
    at = [0.5, 0.95, 0.99]
    for what, values in ours.items():
        exact = np.quantile(theirs[what], at)
        np.testing.assert_allclose(np.quantile(values, at), exact, rtol=WITHIN, err_msg=what)
    preemptions = sum(r.preemptions for r in slow.alive)
    if "preempted" in name:  # the case has what it is meant to have
        assert preemptions > 10
        assert sim.preemptions == pytest.approx(preemptions, rel=0.15)


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

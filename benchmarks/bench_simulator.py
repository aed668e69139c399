"""Requests a second of the simulator on one core, and its percentiles beside a step-by-step engine.

    python benchmarks/bench_simulator.py [--requests 800000]

A day of requests (2,000 tokens in, 28 out on average) on ten H100 replicas, advanced by 15 s as an
autoscaler would; then the same kind of load on one replica beside tests/sim/slow_engine.py.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "sim"))
from slow_engine import Job, SlowReplica

from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.fleet import Fleet, FleetVariant
from autoscaler.sim.profiles import measured_profile
from autoscaler.sim.workload import Requests, draw_requests
from models.slo import SloTargets

DAY_SECONDS = 86_400.0
INTERVAL_SECONDS = 15.0


def load(count: int, seconds: float, seed: int) -> Requests:
    steps = max(1, round(seconds / 600))
    shape = 1 + 0.6 * np.sin(np.arange(steps) / steps * 2 * np.pi)
    rate = shape * (count / seconds)
    return draw_requests(
        rate,
        np.full(steps, 2000.0),
        np.full(steps, 28.0),
        start_seconds=0.0,
        step_seconds=600.0,
        rng=np.random.default_rng(seed),
        isl_sigma=0.6,
    )


def never(_rng: np.random.Generator) -> float:
    return 0.0


def fleet(requests: Requests, profile: EngineProfile, replicas: int) -> Fleet:
    gpu = FleetVariant("gpu", profile, 4, replicas, replicas, never)
    return Fleet(requests, [gpu], SloTargets(2.5, 0.2), start_seconds=0.0, seed=1)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--requests", type=int, default=800_000)
    count = arguments.parse_args().requests
    profile = measured_profile("llama2-70b-h100-80gb-tp4")

    began = time.process_time()
    fleet(load(100, 600.0, 0), profile, 1).advance(INTERVAL_SECONDS)
    print(f"first call (compiles, or reads the cache)  {time.process_time() - began:8.2f} s")

    requests = load(count, DAY_SECONDS, 1)
    sim = fleet(requests, profile, 10)
    began = time.process_time()
    for _ in range(round(DAY_SECONDS / INTERVAL_SECONDS)):
        sim.advance(INTERVAL_SECONDS)
    seconds = time.process_time() - began
    verdict = sim.verdict(0.0, DAY_SECONDS)
    print(f"a day of {verdict.requests} requests, 15 s a call     {seconds:8.2f} s")
    print(
        f"requests a second on one core              {verdict.requests / seconds:8.0f}   target 200000"
    )

    part = load(3000, 3600.0, 2)
    columns = (part.arrive_seconds, part.input_tokens, part.output_tokens)
    slow = SlowReplica(
        profile, [Job(*job) for job in zip(*(c.tolist() for c in columns), strict=True)]
    )
    jobs = list(slow.coming)
    slow.run()
    one = fleet(part, profile, 1)
    one.advance(2 * DAY_SECONDS)
    exact = np.quantile([job.first - job.arrive for job in jobs], 0.95)
    ours = one.verdict(0.0, DAY_SECONDS).ttft_p95_seconds
    print(f"TTFT p95 beside the step-by-step engine    {abs(ours / exact - 1):8.2%}   target 5 %")
    return 0


if __name__ == "__main__":
    sys.exit(main())

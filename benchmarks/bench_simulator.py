"""The simulator's speed, its agreement with a slow reference and with a real vLLM, and the fluid's error.

    python benchmarks/bench_simulator.py [--requests 400000]

Times are CPU seconds of this process, which has one thread. Everything is seeded.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "sim"))
from measured_runs import measured_runs
from slow_engine import Job
from slow_fleet import SlowFleet

from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.fleet import Fleet, FleetVariant
from autoscaler.sim.fluid import FluidFleet
from autoscaler.sim.profiles import measured_profile
from autoscaler.sim.workload import Requests, draw_requests
from models.slo import SloTargets

DAY_SECONDS = 86_400.0
TICK_SECONDS = 15.0
HOUR_SECONDS = 3_600.0
RPS_PER_REPLICA = 0.9
TARGETS = SloTargets(2.5, 0.2)
WAVE = 0.6  # of the day's mean rate, up and down


def load(count: int, seconds: float, seed: int) -> Requests:
    """Lengths of 2,000 tokens in and 28 out on average, a wave a day, bursts."""
    steps = max(1, round(seconds / 600))
    shape = 1 + WAVE * np.sin(np.arange(steps) / steps * 2 * np.pi)
    return draw_requests(
        shape * (count / seconds),
        np.full(steps, 2000.0),
        np.full(steps, 28.0),
        start_seconds=0.0,
        step_seconds=600.0,
        rng=np.random.default_rng(seed),
        isl_sigma=0.6,
    )


def startup(_rng: np.random.Generator) -> float:
    return 120.0


def variants(profile: EngineProfile, replicas: int) -> list[FleetVariant]:
    return [FleetVariant("gpu", profile, 4, replicas, max(replicas, 64), startup)]


def open_fleet(requests: Requests, profile: EngineProfile, replicas: int) -> Fleet:
    return Fleet(requests, variants(profile, replicas), TARGETS, start_seconds=0.0, seed=1)


def print_speed(profile: EngineProfile, count: int) -> None:
    print("requests a second of CPU, at 0.9 a second and replica (target 200000)")
    print("  replicas   engine   + telemetry every 15 s")
    for replicas in (1, 8, 64):
        requests = load(count, count / (RPS_PER_REPLICA * replicas), 1)
        speeds = []
        for step in (HOUR_SECONDS, TICK_SECONDS):
            sim = open_fleet(requests, profile, replicas)
            began = time.process_time()
            while sim.now_seconds < requests.arrive_seconds[-1]:
                sim.advance(step)
            speeds.append(len(requests.arrive_seconds) / (time.process_time() - began))
        print(f"  {replicas:8d} {speeds[0]:8.0f}   {speeds[1]:8.0f}")


def print_reference(profile: EngineProfile) -> None:
    part = load(600, HOUR_SECONDS / 4, 2)
    columns = (part.arrive_seconds, part.input_tokens, part.output_tokens)
    jobs = [Job(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    began = time.process_time()
    SlowFleet(profile).run(jobs)
    slow = time.process_time() - began
    sim = open_fleet(part, profile, 1)
    sim.advance(2 * DAY_SECONDS)
    verdict = sim.verdict(0.0, DAY_SECONDS)
    ours = (verdict.ttft_p50_seconds, verdict.ttft_p95_seconds, verdict.ttft_p99_seconds)
    exact = np.quantile([job.first - job.arrive for job in jobs], [0.5, 0.95, 0.99])
    worst = float(np.abs(np.array(ours) / exact - 1).max())
    print(f"TTFT p50, p95, p99 beside the slow reference: {worst:.2e} off at most (target 5 %);")
    print(f"  the reference serves {len(jobs) / slow:.0f} requests a second")


def print_replays() -> None:
    print("a real vLLM's second half, predicted from its first (median relative errors)")
    print("  run                                        TTFT    TPOT   targets 10 %, 8 %")
    for run in measured_runs():
        fit = run.fit()
        ttft, tpot = run.held_out_errors(fit)
        p = fit.profile
        print(f"  {run.name:40s} {ttft:6.1%}  {tpot:6.1%}")
        print(
            f"    step {p.base_seconds * 1e3:.1f} ms + {p.per_sequence_seconds * 1e6:.0f} us a sequence"
            f" + {p.per_context_token_seconds * 1e9:.0f} ns a context token"
            f" + {p.per_prompt_token_seconds * 1e6:.1f} us a prompt token"
            f" + {p.prompt_step_seconds * 1e3:.1f} ms with prompts; KV {p.kv_capacity_tokens} tokens"
        )
        for name, change in (
            ("synchronous scheduler", {"async_scheduling": False}),
            ("no prefix cache", {"prefix_caching": False}),
        ):
            other = replace(run, limits=replace(run.limits, **change))
            errors = other.held_out_errors(other.fit())
            print(f"    with {name:36s}{errors[0]:6.1%}  {errors[1]:6.1%}")


def print_fluid(profile: EngineProfile, count: int) -> None:
    requests = load(count, DAY_SECONDS, 1)
    print("a day, a fleet that follows the rate: event engine, then fluid")
    print("  rps a replica  within SLO      TTFT p50        p95             p99          TPOT p95")
    for per_replica in (0.7, 1.5, 2.2, 2.9):
        results = []
        for kind in (Fleet, FluidFleet):
            gpu = variants(profile, replicas_at(count, 0.0, per_replica))
            sim = kind(requests, gpu, TARGETS, start_seconds=0.0, seed=1)
            began = time.process_time()
            for tick in range(round(DAY_SECONDS / TICK_SECONDS)):
                if tick % 20 == 0:
                    sim.scale("gpu", replicas_at(count, tick * TICK_SECONDS, per_replica))
                sim.advance(TICK_SECONDS)
            seconds = time.process_time() - began
            sim.advance(900.0)
            results.append((sim.verdict(0.0, DAY_SECONDS), seconds))
        (a, exact), (b, fluid) = results
        print(
            f"  {per_replica:13.1f}  {a.slo_attainment_ratio:.3f} {b.slo_attainment_ratio:.3f}"
            f"  {a.ttft_p50_seconds:6.3f} {b.ttft_p50_seconds:6.3f}"
            f"  {a.ttft_p95_seconds:6.3f} {b.ttft_p95_seconds:6.3f}"
            f"  {a.ttft_p99_seconds:6.3f} {b.ttft_p99_seconds:6.3f}"
            f"  {a.tpot_p95_seconds:6.3f} {b.tpot_p95_seconds:6.3f}"
            f"   {exact:.1f} s, {fluid:.1f} s of CPU"
        )


def replicas_at(count: int, seconds: float, per_replica: float) -> int:
    rate = count / DAY_SECONDS * (1 + WAVE * np.sin(seconds / DAY_SECONDS * 2 * np.pi))
    return max(1, round(rate / per_replica))


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--requests", type=int, default=400_000)
    count = arguments.parse_args().requests
    profile = measured_profile("llama2-70b-h100-80gb-tp4")
    began = time.process_time()
    open_fleet(load(100, 600.0, 0), profile, 1).advance(TICK_SECONDS)
    print(f"first call (compiles, or reads the cache): {time.process_time() - began:.2f} s")
    print_speed(profile, count)
    print_reference(profile)
    print_replays()
    print_fluid(profile, count)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the latency model costs a tick of 1,000 services with 3 variants each: CPU milliseconds on one core.

    python benchmarks/bench_latency_capacity.py [--services 1000] [--variants 3] [--rounds 5]

capacity   replica_capacity_rps: bisection of the rate for every pair
inverse    predicted_latency: six percentiles of every pair at a plan
replicas   required_replicas: the fewest replicas for a demand of eleven points, every pair
fit        fit_windows: one pair, 2,880 windows; a training does it for each pair
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from models.capacity import (
    TargetArrays,
    predicted_latency,
    replica_capacity_rps,
    required_replicas,
)
from models.frames import validate_serving
from models.latency import LatencyModel
from models.profiles import profile, profile_names
from models.step_time import Coefficients

POINTS = 11


def cpu_ms(run: Callable[[], object], rounds: int) -> float:
    """Return the least CPU time of `rounds` runs."""
    took = []
    for _ in range(rounds):
        begin = time.process_time()
        run()
        took.append(time.process_time() - begin)
    return 1e3 * min(took)


def windows(rng: np.random.Generator, count: int = 2880) -> pd.DataFrame:
    """Return serving windows of a profile's engine, drawn with 5 % noise."""
    c = Coefficients.from_columns(profile(profile_names()[20]).columns[:, None])
    rate = rng.uniform(0.2, 8.0, count)
    isl, osl = rng.uniform(500, 2000, count), rng.uniform(100, 400, count)
    got = predicted_latency(c, rate, np.full(count, 4.0), isl, osl)
    frame = pd.DataFrame(
        {f"{k}_seconds": v * np.exp(rng.normal(0, 0.05, count)) for k, v in got.items()}
    )
    frame["ts"] = pd.Timestamp("2026-01-05", tz="UTC") + pd.to_timedelta(
        15 * np.arange(count), unit="s"
    )
    frame = frame.assign(service="s", variant="v", ready_replicas=4.0, arrival_rate_rps=rate)
    return validate_serving(frame.assign(isl_tokens=isl, osl_tokens=osl), "bench")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--variants", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    pairs = args.services * args.variants
    rng = np.random.default_rng(1)
    names = profile_names()
    columns = np.stack([profile(names[n % len(names)]).columns for n in range(pairs)], axis=1)
    c = Coefficients.from_columns(columns)
    isl, osl = rng.uniform(200, 4000, pairs), rng.uniform(50, 500, pairs)
    targets = TargetArrays(np.full(pairs, 2.0), np.full(pairs, 0.06), np.full(pairs, np.inf))
    attained = np.full(pairs, 0.99)
    rates = rng.uniform(1, 40, (pairs, 1)) * np.linspace(0.6, 1.6, POINTS)
    weights = np.broadcast_to(np.full(POINTS, 1 / POINTS), rates.shape)
    most = np.full(pairs, 64)
    frame = windows(rng)
    jobs: dict[str, Callable[[], object]] = {
        "capacity": lambda: replica_capacity_rps(c, isl, osl, targets, attained, 4.0),
        "inverse": lambda: predicted_latency(c, rates[:, 5], np.full(pairs, 4.0), isl, osl),
        "replicas": lambda: required_replicas(c, rates, weights, isl, osl, targets, attained, most),
        "fit": lambda: LatencyModel.fit(frame),
    }
    print(f"{args.services} services x {args.variants} variants; least CPU of {args.rounds} runs")
    for name, job in jobs.items():
        print(f"{name:<9} {cpu_ms(job, args.rounds):8.1f} ms")


if __name__ == "__main__":
    main()

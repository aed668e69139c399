"""How long one tick takes as services grow: 10, 100, 1,000 services of two variants each.

    python benchmarks/bench_tick.py [--services 10 100 1000] [--ticks 20] [--corrected] [--scarce]

Prints milliseconds per tick on one process: median and worst, forecasts given; then what the accounts
(docs/design/023) take beside it, a tick and, once an hour, to close one. To compare two commits, run both on
the same machine one after the other, and read the growth, not the milliseconds.
`--corrected`: every engine has a learned correction of its latency (models/latency_correction.py).
`--scarce`: two fifths of what the services ask for do not fit, so every tick plans them together.
"""

import argparse
import time
from dataclasses import replace

import numpy as np

from autoscaler.core.accounting import Ledger
from autoscaler.core.outcome import Forecasts, Outlook, StartLead, State
from autoscaler.core.tick import tick
from autoscaler.core.types import (
    AcceleratorClass,
    Behavior,
    Fallback,
    Mode,
    Observation,
    Policies,
    Policy,
    Pool,
    ScalingRules,
    ServiceObservation,
    TargetRef,
    Variant,
    VariantObservation,
)
from autoscaler.edge.garbage import collect_seldom
from models.latency import LatencyModel
from models.latency_correction import LOADS, SHAPE, Table
from models.latency_parameters import default_columns
from models.quantiles import QUANTILES
from models.slo import SloTargets

GPUS, SCARCE_GPUS = 8, 1  # of each kind, a service: more than all need, and too few by two fifths
NOW = 1_767_571_200.0
NORMAL = np.array([-1.282, 0.0, 0.842, 1.282, 1.645, 2.326])


def world(
    services: int, *, corrected: bool = False, gpus: int = GPUS
) -> tuple[Policies, Forecasts]:
    rng = np.random.default_rng(1)
    names = [f"bench/s{k}" for k in range(services)]
    keys = [(name, v) for name in names for v in ("a", "b")]
    columns = np.repeat(default_columns()[:, np.newaxis], len(keys), axis=1)
    tables = dict.fromkeys(keys, correction()) if corrected else {}
    leads = np.array([1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60, 90, 120]) * 60.0
    outlooks = {}
    for name in names:
        rate = rng.uniform(1, 20) * (1 + 0.25 * NORMAL)
        rates = np.tile(np.maximum(rate, 0.0), (leads.size, 1))
        outlooks[name] = Outlook(
            NOW, leads, np.array(QUANTILES), rates, 1000.0, 200.0, trusted=True
        )
    pool = Pool(
        "p",
        (AcceleratorClass("a", 4.0, services * gpus), AcceleratorClass("b", 2.0, services * gpus)),
    )
    return (
        Policies({name: policy(name) for name in names}, (pool,)),
        Forecasts(
            outlooks,
            LatencyModel(keys, columns, {}, tables),
            {k: StartLead(120.0, 240.0) for k in keys},
        ),
    )


def correction() -> Table:
    values = np.tile(0.2 * LOADS, (*SHAPE[:-1], 1))
    return Table(np.log([500.0, 1000.0, 2000.0]), np.log([100.0, 200.0, 400.0]), values)


def policy(name: str) -> Policy:
    variants = tuple(
        Variant(v, v, 1, least, 40, TargetRef("apps/v1", "Deployment", f"{name}-{v}"))
        for v, least in (("a", 1), ("b", 0))
    )
    return Policy(
        service=name,
        model="m",
        targets=SloTargets(ttft_seconds=1.0, tpot_seconds=0.08),
        attainment=0.99,
        window_hours=24.0,
        priority=0,
        variants=variants,
        behavior=Behavior(Mode.RECOMMEND, ScalingRules(0.0), ScalingRules(300.0)),
        fallback=Fallback(600.0, None),
    )


def observe(names: list[str], at: float, rng: np.random.Generator) -> Observation:
    one = VariantObservation(3, 0, 0, 3, 8.0, 0.0, 0.3, 0.1, 0.3, 0.4, 0.02, 0.03, 0.04, 30.0)
    return Observation(
        at,
        15.0,
        {
            n: ServiceObservation(rng.uniform(1, 20), 1000.0, 200.0, {"a": one, "b": one})
            for n in names
        },
        {},
    )


def measure(services: int, ticks: int, *, corrected: bool, gpus: int = GPUS) -> tuple[float, ...]:
    """Return milliseconds: a tick's median and worst, the accounts' median, and to close an hour."""
    policies, forecasts = world(services, corrected=corrected, gpus=gpus)
    collect_seldom()  # as `decide` and `run` do
    rng, state, took = np.random.default_rng(0), State(), []
    ledger, accounted = Ledger(), []
    for i in range(ticks + 1):
        observation = observe(list(policies.services), NOW + 15.0 * (i + 1), rng)
        start = time.perf_counter()
        state, decisions = tick(policies, forecasts, state, observation)
        decided = time.perf_counter()
        ledger.take_in(policies, forecasts, state, observation, decisions)
        took.append(decided - start)
        accounted.append(time.perf_counter() - decided)
    start = time.perf_counter()
    after = replace(observation, now_seconds=NOW + 3615.0)
    ledger.take_in(policies, forecasts, state, after, decisions)
    closed = time.perf_counter() - start
    each = (np.median(took[1:]), max(took[1:]), np.median(accounted[1:]), closed)
    return tuple(float(seconds) * 1e3 for seconds in each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--ticks", type=int, default=20)
    parser.add_argument("--corrected", action="store_true")
    parser.add_argument("--scarce", action="store_true")
    arguments = parser.parse_args()
    heads = ("median ms", "worst ms", "accounts ms", "hour ms")
    print(f"{'services':>9}" + "".join(f"{head:>13}" for head in heads))
    for services in arguments.services:
        gpus = SCARCE_GPUS if arguments.scarce else GPUS
        each = measure(services, arguments.ticks, corrected=arguments.corrected, gpus=gpus)
        print(f"{services:9d}" + "".join(f"{ms:13.1f}" for ms in each), flush=True)


if __name__ == "__main__":
    main()

"""Four real services, three kinds of GPU, too few of them, a budget, two priority tiers: one day.

    python benchmarks/bench_multi_service.py [--hours 24] [--seed 7] [--json FILE]

Loads: benchmarks/data/fleet_load.csv.gz (data/NOTICE.md), peaks at different hours, scaled. Engines:
Qwen3-32B on two GPUs of each kind, step times of models/bundle, each drawn around them, so that the planner
works with what it learned from simulated telemetry of the days before. Accelerators: 80 % of what the
services need at their peaks, summed, a third of it of each kind; a budget for all of 90 % of their price.

The rivals are static partitions, found with hindsight: fixed counts of every kind for every service at the
least price, attaining 99 % for the high tier and, for the low tier,
  as good: 99 % or what Foreserve attained if that is less; where no such partition fits the accelerators and
    the budget, the one that would if there were enough of both is shown, and is no plan that could be run;
  as it fits: the most of LOWER that any partition within accelerators and budget attains.
What a count attains is simulated, alone; mixes of kinds add up by their shares of cover, and the partition
that is found is simulated as a whole.
"""

import argparse
import itertools
import json
import logging
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.optimize import Bounds, LinearConstraint, milp

from autoscaler.cli.train import train_folder
from autoscaler.core.types import Observation, Policies
from autoscaler.edge.artifacts import load_models
from autoscaler.edge.history import read_history
from autoscaler.loop import Controller
from autoscaler.policy import parse_policies
from autoscaler.sim.fleet import Fleet
from autoscaler.whatif.arrivals import read_arrivals
from autoscaler.whatif.case import Case, build_case, drawn_engines, measured_engines
from autoscaler.whatif.history import simulate_history
from autoscaler.whatif.run import DRAIN_SECONDS, Driven, Foreserve, drive
from autoscaler.whatif.scenario import Scenario, StartupSpec

DATA = Path(__file__).parent / "data" / "fleet_load.csv.gz"
PEAKS, BUDGET, HIGH_TIER, ASKED = 0.8, 0.9, "gold", 0.99
# USD an hour of one GPU: AWS, us-east-1, on demand, 2026-07-20 (p5.48xlarge, p4de.24xlarge, g6e.12xlarge)
USD = {"h100": 6.88, "a100": 3.43, "l40s": 2.62}
PROFILES = {
    "h100": "qwen3-32b-h100-tp2",
    "a100": "qwen3-32b-a100-bf16-tp2",
    "l40s": "qwen3-32b-l40s-bf16-tp2",
}
GPUS = 2  # of a replica
LEAST = {HIGH_TIER: "h100", "bronze": "a100"}  # one replica of it always runs
MOST = 40  # replicas of a kind
Counts = Mapping[str, int]
Limits = tuple[Mapping[str, int], float]  # accelerators of each kind, $ an hour


@dataclass(frozen=True, slots=True)
class Service:
    """Where its load comes from, how large it is here, and what is promised."""

    mean_rps: float
    ttft_seconds: float
    tpot_seconds: float


SERVICES = {
    "gold/code": Service(4.0, 2.0, 0.10),
    "gold/agent": Service(10.0, 2.0, 0.10),
    "bronze/api": Service(8.0, 3.0, 0.12),
    "bronze/office": Service(4.0, 3.0, 0.12),
}
LOWER = (0.99, 0.98, 0.96, 0.94, 0.92, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)  # tried for the low tier
DEAR = 3.0  # times the price of the cheapest kind: a kind that needs more is left out of partitions


class Recorded:
    """Foreserve, every decision kept."""

    name = "foreserve"

    def __init__(self, inner: Foreserve) -> None:
        self._inner = inner
        self.decided: list[dict[str, Counts]] = []

    def decide(self, observation: Observation) -> dict[str, Counts]:
        wanted = {name: dict(v) for name, v in self._inner.decide(observation).items()}
        self.decided.append(wanted)
        return wanted


def telemetry(folder: Path) -> None:
    """Write load.parquet: every service scaled to its mean."""
    load = pd.read_csv(DATA, parse_dates=["timestamp"])
    load["service"] = load.service.map({name.split("/")[1]: name for name in SERVICES})
    columns = ["requests", "input_tokens", "output_tokens"]
    for name, service in SERVICES.items():
        mine = load.service == name
        scale = service.mean_rps * 600.0 / load.loc[mine, "requests"].mean()
        load.loc[mine, columns] *= scale
    load["ts"] = load.timestamp.dt.tz_localize("UTC")
    folder.mkdir(parents=True)
    load[["ts", "service", *columns]].to_parquet(folder / "load.parquet")


def declared(quota: Mapping[str, int] | None = None, budget_usd: float | None = None) -> Policies:
    """Return the policies as a user would write them; without a quota while peaks are looked for."""
    classes = [
        {"name": kind, "resourceName": "nvidia.com/gpu", "usdPerHour": usd}
        | ({} if quota is None else {"quota": {"count": quota[kind]}})
        for kind, usd in USD.items()
    ]
    pool = {"classes": classes} | (
        {} if budget_usd is None else {"budget": {"usdPerHour": budget_usd}}
    )
    documents = [document("AcceleratorPool", {"name": "gpus"}, pool)]
    for name, service in SERVICES.items():
        namespace, short = name.split("/")
        variants = [
            {
                "name": kind,
                "acceleratorClass": kind,
                "acceleratorsPerReplica": GPUS,
                "minReplicas": int(kind == LEAST[namespace]),
                "maxReplicas": MOST,
                "profileRef": profile,
                "targetRef": {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": f"{short}-{kind}",
                },
            }
            for kind, profile in PROFILES.items()
        ]
        objectives = [
            {"metric": "ttft", "targetSeconds": service.ttft_seconds},
            {"metric": "tpot", "targetSeconds": service.tpot_seconds},
        ]
        spec = {
            "model": "qwen3-32b",
            "slo": {"objectives": objectives, "attainment": ASKED},
            "priority": 10 if namespace == HIGH_TIER else 0,
            "variants": variants,
            "behavior": {"mode": "Scale"},
        }
        documents.append(document("ScalingPolicy", {"name": short, "namespace": namespace}, spec))
    return parse_policies([("fleet", yaml.safe_dump_all(documents))])


def document(kind: str, metadata: dict[str, str], spec: dict[str, object]) -> dict[str, object]:
    return {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


class Static:
    """What fixed counts of one service attain, simulated once each."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._known: dict[tuple[str, tuple[int, ...]], float] = {}

    def attained(self, service: str, counts: Counts) -> float:
        key = service, tuple(counts.get(kind, 0) for kind in USD)
        if key not in self._known:
            self._known[key] = self._simulated(service, counts)
        return self._known[key]

    def least(self, service: str, asked: float) -> dict[str, int]:
        """Return the fewest replicas of each kind alone that attain what is asked; absent: too dear."""
        out: dict[str, int] = {}
        most = MOST
        for kind, usd in USD.items():
            if out:
                most = int(DEAR * min(n * USD[k] for k, n in out.items()) / usd)
            if self.attained(service, {kind: most}) >= asked:
                out[kind] = self._least(service, kind, asked, most)
        return out

    def _least(self, service: str, kind: str, asked: float, most: int) -> int:
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            if self.attained(service, {kind: middle}) >= asked:
                high = middle
            else:
                low = middle
        return high

    def _simulated(self, service: str, counts: Counts) -> float:
        case, mine = self._case, self._case.services[service]
        variants = tuple(
            replace(v, initial_replicas=counts[v.name])
            for v in mine.variants
            if counts.get(v.name, 0) > 0
        )
        fleet = Fleet(
            mine.requests, variants, mine.targets, start_seconds=case.since_seconds, seed=case.seed
        )
        fleet.advance(case.until_seconds - case.since_seconds + DRAIN_SECONDS)
        verdict = fleet.verdict(case.since_seconds + case.warm_up_seconds, case.until_seconds)
        return float(verdict.slo_attainment_ratio)


def partition(
    needs: Mapping[str, Counts], quota: Mapping[str, int], budget_usd: float
) -> dict[str, dict[str, int]] | None:
    """Return the cheapest fixed counts that cover every service within the limits; None if none does."""
    names, kinds = list(needs), list(USD)
    columns = [(s, k) for s in names for k in needs[s]]
    price = np.array([USD[k] * GPUS for _, k in columns])
    rows = [[1.0 / needs[s][k] if s == name else 0.0 for s, k in columns] for name in names]
    limits = [[float(GPUS) if k == kind else 0.0 for _, k in columns] for kind in kinds]
    constraints = [
        LinearConstraint(np.array(rows), 1.0 - 1e-9, np.inf),
        LinearConstraint(np.array(limits), 0.0, np.array([quota[k] for k in kinds])),
        LinearConstraint(price[np.newaxis], 0.0, budget_usd),
    ]
    got = milp(
        price, integrality=np.ones(len(columns)), bounds=Bounds(0, MOST), constraints=constraints
    )
    if got.x is None:
        return None
    out: dict[str, dict[str, int]] = {name: {} for name in names}
    for (s, k), n in zip(columns, np.rint(got.x).astype(int), strict=True):
        out[s][k] = int(n)
    return out


def reversals(counts: list[int]) -> int:
    """Return how often a series of counts changed its direction."""
    moves = [b - a for a, b in itertools.pairwise(counts) if a != b]
    return sum(a * b < 0 for a, b in itertools.pairwise(moves))


def infeasible(
    decided: list[dict[str, Counts]], quota: Mapping[str, int], budget_usd: float
) -> int:
    """Return in how many decisions accelerators or budget were exceeded."""
    bad = 0
    for wanted in decided:
        used = {k: GPUS * sum(v.get(k, 0) for v in wanted.values()) for k in USD}
        spent = sum(used[k] * USD[k] for k in USD)
        bad += any(used[k] > quota[k] for k in USD) or spent > budget_usd * (1 + 1e-9)
    return bad


def foreserve(case: Case, work: Path) -> tuple[Driven, Recorded]:
    serving = load_models(work / "models")
    assert serving.load is not None
    past = read_history(
        work / "telemetry" / "load.parquet",
        set(case.services),
        serving.load.step_seconds,
        serving.load.history_steps,
    )
    recorded = Recorded(Foreserve(Controller(case.policies, serving, past)))
    return drive(case, recorded), recorded


def usd_per_hour(counts: Mapping[str, Counts]) -> float:
    return sum(n * GPUS * USD[k] for mine in counts.values() for k, n in mine.items())


def run(work: Path, hours: float, seed: int) -> dict[str, object]:
    """Run everything, print the table, return the figures."""
    telemetry(work / "load")
    scenario = Scenario(
        name="fleet",
        telemetry=work / "load",
        policies=work,
        profile={},
        startup=StartupSpec(median_seconds=150.0, sigma=0.35),
        judged_hours=hours,
        tick_seconds=30.0,
        seed=seed,
    )
    policies = declared()
    arrivals = read_arrivals(scenario, sorted(policies.services))
    engines = drawn_engines(scenario, measured_engines(scenario, policies))
    case = build_case(scenario, policies, arrivals, engines)
    static = Static(case)
    peaks = {name: static.least(name, ASKED) for name in SERVICES}
    print("replicas for the peak, of one kind alone:", json.dumps(peaks), flush=True)
    quota = {k: GPUS * third(peaks, k) for k in USD}
    budget_usd = BUDGET * sum(quota[k] * USD[k] for k in USD)
    print(f"GPUs: {json.dumps(quota)}; budget ${budget_usd:.2f} an hour", flush=True)
    case = replace(
        case, policies=replace(declared(quota, budget_usd), services=case.policies.services)
    )
    simulate_history(case, arrivals, work / "telemetry")
    train_folder(work / "telemetry", work / "models")
    driven, recorded = foreserve(case, work)
    limits = quota, budget_usd
    low = min(ASKED, *(driven.services[n].slo_attainment_ratio for n in SERVICES if not high(n)))
    as_good = {
        name: ASKED if high(name) else min(ASKED, driven.services[name].slo_attainment_ratio)
        for name in SERVICES
    }
    found = [best_partition(static, as_good, limits)]
    if not found[0][1]:
        found += fitting(static, [x for x in LOWER if x <= low], limits)
    return told(driven, recorded, static, found, limits, hours)


def high(service: str) -> bool:
    return service.startswith(HIGH_TIER)


def best_partition(
    static: Static, asked: Mapping[str, float], limits: Limits
) -> tuple[dict[str, dict[str, int]], bool]:
    """Return the cheapest fixed counts that attain what is asked, and whether they fit the limits."""
    needs = {name: static.least(name, asked[name]) for name in SERVICES}
    best = partition(needs, *limits)
    if best is not None:
        return best, True
    best = partition(needs, dict.fromkeys(USD, 10**6), math.inf)
    assert best is not None
    return best, False


def fitting(
    static: Static, lower: list[float], limits: Limits
) -> list[tuple[dict[str, dict[str, int]], bool]]:
    """Return the partition that fits and asks most for the low tier; none: not even the least does."""
    for low in lower:
        got = best_partition(static, {n: ASKED if high(n) else low for n in SERVICES}, limits)
        if got[1]:
            return [got]
    return []


def third(peaks: Mapping[str, Counts], kind: str) -> int:
    """Return a third of 80 % of the summed peaks, in replicas of a kind; one too dear counts as DEAR."""
    total = 0.0
    for counts in peaks.values():
        cheapest = min(n * USD[k] for k, n in counts.items())
        total += counts.get(kind, DEAR * cheapest / USD[kind])
    return math.ceil(PEAKS * total / len(USD))


def told(
    driven: Driven,
    recorded: Recorded,
    static: Static,
    found: list[tuple[dict[str, dict[str, int]], bool]],
    limits: Limits,
    hours: float,
) -> dict[str, object]:
    """Print Foreserve's table, then one for every static partition; return the figures."""
    services: dict[str, dict[str, float]] = {}
    print(f"{'Foreserve':<15}{'attained':>10}{'$':>8}{'reversals/h':>13}")
    for name in SERVICES:
        mine = driven.services[name]
        turns = reversals([sum(d[name].values()) for d in recorded.decided]) / hours
        services[name] = {
            "attained": mine.slo_attainment_ratio,
            "usd": mine.cost_usd,
            "reversals_per_hour": turns,
        }
        print(f"{name:<15}{mine.slo_attainment_ratio:>10.4f}{mine.cost_usd:>8.0f}{turns:>13.2f}")
    ours = sum(r["usd"] for r in services.values())
    bad = infeasible(recorded.decided, *limits)
    print(f"{'total':<25}{ours:>8.0f}")
    print(f"decisions beyond accelerators or budget: {bad} of {len(recorded.decided)}")
    partitions = []
    for best, fits in found:
        theirs = usd_per_hour(best) * hours
        label = "static, fits" if fits else "static, beyond the limits"
        print(f"{label:<15}{'attained':>10}{'$':>8}  counts")
        attained = {name: static.attained(name, best[name]) for name in SERVICES}
        for name, share in attained.items():
            usd = usd_per_hour({name: best[name]}) * hours
            print(f"{name:<15}{share:>10.4f}{usd:>8.0f}  {json.dumps(best[name])}")
        print(f"{'total':<25}{theirs:>8.0f}  Foreserve {ours / theirs:.3f} x")
        partitions.append(
            {"fits": fits, "usd": theirs, "ratio": ours / theirs, "attained": attained}
        )
    return {"services": services, "infeasible": bad, "static": partitions}


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0, help="judged, to the end of the data")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), arguments.hours, arguments.seed)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

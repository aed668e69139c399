"""How long a what-if of a fortnight takes: four services, six autoscalers, trained and driven from scratch.

    python benchmarks/bench_whatif.py [--hours 336] [--services 4] [--workers 2]

Made up: three weeks of load per minute with a daily and a weekly rhythm, Poisson. Prints the seconds on the
clock, the CPU seconds of all processes, the size of the report and the table.
"""

import argparse
import math
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from autoscaler.cli.train import train_folder
from autoscaler.whatif.compare import compare
from autoscaler.whatif.console import show
from autoscaler.whatif.report import write_report
from autoscaler.whatif.scenario import load_scenario

HISTORY_HOURS = 7 * 24
SCENARIO = """
name: a fortnight
telemetry: .
policies: policies.yaml
profile: llama2-70b-h100-80gb-tp4
startup: facts
judgedHours: {hours}
seeds: 1
autoscalers: [foreserve, static, hpa, keda, wva, clairvoyant]
"""
POOL = """
apiVersion: foreserve.dev/v1alpha1
kind: AcceleratorPool
metadata: {name: gpus}
spec:
  classes:
    - {name: h100-80gb, resourceName: nvidia.com/gpu, usdPerHour: 6.88, quota: {count: 800}}
"""
POLICY = """---
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: NAME, namespace: prod}
spec:
  model: NAME
  slo:
    objectives: [{metric: ttft, targetSeconds: 2.5}, {metric: tpot, targetSeconds: 0.2}]
    attainment: 0.99
  variants:
    - name: h100
      acceleratorClass: h100-80gb
      acceleratorsPerReplica: 4
      targetRef: {apiVersion: apps/v1, kind: Deployment, name: NAME}
      minReplicas: 1
      maxReplicas: 60
"""


def write_inputs(folder: Path, services: int, hours: float) -> Path:
    rng = np.random.default_rng(3)
    count = round((HISTORY_HOURS + hours) * 60)
    stamps = pd.date_range("2026-10-05", periods=count, freq="60s", tz="UTC")
    minute = np.arange(count)
    loads = []
    for n in range(services):
        day = 1 - 0.7 * np.cos(minute / 1440 * 2 * math.pi + 0.8 * n)
        week = np.where(stamps.day_of_week < 5, 1.0, 0.55 + 0.1 * n)
        rate = (2.0 + 1.5 * n) * day * week * rng.lognormal(0.0, 0.1, count)
        requests = rng.poisson(60 * rate).astype(float)
        tokens = {
            "input_tokens": np.round(requests * (1200 + 200 * n)),
            "output_tokens": np.round(requests * (220 - 20 * n)),
        }
        loads.append(
            pd.DataFrame({"ts": stamps, "service": f"prod/s{n}", "requests": requests, **tokens})
        )
    pd.concat(loads, ignore_index=True).to_parquet(folder / "load.parquet")
    policies = POOL + "".join(POLICY.replace("NAME", f"s{n}") for n in range(services))
    (folder / "policies.yaml").write_text(policies, encoding="utf-8")
    path = folder / "scenario.yaml"
    path.write_text(SCENARIO.format(hours=hours), encoding="utf-8")
    return path


def cpu_seconds() -> float:
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=336.0)
    parser.add_argument("--services", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenario = load_scenario(write_inputs(folder, asked.services, asked.hours))
        began, used = time.perf_counter(), cpu_seconds()
        got = compare(
            scenario,
            work=folder / "work",
            train=train_folder,
            progress=lambda *_: None,
            workers=asked.workers,
        )
        write_report(got, folder / "report.html")
        clock, cpu = time.perf_counter() - began, cpu_seconds() - used
        size = (folder / "report.html").stat().st_size
    show(got, Console(width=140), {})
    runs = sum(r.tried for r in got.runs)
    print(
        f"{asked.hours:g} hours, {asked.services} services, {len(got.runs)} autoscalers, {runs} runs"
    )
    print(f"{clock:.0f} s on the clock, {cpu:.0f} CPU seconds, report {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

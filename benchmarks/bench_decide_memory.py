"""The most memory that `foreserve decide` takes as services grow: 10, 100, 1,000 of two variants each.

    python benchmarks/bench_decide_memory.py [--services 10 100 1000] [--ticks 20] [--work FOLDER]

Prints the process's peak resident memory in MiB (Linux: VmHWM, libraries included) once it has read models,
policies and nine days of load by the minute, and after the ticks; and the slowest tick. Telemetry is made
up: the load model is fitted on a few services and written down for all, and starts and latency are alike.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from models.frames import LoadSeries
from models.latency import LatencyModel
from models.latency_parameters import default_columns
from models.lead_time import LeadTimeModel
from models.load_model import LoadModel
from models.mix_model import MixModel
from training.registry import write_generation

START = pd.Timestamp("2026-01-05", tz="UTC")
DAYS, STEP_SECONDS = 9, 60.0
FITTED = 3  # services
VARIANTS = ("a", "b")
FORESERVE = [sys.executable, "-c", "from autoscaler.cli import main; main()"]
POOL = """\
apiVersion: foreserve.dev/v1alpha1
kind: AcceleratorPool
metadata: {{name: pool}}
spec:
  classes:
    - {{name: a, resourceName: nvidia.com/gpu, usdPerHour: 4.0, quota: {{count: {count}}}}}
    - {{name: b, resourceName: nvidia.com/gpu, usdPerHour: 2.0, quota: {{count: {count}}}}}
"""
POLICY = """\
---
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {{name: {name}, namespace: bench}}
spec:
  model: m
  slo:
    objectives: [{{metric: ttft, targetSeconds: 1.0}}, {{metric: tpot, targetSeconds: 0.08}}]
    attainment: 0.99
  variants:
    - {{name: a, acceleratorClass: a, acceleratorsPerReplica: 1, minReplicas: 1, maxReplicas: 40,
       targetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}-a}}}}
    - {{name: b, acceleratorClass: b, acceleratorsPerReplica: 1, minReplicas: 0, maxReplicas: 40,
       targetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}-b}}}}
"""


def load_of(number: int, days: int = DAYS) -> np.ndarray:
    """Return requests and tokens (T, 3) of one service: a day's cycle, another height and hour each."""
    rng = np.random.default_rng(number)
    at = np.arange(days * 1440) / 1440
    mean = rng.uniform(60, 1200) * (1 + 0.6 * np.sin(2 * np.pi * (at + rng.uniform())))
    requests = rng.poisson(mean).astype(np.float64)
    lengths = rng.uniform(0.9, 1.1, (at.size, 2)) * [1000.0, 200.0]
    return np.column_stack([requests, requests[:, np.newaxis] * lengths])


def write_load(path: Path, names: list[str]) -> None:
    """Write a row group for each service."""
    ts = pa.array(START + pd.to_timedelta(np.arange(DAYS * 1440), unit="min"))
    schema = pa.schema(
        [("ts", ts.type), ("service", pa.string())]
        + [(c, pa.float64()) for c in ("requests", "input_tokens", "output_tokens")]
    )
    with pq.ParquetWriter(path, schema) as file:
        for number, name in enumerate(names):
            columns = [ts, pa.array([name] * len(ts)), *map(pa.array, load_of(number).T)]
            file.write_table(pa.table(columns, schema=schema))


def fitted() -> tuple[LoadModel, MixModel]:
    """Return models of a few services."""
    values = np.stack([load_of(n, 3) for n in range(FITTED)])
    names = tuple(f"fitted/s{n}" for n in range(FITTED))
    series = LoadSeries(names, START.timestamp(), STEP_SECONDS, values)
    return LoadModel.fit(series), MixModel.fit(series)


def spread(files: dict[str, bytes], part: str, names: list[str]) -> dict[str, bytes]:
    """Return a model's files as of other services, each like one of the fitted in turn."""
    about: dict[str, Any] = json.loads(files[f"{part}.json"])
    known = about["services"]
    with np.load(io.BytesIO(files[f"{part}.npz"])) as data:
        arrays = dict(data)
    like = np.arange(len(names)) % len(known)
    for key, array in arrays.items():
        if array.shape[:1] == (len(known) + 1,):  # the last row is of services that were not seen
            arrays[key] = array[[*like, len(known)]]
        elif array.shape[:1] == (len(known),):
            arrays[key] = array[like]
    about["scores"] = {n: about["scores"][known[k]] for n, k in zip(names, like, strict=True)}
    about |= {"services": names, "local": False}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    kept = {n: d for n, d in files.items() if n != "local.npz"} | {f"{part}.npz": buffer.getvalue()}
    if "sha256" in about:
        about["sha256"] = {n: sha256(kept[n]).hexdigest() for n in about["sha256"] if n in kept}
    return kept | {f"{part}.json": json.dumps(about).encode()}


def write_models(folder: Path, names: list[str], load: LoadModel, mix: MixModel) -> None:
    pairs = [(name, v) for name in names for v in VARIANTS]
    created = START + pd.to_timedelta(np.arange(8), unit="h")
    starts = pd.concat(
        pd.DataFrame(
            {
                "service": s,
                "variant": v,
                "created_ts": created,
                "ready_ts": created + pd.to_timedelta(100.0 + 10.0 * np.arange(8), unit="s"),
                "ended_ts": pd.Series(pd.NaT, index=range(8), dtype="datetime64[ns, UTC]"),
            }
        )
        for s, v in pairs
    )
    columns = np.repeat(default_columns()[:, np.newaxis], len(pairs), axis=1)
    parts = {
        "load": spread(load.to_files(), "load", names),
        "mix": spread(mix.to_files(), "mix", names),
        "latency": LatencyModel(pairs, columns, {}).to_files(),
        "lead_time": LeadTimeModel.fit(
            starts, end_seconds=START.timestamp() + 86_400.0 * DAYS
        ).to_files(),
    }
    files = {f"{part}/{name}": data for part, some in parts.items() for name, data in some.items()}
    write_generation(folder, files, {}, None)


def observation(names: list[str], tick: int) -> bytes:
    rng = np.random.default_rng(tick)
    counts = {"ready": 3, "starting": 0, "draining": 0, "desired": 3}
    variant = counts | {
        "running": 8.0,
        "waiting": 0.0,
        "ttft_p50_seconds": 0.1,
        "ttft_p95_seconds": 0.3,
    }
    lengths = {"isl_tokens": 1000.0, "osl_tokens": 200.0}
    one = {"variants": dict.fromkeys(VARIANTS, variant), **lengths}
    seen = {
        "now_seconds": START.timestamp() + 86_400.0 * DAYS + 15.0 * (tick + 1),
        "interval_seconds": 15.0,
        "services": {n: {"arrival_rate_rps": float(rng.uniform(1, 20)), **one} for n in names},
        "pools": {"pool": {"total_gpus": 16 * len(names)}},
    }
    return json.dumps(seen).encode() + b"\n"


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(work: Path, names: list[str], ticks: int) -> tuple[float, float, float]:
    """Return MiB after the first tick and after all, and the slowest tick's seconds."""
    command = [*FORESERVE, "decide", "--models", work / "models", "--policies", work / "p.yaml"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, "--history", work / "load.parquet"], **pipes) as process:
        peaks, took = [], []
        assert process.stdin is not None
        assert process.stdout is not None
        for tick in range(ticks):
            line = observation(names, tick)
            start = time.perf_counter()
            process.stdin.write(line)
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            took.append(time.perf_counter() - start)
            assert len(answer["services"]) == len(names), answer
            peaks.append(peak_mib(process.pid))
        process.stdin.close()
    return peaks[0], peaks[-1], max(took[1:], default=np.nan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--ticks", type=int, default=20)
    parser.add_argument("--work", type=Path, help="keep the inputs here")
    arguments = parser.parse_args()
    load, mix = fitted()
    print(f"{'services':>9}{'MiB at tick 1':>15}{'MiB in all':>12}{'worst tick s':>14}")
    with tempfile.TemporaryDirectory() as temporary:
        for services in arguments.services:
            work = (arguments.work or Path(temporary)) / str(services)
            work.mkdir(parents=True, exist_ok=True)
            short = [f"s{n}" for n in range(services)]
            names = sorted(f"bench/{n}" for n in short)
            policies = POOL.format(count=8 * services) + "".join(
                POLICY.format(name=n) for n in short
            )
            (work / "p.yaml").write_text(policies, encoding="utf-8")
            write_models(work / "models", names, load, mix)
            write_load(work / "load.parquet", names)
            first, last, worst = measure(work, names, arguments.ticks)
            print(f"{services:9d}{first:15.0f}{last:12.0f}{worst:14.2f}", flush=True)


if __name__ == "__main__":
    main()

"""How long a store takes to write and merge, to read for training, and to read in one tick.

    python benchmarks/bench_otlp_store.py                        # 6 hours of 200 services x 2 pods
    python benchmarks/bench_otlp_store.py --hours 24 --services 200
    python benchmarks/bench_otlp_store.py --live 1000            # one tick

Cells are made as busy vLLM pods make them (13 signals, two histograms of vLLM's bounds of which 11
buckets are in use, a bin of 30 s, every bin flushed by itself), without messages. Reading is linear in
time x pods, and the two weeks printed are that extrapolation.
"""

import argparse
import itertools
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoscaler.edge.otlp_store import OtlpStore
from models.otlp_cells import Amount, Cell
from models.otlp_fold import Fold
from models.otlp_identity import Identity

if TYPE_CHECKING:
    from autoscaler.core.types import Policies

START = 1_750_000_200  # a whole period
BIN_SECONDS = 30
TWO_WEEKS_HOURS = 14 * 24
BOUNDS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0)
COUNTERS = ("success", "prompt_tokens", "generation_tokens", "prefix_queries", "prefix_hits")
GAUGES = ("running", "waiting", "kv_usage")
LENGTHS = ("duration", "input_length", "output_length")
LATENCIES = ("ttft", "tpot")
BUCKETS = tuple(itertools.pairwise(BOUNDS))


def cell(begin: float, rng: np.random.Generator) -> Cell:
    seen = (begin, begin + BIN_SECONDS)
    x = rng.random(40)
    out = {name: Amount(*seen, 1000.0 * x[i]) for i, name in enumerate(COUNTERS)}
    for i, name in enumerate(GAUGES):
        out[name] = Amount(*seen, 30.0 * x[i + 5], 30.0, x[i + 8] - 0.5)
    for i, name in enumerate(LENGTHS):
        out[name] = Amount(*seen, 5000.0 * x[i + 11], 50.0 * x[i + 14])
    for i, name in enumerate(LATENCIES):
        amounts = (100.0 * x[17 + 11 * i : 28 + 11 * i]).tolist()
        out[name] = Amount(
            *seen, x[39], sum(amounts), 0.0, dict(zip(BUCKETS, amounts, strict=True))
        )
    return out


def filled(folder: Path, services: int, pods: int, bins: int) -> None:
    rng = np.random.default_rng(5)
    fold = Fold(bin_seconds=BIN_SECONDS)
    fold.sources = {
        (
            ("k8s.namespace.name", "prod"),
            ("k8s.pod.name", f"s{s}-{p}"),
            ("service.name", f"s{s}"),
        ): s * pods + p + 1
        for s in range(services)
        for p in range(pods)
    }
    writing = merging = 0.0
    with OtlpStore(folder, bin_seconds=BIN_SECONDS, max_bytes=2**40) as store:
        for b in range(START // BIN_SECONDS, START // BIN_SECONDS + bins):
            for source in fold.sources.values():
                fold.cells[b, source] = cell(b * float(BIN_SECONDS), rng)
            began = time.process_time()
            store.flush(fold)
            writing += time.process_time() - began
            began = time.process_time()
            store.merge_one(b * float(BIN_SECONDS))
            merging += time.process_time() - began
        began = time.process_time()
        while store.merge_one(1e12):
            pass
        merging += time.process_time() - began
    cells = services * pods * bins
    mib = (folder / "otlp.sqlite").stat().st_size / 2**20
    print(
        f"write {1e6 * writing / cells:.0f} us a cell, merge {1e6 * merging / cells:.0f} us, "
        f"{mib * 2**20 / cells:.0f} bytes a cell (CPU)"
    )


def read(folder: Path, hours: float) -> None:
    from training.ingest_otlp import ingest_store

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began, wall = time.process_time(), time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        done = ingest_store(folder, Identity(), Path(out))
    cpu, wall = time.process_time() - began, time.monotonic() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"read {hours:g} h: {done.serving_rows} rows in {cpu:.1f} s CPU, {wall:.1f} s wall; two weeks: "
        f"{cpu * TWO_WEEKS_HOURS / hours:.0f} s CPU; memory {before:.0f} -> at most {peak:.0f} MiB"
    )


def history(folder: Path, services: int, hours: float) -> None:
    from autoscaler.edge.otlp_reader import read_load_history

    began = time.process_time()
    series = read_load_history(
        folder,
        Identity(),
        policies_of(services),
        step_seconds=60.0,
        keep_steps=14 * 1440,
        now_seconds=START + hours * 3600 + 60.0,
    )
    cpu = time.process_time() - began
    assert series is not None
    print(
        f"history for the controller, {hours:g} h: {cpu:.1f} s CPU; a week of 1,000 services x 2 pods: "
        f"{cpu * 168 / hours * 1000 / services:.0f} s"
    )


def policies_of(services: int) -> "Policies":
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ingest"))
    from fleet_policies import policy

    from autoscaler.core.types import Policies

    names = [f"prod/s{s}" for s in range(services)]
    return Policies({n: policy(n, "default", ttft=0.5) for n in names}, ())


def live(folder: Path, services: int, now_seconds: float) -> None:
    from autoscaler.edge.otlp_reader import OtlpReader

    policies = policies_of(services)
    for _ in range(3):
        began, wall = time.process_time(), time.monotonic()
        with OtlpReader(folder, Identity()) as reader:
            reading = reader.read(policies, now_seconds)
        cpu, wall = time.process_time() - began, time.monotonic() - wall
        assert not reading.failed
        assert not reading.silent
        print(f"tick of {services} services x 2 pods: {cpu:.2f} s CPU, {wall:.2f} s wall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--pods", type=int, default=2)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--live", type=int, default=1000)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.read is not None:
        read(asked.read, asked.hours)
        history(asked.read, asked.services, asked.hours)
        return
    with tempfile.TemporaryDirectory() as work:
        filled(Path(work), asked.services, asked.pods, round(asked.hours * 3600 / BIN_SECONDS))
        again = (sys.executable, __file__, "--read", work, "--hours", str(asked.hours))
        again = (*again, "--services", str(asked.services))
        subprocess.run(again, check=True)  # a process of its own: its memory
    with tempfile.TemporaryDirectory() as work:
        bins = 20
        filled(Path(work), asked.live, asked.pods, bins)
        live(Path(work), asked.live, START + bins * float(BIN_SECONDS))


if __name__ == "__main__":
    main()

"""TPOT at a fixed concurrency against 1,190 published measurements of vLLM, every second one held out.

    python benchmarks/bench_latency_silicon.py            the table of docs/latency.md

Per model, accelerator, tensor parallelism and precision with at least four concurrencies, the step times
(models/closed_loop.py) are fitted to the first, third, ... concurrency and asked for the others. Data:
benchmarks/data/silicon_vllm.csv.gz (its origin: benchmarks/data/NOTICE.md).
"""

from pathlib import Path

import numpy as np
import pandas as pd

from models.closed_loop import ClosedLoop, fit_closed_loop

DATA = Path(__file__).parent / "data" / "silicon_vllm.csv.gz"
CONFIGURATION = ["model", "gpu", "tensor_parallel", "precision"]
MIN_CONCURRENCIES = 4
LONG_QUEUE_SECONDS = 10.0  # of mean TTFT: the batch was full long before that concurrency


def points_of(rows: pd.DataFrame) -> ClosedLoop:
    numbers = (rows[c].to_numpy(np.float64) for c in ("concurrency", "isl_tokens", "osl_tokens"))
    return ClosedLoop(*numbers)


def score(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the held-out rows of one configuration with `error`: predicted over measured, minus one."""
    kinds = np.sort(rows.concurrency.unique())
    held = rows.concurrency.isin(kinds[1::2])
    steps = fit_closed_loop(points_of(rows[~held]), rows.tpot_seconds[~held].to_numpy(np.float64))
    test = rows[held]
    return test.assign(error=steps.tpot_seconds(points_of(test)) / test.tpot_seconds - 1.0)


def main() -> None:
    everything = pd.read_csv(DATA)
    together = everything.tensor_parallel.notna()  # the others split prefill and decode
    known = everything[together & everything.concurrency.notna() & (everything.tpot_seconds > 0)]
    scored, left_out = [], len(everything) - len(known)
    thin: list[tuple[str, int]] = []
    fitted = 0
    for name, rows in known.groupby(CONFIGURATION):
        if rows.concurrency.nunique() < MIN_CONCURRENCIES:
            thin.append((" ".join(str(part) for part in name), len(rows)))
            continue
        fitted += len(rows)
        scored.append(score(rows))
    all_held = pd.concat(scored)
    print("| model | accelerator | TP | precision | held out | median error | bias |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, rows in all_held.groupby(CONFIGURATION):
        off = rows.error.abs().median()
        cells = [str(part) for part in name]
        print(f"| {' | '.join(cells)} | {len(rows)} | {off:.1%} | {rows.error.median():+.1%} |")
    print(
        f"\nall: {fitted} points in {len(scored)} configurations, {len(all_held)} held out, ",
        end="",
    )
    print(
        f"median error {all_held.error.abs().median():.1%}, mean {all_held.error.abs().mean():.1%}"
    )
    for low, high in ((0, 16), (16, 64), (64, 256), (256, 1e9)):
        part = all_held[(all_held.concurrency > low) & (all_held.concurrency <= high)]
        middle = part.error.abs().median()
        print(
            f"concurrency above {low:g} to {high:g}: {len(part)} held out, median error {middle:.1%}"
        )
    queued = all_held[all_held.ttft_seconds > LONG_QUEUE_SECONDS]
    off = queued.error.abs().median()
    print(
        f"of these with a mean TTFT above {LONG_QUEUE_SECONDS:g} s: {len(queued)}, error {off:.1%}"
    )
    split = int((~together).sum())
    print(
        f"not scored: {split} with prefill and decode apart, {left_out - split} without a concurrency;"
    )
    print("fewer than four concurrencies:")
    for label, count in thin:
        print(f"  {label}: {count}")


if __name__ == "__main__":
    main()

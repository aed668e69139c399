"""Compare ingested telemetry with what the clients saw, and say by how much each figure differs.

An ingested interval reaches from the last scrape before its start to the last before its end: on
average half a scrape earlier than its name says, by up to a scrape. So a few requests at the edges
belong to a neighbour, which is what the tolerances below allow for, besides the buckets.
"""

import csv
import re
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from vllm_load import Seen

from models.histograms import bucket_of
from training.telemetry import read_telemetry

FloatArray = NDArray[np.float64]
STEP_SECONDS = 15
SHIFT_SECONDS = 1.5  # half a scrape
TOTAL_TOLERANCE = 0.03  # of the requests and tokens of the whole run
RATE_TOLERANCE_RPS = 1.2  # of one interval: half of 3 s at 9 requests/s, over 15 s, and chance
EDGE_REQUESTS = 2.0  # of an interval that may belong to its neighbour, in ranks of a quantile
CLIENT_SLACK_RATIO = 0.05  # a client reads the same instants a little later
CLIENT_SLACK_SECONDS = {"ttft": 0.01, "tpot": 0.0}
INSIDE_RATIO = 0.85  # of the intervals: one or two of fifteen may miss
LEVELS = {"p50": 0.5, "p95": 0.95}
SERIES = {
    "ttft": "vllm:time_to_first_token_seconds",
    "tpot": "vllm:request_time_per_output_token_seconds",
}

Bounds = dict[str, FloatArray]
Finding = tuple[bool, str]


def write(path: Path, seen: Sequence[Seen]) -> None:
    """Write the clients' truth: a row per request, seconds since the epoch."""
    columns = ("arrival", "first_token", "last_token", "input_tokens", "output_tokens")
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        for s in sorted(seen, key=lambda s: s.arrival):
            rows.writerow([getattr(s, c) for c in columns])


def bounds(port: int) -> Bounds:
    """Return the bounds of the server's latency buckets, from its own metrics page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = {
        what: re.findall(rf'^{name}_bucket{{[^}}]*le="([^"]+)"', text, re.MULTILINE)
        for what, name in SERIES.items()
    }
    return {what: np.array(sorted({float(x) for x in les})) for what, les in found.items()}


def compare(
    telemetry: Path, seen: Sequence[Seen], start: float, seconds: float, of: Bounds
) -> Iterator[Finding]:
    """Yield (holds, sentence) for arrivals, tokens and latency quantiles."""
    read = read_telemetry(telemetry)
    steps = round(seconds / STEP_SECONDS)
    truth = pd.DataFrame(
        {
            "arrived": [s.arrival for s in seen],
            "first": [s.first_token for s in seen],
            "ended": [s.last_token for s in seen],
            "input_tokens": [s.input_tokens for s in seen],
            "output_tokens": [s.output_tokens for s in seen],
            "ttft": [s.ttft_seconds for s in seen],
            "tpot": [s.tpot_seconds for s in seen],
        }
    )
    yield len(read.load) == steps, f"{len(read.load)} intervals, {steps} expected"
    yield bool(read.load.requests.notna().all()), "no gap"
    yield from _arrivals(read.load, truth, start, steps)
    for what, moment in (("ttft", "first"), ("tpot", "ended")):
        place = _interval(truth[moment], start)
        for suffix in LEVELS:
            got = read.serving[f"{what}_{suffix}_seconds"].to_numpy()
            values = [truth[what][place == i].to_numpy() for i in range(steps)]
            yield _quantile(what, suffix, got, values, of[what])


def _interval(times: pd.Series, start: float) -> FloatArray:
    return np.floor((times.to_numpy(np.float64) - start + SHIFT_SECONDS) / STEP_SECONDS)


def _arrivals(
    load: pd.DataFrame, truth: pd.DataFrame, start: float, steps: int
) -> Iterator[Finding]:
    place = _interval(truth.arrived, start)
    count = np.histogram(place, np.arange(steps + 1) - 0.5)[0]
    error = (load.requests.to_numpy() - count) / STEP_SECONDS
    whole, inside = load.requests.sum(), (place >= 0) & (place < steps)
    yield (
        abs(whole / inside.sum() - 1) <= TOTAL_TOLERANCE,
        f"arrivals: {whole:.1f} ingested, {inside.sum()} sent ({whole / inside.sum() - 1:+.2%}; "
        f"allowed {TOTAL_TOLERANCE:.0%})",
    )
    yield (
        np.abs(error).max() <= RATE_TOLERANCE_RPS,
        f"arrival rate an interval: off by {error.mean():+.3f} requests/s in the mean, "
        f"{np.abs(error).mean():.2f} in absolute mean, {np.abs(error).max():.2f} at most "
        f"(allowed {RATE_TOLERANCE_RPS:g})",
    )
    for column in ("input_tokens", "output_tokens"):
        ratio = load[column].sum() / truth[column][inside].sum() - 1
        yield (
            abs(ratio) <= TOTAL_TOLERANCE,
            f"{column}: {ratio:+.2%} (allowed {TOTAL_TOLERANCE:.0%})",
        )


def _quantile(
    what: str, suffix: str, got: FloatArray, values: Sequence[FloatArray], bounds: FloatArray
) -> Finding:
    """The bucket of the estimate meets the range of the clients' quantile (edges, client's slack)."""
    lower, upper = bucket_of(bounds, got)
    level = LEVELS[suffix]
    inside, lean = [], []
    for low, high, estimate, own in zip(lower, upper, got, values, strict=True):
        edge = EDGE_REQUESTS / len(own)
        least, exact, most = np.quantile(own, np.clip([level - edge, level, level + edge], 0, 1))
        slack = CLIENT_SLACK_RATIO * exact + CLIENT_SLACK_SECONDS[what]
        inside.append(low <= most + slack and least - slack <= high)
        lean.append(estimate / exact - 1)
    return (
        float(np.mean(inside)) >= INSIDE_RATIO,
        f"{what} {suffix}: in the true value's bucket in {sum(inside)} of {len(inside)} intervals, "
        f"leaning {np.median(lean):+.0%} in the median",
    )

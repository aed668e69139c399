"""Latencies of a request log -> the serving frame, as far as a log of requests can tell.

Arrivals count in the step of the arrival, times to first token in the step of the first token, times
per output token and ends in the step of the end (PROTOCOL.md). Percentiles come from buckets whose
bounds lie a factor GAMMA apart, so that memory does not grow with requests: relative error at most
RELATIVE_ERROR (Masson, Rim, Lee: DDSketch, VLDB 2019). Replicas, queues and caches are not in a log
of requests: they stay NaN.
"""

import numpy as np
import pandas as pd

from models.frames import SERVING_OPTIONAL, SERVING_REQUIRED
from models.slo import MIN_TPOT_OUTPUT_TOKENS
from models.trace_columns import Rows
from models.trace_load import STEP_BITS, Codes, IntArray, LoadCounter, SparseSums, step_starts
from models.trace_shapes import TraceError
from models.trace_times import FloatArray

RELATIVE_ERROR = 0.005
GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
SMALLEST_SECONDS = 1e-6  # below: bucket 0, told as 0
BUCKET_BITS = 12  # 1 µs to a day are 2,520 buckets
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
MAX_VARIANTS = 20_000  # services times variants: they and 33 bits of step fit beside the bucket
MAX_BUCKETS = 20_000_000  # filled ones, all steps together: about 1 GiB while merging


class LatencyCounter:
    """Counts latencies per service, variant and step."""

    def __init__(self, load: LoadCounter) -> None:
        self._load = load
        self._variants = Codes("variants (with their services)", MAX_VARIANTS)
        self._arrivals = SparseSums(3)
        self._ends = SparseSums(1)
        self._buckets = {name: SparseSums(1) for name in ("ttft", "tpot")}
        self._unknown_ends = 0

    def add(self, rows: Rows, where: str) -> None:
        """Add requests that name their variant. Raises TraceError beyond the limits."""
        if rows.variant is None or not len(rows.seconds):
            return
        pairs = (rows.service + "\n") + rows.variant  # neither name can hold a line break
        code = self._variants.of(pairs, where)
        amounts = np.column_stack((rows.requests, rows.input_tokens, rows.output_tokens))
        self._arrivals.add(self._cell(code, rows.seconds), amounts)
        ttft, tpot, e2e = _latencies(rows)
        self._count("ttft", code, rows.seconds + ttft, ttft)
        self._count("tpot", code, rows.seconds + e2e, tpot)
        ended = ~np.isnan(e2e)
        self._unknown_ends += int((~ended).sum())
        self._ends.add(
            self._cell(code[ended], (rows.seconds + e2e)[ended]), np.ones((int(ended.sum()), 1))
        )
        for buckets in self._buckets.values():
            if len(buckets) > MAX_BUCKETS:
                raise TraceError(
                    f"{where}: latencies fill more than {MAX_BUCKETS} buckets; allowed: fewer "
                    "services and variants at a time, or a larger --step"
                )

    def frame(self) -> pd.DataFrame:
        """Return the serving frame: a row per service, variant and step that the log covers."""
        columns = [self._of_variant(code) for code in range(len(self._variants.names))]
        return pd.concat(columns, ignore_index=True)

    def _cell(self, code: IntArray, seconds: FloatArray) -> IntArray:
        return (code << STEP_BITS) | self._load.steps(seconds)

    def _count(self, name: str, code: IntArray, at: FloatArray, values: FloatArray) -> None:
        known = ~np.isnan(at) & ~np.isnan(values)
        cell = self._cell(code[known], at[known])
        keys = (cell << BUCKET_BITS) | bucket_of(values[known])
        self._buckets[name].add(keys, np.ones((len(keys), 1)))

    def _of_variant(self, code: int) -> pd.DataFrame:
        service, variant = self._variants.names[code].split("\n")
        owner = self._load.services.names.index(service)
        steps = np.concatenate(
            [np.arange(a, b + 1, dtype=np.int64) for a, b in self._load.covered(owner)]
        )
        out = pd.DataFrame(index=range(len(steps)))
        out["ts"] = step_starts(steps, self._load.step_seconds)
        out["service"], out["variant"] = service, variant
        for column in (*SERVING_REQUIRED, *SERVING_OPTIONAL):
            out[column] = np.nan
        amounts = _at(self._arrivals, code, steps)
        count = np.where(amounts[:, 0] > 0, amounts[:, 0], np.nan)  # no requests: no mean length
        out["arrival_rate_rps"] = amounts[:, 0] / self._load.step_seconds
        out["isl_tokens"], out["osl_tokens"] = amounts[:, 1] / count, amounts[:, 2] / count
        if not self._unknown_ends:  # else a count of ends would be too small
            out["finished_requests"] = _at(self._ends, code, steps)[:, 0]
        for name, buckets in self._buckets.items():
            found = _quantiles(buckets, code, steps)
            for n, label in enumerate(QUANTILES):
                out[f"{name}_{label}_seconds"] = found[:, n]
        return out


def bucket_of(seconds: FloatArray) -> IntArray:
    """Return the bucket of each latency, shape (N,): 0 below a microsecond."""
    ratio = np.maximum(seconds, SMALLEST_SECONDS) / SMALLEST_SECONDS
    bucket = np.ceil(np.log(ratio) / np.log(GAMMA)).astype(np.int64) + 1
    return np.where(seconds < SMALLEST_SECONDS, 0, bucket)


def bucket_seconds(bucket: IntArray) -> FloatArray:
    """Return the value that stands for each bucket, within RELATIVE_ERROR of all in it."""
    middle = SMALLEST_SECONDS * 2.0 * GAMMA ** (bucket - 1.0) / (GAMMA + 1.0)
    return np.where(bucket == 0, 0.0, middle)


def _latencies(rows: Rows) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return time to first token, per output token and to the end, NaN where not known.

    tpot = (e2e - ttft) / (output tokens - 1), of requests long enough to be judged.
    """
    nothing = np.full(len(rows.seconds), np.nan)
    ttft = nothing if rows.ttft_seconds is None else rows.ttft_seconds
    tpot = nothing if rows.tpot_seconds is None else rows.tpot_seconds
    e2e = nothing if rows.e2e_seconds is None else rows.e2e_seconds
    further = np.maximum(rows.output_tokens - 1, 1)
    tpot = np.where(np.isnan(tpot), (e2e - ttft) / further, tpot)
    e2e = np.where(np.isnan(e2e), ttft + tpot * (rows.output_tokens - 1), e2e)
    tpot = np.where(rows.output_tokens >= MIN_TPOT_OUTPUT_TOKENS, tpot, np.nan)
    return ttft, tpot, e2e


def _at(sums: SparseSums, code: int, steps: IntArray) -> FloatArray:
    """Return a variant's sums at ascending `steps`, shape (T, columns); 0 where nothing was added."""
    keys, values = sums.total()
    wanted = (code << STEP_BITS) | steps
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    out = np.zeros((len(steps), values.shape[1]))
    if len(keys):
        there = keys[place] == wanted
        out[there] = values[place[there]]
    return out


def _quantiles(sums: SparseSums, code: int, steps: IntArray) -> FloatArray:
    """Return the quantiles of each step, shape (T, Q); NaN of nothing."""
    keys, counts = sums.total()
    low, high = np.searchsorted(keys, np.array([code, code + 1]) << (STEP_BITS + BUCKET_BITS))
    mine, count = keys[low:high], counts[low:high, 0]
    cell = (mine >> BUCKET_BITS) & ((1 << STEP_BITS) - 1)
    seconds = bucket_seconds(mine & ((1 << BUCKET_BITS) - 1))
    out = np.full((len(steps), len(QUANTILES)), np.nan)
    starts, ends = np.searchsorted(cell, steps), np.searchsorted(cell, steps, side="right")
    for n in np.flatnonzero(ends > starts):
        part = slice(starts[n], ends[n])
        out[n] = _of_buckets(seconds[part], np.cumsum(count[part]))
    return out


def _of_buckets(seconds: FloatArray, cumulated: FloatArray) -> FloatArray:
    """Quantiles as numpy's default (linear between order statistics), of values told by bucket."""
    place = np.array(list(QUANTILES.values())) * (cumulated[-1] - 1)
    low = seconds[np.searchsorted(cumulated, np.floor(place), side="right")]
    high = seconds[np.searchsorted(cumulated, np.ceil(place), side="right")]
    out: FloatArray = low + (high - low) * (place - np.floor(place))
    return out

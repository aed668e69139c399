"""What is seen of served requests: percentiles and shares of an interval, and the verdict on a window."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.sim.state import IntArray, Ledger
from models.slo import MIN_TPOT_OUTPUT_TOKENS, SloTargets

FloatArray = NDArray[np.float64]
NAN = math.nan


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the requests that arrived in a window fared; NaN where there was none.

    slo_attainment_ratio counts unserved requests (no last token yet) as missed; percentiles are over
    the requests that got so far.
    """

    requests: int
    slo_attainment_ratio: float
    ttft_p50_seconds: float
    ttft_p95_seconds: float
    ttft_p99_seconds: float
    tpot_p95_seconds: float
    unserved_requests: int


@dataclass(frozen=True, slots=True)
class Latencies:
    """The latency part of a VariantObservation, field by field the same."""

    ttft_p50_seconds: float = NAN
    ttft_p95_seconds: float = NAN
    ttft_p99_seconds: float = NAN
    tpot_p50_seconds: float = NAN
    tpot_p95_seconds: float = NAN
    tpot_p99_seconds: float = NAN
    finished_requests: float = NAN
    ttft_within_slo_ratio: float = NAN
    tpot_within_slo_ratio: float = NAN
    slo_attainment_ratio: float = NAN


def percentiles(values: FloatArray, at: tuple[float, ...]) -> list[float]:
    """Linearly interpolated quantiles, as numpy's default; NaN of nothing.

    numpy.quantile costs ten times as much on the few hundred values of an interval.
    """
    if not len(values):
        return [NAN] * len(at)
    ordered = np.sort(values)
    out = []
    for q in at:
        place = q * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        out.append(float(ordered[low] + (ordered[high] - ordered[low]) * (place - low)))
    return out


def latencies(q: Ledger, started: IntArray, ended: IntArray, targets: SloTargets) -> Latencies:
    """Percentiles over the first tokens and ends of an interval, and the shares within the targets.

    A request too short for its TPOT to be judged counts as within that target and is left out of the
    TPOT percentiles.
    """
    ttft50, ttft95, ttft99 = percentiles(_ttft(q, started), (0.5, 0.95, 0.99))
    if not len(ended):
        return Latencies(ttft50, ttft95, ttft99, finished_requests=0.0)
    waited, tpot, judged = _parts(q, ended)
    quick = waited <= targets.ttft_seconds
    smooth = ~judged | (tpot <= targets.tpot_seconds)
    whole = quick & smooth & (_between(q, ended, "arrive", "end") <= targets.e2e_seconds)
    n = len(ended)
    tpot50, tpot95, tpot99 = percentiles(tpot[judged], (0.5, 0.95, 0.99))
    return Latencies(
        ttft50,
        ttft95,
        ttft99,
        tpot50,
        tpot95,
        tpot99,
        finished_requests=float(n),
        ttft_within_slo_ratio=int(np.count_nonzero(quick)) / n,
        tpot_within_slo_ratio=int(np.count_nonzero(smooth)) / n,
        slo_attainment_ratio=int(np.count_nonzero(whole)) / n,
    )


def judge(q: Ledger, low: int, high: int, targets: SloTargets) -> Verdict:
    """Judge the requests low..high-1 of the ledger, by order of arrival."""
    window = np.arange(low, high)
    ended = window[np.isfinite(q.request["end"][low:high])]
    started = window[np.isfinite(q.request["first"][low:high])]
    _, tpot, judged = _parts(q, ended)
    met = latencies(q, started, ended, targets).slo_attainment_ratio
    share = met * len(ended) / len(window) if len(ended) else (0.0 if len(window) else NAN)
    ttft = percentiles(_ttft(q, started), (0.5, 0.95, 0.99))
    return Verdict(
        requests=len(window),
        slo_attainment_ratio=share,
        ttft_p50_seconds=ttft[0],
        ttft_p95_seconds=ttft[1],
        ttft_p99_seconds=ttft[2],
        tpot_p95_seconds=percentiles(tpot[judged], (0.95,))[0],
        unserved_requests=len(window) - len(ended),
    )


def _between(q: Ledger, requests: IntArray, begin: str, end: str) -> FloatArray:
    """Return the seconds between two times of some requests (field by field: rows are wide)."""
    return np.asarray(q.request[end][requests] - q.request[begin][requests], dtype=np.float64)


def _ttft(q: Ledger, started: IntArray) -> FloatArray:
    return _between(q, started, "arrive", "first")


def _parts(q: Ledger, ended: IntArray) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Return (TTFT, TPOT, whether the TPOT is judged) of requests that ended."""
    tokens = q.request["output"][ended]
    tpot = _between(q, ended, "first", "end") / np.maximum(tokens - 1, 1)
    return _ttft(q, ended), tpot, tokens >= MIN_TPOT_OUTPUT_TOKENS

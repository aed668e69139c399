"""Sums of one service and variant -> the numbers of the telemetry contract: the one definition for all.

Every array has shape (G, I): groups (a service and variant) x intervals. A number whose signal is
missing is NaN; what was observed for less than MIN_COVERAGE_RATIO of an interval has none at all.

Arrivals of a variant: completions + rejections + change of (running + waiting), then completions
alone, then trace spans; of a service: the gateway's where there is one, else its variants' sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.otlp_quantiles import quantiles
from models.otlp_sums import GATEWAY, Amounts, Sums

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

MIN_COVERAGE_RATIO = 0.8
LEVELS = (0.5, 0.95, 0.99)
_SPANS_ONLY = ("span_arrivals", "span_finished")


@dataclass(frozen=True, slots=True)
class Numbers:
    """known (G, I): whether there is a row; columns: serving columns of models.frames, (G, I) each."""

    known: BoolArray
    columns: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class LoadNumbers:
    """Offered load by service: known (S, I), values (S, I, 3) as in LoadSeries."""

    known: BoolArray
    values: FloatArray


def serving_numbers(sums: Sums, interval_seconds: float) -> Numbers:
    """Return what each group's engines did in each interval."""
    shape = sums.observed_seconds.shape
    spans_only = sums.replica_seconds == 0
    said_by_spans = np.zeros(shape, dtype=bool)
    for name in _SPANS_ONLY:
        if name in sums.signals:
            said_by_spans |= sums.signals[name].present
    seconds = np.where(spans_only, interval_seconds, sums.observed_seconds)
    known = np.where(spans_only, said_by_spans, seconds >= MIN_COVERAGE_RATIO * interval_seconds)
    seconds = np.where(known, seconds, np.nan)
    finished = _finished(sums, shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "ready_replicas": np.where(spans_only, np.nan, sums.replica_seconds / seconds),
            "arrival_rate_rps": _arrivals(sums, finished, spans_only) / seconds,
            "isl_tokens": _mean_length(sums, "input", finished),
            "osl_tokens": _mean_length(sums, "output", finished),
            "running": _of(sums, shape, "total", "running") / seconds,
            "waiting": _of(sums, shape, "total", "waiting") / seconds,
            "kv_cache_usage_ratio": _mean(sums, shape, "kv_usage"),
            "prefix_cache_hit_ratio": _prefix_hits(sums, shape),
            "finished_requests": finished * interval_seconds / seconds,
            **_latencies(sums, shape),
        }
    return Numbers(known.astype(bool), columns)


def load_numbers(
    sums: Sums, numbers: Numbers, service_of: IntArray, services: int, interval_seconds: float
) -> LoadNumbers:
    """Return requests and tokens of each service; service_of (G,): which service a group belongs to."""
    c = numbers.columns
    shape = (services, numbers.known.shape[1])
    rate = c["arrival_rate_rps"] * interval_seconds
    idle = rate == 0
    served = _by_service(np.where(numbers.known, rate, 0.0), service_of, shape)
    tokens = [
        _by_service(np.where(numbers.known & ~idle, rate * c[column], 0.0), service_of, shape)
        for column in ("isl_tokens", "osl_tokens")
    ]
    any_rate = _by_service(numbers.known.astype(float), service_of, shape) > 0
    served = np.where(any_rate, served, np.nan)
    at_gateway, requests = _gateway(sums, service_of, shape, interval_seconds)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(at_gateway & (served != 0), requests / served, 1.0)
    requests = np.where(at_gateway, requests, served)
    values = [requests]
    for amount in tokens:
        told = np.where(any_rate, amount * scale, np.nan)
        values.append(np.where(requests == 0, 0.0, told))
    return LoadNumbers(at_gateway | any_rate, np.stack(values, axis=-1))


def chosen(sums: Sums, shape: tuple[int, ...], *names: str) -> list[tuple[str, BoolArray]]:
    """Return (signal, where it is the first of `names` that there is)."""
    free = np.ones(shape, dtype=bool)
    out = []
    for name in names:
        if name in sums.signals:
            here = sums.signals[name].present & free
            free &= ~here
            out.append((name, here))
    return out


def _of(sums: Sums, shape: tuple[int, ...], what: str, *names: str) -> FloatArray:
    """Return total, count or change of the first of `names` that there is; NaN without any."""
    out = np.full(shape, np.nan)
    for name, here in chosen(sums, shape, *names):
        out[here] = getattr(sums.signals[name], what)[here]
    return out


def _present(sums: Sums, shape: tuple[int, ...], name: str) -> BoolArray:
    known = sums.signals.get(name)
    return np.zeros(shape, dtype=bool) if known is None else known.present


def _finished(sums: Sums, shape: tuple[int, ...]) -> FloatArray:
    """Return how many requests ended, by what says it most directly."""
    out = _of(sums, shape, "total", "span_finished")
    for what, name in (("count", "duration"), ("total", "success")):
        out = np.where(_present(sums, shape, name), _of(sums, shape, what, name), out)
    return out


def _arrivals(sums: Sums, finished: FloatArray, spans_only: BoolArray) -> FloatArray:
    shape = finished.shape
    whole = np.ones(shape, dtype=bool)
    for name in ("success", "running", "waiting"):
        whole &= _present(sums, shape, name)
    rebuilt = _of(sums, shape, "total", "success")
    rebuilt = rebuilt + np.where(
        _present(sums, shape, "rejected"), _of(sums, shape, "total", "rejected"), 0.0
    )
    for name in ("running", "waiting"):
        rebuilt = rebuilt + _of(sums, shape, "change", name)
    from_spans = spans_only & _present(sums, shape, "span_arrivals")
    arrived = np.where(from_spans, _of(sums, shape, "total", "span_arrivals"), finished)
    return np.where(whole, np.maximum(rebuilt, 0.0), arrived)


def _mean_length(sums: Sums, side: str, finished: FloatArray) -> FloatArray:
    """Mean tokens a request: from lengths, then from token counters, then from trace spans."""
    shape = finished.shape
    counter = "prompt_tokens" if side == "input" else "generation_tokens"
    lengths = (f"{side}_length", f"client_{side}")
    total, count = (_of(sums, shape, what, *lengths) for what in ("total", "count"))
    counted = _present(sums, shape, counter) & (finished > 0)
    by_counter = _of(sums, shape, "total", counter) / finished
    otherwise = np.where(counted, by_counter, _mean(sums, shape, f"span_{side}"))
    return np.where((count > 0) & ~np.isnan(total), total / count, otherwise)


def _mean(sums: Sums, shape: tuple[int, ...], name: str) -> FloatArray:
    total, count = (_of(sums, shape, what, name) for what in ("total", "count"))
    return np.where(count > 0, total / count, np.nan)


def _prefix_hits(sums: Sums, shape: tuple[int, ...]) -> FloatArray:
    hits, asked = (_of(sums, shape, "total", f"prefix_{x}") for x in ("hits", "queries"))
    return np.where(asked > 0, np.minimum(hits / asked, 1.0), np.nan)


def _latencies(sums: Sums, shape: tuple[int, ...]) -> dict[str, FloatArray]:
    out = {
        f"{w}_p{round(q * 100)}_seconds": np.full(shape, np.nan)
        for w in ("ttft", "tpot")
        for q in LEVELS
    }
    for what in ("ttft", "tpot"):
        for name, here in chosen(sums, shape, what, f"span_{what}"):
            estimates = quantiles(sums.histograms[name], LEVELS)
            for i, q in enumerate(LEVELS):
                column = out[f"{what}_p{round(q * 100)}_seconds"]
                column[here] = estimates[:, i].reshape(shape)[here]
    return out


def _gateway(
    sums: Sums, service_of: IntArray, shape: tuple[int, int], interval_seconds: float
) -> tuple[BoolArray, FloatArray]:
    """Return where a gateway speaks, and its requests; NaN where it was observed too briefly."""
    there, rate = gateway_rate(sums, GATEWAY, service_of, shape, interval_seconds)
    return there, rate * interval_seconds


def gateway_rate(
    sums: Sums, name: str, service_of: IntArray, shape: tuple[int, int], interval_seconds: float
) -> tuple[BoolArray, FloatArray]:
    """Return where a gateway tells a signal, and its total a second; NaN if observed too briefly.

    shape: services x intervals, as the result. Of a gauge the total a second is its mean.
    """
    seen: Amounts | None = sums.signals.get(name)
    if seen is None:
        return np.zeros(shape, dtype=bool), np.full(shape, np.nan)
    first, last = np.full(shape, np.inf), np.full(shape, -np.inf)
    np.minimum.at(first, service_of, seen.starts)
    np.maximum.at(last, service_of, seen.ends)
    there = _by_service(seen.present.astype(float), service_of, shape) > 0
    seconds = np.where(last > first, last - first, np.nan)
    seconds[~(seconds >= MIN_COVERAGE_RATIO * interval_seconds)] = np.nan
    return there, _by_service(seen.total, service_of, shape) / seconds


def _by_service(values: FloatArray, service_of: IntArray, shape: tuple[int, int]) -> FloatArray:
    out = np.zeros(shape)
    np.add.at(out, service_of, values)
    return out

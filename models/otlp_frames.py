"""Cells -> the telemetry folder's frames: the one definition for `train` and for the online path.

Cells come in the order of time and are summed per source, then per service and variant, interval by
interval, so that two weeks need no more memory than the frames themselves. What was observed for less
than MIN_COVERAGE_RATIO of an interval gives no row; a number whose signal is missing is NaN.

Arrivals of a variant: completions + rejections + change of (running + waiting), then completions
alone, then trace spans; of a service: the gateway's where there is one, else its variants' sum.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

import numpy as np
import pandas as pd

from models.frames import (
    SERVING_OPTIONAL,
    SERVING_REQUIRED,
    FrameError,
    validate_load,
    validate_serving,
    validate_startups,
)
from models.otlp_cells import Amount, Cell, merge
from models.otlp_histogram import quantiles
from models.otlp_identity import Identity
from models.otlp_names import ENGINE_SIGNALS

MIN_COVERAGE_RATIO = 0.8
MAX_STARTUP_SECONDS = 6 * 3600.0  # a pod first seen later after its creation did something else
START_ATTRIBUTE = "k8s.pod.start_time"
_QUANTILES = (0.5, 0.95, 0.99)
_NOTHING = Amount()
_COLUMNS = tuple(c for c in (*SERVING_REQUIRED, *SERVING_OPTIONAL) if "within" not in c)
_SPANS_ONLY = ("span_arrivals", "span_finished")


@dataclass(frozen=True, slots=True)
class OtlpFrames:
    """Validated frames, and what could not be placed."""

    load: pd.DataFrame
    serving: pd.DataFrame
    startups: pd.DataFrame
    unnamed_sources: tuple[Mapping[str, str], ...]  # no service or variant by the identity


@dataclass(slots=True)
class _Group:
    """Everything that the sources of one service and variant did in one interval."""

    total: Cell = field(default_factory=dict)
    replica_seconds: float = 0.0
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def add(self, cell: Cell) -> None:
        engine = [a for name, a in cell.items() if name in ENGINE_SIGNALS and a.covered_seconds]
        if engine:
            self.replica_seconds += max(a.covered_seconds for a in engine)
        for amount in engine or cell.values():
            if amount.covered_seconds:
                self.starts.append(amount.start)
                self.ends.append(amount.end)
        if self.total:
            merge(self.total, cell)
        else:
            self.total = cell

    @property
    def observed_seconds(self) -> float:
        return max(self.ends) - min(self.starts) if self.starts else 0.0

    def get(self, *names: str) -> Amount | None:
        """Return the first signal of `names` that there is."""
        return next((self.total[n] for n in names if n in self.total), None)


def to_frames(
    cells: Iterable[tuple[int, int, Cell]],
    sources: Mapping[int, Mapping[str, str]],
    identity: Identity,
    *,
    bin_seconds: int,
    interval_seconds: int = 60,
) -> OtlpFrames:
    """Return load, serving and startups of (bin, source, cell) in the order of bins.

    The cells are used up: summed in place. Raises FrameError if the interval is not a multiple of the
    bins, and for impossible numbers.
    """
    if interval_seconds < bin_seconds or interval_seconds % bin_seconds:
        raise FrameError(
            f"interval of {interval_seconds} s; allowed: a multiple of the bins of {bin_seconds} s"
        )
    names = {number: identity.of(attributes) for number, attributes in sources.items()}
    bins_each = interval_seconds // bin_seconds
    load: list[tuple[int, str, list[float]]] = []
    serving: list[tuple[int, str, str, list[float]]] = []
    first_seen: dict[int, float] = {}
    rows = ((number // bins_each, source, cell) for number, source, cell in cells)
    for interval, at_once in groupby(rows, key=itemgetter(0)):
        groups = _groups(((s, c) for _, s, c in at_once), names, first_seen)
        start = interval * interval_seconds
        for (service, variant), group in groups.items():
            numbers = _serving_numbers(group, interval_seconds)
            if numbers is not None:
                serving.append((start, service, variant, numbers))
        load += _load_rows(start, groups, interval_seconds)
    return OtlpFrames(
        load=validate_load(_load_frame(load), "otlp load"),
        serving=validate_serving(_serving_frame(serving), "otlp serving"),
        startups=validate_startups(_startups(sources, names, first_seen), "otlp startups"),
        unnamed_sources=tuple(sources[n] for n, name in sorted(names.items()) if name is None),
    )


def _groups(
    cells: Iterator[tuple[int, Cell]],
    names: Mapping[int, tuple[str, str] | None],
    first_seen: dict[int, float],
) -> dict[tuple[str, str], _Group]:
    """Sum the cells of one interval: over its bins per source, then per service and variant."""
    of_source: dict[int, Cell] = {}
    for source, cell in cells:
        if source in of_source:
            merge(of_source[source], cell)
        else:
            of_source[source] = cell
    groups: dict[tuple[str, str], _Group] = {}
    for source in sorted(of_source):
        cell = of_source[source]
        engine = [a.start for n, a in cell.items() if n in ENGINE_SIGNALS and a.covered_seconds]
        if engine:
            first_seen.setdefault(source, min(engine))
        name = names.get(source)
        if name is not None:
            groups.setdefault(name, _Group()).add(cell)
    return dict(sorted(groups.items()))


def _serving_numbers(group: _Group, interval_seconds: int) -> list[float] | None:
    """Return the numbers of _COLUMNS; None if no replica was observed for long enough."""
    seconds = group.observed_seconds
    spans_only = not group.replica_seconds
    if spans_only:
        if group.get(*_SPANS_ONLY) is None:
            return None  # a gateway or a client: nothing that serves
        seconds = float(interval_seconds)
    elif seconds < MIN_COVERAGE_RATIO * interval_seconds:
        return None
    finished = _finished(group)
    gauge = {n: group.get(n) for n in ("running", "waiting", "kv_usage")}
    known = {
        "ready_replicas": math.nan if spans_only else group.replica_seconds / seconds,
        "arrival_rate_rps": _arrivals(group) / seconds,
        "isl_tokens": _mean_length(group, "input", finished),
        "osl_tokens": _mean_length(group, "output", finished),
        "running": _per(gauge["running"], seconds),
        "waiting": _per(gauge["waiting"], seconds),
        "kv_cache_usage_ratio": _mean(gauge["kv_usage"]),
        "prefix_cache_hit_ratio": _share(group.get("prefix_hits"), group.get("prefix_queries")),
        "finished_requests": finished * interval_seconds / seconds,
        **_latencies(group),
    }
    return [known.get(c, math.nan) for c in _COLUMNS]


def _load_rows(
    start: int, groups: Mapping[tuple[str, str], _Group], interval_seconds: int
) -> Iterator[tuple[int, str, list[float]]]:
    """Yield (start, service, requests and tokens) of every service whose arrivals are known."""
    for service, of_service in groupby(groups.items(), key=lambda item: item[0][0]):
        members = [group for _, group in of_service]
        gateways = [g for g in members if "gateway_arrivals" in g.total]
        requests = _gateway_requests(gateways, interval_seconds) if gateways else math.nan
        rates, inputs, outputs = [], [], []
        for group in members:
            numbers = _serving_numbers(group, interval_seconds)
            if numbers is None:
                continue
            rate, isl, osl = numbers[1:4]
            rates.append(rate * interval_seconds)
            inputs.append(rate * interval_seconds * isl if rate else 0.0)
            outputs.append(rate * interval_seconds * osl if rate else 0.0)
        if not gateways and not rates:
            continue
        served = math.fsum(rates) if rates else math.nan
        scale = requests / served if gateways and served else 1.0
        if not gateways:
            requests = served
        tokens = [math.fsum(x) * scale if x else math.nan for x in (inputs, outputs)]
        yield start, service, [requests, *(0.0 if requests == 0 else t for t in tokens)]


def _gateway_requests(gateways: list[_Group], interval_seconds: int) -> float:
    """Return requests at the gateway in the interval; NaN where it was observed too briefly."""
    amounts = [g.total["gateway_arrivals"] for g in gateways]
    seconds = max(a.end for a in amounts) - min(a.start for a in amounts)
    if not seconds >= MIN_COVERAGE_RATIO * interval_seconds:
        return math.nan
    return math.fsum(a.total for a in amounts) * interval_seconds / seconds


def _finished(group: _Group) -> float:
    """Return how many requests ended, by what says it most directly; NaN where nothing does."""
    success, duration = group.get("success"), group.get("duration")
    if success is not None:
        return success.total
    if duration is not None:
        return duration.count
    spans = group.get("span_finished")
    return math.nan if spans is None else spans.total


def _arrivals(group: _Group) -> float:
    success, running, waiting = (group.get(n) for n in ("success", "running", "waiting"))
    if success is not None and running is not None and waiting is not None:
        rejected = group.get("rejected") or _NOTHING
        return max(success.total + rejected.total + running.change + waiting.change, 0.0)
    arrived = group.get("span_arrivals")
    if arrived is not None and not group.replica_seconds:
        return arrived.total
    return _finished(group)


def _mean_length(group: _Group, side: str, finished: float) -> float:
    """Mean tokens a request: from lengths, then from token counters, then from trace spans."""
    lengths = group.get(f"{side}_length", f"client_{side}")
    if lengths is not None and lengths.count > 0 and not math.isnan(lengths.total):
        return lengths.total / lengths.count
    tokens = group.get("prompt_tokens" if side == "input" else "generation_tokens")
    if tokens is not None and finished > 0:
        return tokens.total / finished
    return _mean(group.get(f"span_{side}"))


def _latencies(group: _Group) -> dict[str, float]:
    out = {}
    for name in ("ttft", "tpot"):
        amount = group.get(name, f"span_{name}") or _NOTHING
        for q, (estimate, _, _) in zip(
            _QUANTILES, quantiles(amount.buckets, _QUANTILES), strict=True
        ):
            out[f"{name}_p{round(q * 100)}_seconds"] = estimate
    return out


def _mean(amount: Amount | None) -> float:
    return amount.total / amount.count if amount is not None and amount.count > 0 else math.nan


def _per(amount: Amount | None, seconds: float) -> float:
    return math.nan if amount is None else amount.total / seconds


def _share(part: Amount | None, whole: Amount | None) -> float:
    if part is None or whole is None or not whole.total > 0:
        return math.nan
    return min(part.total / whole.total, 1.0)


def _load_frame(rows: list[tuple[int, str, list[float]]]) -> pd.DataFrame:
    numbers = np.array([r[2] for r in rows], dtype=np.float64).reshape(-1, 3)
    return pd.DataFrame(
        {
            "ts": _times([r[0] for r in rows]),
            "service": pd.Series([r[1] for r in rows], dtype=object),
            **{
                c: numbers[:, i]
                for i, c in enumerate(("requests", "input_tokens", "output_tokens"))
            },
        }
    )


def _serving_frame(rows: list[tuple[int, str, str, list[float]]]) -> pd.DataFrame:
    numbers = np.array([r[3] for r in rows], dtype=np.float64).reshape(-1, len(_COLUMNS))
    return pd.DataFrame(
        {
            "ts": _times([r[0] for r in rows]),
            "service": pd.Series([r[1] for r in rows], dtype=object),
            "variant": pd.Series([r[2] for r in rows], dtype=object),
            **{c: numbers[:, i] for i, c in enumerate(_COLUMNS)},
        }
    )


def _startups(
    sources: Mapping[int, Mapping[str, str]],
    names: Mapping[int, tuple[str, str] | None],
    first_seen: Mapping[int, float],
) -> pd.DataFrame:
    """Return starts of pods whose creation the sender told (k8s.pod.start_time): ready when first seen.

    A pod that was there before anything was recorded tells nothing and is left out.
    """
    rows = []
    began = min(first_seen.values(), default=math.nan)
    for source, seen in sorted(first_seen.items()):
        name, text = names.get(source), sources[source].get(START_ATTRIBUTE, "")
        created = pd.to_datetime(text, utc=True, errors="coerce") if text else pd.NaT
        if name is None or pd.isna(created) or created.timestamp() < began:
            continue
        if 0 <= seen - created.timestamp() <= MAX_STARTUP_SECONDS:
            rows.append((*name, created.timestamp(), seen))
    empty = pd.Series(pd.NaT, index=range(len(rows)), dtype="datetime64[ns, UTC]")
    return pd.DataFrame(
        {
            "service": pd.Series([r[0] for r in rows], dtype=object),
            "variant": pd.Series([r[1] for r in rows], dtype=object),
            "created_ts": _times([r[2] for r in rows]),
            "ready_ts": _times([r[3] for r in rows]),
            "ended_ts": empty,
        }
    )


def _times(seconds: list[float] | list[int]) -> pd.Series:
    ns = np.round(np.array(seconds, dtype=np.float64) * 1e9).astype(np.int64)
    return pd.Series(pd.to_datetime(ns, utc=True)).astype("datetime64[ns, UTC]")

"""The metric contract against an OTLP store: found or not, under which name, attributes, age, plausibility.

The same quantities and verdicts as `autoscaler.edge.lint` has for a Prometheus. What is found here is
what `train` and the online reader read.
"""

import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoscaler.edge.lint import PLAUSIBLE, Finding, Status
from autoscaler.edge.otlp_reader import opened
from models import contract_series as of
from models import otlp_schema as schema
from models.contract import Quantity
from models.otlp_block import CODED_SIGNALS, SIGNAL_CODES, Block, joined
from models.otlp_fold import Series
from models.otlp_frames import START_ATTRIBUTE
from models.otlp_identity import Identity
from models.otlp_increments import NS
from models.otlp_names import ENGINE_SIGNALS
from models.otlp_parts import read_head, read_parts

WINDOW_SECONDS = 300.0
FRESH_SECONDS = 180.0  # three exports of an SDK that keeps its default of 60 s
POD_ATTRIBUTES = ("k8s.pod.name", "k8s.pod.uid", "service.instance.id", "pod")
SPANS = "trace spans"
NOT_ENGINE = "from callers, not from the engine: requests that fail before it count too"
BY_DURATION = "counted by a duration histogram: requests that were aborted may be missing"
BY_SPANS = "from trace spans: sampled traces understate it, and silence is not told from idleness"
BY_COUNTER = "the quotient of two counters: right on average, not for the requests of one interval"
COLLECTOR = "let the collector scrape the engine's /metrics (prometheus receiver) and send it on"


@dataclass(frozen=True, slots=True)
class Way:
    """A signal that gives a quantity, and what differs from the best one."""

    signal: str
    caveat: str = ""


WAYS: dict[Quantity, tuple[Way, ...]] = {
    of.COMPLETIONS: (
        Way("success"),
        Way("duration", BY_DURATION),
        Way("span_finished", BY_SPANS),
    ),
    of.REJECTIONS: (Way("rejected"),),
    of.RUNNING: (Way("running"),),
    of.WAITING: (Way("waiting"),),
    of.INPUT_TOKENS: (
        Way("input_length"),
        Way("client_input", NOT_ENGINE),
        Way("prompt_tokens", BY_COUNTER),
        Way("span_input", BY_SPANS),
    ),
    of.OUTPUT_TOKENS: (
        Way("output_length"),
        Way("client_output", NOT_ENGINE),
        Way("generation_tokens", BY_COUNTER),
        Way("span_output", BY_SPANS),
    ),
    of.TTFT: (Way("ttft"), Way("span_ttft", BY_SPANS)),
    of.TPOT: (Way("tpot"), Way("span_tpot", BY_SPANS)),
    of.KV_USAGE: (Way("kv_usage"),),
    of.PREFIX_QUERIES: (Way("prefix_queries"),),
    of.PREFIX_HITS: (Way("prefix_hits"),),
    of.GATEWAY_REQUESTS: (Way("gateway_arrivals"),),
    of.GATEWAY_QUEUE: (Way("gateway_queue"),),
}


@dataclass(frozen=True, slots=True)
class Stream:
    """One series, or the spans of one source: when it last spoke."""

    signal: str
    name: str  # of the metric as it was sent
    temporality: str
    source: int
    newest_seconds: float


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a store says. means: by quantity, over the last minutes. bounds: explicit, of ttft and tpot."""

    streams: tuple[Stream, ...]
    attributes: Mapping[int, Mapping[str, str]]
    names: Mapping[int, tuple[str, str] | None]  # of each source: service and variant
    means: Mapping[str, float]
    bounds: Mapping[str, tuple[float, ...]]

    @property
    def services(self) -> tuple[str, ...]:
        """Services that speak."""
        named = (self.names.get(s.source) for s in self.streams)
        return tuple(sorted({name[0] for name in named if name is not None}))

    def variants(self, service: str) -> tuple[str, ...]:
        """Variants of a service whose engines speak."""
        engines = {s.source for s in self.streams if s.signal in ENGINE_SIGNALS}
        named = (self.names.get(n) for n in engines)
        return tuple(sorted({n[1] for n in named if n is not None and n[0] == service}))


def look_at_store(folder: Path, identity: Identity, now_seconds: float) -> StoreFacts:
    """Read what there is of the last minutes, and every series that is remembered. Raises StoreError."""
    where = folder / schema.FILE_NAME
    with closing(opened(where)) as db:
        try:
            head = read_head(db.execute, str(where))
            series = [schema.series_from_row(*row)[1] for row in db.execute(schema.READ_SERIES)]
            bins = head.bins(now_seconds - WINDOW_SECONDS, now_seconds)
            parts = read_parts(db.execute, str(where), bins, head.bin_seconds)
            block = joined([part.block for part in parts])
        except sqlite3.DatabaseError as error:
            raise schema.StoreError(f"{where}: {error}; allowed: a store") from error
    return StoreFacts(
        (*(_stream(one) for one in series), *_spans(block, head.bin_seconds, now_seconds)),
        head.sources,
        {number: identity.of(attributes) for number, attributes in head.sources.items()},
        _means(block),
        {what: _bounds(series, what) for what in ("ttft", "tpot")},
    )


def judge_store(facts: StoreFacts, now_seconds: float) -> list[Finding]:
    """Return a finding per quantity of the contract, and one on start-up times."""
    found = [_judge(quantity, facts, now_seconds) for quantity in WAYS]
    return [*found, _starts(facts, now_seconds)]


def _judge(quantity: Quantity, facts: StoreFacts, now_seconds: float) -> Finding:
    ways = {way.signal: way for way in WAYS[quantity]}
    streams = [s for s in facts.streams if s.signal in ways]
    recent = [s for s in streams if s.newest_seconds >= now_seconds - WINDOW_SECONDS]
    shown = recent or streams
    newest = max((s.newest_seconds for s in shown), default=math.nan)
    status, detail = _verdict(quantity, shown, now_seconds - newest, facts)
    return Finding(
        quantity=quantity.name,
        required=quantity.required,
        status=status,
        names=tuple(sorted({f"{s.name} ({s.temporality})" for s in shown})),
        series=len(shown),
        age_seconds=now_seconds - newest,
        detail=detail,
        without=quantity.without,
        remedy=COLLECTOR if quantity in of.ENGINE else quantity.remedy,
    )


def _verdict(
    quantity: Quantity, streams: Sequence[Stream], age: float, facts: StoreFacts
) -> tuple[Status, str]:
    if not streams:
        names = " or ".join(s.name for s in quantity.series)
        return Status.MISSING, f"no {names}, nor what stands for it (docs/otlp.md)"
    lacking = _lacking(streams, facts)
    if lacking:
        return Status.LABELS, lacking
    if age > FRESH_SECONDS:
        return Status.STALE, f"newest sample {age:.0f} s old; fresh is up to {FRESH_SECONDS:.0f} s"
    low, high, what = PLAUSIBLE.get(quantity.name, (-math.inf, math.inf, ""))
    value = facts.means.get(quantity.name, math.nan)
    if value < low or value > high:
        return Status.IMPLAUSIBLE, f"{value:g}; plausible is {low:g} to {high:g} ({what})"
    there = {s.signal for s in streams}
    best = next(way for way in WAYS[quantity] if way.signal in there)
    return (Status.CAVEAT, best.caveat) if best.caveat else (Status.OK, "")


def _lacking(streams: Sequence[Stream], facts: StoreFacts) -> str:
    """Return a sentence about attributes that are needed and missing; else the empty text."""
    unnamed = [s for s in streams if facts.names.get(s.source) is None]
    if unnamed:
        return (
            f"{len(unnamed)} of {len(streams)} series are of no service or variant "
            f"({_shown(facts, unnamed[0])}); set --service and --variant or --map, or add the attribute"
        )
    engine = [s for s in streams if s.signal in ENGINE_SIGNALS]
    alike = [s for s in engine if not _pod(facts.attributes.get(s.source, {}))]
    if alike:
        return (
            f"{len(alike)} of {len(streams)} series carry none of {', '.join(POD_ATTRIBUTES)}: replicas "
            "look like one; add the k8sattributes or resourcedetection processor"
        )
    return ""


def _starts(facts: StoreFacts, now_seconds: float) -> Finding:
    """Judge whether pods say when they were created."""
    pods = {s.source for s in facts.streams if s.signal in ENGINE_SIGNALS}
    told = {n for n in pods if facts.attributes.get(n, {}).get(START_ATTRIBUTE)}
    newest = max((s.newest_seconds for s in facts.streams if s.source in told), default=math.nan)
    whole = bool(told) and told == pods
    return Finding(
        quantity=of.POD_CREATED.name,
        required=False,
        status=Status.OK if whole else Status.CAVEAT if told else Status.MISSING,
        names=(f"{START_ATTRIBUTE} (attribute)",) if told else (),
        series=len(told),
        age_seconds=now_seconds - newest,
        detail="" if whole else f"{len(told)} of {len(pods)} engines carry {START_ATTRIBUTE}",
        without=of.POD_CREATED.without,
        remedy=f"let the collector's k8sattributes processor extract {START_ATTRIBUTE}",
    )


def _stream(series: Series) -> Stream:
    newest = series.state.time_ns / NS
    return Stream(series.signal, series.metric, series.temporality, series.source, newest)


def _spans(block: Block, bin_seconds: int, now_seconds: float) -> list[Stream]:
    """Return a stream for each source and signal of trace spans, which have no series."""
    newest: dict[tuple[int, int], float] = {}
    codes = [code for name, code in SIGNAL_CODES.items() if name.startswith("span_")]
    rows = np.isin(block.signals, codes)
    for code, source, number in zip(
        block.signals[rows].tolist(),
        block.sources[rows].tolist(),
        block.bins[rows].tolist(),
        strict=True,
    ):
        end = min((number + 1) * float(bin_seconds), now_seconds)
        newest[code, source] = max(end, newest.get((code, source), end))
    return [
        Stream(CODED_SIGNALS[code], SPANS, "per request", source, end)
        for (code, source), end in newest.items()
    ]


def _means(block: Block) -> dict[str, float]:
    """Return mean seconds, tokens and share by quantity, over all sources together."""
    out = {}
    for quantity in (of.TTFT, of.TPOT, of.INPUT_TOKENS, of.OUTPUT_TOKENS, of.KV_USAGE):
        for way in WAYS[quantity]:
            rows = block.signals == SIGNAL_CODES[way.signal]
            count = float(block.counts[rows].sum(dtype=np.float64))
            if count > 0 and quantity.name not in out:
                out[quantity.name] = float(block.totals[rows].sum(dtype=np.float64)) / count
    return out


def _bounds(series: Sequence[Series], signal: str) -> tuple[float, ...]:
    """Return the explicit bounds in use; delta and exponential streams keep none."""
    histograms = (s.state.histogram for s in series if s.signal == signal)
    return tuple(sorted({b for h in histograms if h is not None for b in h.bounds or ()}))


def _pod(attributes: Mapping[str, str]) -> bool:
    return any(attributes.get(name) for name in POD_ATTRIBUTES)


def _shown(facts: StoreFacts, stream: Stream) -> str:
    attributes = facts.attributes.get(stream.source, {})
    return ", ".join(f"{k}={v}" for k, v in attributes.items()) or "no attributes"

"""OTLP messages -> points and requests: what was said, checked, in our units, by whom.

Takes the parsed protobuf messages of the collector services (JSON becomes the same messages before)
and only reads their fields, so nothing of protobuf is imported here. Whatever cannot be used is
yielded as a Refusal with its reason; a metric that no column needs is passed over in silence.

Source: opentelemetry-proto metrics.proto and trace.proto; attributes of vLLM's request spans.
"""

import hashlib
import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from models.otlp_histogram import MAX_EXPONENT, Histogram
from models.otlp_names import KV_USAGE, TYPE_ATTRIBUTE, Signal, canonical, signal_of, unit_factor

Source = tuple[tuple[str, str], ...]  # identity attributes, sorted by name
Temporality = Literal["delta", "cumulative", "instant"]

MAX_ATTRIBUTES = 128  # of one point, span or resource
MAX_ATTRIBUTE_CHARACTERS = 256  # of an identity attribute
MAX_PARTS = 200_000  # of one export: twice the points that are folded
MAX_BUCKETS = 512  # of one histogram point; the SDK's default is 160
MIN_OUTPUT_TOKENS_OF_TPOT = 8  # PROTOCOL: shorter answers are judged on TTFT alone
RATIO_SLACK = 1e-6
_TEMPORALITIES: dict[int, Temporality] = {1: "delta", 2: "cumulative"}
_NO_RECORDED_VALUE = 1  # flag of a data point: the series ended
_SERVER = 2  # kind of span


@dataclass(frozen=True, slots=True)
class Point:
    """One data point of a signal that we keep; times in ns since the epoch, start 0 if unknown."""

    source: Source
    series: bytes  # digest of metric and attributes
    signal: Signal
    metric: str  # its name as it was sent
    temporality: Temporality
    start_ns: int
    time_ns: int
    value: float = math.nan  # counters and gauges
    histogram: Histogram | None = None
    ended: bool = False  # the sender says that there is no value any more


@dataclass(frozen=True, slots=True)
class Request:
    """One finished request as a trace span tells it; NaN where the span does not say."""

    source: Source
    span_id: bytes
    start_ns: int
    end_ns: int
    input_tokens: float
    output_tokens: float
    ttft_seconds: float
    e2e_seconds: float

    @property
    def tpot_seconds(self) -> float:
        """(e2e - TTFT) / (output tokens - 1); NaN for short answers or where a part is missing."""
        if not self.output_tokens >= MIN_OUTPUT_TOKENS_OF_TPOT:
            return math.nan
        return (self.e2e_seconds - self.ttft_seconds) / (self.output_tokens - 1.0)


@dataclass(frozen=True, slots=True)
class Refusal:
    """One point or span that is not used, and why; senders get the reason."""

    reason: str


class _UnusableError(ValueError):
    """Raised while one point is decoded; becomes its Refusal."""


def too_many_parts(message: Any, most: int = MAX_PARTS) -> bool:  # noqa: ANN401
    """Whether an export has more than `most` resources, scopes, metrics, points or spans in all.

    Stops counting there: millions of empty parts fit into few bytes, and each costs time to visit.
    """
    if hasattr(message, "resource_metrics"):
        levels = (message.resource_metrics, "scope_metrics", "metrics")
    else:
        levels = (message.resource_spans, "scope_spans", "spans")
    resources, scopes_field, parts_field = levels
    seen = len(resources)
    if seen > most:
        return True
    for resource in resources:
        scopes = getattr(resource, scopes_field)
        seen += len(scopes)
        for scope in scopes if seen <= most else ():
            parts = getattr(scope, parts_field)
            seen += len(parts)
            if seen <= most and parts_field == "metrics":
                seen += sum(len(_data_points(metric)) for metric in parts)
        if seen > most:
            return True
    return False


def metric_points(message: Any, identity: Collection[str]) -> Iterator[Point | Refusal]:  # noqa: ANN401
    """Yield the points of an ExportMetricsServiceRequest, in its order.

    `identity`: names of the attributes that tell sources apart (otlp_names.IDENTITY_ATTRIBUTES).
    """
    for resource_metrics in message.resource_metrics:
        try:
            resource = _attributes(resource_metrics.resource.attributes)
        except _UnusableError as error:
            yield from _refuse_all(resource_metrics, str(error))
            continue
        for scope_metrics in resource_metrics.scope_metrics:
            for metric in scope_metrics.metrics:
                yield from _points_of(metric, resource, identity)


def span_requests(message: Any, identity: Collection[str]) -> Iterator[Request | Refusal]:  # noqa: ANN401
    """Yield the requests that the spans of an ExportTraceServiceRequest tell of."""
    for resource_spans in message.resource_spans:
        try:
            resource = _attributes(resource_spans.resource.attributes)
        except _UnusableError as error:
            yield Refusal(str(error))
            continue
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                try:
                    request = _request(span, resource, identity)
                except _UnusableError as error:
                    yield Refusal(str(error))
                    continue
                if request is not None:
                    yield request


def _points_of(
    metric: Any,  # noqa: ANN401
    resource: dict[str, str],
    identity: Collection[str],
) -> Iterator[Point | Refusal]:
    plain = canonical(metric.name)
    if signal_of(plain, "input") is None:
        return
    shape = metric.WhichOneof("data")
    if shape is None:
        return
    for data in getattr(metric, shape).data_points:
        try:
            attributes = _attributes(data.attributes)
            token_type = attributes.get("gen_ai.token.type", attributes.get(TYPE_ATTRIBUTE))
            signal = signal_of(plain, token_type)
            if signal is not None:
                yield _point(metric, shape, data, signal, (plain, resource, attributes, identity))
        except _UnusableError as error:
            yield Refusal(str(error))


def _point(
    metric: Any,  # noqa: ANN401
    shape: str,
    data: Any,  # noqa: ANN401
    signal: Signal,
    who: tuple[str, dict[str, str], dict[str, str], Collection[str]],
) -> Point:
    plain, resource, attributes, identity = who
    if data.time_unix_nano == 0:
        raise _UnusableError(f"{metric.name}: a point without a time; allowed: time_unix_nano > 0")
    temporality = _temporality(metric, shape, signal)
    source = source_of(resource, attributes, identity)
    ended = bool(data.flags & _NO_RECORDED_VALUE)
    value, histogram = math.nan, None
    factor = unit_factor(signal, metric.unit)
    if factor is None:
        raise _UnusableError(f"{metric.name}: unit '{metric.unit}'; allowed: s, ms, us, ns or none")
    if not ended and signal.kind == "histogram":
        histogram = _histogram(metric.name, shape, data, factor)
    elif not ended:
        value = _number(metric.name, data, signal) * factor
    return Point(
        source=source,
        series=_digest(plain, source, resource, attributes),
        signal=signal,
        metric=metric.name[:MAX_ATTRIBUTE_CHARACTERS],
        temporality=temporality,
        start_ns=data.start_time_unix_nano,
        time_ns=data.time_unix_nano,
        value=value,
        histogram=histogram,
        ended=ended,
    )


def _temporality(metric: Any, shape: str, signal: Signal) -> Temporality:  # noqa: ANN401
    data = getattr(metric, shape)
    allowed = {
        "counter": ("sum",),
        "gauge": ("gauge", "sum"),
        "histogram": ("histogram", "exponential_histogram"),
    }[signal.kind]
    if shape not in allowed:
        raise _UnusableError(f"{metric.name}: sent as {shape}; allowed: {' or '.join(allowed)}")
    if shape == "gauge":
        return "instant"
    temporality = _TEMPORALITIES.get(data.aggregation_temporality)
    if temporality is None:
        raise _UnusableError(f"{metric.name}: no temporality; allowed: delta or cumulative")
    if signal.kind == "gauge":
        if data.is_monotonic or temporality == "delta":
            raise _UnusableError(
                f"{metric.name}: a growing sum; allowed: a gauge or up-down counter"
            )
        return "instant"
    if shape == "sum" and not data.is_monotonic:
        raise _UnusableError(f"{metric.name}: a sum that may fall; allowed: a monotonic sum")
    return temporality


def _number(name: str, data: Any, signal: Signal) -> float:  # noqa: ANN401
    value = float(data.as_int if data.WhichOneof("value") == "as_int" else data.as_double)
    if data.WhichOneof("value") is None or not math.isfinite(value) or value < 0:
        raise _UnusableError(f"{name}: value {value:g}; allowed: a finite number >= 0")
    if signal is KV_USAGE and value > 1 + RATIO_SLACK:
        raise _UnusableError(f"{name}: value {value:g}; allowed: a ratio from 0 to 1")
    return value


def _histogram(name: str, shape: str, data: Any, factor: float) -> Histogram:  # noqa: ANN401
    total = data.sum * factor if data.HasField("sum") else math.nan
    if total < 0 or math.isinf(total):
        raise _UnusableError(f"{name}: sum {total:g}; allowed: a finite number >= 0")
    if shape == "histogram":
        return _explicit(name, data, total, factor)
    if factor != 1.0:
        raise _UnusableError(f"{name}: an exponential histogram in another unit; allowed: s")
    return _exponential(name, data, total)


def _explicit(name: str, data: Any, total: float, factor: float) -> Histogram:  # noqa: ANN401
    bounds = tuple(b * factor for b in data.explicit_bounds)
    counts = data.bucket_counts
    if len(counts) > MAX_BUCKETS or len(bounds) > MAX_BUCKETS:
        raise _UnusableError(f"{name}: {len(counts)} buckets; allowed: up to {MAX_BUCKETS}")
    if len(counts) != len(bounds) + 1 and (counts or bounds):
        raise _UnusableError(
            f"{name}: {len(counts)} counts for {len(bounds)} bounds; allowed: one more"
        )
    if not all(map(math.isfinite, bounds)) or any(a >= b for a, b in itertools.pairwise(bounds)):
        raise _UnusableError(f"{name}: bounds that do not increase; allowed: increasing, finite")
    if counts and sum(counts) != data.count:
        raise _UnusableError(f"{name}: buckets hold {sum(counts)} of {data.count}; allowed: all")
    sparse = {i: float(n) for i, n in enumerate(counts) if n}
    return Histogram(float(data.count), total, sparse, bounds=bounds)


def _exponential(name: str, data: Any, total: float) -> Histogram:  # noqa: ANN401
    positive, negative = data.positive, data.negative
    if any(negative.bucket_counts):
        raise _UnusableError(f"{name}: values below zero; allowed: values >= 0")
    if len(positive.bucket_counts) > MAX_BUCKETS:
        raise _UnusableError(
            f"{name}: {len(positive.bucket_counts)} buckets; allowed: up to {MAX_BUCKETS}"
        )
    if not -10 <= data.scale <= 20:
        raise _UnusableError(f"{name}: scale {data.scale}; allowed: -10 to 20")
    last = positive.offset + len(positive.bucket_counts)
    if max(abs(positive.offset), abs(last)) * 2.0**-data.scale > MAX_EXPONENT:
        raise _UnusableError(
            f"{name}: offset {positive.offset}; allowed: values from 2^-1000 to 2^1000"
        )
    sparse = {positive.offset + i: float(n) for i, n in enumerate(positive.bucket_counts) if n}
    if sum(positive.bucket_counts) + data.zero_count != data.count:
        raise _UnusableError(
            f"{name}: buckets that do not add up to {data.count}; allowed: all of them"
        )
    if not 0 <= data.zero_threshold < math.inf:
        raise _UnusableError(
            f"{name}: zero_threshold {data.zero_threshold:g}; allowed: finite, >= 0"
        )
    return Histogram(
        float(data.count),
        total,
        sparse,
        scale=data.scale,
        zero_count=float(data.zero_count),
        zero_threshold=data.zero_threshold,
    )


def _request(
    span: Any,  # noqa: ANN401
    resource: dict[str, str],
    identity: Collection[str],
) -> Request | None:
    if len(span.attributes) > MAX_ATTRIBUTES:
        raise _UnusableError(f"span: {len(span.attributes)} attributes; allowed: {MAX_ATTRIBUTES}")
    numbers = {a.key: _numeric(a.value) for a in span.attributes if a.key.startswith("gen_ai.")}
    ttft = numbers.get("gen_ai.latency.time_to_first_token", math.nan)
    e2e = numbers.get("gen_ai.latency.e2e", math.nan)
    sent = _first(numbers, "gen_ai.usage.prompt_tokens", "gen_ai.usage.input_tokens")
    got = _first(numbers, "gen_ai.usage.completion_tokens", "gen_ai.usage.output_tokens")
    timed = math.isfinite(ttft) or math.isfinite(e2e)
    if not timed and not (span.kind == _SERVER and math.isfinite(sent + got)):
        return None  # some other work, or the caller's view of a request
    start, end = span.start_time_unix_nano, span.end_time_unix_nano
    if not 0 < start <= end:
        raise _UnusableError(
            f"span '{span.name[:64]}': ends before it starts; allowed: start <= end"
        )
    if min(x for x in (ttft, e2e, sent, got, 0.0) if not math.isnan(x)) < 0:
        raise _UnusableError(f"span '{span.name[:64]}': a negative number; allowed: >= 0")
    e2e = (end - start) / 1e9 if math.isnan(e2e) else e2e
    if ttft > e2e:
        raise _UnusableError(f"span '{span.name[:64]}': TTFT {ttft:g} s after its end at {e2e:g} s")
    attributes = _attributes(span.attributes)
    source = source_of(resource, attributes, identity)
    return Request(source, span.span_id, start, end, sent, got, ttft, e2e)


def source_of(
    resource: dict[str, str], attributes: dict[str, str], identity: Collection[str]
) -> Source:
    """Return the identity attributes of a point, its own before its resource's."""
    both = {**resource, **attributes}
    kept = sorted((k, both[k]) for k in identity if k in both)
    for name, value in kept:
        if len(value) > MAX_ATTRIBUTE_CHARACTERS:
            raise _UnusableError(
                f"attribute {name}: {len(value)} characters; allowed: {MAX_ATTRIBUTE_CHARACTERS}"
            )
    return tuple(kept)


def _attributes(pairs: Any) -> dict[str, str]:  # noqa: ANN401
    """Return scalar attributes as text; lists and maps name nothing and are left out."""
    if len(pairs) > MAX_ATTRIBUTES:
        raise _UnusableError(f"{len(pairs)} attributes; allowed: up to {MAX_ATTRIBUTES}")
    out = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        if kind in ("string_value", "int_value", "bool_value", "double_value"):
            out[pair.key] = str(getattr(pair.value, kind))
    return out


def _numeric(value: Any) -> float:  # noqa: ANN401
    kind = value.WhichOneof("value")
    number = float(getattr(value, kind)) if kind in ("int_value", "double_value") else math.nan
    return number if math.isfinite(number) else math.nan


def _first(numbers: dict[str, float], *names: str) -> float:
    return next((numbers[n] for n in names if n in numbers), math.nan)


def _digest(
    plain: str, source: Source, resource: dict[str, str], attributes: dict[str, str]
) -> bytes:
    """Name a series: 16 bytes of a hash, so that long attributes cost no memory."""
    instance = resource.get("service.instance.id", "")
    text = repr((plain, source, instance, sorted(attributes.items())))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _data_points(metric: Any) -> Any:  # noqa: ANN401
    shape = metric.WhichOneof("data")
    return getattr(metric, shape).data_points if shape is not None else ()


def _refuse_all(resource_metrics: Any, reason: str) -> Iterator[Refusal]:  # noqa: ANN401
    for scope_metrics in resource_metrics.scope_metrics:
        for metric in scope_metrics.metrics:
            for _ in _data_points(metric):
                yield Refusal(reason)

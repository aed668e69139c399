"""OTLP messages for tests, built by the real protobuf classes; times in seconds since T0."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AggregationTemporality,
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
)

from autoscaler.core.types import (
    Behavior,
    Fallback,
    Mode,
    Policy,
    ScalingRules,
    TargetRef,
    Variant,
)
from models.frames import validate_load, validate_serving
from models.otlp_block import from_cells, selected
from models.otlp_fold import Fold, FoldLimits
from models.otlp_frames import FrameMaker
from models.otlp_histogram import Buckets
from models.otlp_identity import Identity
from models.otlp_names import IDENTITY_ATTRIBUTES
from models.otlp_points import metric_points
from models.otlp_quantiles import Distributions
from models.slo import SloTargets
from training.ingest_otlp import Period, ingest_store
from training.telemetry import Telemetry, read_telemetry

T0 = 1_767_571_200  # 2026-01-05T00:00:00Z, a whole minute
NS = 1_000_000_000
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
POD = {"k8s.namespace.name": "prod", "service.name": "chat", "k8s.deployment.name": "h100"}
ANY_TIME = FoldLimits(late_seconds=float("inf"), early_seconds=float("inf"))


def ns(seconds: float) -> int:
    return int((T0 + seconds) * NS)


def label(data: Any, attributes: Mapping[str, str]) -> None:
    for key, value in attributes.items():
        data.attributes.add(key=key).value.string_value = value


def times(data: Any, at: float, start: float | None) -> None:
    data.time_unix_nano = ns(at)
    if start is not None:
        data.start_time_unix_nano = ns(start)


def gauge(name: str, value: float, at: float, **labels: str) -> Metric:
    metric = Metric(name=name)
    point = metric.gauge.data_points.add(as_double=value)
    times(point, at, None)
    label(point, labels)
    return metric


def counter(
    name: str,
    value: float,
    at: float,
    start: float | None,
    *,
    temporality: int = CUMULATIVE,
    labels: Mapping[str, str] | None = None,
) -> Metric:
    metric = Metric(name=name)
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = temporality
    point = NumberDataPoint(as_double=value)
    times(point, at, start)
    label(point, labels or {})
    metric.sum.data_points.append(point)
    return metric


def histogram(
    name: str,
    values: Sequence[float],
    at: float,
    start: float | None,
    *,
    bounds: Sequence[float] = (0.1, 0.5, 1.0, 5.0),
    temporality: int = CUMULATIVE,
    unit: str = "s",
) -> Metric:
    metric = Metric(name=name, unit=unit)
    metric.histogram.aggregation_temporality = temporality
    point = HistogramDataPoint(count=len(values), sum=sum(values), explicit_bounds=bounds)
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[sum(value > b for b in bounds)] += 1
    point.bucket_counts.extend(counts)
    times(point, at, start)
    metric.histogram.data_points.append(point)
    return metric


def exponential(
    name: str,
    counts: Sequence[int],
    at: float,
    start: float | None,
    *,
    scale: int,
    offset: int,
    temporality: int = CUMULATIVE,
) -> Metric:
    metric = Metric(name=name, unit="s")
    metric.exponential_histogram.aggregation_temporality = temporality
    point = ExponentialHistogramDataPoint(count=sum(counts), sum=0.0, scale=scale)
    point.positive.offset = offset
    point.positive.bucket_counts.extend(counts)
    times(point, at, start)
    metric.exponential_histogram.data_points.append(point)
    return metric


def export(
    *metrics: Metric, resource: Mapping[str, str] | None = None
) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    one = request.resource_metrics.add()
    label(one.resource, POD if resource is None else resource)
    one.scope_metrics.add().metrics.extend(metrics)
    return request


def fold_all(*requests: ExportMetricsServiceRequest, bin_seconds: int = 30) -> Fold:
    """Fold exports that must all be accepted."""
    fold = Fold(bin_seconds=bin_seconds, limits=ANY_TIME)
    for request in requests:
        assert fold.add_points(metric_points(request, IDENTITY_ATTRIBUTES), 0.0) == []
    return fold


def policy(service: str, *variants: str, ttft: float = 0.5) -> Policy:
    """A policy of variants named so; its TPOT target is 0.25 s."""
    return Policy(
        service=service,
        model="any",
        targets=SloTargets(ttft_seconds=ttft, tpot_seconds=0.25),
        attainment=0.99,
        window_hours=1.0,
        priority=0,
        variants=tuple(
            Variant(v, v, 1, 0, 10, TargetRef("apps/v1", "Deployment", v)) for v in variants
        ),
        behavior=Behavior(Mode.RECOMMEND, ScalingRules(0.0), ScalingRules(300.0)),
        fallback=Fallback(600.0, None),
    )


def distributions(*many: Buckets) -> Distributions:
    """One histogram for each argument."""
    rows = [(i, edge, n) for i, buckets in enumerate(many) for edge, n in buckets.items()]
    bounds = sorted({edge for _, edge, _ in rows})
    return Distributions(
        len(many),
        np.array([i for i, _, _ in rows], dtype=np.int64),
        np.array([bounds.index(edge) for _, edge, _ in rows], dtype=np.int64),
        np.array([n for _, _, n in rows]),
        np.array(bounds).reshape(-1, 2),
    )


@dataclass(frozen=True)
class OtlpFrames:
    load: pd.DataFrame
    serving: pd.DataFrame
    startups: pd.DataFrame
    unnamed_sources: tuple[Mapping[str, str], ...]


def frames_of(
    fold: Fold, identity: Identity | None = None, interval_seconds: int = 60
) -> OtlpFrames:
    sources = {number: dict(source) for source, number in fold.sources.items()}
    maker = FrameMaker(sources, identity or Identity(), fold.bin_seconds, interval_seconds)
    block = from_cells(fold.cells, fold.bin_seconds)
    middle = int(block.bins.min() + block.bins.max()) // 2  # in two parts, as stores are read
    early = maker.add(selected(block, block.bins < middle), middle)
    late = maker.add(selected(block, block.bins >= middle), int(block.bins.max(initial=0)))
    frames = zip(early, late, maker.finish(), strict=True)
    load, serving = (pd.concat(parts, ignore_index=True) for parts in frames)
    return OtlpFrames(
        validate_load(load, "load"),
        validate_serving(serving, "serving"),
        maker.startups(),
        maker.unnamed_sources(),
    )


def read_store(folder: Path, period: Period | None = None) -> Telemetry:
    with tempfile.TemporaryDirectory() as out:
        ingest_store(folder, Identity(), Path(out), period=period)
        return read_telemetry(Path(out))

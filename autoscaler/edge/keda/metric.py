"""Which numbers make the HPA land on the planned count. The one place that knows of its arithmetic."""

from dataclasses import dataclass

from autoscaler.edge.keda.answers import Answer

TARGET = 1.0  # replicas each: AverageValue, so the HPA wants ceil(value / target)


@dataclass(frozen=True, slots=True)
class MetricNumber:
    """A value for GetMetrics beside the target that GetMetricSpec told."""

    value: float


def metric_of(answer: Answer) -> MetricNumber:
    """Return the metric's value for an answer."""
    return MetricNumber(float(answer.replicas))

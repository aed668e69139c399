"""Which number makes the HPA land on the planned count: `core.hpa`'s, from what is known of the HPA. Pure."""

import math
from dataclasses import dataclass
from functools import lru_cache

from autoscaler.core.hpa import MAX_MILLI, MAX_REPLICAS, Delivery, HpaView, metric_for
from autoscaler.edge.keda.answers import Answer
from autoscaler.edge.keda.hpa_facts import TARGET, assumed
from autoscaler.edge.keda.trigger import Trigger

KEPT = 8192  # deliveries: KEDA asks for the same ones again and again until something changes


@dataclass(frozen=True, slots=True)
class MetricNumber:
    """A value for GetMetrics beside the target that GetMetricSpec told."""

    value: float

    @property
    def whole(self) -> int:
        """The value for versions of KEDA that know no floats: rounded up, so nothing is taken away."""
        return math.ceil(self.value)


def metric_of(answer: Answer, trigger: Trigger) -> MetricNumber:
    """Return the metric's value for an answer; the count itself where nobody knows what runs."""
    variant = answer.variant
    if variant.current is None:
        return MetricNumber(answer.replicas * TARGET)
    facts = variant.hpa or assumed(trigger.target_type, trigger.tolerance)
    existing = variant.current if variant.existing is None else variant.existing
    ready = existing if variant.ready is None else variant.ready
    return MetricNumber(
        delivery(facts.view(variant.current, existing, ready), answer.replicas).value
    )


@lru_cache(maxsize=KEPT)
def delivery(view: HpaView, replicas: int) -> Delivery:
    """Return what brings an HPA to `replicas`, or to as many as its target can tell."""
    return metric_for(view, min(replicas, MAX_REPLICAS, MAX_MILLI // view.target_milli))

"""What is known of the HPA that KEDA made: from its object, or from a policy's status. Pure.

The operator reads HPAs and writes what matters of them into the policy's status; the scaler reads it from
there. What nobody knows (no rights, no HPA yet) is what KEDA and Kubernetes do by default, or what the
trigger's metadata say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from autoscaler.core.hpa import (
    DEFAULT_SCALE_DOWN,
    DEFAULT_SCALE_UP,
    MAX_REPLICAS,
    HpaPolicy,
    HpaRules,
    HpaView,
    SelectPolicy,
    TargetType,
)
from autoscaler.edge.kube.quantities import QUANTITY, SUFFIXES, KubeObjectError

Json = Mapping[str, Any]
TARGET = 1.0  # what GetMetricSpec tells: replicas each
DEFAULT_TOLERANCE = 0.1  # kube-controller-manager's --horizontal-pod-autoscaler-tolerance
COMPOSITE = "composite-metric"  # KEDA's name of what scalingModifiers make of all triggers


@dataclass(frozen=True, slots=True)
class HpaFacts:
    """Settings of an HPA that decide what a metric does; the defaults are KEDA's and Kubernetes'.

    `metrics` counts what the HPA looks at, `asks` says whether ours is among it.
    """

    target_type: TargetType = TargetType.AVERAGE_VALUE
    target: float = TARGET
    min_replicas: int = 1
    max_replicas: int = MAX_REPLICAS
    tolerance_up: float = DEFAULT_TOLERANCE
    tolerance_down: float = DEFAULT_TOLERANCE
    behavior: tuple[HpaRules, HpaRules] | None = None
    metrics: int = 1
    asks: bool = True

    def view(self, current: int, existing: int, ready: int) -> HpaView:
        """Return the HPA with its workload; ValueError for counts and settings that cannot be."""
        return HpaView(
            spec_replicas=current,
            status_replicas=existing,
            ready_pods=ready,
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            target_type=self.target_type,
            target=self.target,
            tolerance_up=self.tolerance_up,
            tolerance_down=self.tolerance_down,
            behavior=self.behavior,
        )


def assumed(target_type: TargetType | None, tolerance: float | None) -> HpaFacts:
    """Return what holds where no HPA can be read; the arguments are the trigger's overrides."""
    band = DEFAULT_TOLERANCE if tolerance is None else tolerance
    kind = TargetType.AVERAGE_VALUE if target_type is None else target_type
    return HpaFacts(target_type=kind, tolerance_up=band, tolerance_down=band)


def facts_of(hpa: Json, metric_name: str, base: HpaFacts) -> HpaFacts:
    """Return the facts of an HPA (autoscaling/v2); KubeObjectError for one that cannot be understood.

    `metric_name` is as the scaler told it, without KEDA's prefix; `base` holds what the HPA does not say:
    the cluster's tolerance, and the target where the metric is not (yet) among the HPA's.
    """
    spec = hpa["spec"]
    behavior = spec.get("behavior") or {}
    up, down = behavior.get("scaleUp") or {}, behavior.get("scaleDown") or {}
    target = _target(spec.get("metrics") or (), metric_name)
    kind, value = (base.target_type, base.target) if target is None else target
    return HpaFacts(
        target_type=kind,
        target=value,
        min_replicas=int(spec.get("minReplicas", 1)),
        max_replicas=min(int(spec["maxReplicas"]), MAX_REPLICAS),
        tolerance_up=_number(up["tolerance"]) if "tolerance" in up else base.tolerance_up,
        tolerance_down=_number(down["tolerance"]) if "tolerance" in down else base.tolerance_down,
        behavior=(_rules(up, DEFAULT_SCALE_UP), _rules(down, DEFAULT_SCALE_DOWN))
        if behavior
        else None,
        metrics=len(spec.get("metrics") or ()),
        asks=target is not None,
    )


def _target(metrics: Any, metric_name: str) -> tuple[TargetType, float] | None:  # noqa: ANN401
    """Return type and value of our metric's target, or of the formula's: with one, the HPA has it alone."""
    for metric in metrics:
        external = metric.get("external") or {}
        name = (external.get("metric") or {}).get("name", "")
        if name.partition("-")[2] != metric_name and not name.endswith(COMPOSITE):
            continue
        target = external.get("target") or {}
        if target.get("type") == "Value":
            return TargetType.VALUE, _number(target["value"])
        return TargetType.AVERAGE_VALUE, _number(target["averageValue"])
    return None


def _rules(rules: Json, default: HpaRules) -> HpaRules:
    window = rules.get("stabilizationWindowSeconds")
    policies = rules.get("policies")
    return HpaRules(
        default.policies
        if policies is None
        else tuple(
            HpaPolicy(p["type"] == "Percent", int(p["value"]), float(p["periodSeconds"]))
            for p in policies
        ),
        default.stabilization_window_seconds if window is None else float(window),
        SelectPolicy(rules.get("selectPolicy") or "Max"),
    )


def _number(quantity: object) -> float:
    """Return a quantity ("1", "8500m", 0.05) as a number."""
    found = QUANTITY.fullmatch(str(quantity))
    try:
        if found and found[2] in SUFFIXES:
            return float(Decimal(found[1]) * Decimal(SUFFIXES[found[2]]))
    except InvalidOperation:
        pass  # said below
    raise KubeObjectError(f"{quantity!r} is not a quantity; allowed: a number such as 8 or 500m")

"""A workload, the HPA that KEDA made for it (emulated), the operator's eyes and the scaler, in one step."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaler_rig import Keda, Served, policy, ref

from autoscaler.core.types import Mode, TargetRef
from autoscaler.edge.kube.conditions import Verdict
from autoscaler.edge.kube.deliveries import Planned, asks_of, deliveries
from autoscaler.policy.status import DeliveryStatus

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))

from hpa_emulator import Hpa, Rules, keda_cuts, keda_rounds

Json = dict[str, Any]
TARGET = TargetRef("apps/v1", "Deployment", "chat")


def scaled_object(metadata: Json | None = None, **trigger: Any) -> Json:
    """Return a ScaledObject with one trigger of ours."""
    said = {"scalerAddress": "foreserve-scaler:6000", "policy": "chat"} | (metadata or {})
    return {
        "metadata": {"name": "chat", "namespace": "prod"},
        "spec": {
            "scaleTargetRef": {"name": "chat"},
            "triggers": [{"type": "external-push", "metadata": said} | trigger],
        },
    }


def hpa_object(h: Hpa, metric: str = "s0-foreserve-chat") -> Json:
    """Return the HPA as KEDA makes it and the API server shows it: tolerances as quantities."""
    kind = ("AverageValue", "averageValue") if h.average else ("Value", "value")
    target = {"type": kind[0], kind[1]: f"{round(h.target * 1000)}m"}
    spec: Json = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat"},
        "minReplicas": h.minimum,
        "maxReplicas": h.maximum,
        "metrics": [
            {"type": "External", "external": {"metric": {"name": metric}, "target": target}}
        ],
    }
    if h.scale_up is not None and h.scale_down is not None:
        spec["behavior"] = {
            "scaleUp": _rules(h.scale_up, h.up_tolerance),
            "scaleDown": _rules(h.scale_down, h.down_tolerance),
        }
    return {
        "metadata": {
            "name": "keda-hpa-chat",
            "namespace": "prod",
            "labels": {"scaledobject.keda.sh/name": "chat"},
        },
        "spec": spec,
    }


def _rules(rules: Rules, tolerance: float) -> Json:
    return {
        "policies": [
            {"type": k, "value": v, "periodSeconds": int(p)} for k, v, p in rules.policies
        ],
        "selectPolicy": rules.select,
        "stabilizationWindowSeconds": int(rules.window),
        "tolerance": f"{round(tolerance * 1000)}m",
    }


def told(h: Hpa, planned: int, **metadata: str) -> tuple[dict[str, DeliveryStatus], Verdict]:
    """Return what the operator says of one variant when it sees the workload as it is now."""
    asks = asks_of([scaled_object(metadata)], [hpa_object(h)])
    variants = {"h100": Planned(TARGET, planned, h.spec, h.status, h.ready)}
    out, verdict = deliveries("prod/chat", Mode.KEDA, variants, asks, single=True)
    assert verdict is not None
    return out, verdict


@dataclass
class World:
    """`h` is scaled by what `keda` is told; the operator looks when `decide` is called."""

    served: Served
    keda: Keda
    h: Hpa
    currents: range = range(1, 101)  # worth trying: with TLS fewer, the arithmetic is the same
    document: Json = field(default_factory=dict)  # the policy as the API server has it

    def decide(self, planned: int) -> Verdict:
        """Take a turn of the operator: its status is what the scaler then knows."""
        statuses, verdict = told(self.h, planned)
        document = policy(desired=planned, current=self.h.spec)
        (variant,) = document["status"]["variants"]
        variant |= {"ready": self.h.ready, "delivery": statuses["h100"].manifest()}
        self.served.plans.apply("MODIFIED", document)
        self.document = document
        return verdict

    def poll(self) -> float:
        """Ask as KEDA's operator does on each poll: the spec, the value, the activity."""
        (spec,) = self.keda.spec().metricSpecs
        assert spec.targetSizeFloat == self.h.target == 1.0
        value = self.keda.count()
        assert self.keda.is_active() == (value > 0)
        return value

    def look(self) -> int:
        """Have the HPA look: it asks for the metric, and sets the count. Pods come at once."""
        value = self.keda.count()
        milli = keda_rounds(value)
        assert milli == keda_cuts(value)  # the same to every version of KEDA
        landed = self.h.look(milli)
        self.h.status = self.h.ready = landed
        self.h.clock += 15.0
        return landed


__all__ = ["TARGET", "Hpa", "Rules", "World", "hpa_object", "ref", "scaled_object", "told"]

"""API objects and standings for tests of the operator's pure parts."""

from typing import Any

from autoscaler.core.types import Mode, TargetRef
from autoscaler.edge.kube.scale import ScaleView
from autoscaler.operate.authority import Standing

Json = dict[str, Any]
CHAT = TargetRef("apps/v1", "Deployment", "chat")


def policy_object(
    name: str = "chat",
    *,
    uid: str = "",
    created: str = "2026-11-27T06:00:00Z",
    generation: int = 1,
    target: str = "",
    api_version: str = "apps/v1",
    accelerator_class: str = "h100",
    annotations: Json | None = None,
    **spec: Any,
) -> Json:
    variant = {
        "name": "default",
        "targetRef": {"apiVersion": api_version, "kind": "Deployment", "name": target or name},
        "acceleratorClass": accelerator_class,
        "minReplicas": 1,
        "maxReplicas": 9,
    }
    return {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": "ScalingPolicy",
        "metadata": {
            "name": name,
            "namespace": "prod",
            "uid": uid or f"uid-{name}",
            "generation": generation,
            "creationTimestamp": created,
            "annotations": annotations or {},
        },
        "spec": {
            "model": name,
            "slo": {"objectives": [{"metric": "ttft", "targetSeconds": 1.0}]},
            "variants": [variant],
            "behavior": {"mode": "Scale"},
            **spec,
        },
    }


def pool_object(
    name: str = "fleet", *classes: str, created: str = "2026-11-27T06:00:00Z", generation: int = 1
) -> Json:
    return {
        "apiVersion": "foreserve.dev/v1alpha1",
        "kind": "AcceleratorPool",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "generation": generation,
            "creationTimestamp": created,
        },
        "spec": {
            "classes": [
                {
                    "name": c,
                    "resourceName": "nvidia.com/gpu",
                    "usdPerHour": 3.5,
                    "quota": {"count": 8},
                }
                for c in classes or ("h100",)
            ]
        },
    }


def view(replicas: int, uid: str = "u1") -> ScaleView:
    return ScaleView(replicas, replicas, "app=chat", "1", uid)


def standing(
    *uids: str, mode: Mode = Mode.SCALE, paused_by: str = "", conflict: str = ""
) -> Standing:
    return Standing(mode, paused_by, conflict, {}, uids or ("u1",))

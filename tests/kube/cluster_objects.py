"""API objects as a server sends them, reduced to what a test means."""

from collections.abc import Mapping, Sequence
from typing import Any

from autoscaler.edge.kube.nodes import NodeRecord, node_record
from autoscaler.edge.kube.pods import PodRecord, pod_record
from autoscaler.policy.schema import AcceleratorPool

GPU = "nvidia.com/gpu"
Json = dict[str, Any]


def clock(minute: int, second: int = 0) -> str:
    """Return a time of one hour; its epoch is 1_795_759_200 + 60 * minute + second."""
    return f"2026-11-27T06:{minute:02}:{second:02}Z"


HOUR_SECONDS = 1_795_759_200.0  # 2026-11-27T06:00:00Z


def condition(kind: str, since: str, status: str = "True", **more: str) -> Json:
    return {"type": kind, "status": status, "lastTransitionTime": since, **more}


def pod_object(
    name: str = "chat-0",
    *,
    namespace: str = "prod",
    labels: Mapping[str, str] | None = None,
    node: str | None = "n1",
    gpus: int = 0,
    phase: str = "Running",
    conditions: Sequence[Json] = (),
    metadata: Json | None = None,
    spec: Json | None = None,
    status: Json | None = None,
) -> Json:
    resources = {"limits": {GPU: str(gpus)}, "requests": {GPU: str(gpus)}} if gpus else {}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "labels": dict(labels or {}),
            "creationTimestamp": clock(0),
            "ownerReferences": [{"kind": "ReplicaSet", "name": "chat-7d9", "controller": True}],
            **(metadata or {}),
        },
        "spec": {
            "containers": [{"name": "vllm", "resources": resources}],
            **({"nodeName": node} if node else {}),
            **(spec or {}),
        },
        "status": {"phase": phase, "conditions": list(conditions), **(status or {})},
    }


def ready_at(minute: int) -> list[Json]:
    """Return the conditions of a pod that was scheduled at :00:05, initialized at :01, ready then."""
    return [
        condition("PodScheduled", clock(0, 5)),
        condition("Initialized", clock(1)),
        condition("Ready", clock(minute)),
    ]


def pod(name: str = "chat-0", *, ready: bool = False, **more: Any) -> PodRecord:
    return pod_record(pod_object(name, conditions=ready_at(5) if ready else (), **more))


def node(
    name: str = "n1",
    *,
    gpus: int | None = 8,
    labels: Mapping[str, str] | None = None,
    ready: bool = True,
    cordoned: bool = False,
    taints: Sequence[tuple[str, str]] = (),
    resource: str = GPU,
) -> NodeRecord:
    return node_record(
        {
            "metadata": {"name": name, "labels": {"gpu": "h100"} if labels is None else labels},
            "spec": {
                **({"unschedulable": True} if cordoned else {}),
                "taints": [{"key": key, "effect": effect} for key, effect in taints],
            },
            "status": {
                "allocatable": {
                    "cpu": "96",
                    "memory": "1Ti",
                    **({} if gpus is None else {resource: str(gpus)}),
                },
                "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
            },
        }
    )


def pool(
    *classes: Json,
    name: str = "fleet",
    excluded: Sequence[str] = (),
    namespace_quotas: Mapping[str, int] | None = None,
) -> AcceleratorPool:
    return AcceleratorPool.model_validate(
        {
            "apiVersion": "foreserve.dev/v1alpha1",
            "kind": "AcceleratorPool",
            "metadata": {"name": name},
            "spec": {
                "classes": [{"usdPerHour": 3.5, **c} for c in classes],
                "excluded": list(excluded),
                "namespaceQuotas": dict(namespace_quotas or {}),
            },
        }
    )


def from_nodes(name: str = "h100", **more: Any) -> Json:
    """Return a class that is counted from nodes with the label gpu=h100."""
    return {"name": name, "nodeSelector": {"gpu": "h100"}, "quota": {"fromNodes": True}, **more}


def ours(of: PodRecord) -> bool:
    """The tests' policies scale what is labelled app=chat."""
    return of.labels.get("app") == "chat"


OURS = {"app": "chat"}
OTHERS = {"app": "notebook"}

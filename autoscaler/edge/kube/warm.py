"""Warm capacity: placeholder pods of low priority, so that nodes arrive before replicas.

A node takes minutes to come. A placeholder holds an accelerator of a node that is there; a replica that
needs it pushes the placeholder out at once (priority), and a node autoscaler brings the next node for it.
"""

import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from autoscaler.core.outcome import Decisions, ServiceDecision
from autoscaler.core.types import Policies, Variant
from autoscaler.edge.kube.pods import PodRecord
from autoscaler.policy.schema import AcceleratorClassSpec, AcceleratorPool

PLACEHOLDER = "foreserve.dev/placeholder"  # label: the class that the pod holds accelerators of
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
FLOAT_NOISE = 1e-9  # 10 * (1.1 - 1) is a little more than 1
HOLD_SECONDS = 600.0  # a node autoscaler takes an idle node away after ten minutes
History = tuple[tuple[float, Mapping[str, int]], ...]  # (seconds, wanted) of the last ticks
NOBODY = 65_535  # the pause image's own user


def is_placeholder(pod: PodRecord) -> bool:
    """Return whether a pod only keeps a place warm: it makes way for every replica."""
    return PLACEHOLDER in pod.labels


def placeholders(
    decisions: Decisions,
    policies: Policies,
    pools: Sequence[AcceleratorPool],
    usable: Mapping[str, int],
) -> dict[str, int]:
    """Return the accelerators to keep warm for each class that asks for it (`warmCapacity`).

    extra(variant) = ceil(desired * max(0, upper / carried - 1)), at most maxReplicas - desired replicas
    warm(class)    = sum of extra * acceleratorsPerReplica, at most maxAccelerators and what is left

    `carried` is the load at the horizon that the desired replicas hold within the SLO, `upper` its 0.95
    quantile: load between the two is likely enough to have a node for, and not likely enough to pay for
    replicas. Capacity is taken as proportional to replicas, which is what the plan does. A service without
    a forecast (NaN) asks for nothing: there is no number to size by. What is left: of a class with a count
    or a Kueue quota, the quota (or `usable`, if less) beside all desired replicas; a class counted from
    nodes has no such limit, since bringing nodes is what placeholders are for.
    """
    extra: dict[str, int] = {}
    desired: dict[str, int] = {}
    for name, decision in decisions.services.items():
        policy = policies.services.get(name)
        if policy is None:
            continue
        for v in policy.variants:
            count = decision.variants.get(v.name, 0) * v.accelerators_per_replica
            desired[v.accelerator_class] = desired.get(v.accelerator_class, 0) + count
            more = _extra_replicas(v, decision) * v.accelerators_per_replica
            extra[v.accelerator_class] = extra.get(v.accelerator_class, 0) + more
    out = {}
    for pool in pools:
        for c in pool.spec.classes:
            if c.warm_capacity is not None:
                room = _room(c, usable) - desired.get(c.name, 0)
                most = min(c.warm_capacity.max_accelerators, max(0.0, room))
                out[c.name] = int(min(extra.get(c.name, 0), most))
    return out


def settled(
    history: History, now_seconds: float, wanted: Mapping[str, int]
) -> tuple[dict[str, int], History]:
    """Return the most that was wanted of each class within HOLD_SECONDS, and the history with this tick.

    Placeholders come at once and go late: a forecast that jitters, or is missing for a tick, moves no node.
    """
    recent = tuple((t, n) for t, n in history if now_seconds - HOLD_SECONDS < t <= now_seconds)
    kept = (*recent, (now_seconds, dict(wanted)))
    return {name: max(n.get(name, 0) for _, n in kept) for name in wanted}, kept


def placeholder_deployment(
    c: AcceleratorClassSpec,
    accelerators: int,
    namespace: str,
    *,
    accelerators_each: int = 1,
    image: str = PAUSE_IMAGE,
) -> dict[str, Any]:
    """Return the Deployment (apps/v1) that keeps `accelerators` of class `c` warm.

    `accelerators_each`: of one placeholder; a replica of four on one node is kept a place for by a
    placeholder of four. Rounded up to whole placeholders. Raises ValueError for a class without
    warmCapacity, and for a DRA device class: a pod cannot ask for its devices by name.
    """
    if c.warm_capacity is None:
        raise ValueError(f"class {c.name}: warmCapacity is missing")
    if "/" not in c.resource_name:
        raise ValueError(
            f"class {c.name}: warmCapacity needs an extended resource such as nvidia.com/gpu, "
            f"resourceName {c.resource_name} is a DRA device class"
        )
    labels = {
        "app.kubernetes.io/name": "foreserve-placeholder",
        "app.kubernetes.io/managed-by": "foreserve",
        PLACEHOLDER: c.name,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": deployment_name(c), "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": -(-accelerators // accelerators_each),
            "revisionHistoryLimit": 1,
            "selector": {"matchLabels": {PLACEHOLDER: c.name}},
            "strategy": {"type": "Recreate"},
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod_spec(c, c.warm_capacity.priority_class_name, accelerators_each, image),
            },
        },
    }


def deployment_name(c: AcceleratorClassSpec) -> str:
    """Return the name of the class's placeholder Deployment: a DNS name, one for each class."""
    plain = c.name.lower().replace("_", "-").strip("-.")
    if plain == c.name:
        return f"foreserve-placeholder-{plain}"
    mark = sha256(c.name.encode()).hexdigest()[:8]  # H100_x and h100-x are two classes
    return f"foreserve-placeholder-{plain}-{mark}"


def _extra_replicas(v: Variant, decision: ServiceDecision) -> int:
    """Return the replicas of one variant that the upper forecast needs beyond the desired ones."""
    count = decision.variants.get(v.name, 0)
    carried, upper = decision.forecast_arrival_rate_rps, decision.forecast_upper_rps
    if not (count > 0 and carried > 0 and upper > carried):  # NaN compares false
        return 0
    most = max(0, v.max_replicas - count)
    wanted = count * (upper / carried - 1.0)
    return most if math.isinf(wanted) else min(most, math.ceil(wanted - FLOAT_NOISE))


def _room(c: AcceleratorClassSpec, usable: Mapping[str, int]) -> float:
    """Return how many accelerators of the class there may be in all; infinity: not limited."""
    if c.quota is None or c.quota.from_nodes:
        return math.inf
    if c.quota.count is not None:
        return min(c.quota.count, usable.get(c.name, c.quota.count))
    return usable.get(c.name, 0)  # a Kueue quota that is not known is nothing to build on


def _pod_spec(
    c: AcceleratorClassSpec, priority_class: str, accelerators_each: int, image: str
) -> dict[str, Any]:
    amounts = {"cpu": "1m", "memory": "16Mi", c.resource_name: str(accelerators_each)}
    return {
        "priorityClassName": priority_class,
        "terminationGracePeriodSeconds": 0,  # a replica waits for it to be gone
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": dict(c.node_selector),
        "tolerations": [{"key": c.resource_name, "operator": "Exists", "effect": "NoSchedule"}],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "pause",
                "image": image,
                "resources": {"requests": amounts, "limits": amounts},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }

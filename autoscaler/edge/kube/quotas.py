"""ResourceQuotas as limits on the accelerators of a pool in a namespace.

limit(pool, namespace) = the least of namespaceQuotas and, where ResourceQuotas bound every resource of the
pool, the sum over these resources of (hard `requests.<resource>` - requests of others' pods there)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.edge.kube.pods import PodRecord
from autoscaler.edge.kube.quantities import JsonObject, whole
from autoscaler.policy.schema import AcceleratorPool

REQUESTS = "requests."
DEVICES = ".deviceclass.resource.k8s.io/devices"  # devices of a DRA device class
NEVER_OURS = {"Terminating", "BestEffort"}  # jobs with a deadline; pods counted, not accelerators
Ours = Callable[[PodRecord], bool]
Place = tuple[str, str]  # (namespace, resource)


@dataclass(frozen=True, slots=True)
class NamespaceLimits:
    """limits: pool -> namespace -> accelerators for our replicas. problems: what was not counted, why."""

    limits: Mapping[str, Mapping[str, int]]
    problems: tuple[str, ...]


def namespace_limits(
    pools: Sequence[AcceleratorPool],
    quotas: Sequence[JsonObject],
    pods: Sequence[PodRecord],
    ours: Ours,
) -> NamespaceLimits:
    """Return how many accelerators of each pool our pods may request in each namespace, never below 0.

    A namespace without a number has no limit. The API server enforces ResourceQuotas in any case; a quota
    that cannot be counted here costs refused pods, not a wrong limit.
    """
    problems: list[str] = []
    resources = {c.resource_name for pool in pools for c in pool.spec.classes}
    left = _left(resources, quotas, pods, ours, problems)
    limits: dict[str, dict[str, int]] = {}
    for pool in pools:
        own = dict(pool.spec.namespace_quotas)
        names = sorted({c.resource_name for c in pool.spec.classes})
        for namespace in sorted({n for n, resource in left if resource in names}):
            free = [r for r in names if (namespace, r) not in left]
            if free:
                problems.append(
                    f"namespace {namespace}: no ResourceQuota bounds {', '.join(free)}, so those of other "
                    f"resources are no limit of pool {pool.metadata.name}."
                )
                continue
            count = sum(left[namespace, r] for r in names)
            own[namespace] = min(own.get(namespace, count), count)
        limits[pool.metadata.name] = own
    problems += _shared(pools, left)
    return NamespaceLimits(limits, tuple(problems))


def _left(
    resources: set[str],
    quotas: Sequence[JsonObject],
    pods: Sequence[PodRecord],
    ours: Ours,
    problems: list[str],
) -> dict[Place, int]:
    """Return what the tightest quota leaves for us, by namespace and resource."""
    by_namespace: dict[str, list[tuple[PodRecord, bool]]] = {}
    for pod in pods:
        if not pod.ended:  # a quota counts Pending pods, too
            by_namespace.setdefault(pod.namespace, []).append((pod, ours(pod)))
    left: dict[Place, int] = {}
    for quota in quotas:
        namespace, name = quota["metadata"]["namespace"], quota["metadata"]["name"]
        hard = (quota.get("spec") or {}).get("hard") or {}
        bounded = {r: whole(hard[REQUESTS + r]) for r in resources if REQUESTS + r in hard}
        if any(r + DEVICES in hard for r in resources):
            problems.append(
                f"ResourceQuota {namespace}/{name}: a quota of DRA devices is not counted."
            )
        if not bounded:
            continue
        there = by_namespace.get(namespace, [])
        applies = _applies(quota, there)
        if applies is None:
            problems.append(
                f"ResourceQuota {namespace}/{name}: whether its scopes hold for our pods cannot be told; "
                "it is not counted."
            )
        if not applies:
            continue
        for resource, most in bounded.items():
            taken = sum(
                pod.requests.get(resource, 0)
                for pod, mine in there
                if not mine and _in_scope(quota, pod) is not False
            )
            rest = max(0, most - taken)
            left[namespace, resource] = min(left.get((namespace, resource), rest), rest)
    return left


def _applies(quota: JsonObject, there: Sequence[tuple[PodRecord, bool]]) -> bool | None:
    """Return whether a quota bounds all our pods of its namespace; None: some of them, or not known."""
    if not _scopes(quota):
        return True
    found = {_in_scope(quota, pod) for pod, mine in there if mine}
    if any(scope in NEVER_OURS for scope, _, _ in _scopes(quota)):
        return False
    return found.pop() if len(found) == 1 else None


def _in_scope(quota: JsonObject, pod: PodRecord) -> bool | None:
    """Return whether a quota counts this pod; None: not known from what is kept of a pod."""
    known: bool | None = True
    for scope, operator, values in _scopes(quota):
        if scope == "NotTerminating":
            continue  # pods with a deadline are rare; counting them only lowers the limit
        if scope != "PriorityClass":
            known = None
        elif not _priority_matches(pod.priority_class, operator, values):
            return False
    return known


def _priority_matches(priority_class: str, operator: str, values: Sequence[str]) -> bool:
    if operator == "Exists":
        return bool(priority_class)
    if operator == "DoesNotExist":
        return not priority_class
    return (priority_class in values) == (operator == "In")


def _scopes(quota: JsonObject) -> list[tuple[str, str, Sequence[str]]]:
    """Return a quota's scopes as (name, operator, values)."""
    spec = quota.get("spec") or {}
    selector = spec.get("scopeSelector") or {}
    return [(scope, "Exists", ()) for scope in spec.get("scopes") or ()] + [
        (e["scopeName"], e["operator"], e.get("values") or ())
        for e in selector.get("matchExpressions") or ()
    ]


def _shared(pools: Sequence[AcceleratorPool], left: Mapping[Place, int]) -> list[str]:
    """Report resources that several pools have: each pool gets the whole of what the quota leaves."""
    users: dict[str, list[str]] = {}
    for pool in pools:
        for resource in {c.resource_name for c in pool.spec.classes}:
            users.setdefault(resource, []).append(pool.metadata.name)
    return [
        f"namespace {namespace}: pools {', '.join(users[resource])} share the ResourceQuota of {resource}; "
        "each is given the whole of it."
        for namespace, resource in sorted(left)
        if len(users[resource]) > 1
    ]

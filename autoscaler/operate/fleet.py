"""Which pods serve which variant, and how many replicas they make. Pure."""

import logging
from collections.abc import Mapping

from autoscaler.core.types import Policies
from autoscaler.edge.kube.api import KubeError
from autoscaler.edge.kube.pods import PodRecord, pods_of, replica_counts, whole_groups
from autoscaler.edge.kube.quantities import KubeObjectError
from autoscaler.edge.kube.scale import ScaleView
from autoscaler.edge.kube.selectors import group_selector
from autoscaler.operate.authority import TargetKey
from autoscaler.operate.collect import Replicas, VariantKey, replicas_of

log = logging.getLogger("foreserve")


def targets_of(policies: Policies) -> dict[VariantKey, TargetKey]:
    """Return the workload of every variant that is decided."""
    return {
        (name, v.name): (policy.namespace, v.target_ref)
        for name, policy in policies.services.items()
        for v in policy.variants
    }


def selectors_of(
    targets: Mapping[VariantKey, TargetKey],
    scales: Mapping[TargetKey, ScaleView | KubeError],
) -> dict[VariantKey, tuple[str, str]]:
    """Return (namespace, selector) of each workload whose scale tells one: "" would select all pods."""
    out = {}
    for key, target in targets.items():
        view = scales[target]
        if isinstance(view, ScaleView) and view.selector:
            out[key] = (target[0], view.selector)
    return out


def groups_of(
    selectors: Mapping[VariantKey, tuple[str, str]], pods: list[PodRecord]
) -> dict[VariantKey, list[PodRecord]]:
    """Return all pods of the targets, workers of groups included."""
    groups = {}
    for key, (namespace, selector) in selectors.items():
        try:
            groups[key] = (namespace, group_selector(selector))
        except KubeObjectError as error:
            log.warning("%s: %s", key[0], error)
    return pods_of(groups, pods)


def _is_settled(pod: PodRecord, settled_by_seconds: float) -> bool:
    """Whether a pod serves and was ready by then: its metrics must have been scraped since."""
    serves = pod.ready and not pod.deleting and not pod.ended
    return serves and pod.ready_seconds <= settled_by_seconds


def replicas_in(
    targets: Mapping[VariantKey, TargetKey],
    scales: Mapping[TargetKey, ScaleView | KubeError],
    pods: Mapping[VariantKey, list[PodRecord]],
    groups: Mapping[VariantKey, list[PodRecord]],
    settled_by_seconds: float,
) -> dict[VariantKey, Replicas]:
    """Return the counts of every workload whose scale could be read.

    `settled_by_seconds`: who was ready by then must have been scraped since.
    Without a selector nobody knows which pods are meant: those that exist count as ready.
    """
    out = {}
    for key, target in targets.items():
        view = scales[target]
        if not isinstance(view, ScaleView):
            continue
        own = pods.get(key)
        if own is None:
            out[key] = replicas_of(view.replicas, min(view.status_replicas, view.replicas), 0, 0)
        else:
            members = whole_groups(own, groups.get(key, own))
            counts = replica_counts(members)
            settled = sum(_is_settled(pod, settled_by_seconds) for pod in members)
            out[key] = replicas_of(
                view.replicas, counts.ready, counts.starting, counts.draining, settled
            )
    return out

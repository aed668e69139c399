"""Which pods should go first: the idlest, by their deletion cost, before a Deployment is scaled down.

A ReplicaSet removes pods that are not ready first, then those of the lowest deletion cost (default 0). The
idlest get -1: just below the default, so that a lower cost that a user set still goes before. One value
for all: their order does not matter when all of them go, and a mark is not rewritten each tick.
Source: Kubernetes documentation, ReplicaSet, Pod deletion cost.
"""

import math
from collections.abc import Iterable, Mapping

from autoscaler.edge.kube.pods import DELETION_COST, DELETION_COST_OURS, PodRecord

IDLE_COST = -1


def deletion_costs(
    pods: Iterable[PodRecord], load_by_pod: Mapping[str, float], remove: int
) -> dict[str, int | None]:
    """Return what to change, uid -> the cost to set, or None to take back a mark of ours.

    `pods`: of one target. `load_by_pod`: pod name -> load, any unit (running requests, say); a pod without
    one, or with NaN, counts as busy and is never marked. `remove`: replicas that are about to go. Only pods
    of ReplicaSets (and so of Deployments) are touched, and never a cost that somebody else set.
    """
    able = [p for p in pods if _touchable(p)]
    serving = [p for p in able if p.ready]
    # these go before any mark of ours: pods that do not serve, and lower costs of users
    first = len(able) - len(serving)
    first += sum(1 for p in serving if _users(p) and (p.deletion_cost or 0) < IDLE_COST)
    loads = {p.uid: load_by_pod.get(p.name, math.nan) for p in serving if not _users(p)}
    known = [p for p in serving if not math.isnan(loads.get(p.uid, math.nan))]
    known.sort(key=lambda p: (loads[p.uid], -p.created_seconds, p.uid))
    marked = {p.uid for p in known[: max(0, remove - first)]}
    changes: dict[str, int | None] = {}
    for p in able:
        if p.uid in marked:
            if p.deletion_cost != IDLE_COST or not p.deletion_cost_ours:
                changes[p.uid] = IDLE_COST
        elif p.deletion_cost_ours:
            changes[p.uid] = None
    return changes


def cost_patch(cost: int | None) -> dict[str, object]:
    """Return the merge patch of a pod that sets or takes back its cost, with the mark that it is ours."""
    value = None if cost is None else str(cost)
    mark = None if cost is None else "true"
    return {"metadata": {"annotations": {DELETION_COST: value, DELETION_COST_OURS: mark}}}


def _touchable(pod: PodRecord) -> bool:
    of_replica_set = pod.owner is not None and pod.owner[0] == "ReplicaSet"
    return of_replica_set and not pod.ended and not pod.deleting


def _users(pod: PodRecord) -> bool:
    return pod.deletion_cost is not None and not pod.deletion_cost_ours

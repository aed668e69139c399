"""What a turn knows for KEDA: each variant's planned and present replicas. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from autoscaler.edge.kube.conditions import Verdict
from autoscaler.edge.kube.deliveries import Asks, Planned, asks_of, deliveries
from autoscaler.edge.kube.scale import ScaleView
from autoscaler.operate.collect import Replicas, VariantKey
from autoscaler.operate.facts import Facts
from autoscaler.operate.roster import Member
from autoscaler.policy.status import ConditionReason, DeliveryStatus

if TYPE_CHECKING:
    from autoscaler.operate.turn import Turn

PATIENCE_SECONDS = 600.0  # for an HPA to act: twice the window that it has by default
ON_THEIR_WAY = {
    ConditionReason.EXACT.value,
    ConditionReason.STABILIZATION_PENDING.value,
    ConditionReason.BEHAVIOR_LIMITED.value,
}


def asks_in(facts: Facts) -> Asks:
    """Return who asks the scaler for what, from the ScaledObjects and HPAs of a turn."""
    return asks_of(facts.scaled_objects, facts.hpas)


def delivered(
    turn: "Turn", member: Member, asks: Asks
) -> tuple[dict[str, DeliveryStatus], Verdict | None]:
    """Return how a policy's counts reach its workloads, and the condition that says so."""
    policy = member.policy
    if policy is None:
        return {}, None
    single = len(policy.variants) == 1
    return deliveries(
        member.seen.name, policy.behavior.mode, _planned(turn, member), asks, single=single
    )


def _planned(turn: "Turn", member: Member) -> dict[str, Planned]:
    """Return the variants whose workload could be read and was decided for; paused: as it is."""
    name, policy = member.seen.name, member.policy
    decision = turn.step.decisions.services.get(name)
    standing = turn.standings.get(name)
    if policy is None or decision is None or standing is None:
        return {}
    out = {}
    for v in policy.variants:
        view = turn.facts.scales.get((policy.namespace, v.target_ref))
        own = turn.facts.replicas.get((name, v.name))
        decided = decision.variants.get(v.name)
        if not isinstance(view, ScaleView) or own is None or decided is None:
            continue
        replicas = own.desired if standing.paused_by else decided
        out[v.name] = Planned(v.target_ref, replicas, own.desired, view.status_replicas, own.ready)
    return out


class Falls:
    """Falls that were decided for KEDA and are not carried out yet: further ones count from them.

    A fall that is limited to a few replicas at once counts from what the workload asks for. Where the HPA's
    tolerance ignores so small a fall, the same one would be decided for ever; counted from what was decided
    last, falls add up until they are large enough. One that the HPA will carry out, now or after its window,
    counts as carried out, for PATIENCE_SECONDS: an HPA that does nothing for that long must not find a
    landslide later.
    """

    def __init__(self) -> None:
        self._decided: dict[VariantKey, int] = {}
        # what is asked for now, and since when less is due
        self._due: dict[VariantKey, tuple[int, float]] = {}

    def note(self, decided: Mapping[VariantKey, int]) -> None:
        """Take in what KEDA is told from this turn on."""
        self._decided = dict(decided)

    def carried_out(self, facts: Facts, now_seconds: float) -> Mapping[VariantKey, Replicas]:
        """Return the replicas as they are once the HPA has done what it can, or ignored what it does."""
        out = dict(facts.replicas)
        due: dict[VariantKey, tuple[int, float]] = {}
        for key, delivery in self._deliveries(facts).items():
            current = facts.replicas[key].desired
            if delivery.reason in ON_THEIR_WAY:
                before = self._due.get(key)
                since = now_seconds if before is None or before[0] != current else before[1]
                due[key] = current, since
                if now_seconds - since > PATIENCE_SECONDS:
                    continue
            elif delivery.reason != ConditionReason.TOLERANCE_LIMITED.value:
                continue
            out[key] = replace(out[key], desired=self._decided[key])
        self._due = due
        return out

    def _deliveries(self, facts: Facts) -> dict[VariantKey, DeliveryStatus]:
        """Return what the HPAs make of the falls."""
        found: dict[VariantKey, DeliveryStatus] = {}
        falls = {
            k
            for k, n in self._decided.items()
            if k in facts.replicas and n < facts.replicas[k].desired
        }
        if not falls:
            return found
        asks = asks_in(facts)
        for name, policy in facts.roll.policies.services.items():
            planned = {}
            for v in policy.variants:
                view = facts.scales.get((policy.namespace, v.target_ref))
                if (name, v.name) in falls and isinstance(view, ScaleView):
                    n, own = self._decided[name, v.name], facts.replicas[name, v.name]
                    planned[v.name] = Planned(
                        v.target_ref, n, own.desired, view.status_replicas, own.ready
                    )
            if planned:
                told, _ = deliveries(
                    name, policy.behavior.mode, planned, asks, single=len(policy.variants) == 1
                )
                found |= {(name, variant): d for variant, d in told.items()}
        return found

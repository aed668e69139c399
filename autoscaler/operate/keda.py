"""What a turn knows for KEDA: each variant's planned and present replicas. Pure."""

from autoscaler.edge.kube.conditions import Verdict
from autoscaler.edge.kube.deliveries import Asks, Planned, asks_of, deliveries
from autoscaler.edge.kube.scale import ScaleView
from autoscaler.operate.facts import Facts
from autoscaler.operate.roster import Member
from autoscaler.operate.turn import Turn
from autoscaler.policy.status import DeliveryStatus


def asks_in(facts: Facts) -> Asks:
    """Return who asks the scaler for what, from the ScaledObjects and HPAs of a turn."""
    return asks_of(facts.scaled_objects, facts.hpas)


def delivered(
    turn: Turn, member: Member, asks: Asks
) -> tuple[dict[str, DeliveryStatus], Verdict | None]:
    """Return how a policy's counts reach its workloads, and the condition that says so."""
    policy = member.policy
    if policy is None:
        return {}, None
    single = len(policy.variants) == 1
    return deliveries(
        member.seen.name, policy.behavior.mode, _planned(turn, member), asks, single=single
    )


def _planned(turn: Turn, member: Member) -> dict[str, Planned]:
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

"""How decided counts reach their workloads in mode Keda: who asks, with which HPA, and what that does. Pure.

The HPA that KEDA made of a ScaledObject decides what a metric does (`core.hpa`). The operator reads it,
tells in the policy's status what matters of it, and says in the condition Delivered what the HPA makes of
the number; the scaler serves that number from the same facts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.core.hpa import Delivery, DeliveryReason
from autoscaler.core.types import Mode, TargetRef
from autoscaler.edge.keda.errors import NoAnswerError
from autoscaler.edge.keda.hpa_facts import HpaFacts, assumed, facts_of
from autoscaler.edge.keda.metric import delivery as delivered
from autoscaler.edge.keda.trigger import Trigger, trigger_of
from autoscaler.edge.kube.conditions import Verdict, clipped
from autoscaler.edge.kube.conflicts import Target, hpa_record, scaled_object_record, target_of
from autoscaler.edge.kube.quantities import JsonObject, KubeObjectError
from autoscaler.policy.status import ConditionReason, DeliveryStatus

OUR_TYPES = ("external", "external-push")
PAUSED = ("autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas")
UNFIT = (KeyError, TypeError, ValueError)  # of an HPA that is none: what is assumed holds


@dataclass(frozen=True, slots=True)
class Ask:
    """One trigger that asks this scaler for a policy's count."""

    scaled_object: str  # namespace/name
    target: Target
    trigger: Trigger
    paused: bool
    hpa: JsonObject | None


@dataclass(frozen=True, slots=True)
class Asks:
    """Who asks for what, of a whole cluster; `unknown` says why nobody knows, "" where it is known."""

    by_service: Mapping[str, Sequence[Ask]]
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a variant's workload is to have and has. `current`: asked for; `existing`: in its status."""

    target: TargetRef
    replicas: int
    current: int
    existing: int
    ready: int


def asks_of(scaled_objects: Iterable[JsonObject] | None, hpas: Iterable[JsonObject] | None) -> Asks:
    """Return every trigger of ours, with the HPA of its ScaledObject. None: cannot be read."""
    if scaled_objects is None:
        return Asks({}, "ScaledObjects cannot be read, so nobody knows whether KEDA asks")
    of_keda = {}
    for hpa in hpas or ():
        record = hpa_record(hpa)
        if record.scaled_object is not None:
            of_keda[record.namespace, record.scaled_object] = hpa
    found: dict[str, list[Ask]] = {}
    for scaled in scaled_objects:
        record = scaled_object_record(scaled)
        own = of_keda.get((record.namespace, record.name))
        marks = scaled["metadata"].get("annotations") or {}
        paused = any(marks.get(mark, "false") != "false" for mark in PAUSED)
        name = f"{record.namespace}/{record.name}"
        for trigger in _triggers(scaled, record.namespace):
            ask = Ask(name, record.target, trigger, paused, own)
            found.setdefault(trigger.service, []).append(ask)
    return Asks(found)


def _triggers(scaled: JsonObject, namespace: str) -> Iterable[Trigger]:
    for said in scaled["spec"].get("triggers") or ():
        metadata = said.get("metadata") or {}
        if said.get("type") not in OUR_TYPES or "policy" not in metadata:
            continue
        try:
            yield trigger_of(namespace, metadata)
        except NoAnswerError:  # of another scaler, or refused when it asks: then KEDA tells why
            continue


def deliveries(
    service: str, mode: Mode, variants: Mapping[str, Planned], asks: Asks, *, single: bool
) -> tuple[dict[str, DeliveryStatus], Verdict | None]:
    """Return each variant's delivery, and the condition Delivered; None: KEDA has no part in it.

    `variants` are those that were decided for; `single`: the policy has one, so a trigger need not name it.
    """
    asking = asks.by_service.get(service, ())
    if mode is not Mode.KEDA:
        return {}, _not_served(mode, asking) if asking else None
    if asks.unknown:
        return {}, Verdict("Unknown", ConditionReason.NOTHING_KNOWN, asks.unknown)
    out: dict[str, DeliveryStatus] = {}
    verdicts = []
    for name, planned in variants.items():
        ask = _ask_for(service, name, planned.target, asking, single=single)
        if ask is None:
            verdicts.append(_not_asked(service, name))
            continue
        facts, hpa = _facts(ask)
        try:
            view = facts.view(planned.current, planned.existing, planned.ready)
        except ValueError as error:  # an HPA that no API server would have let through
            text = f"{name}: {ask.scaled_object}: {error}"
            verdicts.append(Verdict("Unknown", ConditionReason.NOTHING_KNOWN, text))
            continue
        made = delivered(view, planned.replicas)
        out[name] = _status(facts, hpa, planned, made)
        verdicts.append(_verdict(name, planned, ask, facts, made))
    return out, _first(verdicts)


def _ask_for(
    service: str, variant: str, target: TargetRef, asking: Sequence[Ask], *, single: bool
) -> Ask | None:
    """Return the trigger that asks for this variant, from a ScaledObject that scales its workload."""
    namespace = service.split("/", 1)[0]
    wanted = target_of(namespace, target)
    for ask in asking:
        named = ask.trigger.variant == variant or (ask.trigger.variant is None and single)
        if named and ask.target == wanted:
            return ask
    return None


def _facts(ask: Ask) -> tuple[HpaFacts, str | None]:
    """Return what the HPA is, and its name; what is assumed, and None, where there is none."""
    base = assumed(ask.trigger.target_type, ask.trigger.tolerance)
    if ask.hpa is None:
        return base, None
    try:
        return facts_of(ask.hpa, ask.trigger.metric_name, base), str(ask.hpa["metadata"]["name"])
    except (*UNFIT, KubeObjectError):
        return base, None


def _status(facts: HpaFacts, hpa: str | None, planned: Planned, made: Delivery) -> DeliveryStatus:
    return DeliveryStatus(
        hpa=hpa,
        metric_type=facts.target_type.value,
        target=facts.target,
        min_replicas=facts.min_replicas,
        max_replicas=facts.max_replicas,
        tolerance_up=facts.tolerance_up,
        tolerance_down=facts.tolerance_down,
        existing=planned.existing,
        metric=made.value,
        lands_on=made.lands_on,
        reason=made.reason.value,
        advice=clipped(made.advice) or None,
    )


def _verdict(name: str, planned: Planned, ask: Ask, facts: HpaFacts, made: Delivery) -> Verdict:
    where = f"{name}: {planned.replicas} decided, {planned.current} asked for now"
    if ask.hpa is None:
        why = "KEDA pauses it" if ask.paused else "KEDA has made none, or it cannot be read"
        text = f"{where}; no HPA of ScaledObject {ask.scaled_object}: {why}"
        return Verdict("Unknown", ConditionReason.NO_HPA, text)
    if not facts.asks:
        text = (
            f"{where}; the HPA of ScaledObject {ask.scaled_object} has not this metric: KEDA could not"
            " ask the scaler when it made the HPA. It tries again when it next looks at the ScaledObject"
        )
        return Verdict("False", ConditionReason.NOT_ASKED, text)
    reason = ConditionReason(made.reason.value)
    others = "" if facts.metrics == 1 else f" by this one of {facts.metrics} metrics"
    if made.reason is DeliveryReason.EXACT:
        return Verdict("True", reason, f"{where}; the HPA sets {made.lands_on}{others}")
    text = f"{where}; the HPA sets {made.lands_on}{others} at its next look. {made.advice}"
    return Verdict("False", reason, text)


def _not_served(mode: Mode, asking: Sequence[Ask]) -> Verdict:
    names = ", ".join(dict.fromkeys(a.scaled_object for a in asking))
    text = f"ScaledObject {names} asks, and gets no number: behavior.mode is {mode.value}, not Keda"
    return Verdict("False", ConditionReason.NOT_SERVED, text)


def _not_asked(service: str, variant: str) -> Verdict:
    text = (
        f"{variant}: no ScaledObject on its workload has a trigger of type external or external-push"
        f" with the metadata policy: {service.split('/', 1)[1]}"
        f" (of several variants also variant: {variant})"
    )
    return Verdict("False", ConditionReason.NOT_ASKED, text)


def _first(verdicts: Sequence[Verdict]) -> Verdict | None:
    """Return the verdict that says the most: what is not delivered, what is not known, what is."""
    order = ("False", "Unknown", "True")
    return min(verdicts, key=lambda v: order.index(v.status), default=None)

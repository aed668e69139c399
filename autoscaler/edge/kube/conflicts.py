"""Who else writes to a target: HorizontalPodAutoscalers, KEDA's ScaledObjects, other policies.

Two writers of one replica count fight, and both lose. This operator never does: a policy with a conflict
writes nothing and says why.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.core.types import Mode, TargetRef
from autoscaler.edge.kube.quantities import JsonObject, seconds_of

KEDA_GROUP = "keda.sh"
KEDA_LABEL = "scaledobject.keda.sh/name"  # on the HPA that KEDA makes of a ScaledObject
CONFLICT = "Conflict"
NO_SCALED_OBJECT = "NoScaledObject"
Target = tuple[str, str, str, str]  # namespace, group, kind, name: what a writer writes to


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """What is used of one ScalingPolicy. created_seconds: its creationTimestamp, since 1970."""

    namespace: str
    name: str
    uid: str
    created_seconds: float
    mode: Mode
    targets: tuple[TargetRef, ...]

    @property
    def service(self) -> str:
        """The service's identity, namespace/name."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why a policy must not write: a condition's reason (Conflict, NoScaledObject) and one sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Writer:
    """What is used of an HPA or a ScaledObject: what it writes to, and the ScaledObject that owns it."""

    kind: str
    namespace: str
    name: str
    target: Target
    scaled_object: str | None  # of an HPA that KEDA made


def hpa_record(obj: JsonObject) -> Writer:
    """Return what is used of a HorizontalPodAutoscaler (autoscaling/v1 or v2)."""
    metadata = obj["metadata"]
    namespace = metadata["namespace"]
    owners = metadata.get("ownerReferences") or ()
    keda = [
        o["name"]
        for o in owners
        if o.get("kind") == "ScaledObject" and _group(o.get("apiVersion", "")) == KEDA_GROUP
    ]
    owner = (metadata.get("labels") or {}).get(KEDA_LABEL) or (keda[0] if keda else None)
    ref = obj["spec"]["scaleTargetRef"]
    target = (namespace, _group(ref.get("apiVersion") or ""), ref["kind"], ref["name"])
    return Writer("HorizontalPodAutoscaler", namespace, metadata["name"], target, owner)


def scaled_object_record(obj: JsonObject) -> Writer:
    """Return what is used of a ScaledObject; KEDA's default target is a Deployment of apps/v1."""
    metadata = obj["metadata"]
    namespace = metadata["namespace"]
    ref = obj["spec"]["scaleTargetRef"]
    group = _group(ref.get("apiVersion") or "apps/v1")
    target = (namespace, group, ref.get("kind") or "Deployment", ref["name"])
    return Writer("ScaledObject", namespace, metadata["name"], target, None)


def policy_facts(obj: JsonObject, mode: Mode, targets: Sequence[TargetRef]) -> PolicyFacts:
    """Return the facts of a ScalingPolicy object whose spec says `mode` and `targets`."""
    metadata = obj["metadata"]
    return PolicyFacts(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        created_seconds=seconds_of(metadata.get("creationTimestamp")),
        mode=mode,
        targets=tuple(targets),
    )


def conflicts(
    policies: Sequence[PolicyFacts],
    hpas: Iterable[Writer],
    scaled_objects: Iterable[Writer],
) -> dict[str, Conflict]:
    """Return what keeps services from writing; a service that may write is absent.

    An older policy on a target keeps it (creation time, then uid), whatever its mode. In Scale mode any HPA
    or ScaledObject on a target is a conflict; in Keda mode an HPA that KEDA did not make, and a target
    without a ScaledObject is a problem of its own; in Recommend mode nothing is written and all is well.
    """
    hpas_of = _by_target(hpas)
    scaled_of = _by_target(scaled_objects)
    holder: dict[Target, PolicyFacts] = {}
    out: dict[str, Conflict] = {}
    for policy in sorted(policies, key=_age):
        found: list[Conflict] = []
        for target in _targets(policy):
            first = holder.setdefault(target, policy)
            if first is not policy:
                found.append(Conflict(CONFLICT, _older(first, target)))
            found += _writers(policy.mode, target, hpas_of, scaled_of)
        if found:
            out[policy.service] = min(found, key=lambda c: c.reason != CONFLICT)
    return out


def _writers(
    mode: Mode,
    target: Target,
    hpas_of: Mapping[Target, Sequence[Writer]],
    scaled_of: Mapping[Target, Sequence[Writer]],
) -> Iterator[Conflict]:
    if mode is Mode.RECOMMEND:
        return
    scaled = scaled_of.get(target, ())
    hpas = hpas_of.get(target, ())
    if mode is Mode.SCALE:
        for writer in (*scaled, *hpas):
            yield Conflict(CONFLICT, f"{_says(writer)}; delete it, or use mode Keda or Recommend.")
        return
    for writer in hpas:
        if writer.scaled_object is None:
            yield Conflict(CONFLICT, f"{_says(writer)} beside KEDA; delete it.")
    if not scaled:
        yield Conflict(
            NO_SCALED_OBJECT,
            f"No ScaledObject scales {_words(target)}; mode Keda needs one that asks this scaler.",
        )


def _age(policy: PolicyFacts) -> tuple[bool, float, str, str]:
    """Order: the oldest first; one whose creation is not known, last."""
    unknown = math.isnan(policy.created_seconds)
    return unknown, 0.0 if unknown else policy.created_seconds, policy.uid, policy.service


def _says(writer: Writer) -> str:
    made = f", made by ScaledObject {writer.scaled_object}," if writer.scaled_object else ""
    return (
        f"{writer.kind} {writer.namespace}/{writer.name}{made} scales {_words(writer.target)}, too"
    )


def _older(first: PolicyFacts, target: Target) -> str:
    return (
        f"ScalingPolicy {first.service} is older and scales {_words(target)}; "
        "one policy may name a workload."
    )


def _words(target: Target) -> str:
    namespace, group, kind, name = target
    return f"{kind}{'.' + group if group else ''} {namespace}/{name}"


def _targets(policy: PolicyFacts) -> list[Target]:
    """Return what a policy writes to; apps/v1 and apps/v2 are the same object."""
    return [target_of(policy.namespace, t) for t in policy.targets]


def target_of(namespace: str, ref: TargetRef) -> Target:
    """Return what a target reference of a policy in `namespace` names."""
    return namespace, _group(ref.api_version), ref.kind, ref.name


def _by_target(writers: Iterable[Writer]) -> dict[Target, list[Writer]]:
    out: dict[Target, list[Writer]] = {}
    for writer in sorted(writers, key=lambda w: (w.namespace, w.name)):
        out.setdefault(writer.target, []).append(writer)
    return out


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]

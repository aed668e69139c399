"""Which policies and pools are in force. Pure: objects as the API gives them -> the core's Policies.

A policy that cannot be read leaves its last valid generation in force; a policy that never was valid,
that names a target or an accelerator class that it may not have, is not decided and says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.core.types import Policies, Policy, TargetRef
from autoscaler.policy.checks import Resource
from autoscaler.policy.convert import to_policy, to_pool
from autoscaler.policy.errors import Place, nearest
from autoscaler.policy.parse import parse_document
from autoscaler.policy.schema import AcceleratorPool, ScalingPolicy

PAUSED = "foreserve.dev/paused"
Target = tuple[str, str, str, str]  # (namespace, API group, kind, name)


@dataclass(frozen=True, slots=True)
class Seen:
    """One ScalingPolicy or AcceleratorPool of the cluster, parsed; `invalid` says why not."""

    name: str  # namespace/name, or the pool's name
    uid: str
    generation: int
    created: str  # RFC 3339: sorts by time
    paused: bool
    status: Mapping[str, Any]
    body: ScalingPolicy | AcceleratorPool | None
    invalid: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """A ScalingPolicy and its standing. `policy` None: there is nothing to decide from."""

    seen: Seen
    policy: Policy | None
    generation: int  # of what is in force
    invalid: str = ""
    conflict: str = ""  # another policy has the target

    @property
    def decided(self) -> bool:
        """Whether the tick decides for it."""
        return self.policy is not None and not self.conflict


@dataclass(frozen=True, slots=True)
class Roll:
    """Everybody, and what the tick is given."""

    members: Mapping[str, Member]
    pools: tuple[Seen, ...]
    pool_problems: Mapping[str, str]
    pool_bodies: tuple[AcceleratorPool, ...]  # in force
    policies: Policies


def see(obj: Mapping[str, Any]) -> Seen:
    """Return an object of the API as it was seen. Never raises: what is wrong is in `invalid`."""
    metadata = obj.get("metadata", {})
    name = metadata.get("name", "")
    if "namespace" in metadata:
        name = f"{metadata['namespace']}/{name}"
    parsed = parse_document(Place(str(obj.get("kind", "object")), 1), dict(obj))
    body, invalid = (
        (parsed.body, "")
        if isinstance(parsed, Resource)
        else (None, "; ".join(f"{p.path}: {p.message}".removeprefix(": ") for p in parsed[:3]))
    )
    status = obj.get("status")
    return Seen(
        name=name,
        uid=metadata.get("uid", ""),
        generation=int(metadata.get("generation", 0)),
        created=metadata.get("creationTimestamp", ""),
        paused=is_paused(metadata),
        status=status if isinstance(status, dict) else {},
        body=body,
        invalid=invalid,
    )


def is_paused(metadata: Mapping[str, Any]) -> bool:
    """Whether an object carries the pause annotation; any value but "false" pauses."""
    value = (metadata.get("annotations") or {}).get(PAUSED)
    return value is not None and str(value).lower() != "false"


def target_of(namespace: str, ref: TargetRef) -> Target:
    """Return a workload's identity: apps/v1 and apps/v2 name the same object."""
    return namespace, ref.api_version.rpartition("/")[0], ref.kind, ref.name


class Roster:
    """Remembers the last valid generation of every policy and pool that exists."""

    def __init__(self) -> None:
        self._valid: dict[str, Seen] = {}
        self._had_pools = False

    def call(self, policies: Sequence[Seen], pools: Sequence[Seen]) -> Roll:
        """Return everybody's standing now."""
        own = {s.uid for s in (*policies, *pools)}
        self._valid = {uid: s for uid, s in self._valid.items() if uid in own}
        for seen in (*policies, *pools):
            if not seen.invalid:
                self._valid[seen.uid] = seen
        in_order = sorted(pools, key=lambda s: (s.created, s.uid))
        forces = [self._valid[s.uid] for s in in_order if s.uid in self._valid]
        left_out = _pool_problems(forces)
        usable = tuple(
            s.body for s in forces if isinstance(s.body, AcceleratorPool) and s.name not in left_out
        )
        self._had_pools = self._had_pools or bool(usable)
        known = {c.name for body in usable for c in body.spec.classes} if self._had_pools else None
        members = self._members(policies, known)
        services = {
            name: m.policy for name, m in members.items() if m.decided and m.policy is not None
        }
        return Roll(
            members=members,
            pools=tuple(in_order),
            pool_problems={s.name: s.invalid for s in in_order if s.invalid} | left_out,
            pool_bodies=usable,
            policies=Policies(services, tuple(to_pool(body) for body in usable)),
        )

    def _members(self, policies: Iterable[Seen], known: set[str] | None) -> dict[str, Member]:
        members: dict[str, Member] = {}
        taken: dict[Target, str] = {}
        for seen in sorted(policies, key=lambda s: (s.created, s.uid)):
            force = self._valid.get(seen.uid)
            if force is None or not isinstance(force.body, ScalingPolicy):
                members[seen.name] = Member(seen, None, 0, seen.invalid)
                continue
            policy = to_policy(force.body)
            invalid = _still_in_force(seen, force)
            lost = _unknown_class(policy, known)
            conflict = _taken(policy, taken)
            for v in policy.variants:
                taken.setdefault(target_of(policy.namespace, v.target_ref), seen.name)
            decided = None if lost else policy
            members[seen.name] = Member(seen, decided, force.generation, lost or invalid, conflict)
        return members


def _still_in_force(seen: Seen, force: Seen) -> str:
    if not seen.invalid:
        return ""
    return f"{seen.invalid}; generation {force.generation} stays in force"


def _unknown_class(policy: Policy, known: set[str] | None) -> str:
    if known is None:
        return ""
    for i, variant in enumerate(policy.variants):
        if variant.accelerator_class not in known:
            hint = nearest(variant.accelerator_class, known)
            return (
                f"spec.variants[{i}].acceleratorClass: no AcceleratorPool has the class "
                f"{variant.accelerator_class!r}; {hint}replicas are left as they are"
            )
    return ""


def _taken(policy: Policy, taken: Mapping[Target, str]) -> str:
    for i, variant in enumerate(policy.variants):
        owner = taken.get(target_of(policy.namespace, variant.target_ref))
        if owner is not None:
            ref = variant.target_ref
            return (
                f"spec.variants[{i}].targetRef: {ref.kind} {ref.name} is scaled by the older "
                f"ScalingPolicy {owner}"
            )
    return ""


def _pool_problems(pools: Iterable[Seen]) -> dict[str, str]:
    """Return what is wrong between pools; the older one keeps a class that two of them name."""
    owner: dict[str, str] = {}
    problems: dict[str, str] = {}
    for seen in pools:
        if not isinstance(seen.body, AcceleratorPool):
            continue
        for i, c in enumerate(seen.body.spec.classes):
            if owner.setdefault(c.name, seen.name) != seen.name:
                problems[seen.name] = (
                    f"spec.classes[{i}].name: {c.name!r} is a class of the older AcceleratorPool "
                    f"{owner[c.name]}; the pool is left out"
                )
    return problems

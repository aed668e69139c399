"""Rules that span several fields or several documents; each yields what it finds wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo

from autoscaler.policy.errors import Place, Problem, listed, nearest, refused, shown
from autoscaler.policy.schema import (
    AcceleratorPool,
    ScalingPolicy,
    ScheduleWindowSpec,
    VariantSpec,
)
from models.profiles import profile_names

MAX_TPOT_TARGET_SECONDS = 60.0  # a minute a token: larger values are milliseconds


@dataclass(frozen=True, slots=True)
class Resource:
    """A validated document and where it stands."""

    place: Place
    body: ScalingPolicy | AcceleratorPool


def of_document(resource: Resource) -> Iterator[Problem]:
    """Yield what is wrong inside one document."""
    place, body = resource.place, resource.body
    if isinstance(body, AcceleratorPool):
        yield from _pool(place, body)
        return
    spec = body.spec
    yield from _objectives(place, body)
    for i, variant in enumerate(spec.variants):
        if variant.max_replicas < variant.min_replicas:
            path = f"spec.variants[{i}].maxReplicas"
            least = f"at least minReplicas, {variant.min_replicas}"
            yield refused(place, path, variant.max_replicas, least)
        name = variant.profile_ref
        if name is not None and name not in profile_names():
            hint = f"{nearest(name, profile_names())}allowed: {listed(profile_names())}"
            text = f"unknown profile {shown(name)}; {hint}"
            yield Problem(place, f"spec.variants[{i}].profileRef", text)
    yield from _unique(place, "spec.variants", [v.name for v in spec.variants])
    yield from _roles(place, spec.variants)
    yield from _unique(place, "spec.schedule", [w.name for w in spec.schedule])
    most = sum(v.max_replicas for v in spec.variants)
    for i, window in enumerate(spec.schedule):
        yield from _window(place, f"spec.schedule[{i}]", window)
        yield from _at_most(place, f"spec.schedule[{i}].minReplicas", window.min_replicas, most)
    yield from _at_most(place, "spec.fallback.replicas", spec.fallback.replicas, most)


def across_documents(resources: Sequence[Resource]) -> Iterator[Problem]:
    """Yield what is wrong between documents: names given twice, two writers, unknown classes."""
    taken: dict[tuple[str, ...], str] = {}
    for resource in resources:
        for path, name, what, key in _claims(resource.body):
            here = f"{resource.place}: {path}"
            if (before := taken.setdefault(key, here)) != here:
                text = f"{shown(name)} is not allowed; allowed: {what}; taken by {before}"
                yield Problem(resource.place, path, text)
    yield from _unknown_classes(resources)


def _claims(
    body: ScalingPolicy | AcceleratorPool,
) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yield (path, name, what is allowed, key) of everything that may be claimed once."""
    if isinstance(body, AcceleratorPool):
        name = body.metadata.name
        yield "metadata.name", name, "a pool name used once", ("pool", name)
        for i, c in enumerate(body.spec.classes):
            path = f"spec.classes[{i}].name"
            yield path, c.name, "a class name used once in all pools", ("class", c.name)
        return
    unique = "a namespace/name used once"
    yield "metadata.name", body.service, unique, ("policy", body.service)
    for i, v in enumerate(body.spec.variants):
        ref = v.target_ref
        group = ref.api_version.rpartition("/")[0]  # apps/v1 and apps/v2 are the same object
        name = f"{ref.kind} {body.metadata.namespace}/{ref.name}"
        key = ("target", group, ref.kind, body.metadata.namespace, ref.name)
        yield f"spec.variants[{i}].targetRef", name, "one writer per workload", key


def _unknown_classes(resources: Sequence[Resource]) -> Iterator[Problem]:
    pools = [r.body for r in resources if isinstance(r.body, AcceleratorPool)]
    if not pools:
        return  # prices and inventory come from elsewhere, or not at all
    known = {c.name for pool in pools for c in pool.spec.classes}
    for resource in resources:
        if not isinstance(resource.body, ScalingPolicy):
            continue
        for i, variant in enumerate(resource.body.spec.variants):
            name = variant.accelerator_class
            if name not in known:
                text = (
                    f"unknown class {shown(name)}; {nearest(name, known)}allowed: {listed(known)}"
                )
                yield Problem(resource.place, f"spec.variants[{i}].acceleratorClass", text)


def _objectives(place: Place, policy: ScalingPolicy) -> Iterator[Problem]:
    objectives = policy.spec.slo.objectives
    yield from _unique(place, "spec.slo.objectives", [o.metric for o in objectives], "metric")
    for i, o in enumerate(objectives):
        if o.metric == "tpot" and o.target_seconds > MAX_TPOT_TARGET_SECONDS:
            path = f"spec.slo.objectives[{i}].targetSeconds"
            words = f"up to {MAX_TPOT_TARGET_SECONDS:g} seconds a token (is it in milliseconds?)"
            yield refused(place, path, o.target_seconds, words)


def _roles(place: Place, variants: Sequence[VariantSpec]) -> Iterator[Problem]:
    roles = [v.role for v in variants]
    for role, other in (("Prefill", "Decode"), ("Decode", "Prefill")):
        if role in roles and other not in roles and "Both" not in roles:
            path = f"spec.variants[{roles.index(role)}].role"
            yield refused(place, path, role, f"{role} beside a variant of role {other} or Both")


def _window(place: Place, path: str, window: ScheduleWindowSpec) -> Iterator[Problem]:
    if window.min_replicas is None and window.load_multiplier is None:
        yield Problem(place, path, "says nothing; required: minReplicas, loadMultiplier or both")
    if not _is_time_zone(window.time_zone):
        words = "an IANA time zone such as Europe/Berlin"
        yield refused(place, f"{path}.timeZone", window.time_zone, words)
    once = window.from_ is not None or window.until is not None
    weekly = bool(window.days) or window.start is not None or window.end is not None
    if once == weekly:
        what = "both kinds of window" if once else "no time"
        words = "either from and until, or days with start and end"
        yield Problem(place, path, f"has {what}; required: {words}")
    elif once:
        yield from _once(place, path, window)
    else:
        yield from _weekly(place, path, window)


def _once(place: Place, path: str, window: ScheduleWindowSpec) -> Iterator[Problem]:
    if window.from_ is None or window.until is None:
        lacking = "from" if window.from_ is None else "until"
        yield Problem(place, f"{path}.{lacking}", "missing; required: from and until together")
        return
    start, end = epoch_seconds(window.from_), epoch_seconds(window.until)
    for name, text, seconds in (("from", window.from_, start), ("until", window.until, end)):
        if seconds is None:
            words = "a time that exists, such as 2026-11-27T06:00:00Z"
            yield refused(place, f"{path}.{name}", text, words)
    if start is not None and end is not None and end <= start:
        yield refused(place, f"{path}.until", window.until, f"a time after from, {window.from_}")


def _weekly(place: Place, path: str, window: ScheduleWindowSpec) -> Iterator[Problem]:
    if (window.start is None) != (window.end is None):
        lacking = "start" if window.start is None else "end"
        yield Problem(place, f"{path}.{lacking}", "missing; required: start and end together")
    elif window.start is not None and window.start == window.end:
        words = "another time than start (leave both out for whole days)"
        yield refused(place, f"{path}.end", window.end, words)
    yield from _unique(place, f"{path}.days", list(window.days or []), "")


def _pool(place: Place, pool: AcceleratorPool) -> Iterator[Problem]:
    for i, c in enumerate(pool.spec.classes):
        path = f"spec.classes[{i}]"
        if c.capacity_type != "Spot" and c.interruptions_per_hour:
            words = f"0, or none, where capacityType is {c.capacity_type}"
            yield refused(place, f"{path}.interruptionsPerHour", c.interruptions_per_hour, words)
        if c.quota is None:
            continue
        values = {
            "count": c.quota.count,
            "fromNodes": c.quota.from_nodes,
            "kueueClusterQueue": c.quota.kueue_cluster_queue,
        }
        given = [name for name, value in values.items() if value is not None]
        if len(given) != 1:
            has = " and ".join(given) or "no entry"
            text = f"has {has}; required: exactly one of {', '.join(values)}"
            yield Problem(place, f"{path}.quota", text)
        elif c.quota.from_nodes and not c.node_selector:
            text = "missing; required: a mapping of node labels, where quota is fromNodes"
            yield Problem(place, f"{path}.nodeSelector", text)


def _unique(
    place: Place, path: str, names: Sequence[str], field: str = "name"
) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if (before := first.setdefault(name, i)) != i:
            at = f"{path}[{i}].{field}".removesuffix(".")
            yield refused(place, at, name, f"each once; {path}[{before}] has it too")


def _at_most(place: Place, path: str, value: int | None, most: int) -> Iterator[Problem]:
    if value is not None and value > most:
        yield refused(place, path, value, f"at most {most}, the sum of the variants' maxReplicas")


def epoch_seconds(timestamp: str) -> float | None:
    """Return seconds since 1970 of an RFC 3339 time, or None for a time that does not exist."""
    try:
        return datetime.fromisoformat(timestamp.upper()).timestamp()
    except (ValueError, OverflowError):
        return None


@cache
def _is_time_zone(name: str) -> bool:
    if name == "UTC":
        return True  # even where no zone database is installed
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found, not a relative path, a folder of zones
        return False
    return True

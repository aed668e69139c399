"""What keeps a decision from being written as it is, though the policy says Scale. No I/O.

A service that we may not scale is planned like advice: its replicas will not come, and no accelerators are
kept for them. And a maximum that is suddenly far below what runs (a typo, more often than a wish) is honoured
as any other scale-down is: after the stabilization window, as fast as `behavior.scaleDown` allows.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from autoscaler.core import guard
from autoscaler.core.outcome import ServiceState, State
from autoscaler.core.types import Mode, Policies, Policy, Variant
from autoscaler.loop import Step
from autoscaler.operate.authority import Standing
from autoscaler.operate.collect import Replicas, VariantKey


def as_acted(
    policies: Policies, standings: Mapping[str, Standing], forbidden: Collection[str]
) -> Policies:
    """Return the policies with mode Recommend where nothing is written: paused, a rival, or no right to."""
    services = dict(policies.services)
    for name, standing in standings.items():
        behavior = services[name].behavior
        if behavior.mode is Mode.SCALE and (not standing.writes or name in forbidden):
            services[name] = replace(
                services[name], behavior=replace(behavior, mode=Mode.RECOMMEND)
            )
    return replace(policies, services=services)


class Lowering:
    """Remembers since when more runs than `maxReplicas` allows; after a restart the window begins anew."""

    def __init__(self) -> None:
        self._since: dict[VariantKey, float] = {}

    def gently(
        self,
        policies: Policies,
        standings: Mapping[str, Standing],
        replicas: Mapping[VariantKey, Replicas],
        state: State,
        now_seconds: float,
    ) -> tuple[Policies, dict[str, str]]:
        """Return the policies with the maximum of this turn, and a sentence for each service above it."""
        services = dict(policies.services)
        told: dict[str, str] = {}
        since: dict[VariantKey, float] = {}
        for name, policy in policies.services.items():
            standing = standings.get(name)
            if standing is None or not standing.writes:
                continue
            known = state.services.get(name, ServiceState())
            variants = []
            for v in policy.variants:
                own = replicas.get((name, v.name))
                if own is None or own.desired <= v.max_replicas:
                    variants.append(v)
                    continue
                begun = since[name, v.name] = self._since.get((name, v.name), now_seconds)
                most = _most(policy, v, own.desired, known, begun, now_seconds)
                variants.append(replace(v, max_replicas=most))
                told[name] = (
                    f"{v.name}: {own.desired} run, maxReplicas is {v.max_replicas}: {SLOWLY}"
                )
            if name in told:
                services[name] = replace(policy, variants=tuple(variants))
        self._since = since
        return replace(policies, services=services), told


SLOWLY = "they go as behavior.scaleDown allows"


def _most(
    policy: Policy,
    variant: Variant,
    desired: int,
    known: ServiceState,
    begun_seconds: float,
    now_seconds: float,
) -> int:
    """Return the maximum of this turn: what runs during the window, then what the limits leave of it."""
    window = policy.behavior.scale_down.stabilization_window_seconds
    if now_seconds - begun_seconds < window:
        return desired
    as_is = replace(variant, max_replicas=desired)
    least, _ = guard.bounds(policy, as_is, desired, known.changes, now_seconds)
    return max(variant.max_replicas, least)


def withheld(
    fresh: Collection[str],
    step: Step,
    standings: Mapping[str, Standing],
    *,
    may_grow: bool,
    may_lower: bool,
) -> dict[str, str]:
    """Return the services whose decision waits, and for what: the status would lie without it."""
    out = {}
    for name, standing in standings.items():
        seen, decision = step.observation.services.get(name), step.decisions.services.get(name)
        if not standing.writes or seen is None or decision is None:
            continue
        now = {v: o.desired for v, o in seen.variants.items()}
        up = any(n > now.get(v, n) for v, n in decision.variants.items())
        down = any(n < now.get(v, n) for v, n in decision.variants.items())
        if (up or down) and name in fresh:
            out[name] = "from the next turn on: who may scale it has just changed"
        elif (up and not may_grow) or (down and not may_lower):
            out[name] = "once its load history was read"
    return out

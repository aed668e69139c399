"""What a reader of live telemetry returns, wherever it read: one observation and how good it is."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from autoscaler.core.types import (
    Observation,
    Policy,
    ServiceObservation,
    Variant,
    VariantObservation,
)
from autoscaler.edge.telemetry_rows import Key
from models.contract import DEFAULT_VARIANT


@dataclass(frozen=True, slots=True)
class Reading:
    """An observation and how good it is.

    failed: query -> one sentence. silent: services of policies that are absent from the observation.
    stale: service -> age of its newest sample in seconds. partial: service -> what is missing though
    the service answers. counted_by_scrapes: services whose replicas only their telemetry counts.
    scraped: (service, variant of the policy) -> replicas that tell of themselves, a mean over the window;
    rebuilt: services whose rate is the sum of what these tell, no gateway's.
    """

    observation: Observation
    failed: Mapping[str, str]
    silent: tuple[str, ...]
    stale: Mapping[str, float]
    partial: Mapping[str, tuple[str, ...]]
    counted_by_scrapes: tuple[str, ...]
    scraped: Mapping[Key, float] = field(default_factory=dict)
    rebuilt: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class GatewayQueue:
    """Requests that the gateway holds for a service, and by how many they grew in the window."""

    requests: float = 0.0
    grown: float = 0.0

    def offered_rps(self, rebuilt_rps: float, window_seconds: float) -> float:
        """Return the rate that was offered: what the engines tell, and what waits before they know of it.

        As in history (training.ingest.assemble.AtGateway); NaN where neither tells anything.
        """
        grown_rps = self.grown / window_seconds
        if math.isnan(rebuilt_rps):
            return max(0.0, grown_rps) if self.requests > 0 else math.nan
        return max(0.0, rebuilt_rps + grown_rps)


def keys_of(policy: Policy, has: Callable[[Key], bool]) -> list[tuple[Variant, Key]]:
    """Return the row of each variant; a service of one variant may carry no variant label."""
    out = []
    for variant in policy.variants:
        key = (policy.service, variant.name)
        if len(policy.variants) == 1 and not has(key):
            key = (policy.service, DEFAULT_VARIANT)
        out.append((variant, key))
    return out


def missing_of(service: ServiceObservation, failed: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a service that answers does not tell: arrivals, lengths, or failed queries."""
    out = [
        name
        for name in ("arrival_rate_rps", "isl_tokens", "osl_tokens")
        if math.isnan(getattr(service, name)) and (name == "arrival_rate_rps" or failed)
    ]
    return (*out, *sorted(failed))


def with_held(
    variants: Mapping[str, VariantObservation], held: float
) -> Mapping[str, VariantObservation]:
    """Return variants that also wait for what the gateway holds back.

    It has not chosen one yet: each gets its share of the ready replicas, the first all where none is.
    """
    if held <= 0:
        return variants
    ready = sum(v.ready for v in variants.values())
    out = {}
    for place, (name, v) in enumerate(variants.items()):
        share = v.ready / ready if ready else float(place == 0)
        # a variant without replicas has no engine, so nothing waits there; else unknown stays unknown
        waiting = 0.0 if v.ready == 0 and math.isnan(v.waiting) else v.waiting
        out[name] = replace(v, waiting=waiting + held * share)
    return out

"""One turn's observation: load and latency from telemetry, replicas from the cluster. Pure.

The cluster knows better than scrapes what is desired and what is ready; telemetry knows what it does.
A workload whose scale cannot be read is absent, and the core then leaves its service as it is.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from autoscaler.core.types import (
    Observation,
    Policies,
    Pool,
    ServiceObservation,
    VariantObservation,
)

VariantKey = tuple[str, str]  # (service, variant)


@dataclass(frozen=True, slots=True)
class Replicas:
    """One workload's replicas as the cluster has them; draining ones are in no other count."""

    desired: int
    ready: int
    starting: int
    draining: int
    settled: int = 0  # ready for long enough to be scraped


def replicas_of(
    desired: int, ready: int, starting: int, draining: int, settled: int = 0
) -> Replicas:
    """Return the counts; what is desired and not yet there is starting as well."""
    return Replicas(desired, ready, max(starting, desired - ready, 0), draining, settled)


def merged(
    telemetry: Observation,
    policies: Policies,
    replicas: Mapping[VariantKey, Replicas],
    usable: Mapping[str, int],
    free: Mapping[str, tuple[int, ...]] | None = None,
) -> Observation:
    """Return the observation of all services whose workloads could be read.

    `replicas` lacks the workloads that could not. Where telemetry is silent the rate is NaN: unknown.
    `free`: accelerators on the nodes that are there (autoscaler.edge.kube.room).
    """
    services = {}
    for name, policy in policies.services.items():
        seen = telemetry.services.get(name)
        variants = {
            v.name: _variant(None if seen is None else seen.variants.get(v.name), own)
            for v in policy.variants
            if (own := replicas.get((name, v.name))) is not None
        }
        if variants:
            services[name] = ServiceObservation(
                arrival_rate_rps=math.nan if seen is None else seen.arrival_rate_rps,
                isl_tokens=math.nan if seen is None else seen.isl_tokens,
                osl_tokens=math.nan if seen is None else seen.osl_tokens,
                variants=variants,
            )
    return replace(telemetry, services=services, pools=dict(usable), free_on_nodes=dict(free or {}))


def accelerators(
    policies: Policies,
    replicas: Mapping[VariantKey, Replicas],
    counted: Mapping[str, int],
    declared: Collection[str],
) -> dict[str, int]:
    """Return what each class can use: as counted, else what is in use now.

    `declared`: classes with a quota. One whose number is not known may keep what it has and get no more:
    nothing is scaled up on a guess, and nothing down. A class without a quota has no number.
    """
    out = {name: n for name, n in counted.items() if name in declared}
    for name in set(declared) - counted.keys():
        out[name] = 0
    unknown = set(declared) - counted.keys()
    for service, policy in policies.services.items():
        for v in policy.variants:
            own = replicas.get((service, v.name))
            if v.accelerator_class in unknown and own is not None:
                out[v.accelerator_class] += own.desired * v.accelerators_per_replica
    return out


def only_seen(policies: Policies, replicas: Mapping[VariantKey, Replicas]) -> Policies:
    """Return the policies without room for workloads that could not be read.

    Such a service is left as it is; without this, one that was never seen would be planned with a guess,
    and accelerators would be kept for it that others need.
    """
    services = dict(policies.services)
    for name, policy in policies.services.items():
        if all((name, v.name) in replicas for v in policy.variants):
            continue
        variants = tuple(
            v if (name, v.name) in replicas else replace(v, min_replicas=0, max_replicas=0)
            for v in policy.variants
        )
        services[name] = replace(policy, variants=variants)
    return replace(policies, services=services)


def _variant(measured: VariantObservation | None, own: Replicas) -> VariantObservation:
    known = measured or VariantObservation(0, 0, 0, 0)
    return replace(
        known,
        ready=own.ready,
        starting=own.starting,
        draining=own.draining,
        desired=own.desired,
    )


def limited(policies: Policies, quotas: Mapping[str, Mapping[str, int]]) -> Policies:
    """Return the policies with each pool's namespace quotas as the cluster allows now."""
    pools: tuple[Pool, ...] = tuple(
        replace(pool, namespace_quotas=dict(quotas.get(pool.name, pool.namespace_quotas)))
        for pool in policies.pools
    )
    return replace(policies, pools=pools)

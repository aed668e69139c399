"""A variation of a scenario: other SLOs, prices, GPUs, start-ups, traffic, quotas, as values again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autoscaler.core.types import AcceleratorClass, CapacityType, Policies, Policy, Pool
from autoscaler.whatif.case import priced
from autoscaler.whatif.scenario import Change, Scenario, ScenarioError, SpotSpec, StartupSpec


def changed_scenario(scenario: Scenario, change: Change) -> Scenario:
    """Return the scenario with what concerns neither policies nor arrivals changed."""
    update: dict[str, Any] = {}
    if change.profile is not None:
        update["profile"] = change.profile
    if change.startup_seconds is not None:
        update["startup"] = StartupSpec(median_seconds=change.startup_seconds)
    return scenario.model_copy(update=update) if update else scenario


def changed_policies(policies: Policies, change: Change, scenario: Scenario) -> Policies:
    """Return the policies of a variation.

    Raises ScenarioError where it names a class that no pool has, and so no price is known.
    """
    if change.accelerators is not None:
        policies = _moved(policies, change.accelerators)
    if change.prices is not None:
        policies = priced(policies, change.prices)
    if change.quota is not None:
        policies = _limited(policies, change.quota)
    if change.spot_share:
        policies = _spot(policies, change.spot_share, scenario.spot)
    services = {name: _policy(policy, change) for name, policy in policies.services.items()}
    return replace(policies, services=services)


def _policy(policy: Policy, change: Change) -> Policy:
    targets = policy.targets
    if change.ttft_seconds is not None:
        targets = replace(targets, ttft_seconds=change.ttft_seconds)
    if change.tpot_seconds is not None:
        targets = replace(targets, tpot_seconds=change.tpot_seconds)
    attainment = policy.attainment if change.attainment is None else change.attainment
    budget = policy.budget_usd_per_hour
    if change.budget_usd_per_hour is not None:
        budget = change.budget_usd_per_hour
    return replace(policy, targets=targets, attainment=attainment, budget_usd_per_hour=budget)


def _classes(policies: Policies) -> dict[str, AcceleratorClass]:
    return {c.name: c for pool in policies.pools for c in pool.classes}


def _known(policies: Policies, names: Mapping[str, object], field: str) -> None:
    known = _classes(policies)
    for name in names:
        if name not in known:
            raise ScenarioError(
                f"{field}: no accelerator class '{name}' in the policies, so its price is not known; "
                f"allowed: {', '.join(sorted(known))}"
            )


def _moved(policies: Policies, moves: Mapping[str, str]) -> Policies:
    """Let the variants on one class run on another; what the old class had of quota goes along."""
    _known(policies, moves, "accelerators")
    _known(policies, dict.fromkeys(moves.values()), "accelerators")
    known = _classes(policies)
    given: dict[str, int] = {}
    for old, new in moves.items():
        quota = known[old].quota_count
        if quota is not None and old != new:
            given[new] = given.get(new, 0) + quota
    limits = {
        name: quota + given.get(name, 0)
        for name, c in known.items()
        if (quota := c.quota_count) is not None and name in given
    }
    services = {
        name: replace(
            policy,
            variants=tuple(
                replace(v, accelerator_class=moves.get(v.accelerator_class, v.accelerator_class))
                for v in policy.variants
            ),
        )
        for name, policy in policies.services.items()
    }
    return _limited(replace(policies, services=services), limits)


def _limited(policies: Policies, quota: Mapping[str, int]) -> Policies:
    _known(policies, quota, "quota")
    return _each_class(policies, lambda c: replace(c, quota_count=quota.get(c.name, c.quota_count)))


def _spot(policies: Policies, share: float, spot: SpotSpec) -> Policies:
    """Make a share of what is on demand spot: a mixture, any replica of which may be taken back."""

    def mixed(c: AcceleratorClass) -> AcceleratorClass:
        if c.capacity_type is not CapacityType.ON_DEMAND:
            return c
        return replace(
            c,
            usd_per_hour=c.usd_per_hour * (1 - share + share * spot.price_ratio),
            interruptions_per_hour=share * spot.interruptions_per_hour,
        )

    return _each_class(policies, mixed)


def _each_class(policies: Policies, make: Any) -> Policies:  # noqa: ANN401
    pools: tuple[Pool, ...] = tuple(
        replace(pool, classes=tuple(make(c) for c in pool.classes)) for pool in policies.pools
    )
    return replace(policies, pools=pools)

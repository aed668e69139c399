"""From a scenario to a case: all that one simulated run needs, as values for another process."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from autoscaler.core.types import Policies, Policy, Variant
from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.fleet import FleetVariant
from autoscaler.sim.profiles import measured_profile
from autoscaler.sim.response import Response, measure
from autoscaler.sim.variants import Spot
from autoscaler.sim.workload import Requests
from autoscaler.whatif.arrivals import Arrivals
from autoscaler.whatif.capacity import Capacity, replica_capacity
from autoscaler.whatif.observed import Counts, Startup, recorded_fleet, startup_of
from autoscaler.whatif.scenario import Scenario, ScenarioError
from models.latency import LatencyModel
from models.slo import SloTargets

DEFAULT_SEQUENCES = 256  # vLLM's max_num_seqs and token budget, where telemetry never saw a limit
DEFAULT_BATCHED_TOKENS = 2048
OPENING_SECONDS = 600.0  # of load that the first fleet is sized for
OPENING_HEADROOM = 1.25


@dataclass(frozen=True, slots=True)
class ServiceCase:
    """One service: what arrives in the judged hours, and what can serve it.

    `capacity` is of one replica of the first variant, simulated.
    """

    requests: Requests
    variants: tuple[FleetVariant, ...]
    usd_per_accelerator_hour: Mapping[str, float]  # by variant
    targets: SloTargets
    attainment: float
    capacity: Capacity
    typical_start_seconds: float  # of the first variant
    # by variant, what ran in the judged hours: epoch seconds, replicas; empty where nobody knows
    recorded: Mapping[str, Counts] = field(default_factory=dict)
    responses: tuple[Response, ...] = ()  # of the variants, where fleets are fluids


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison, ready to run. Times in seconds since the epoch."""

    services: Mapping[str, ServiceCase]
    policies: Policies
    since_seconds: float
    until_seconds: float
    warm_up_seconds: float
    tick_seconds: float
    seed: int
    fluid: bool = False  # fleets as fluids (docs/simulator.md)

    @property
    def pools(self) -> dict[str, int]:
        """Accelerators of each class that may be used in all, where a quota says so."""
        classes = (c for pool in self.policies.pools for c in pool.classes)
        return {c.name: c.quota_count for c in classes if c.quota_count is not None}


def priced(policies: Policies, prices: Mapping[str, float]) -> Policies:
    """Return the policies with other prices; raise ScenarioError for a class that is not there."""
    known = {c.name for pool in policies.pools for c in pool.classes}
    for name in prices:
        if name not in known:
            raise ScenarioError(
                f"prices: no accelerator class '{name}' in the policies; "
                f"allowed: {', '.join(sorted(known))}"
            )
    pools = tuple(
        replace(
            pool,
            classes=tuple(
                replace(c, usd_per_hour=prices.get(c.name, c.usd_per_hour)) for c in pool.classes
            ),
        )
        for pool in policies.pools
    )
    return replace(policies, pools=pools)


def judged_window(scenario: Scenario, arrivals: Arrivals) -> tuple[float, float]:
    """Return the last `judgedHours` of the arrivals, or raise ScenarioError: there are fewer."""
    until = arrivals.end_seconds
    since = until - scenario.judged_hours * 3600.0
    if since < arrivals.start_seconds:
        hours = (until - arrivals.start_seconds) / 3600.0
        raise ScenarioError(
            f"judgedHours: {scenario.judged_hours:g}; allowed: up to {hours:.3g}, "
            "which is what the load covers"
        )
    return since, until


def build_case(
    scenario: Scenario,
    policies: Policies,
    arrivals: Arrivals,
    engines: Mapping[tuple[str, str], EngineProfile],
) -> Case:
    """Put a case together; `engines` by (service, variant), already drawn (`draw_engine`).

    Replicas are taken back as often as their accelerator class says, and so as often as Foreserve plans with.
    """
    since, until = judged_window(scenario, arrivals)
    prices = {c.name: c.usd_per_hour for pool in policies.pools for c in pool.classes}
    recorded = (
        {} if scenario.telemetry is None else recorded_fleet(scenario.telemetry, since, until)
    )
    services = {
        name: _service_case(
            scenario,
            policies.services[name],
            requests.between(since, until),
            engines,
            prices,
            recorded,
        )
        for name, requests in arrivals.services.items()
    }
    rates = {c.name: c.interruptions_per_hour for pool in policies.pools for c in pool.classes}
    services = {
        name: _interrupted(service, policies.services[name], rates, scenario.spot.notice_seconds)
        for name, service in services.items()
    }
    mine = {name: policies.services[name] for name in services}
    return Case(
        services=services,
        policies=replace(policies, services=mine),
        since_seconds=since,
        until_seconds=until,
        warm_up_seconds=scenario.warm_up_seconds,
        tick_seconds=scenario.tick_seconds,
        seed=scenario.seed,
        fluid=scenario.is_fluid,
    )


def _interrupted(
    service: ServiceCase, policy: Policy, rates: Mapping[str, float], notice_seconds: float
) -> ServiceCase:
    """Return the service with what its classes' interruptions do to it; `rates` per hour, by class."""
    mine = {v.name: rates.get(v.accelerator_class, 0.0) for v in policy.variants}
    variants = tuple(
        replace(v, spot=Spot(mine[v.name], notice_seconds)) if mine[v.name] > 0 else v
        for v in service.variants
    )
    return replace(service, variants=variants)


def measured_engines(
    scenario: Scenario, policies: Policies
) -> dict[tuple[str, str], EngineProfile]:
    """Return the profile that the scenario names for each variant."""
    return {
        (name, variant.name): measured_profile(_profile_name(scenario, name, variant))
        for name, policy in policies.services.items()
        for variant in policy.variants
    }


def fitted_engines(
    latency: LatencyModel, policies: Policies
) -> dict[tuple[str, str], EngineProfile]:
    """Return engines with the coefficients that were learned from telemetry."""
    keys = [(name, v.name) for name, policy in policies.services.items() for v in policy.variants]
    for key in keys:
        if not latency.knows(*key):
            raise ScenarioError(
                f"profile: is required: the models hold no latency of {key[0]}, variant {key[1]}"
            )
    c = latency.coefficients(keys)
    return {
        key: EngineProfile(
            name="/".join(key),
            base_seconds=float(c.base_seconds[n]),
            per_sequence_seconds=float(c.per_sequence_seconds[n]),
            per_context_token_seconds=float(c.per_context_token_seconds[n]),
            per_prompt_token_seconds=float(c.per_prompt_token_seconds[n]),
            max_num_seqs=int(min(max(c.max_sequences[n], 1.0), DEFAULT_SEQUENCES)),
            max_num_batched_tokens=_batched_tokens(float(c.steps_per_token[n])),
            kv_capacity_tokens=int(c.kv_tokens[n]),
        )
        for n, key in enumerate(keys)
    }


def draw_engine(
    profile: EngineProfile, error_ratio: float, rng: np.random.Generator
) -> EngineProfile:
    """Return the engine that is simulated: each coefficient off by a lognormal relative error.

    A planner that works with the very numbers of the simulation would be flattered (STYLE rule 6);
    a real engine differs from what was measured of it by about the error of the measurement.
    """
    factor = np.exp(error_ratio * rng.standard_normal(4))
    return replace(
        profile,
        base_seconds=profile.base_seconds * float(factor[0]),
        per_sequence_seconds=profile.per_sequence_seconds * float(factor[1]),
        per_context_token_seconds=profile.per_context_token_seconds * float(factor[2]),
        per_prompt_token_seconds=profile.per_prompt_token_seconds * float(factor[3]),
    )


def drawn_engines(
    scenario: Scenario, engines: Mapping[tuple[str, str], EngineProfile]
) -> dict[tuple[str, str], EngineProfile]:
    """Return every engine drawn around its point, the same ones for the same seed."""
    rng = np.random.default_rng([scenario.seed, 1_000_003])
    return {
        key: draw_engine(profile, scenario.engine_error_ratio, rng)
        for key, profile in sorted(engines.items())
    }


def _profile_name(scenario: Scenario, service: str, variant: Variant) -> str:
    if isinstance(scenario.profile, str):
        return scenario.profile
    name = (scenario.profile or {}).get(variant.name, variant.profile_ref)
    if name is None:
        raise ScenarioError(f"profile: names none for variant '{variant.name}' of {service}")
    return name


def _batched_tokens(steps_per_token: float) -> int:
    if not steps_per_token > 0:
        return DEFAULT_BATCHED_TOKENS
    return max(DEFAULT_SEQUENCES, round(1.0 / steps_per_token))


def _service_case(
    scenario: Scenario,
    policy: Policy,
    requests: Requests,
    engines: Mapping[tuple[str, str], EngineProfile],
    prices: Mapping[str, float],
    recorded: Mapping[str, Mapping[str, Counts]],
) -> ServiceCase:
    if not len(requests.arrive_seconds):
        raise ScenarioError(f"judgedHours: no request of {policy.service} arrives in them")
    first = policy.variants[0]
    profile = engines[policy.service, first.name]
    capacity = replica_capacity(
        profile, requests, policy.targets, policy.attainment, seed=scenario.seed
    )
    opening = _opening_replicas(scenario, requests, capacity)
    variants = tuple(
        FleetVariant(
            name=v.name,
            profile=engines[policy.service, v.name],
            accelerators_per_replica=v.accelerators_per_replica,
            initial_replicas=min(v.max_replicas, opening if v is first else v.min_replicas),
            max_replicas=v.max_replicas,
            startup=startup_of(scenario, policy.service, v.name),
        )
        for v in policy.variants
    )
    return ServiceCase(
        requests=requests,
        variants=variants,
        usd_per_accelerator_hour={v.name: prices[v.accelerator_class] for v in policy.variants},
        targets=policy.targets,
        attainment=policy.attainment,
        capacity=capacity,
        typical_start_seconds=_typical(variants[0].startup, scenario.seed),
        recorded=recorded.get(policy.service, {}),
        responses=tuple(
            measure(v.profile, requests, policy.targets, scenario.seed)
            for v in variants
            if scenario.is_fluid
        ),
    )


def _opening_replicas(scenario: Scenario, requests: Requests, capacity: Capacity) -> int:
    """Everybody starts with the same fleet: as the scenario says, or what the first minutes need."""
    if scenario.initial_replicas is not None:
        return scenario.initial_replicas
    begin = float(requests.arrive_seconds[0])
    count = len(requests.between(begin, begin + OPENING_SECONDS).arrive_seconds)
    return math.ceil(count / OPENING_SECONDS * OPENING_HEADROOM / capacity.rate_rps) + 1


def _typical(startup: Startup, seed: int) -> float:
    rng = np.random.default_rng(seed)
    return float(np.median([startup(rng) for _ in range(401)]))

"""What goes into one tick and what comes out: frozen, with units in the names. NaN is missing.

Everything here is a value. Policies and pools come from `autoscaler.policy` (YAML or CRD),
observations from a telemetry edge or the simulator, forecasts from `autoscaler.loop`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from models.phases import phases_of
from models.slo import SloTargets

# Of one spot replica, where the class says nothing: 802 losses in 3,497 instance-hours (0.23 an hour) of the
# seven V100 preemption traces of github.com/skypilot-org/spot-traces (AWS, 2023; Wu et al., Can't Be Late,
# NSDI '24). Zones differ tenfold, 0.06 to 0.74: whoever knows his own writes interruptionsPerHour.
SPOT_INTERRUPTIONS_PER_HOUR = 0.2
# In the traces with four instances, 61 % of the losses come with another one within five minutes. With half
# of the need on what stays, the worst minute is a queue until replicas have started, and not an outage.
MAX_SPOT_RATIO = 0.5


class Reason(StrEnum):
    """Why a service has the replica count it has: the step that had the last word."""

    FORECAST = "forecast"  # the plan for the predicted load
    REACTIVE = "reactive"  # measured load, queue or latency demanded more than the forecast
    SCHEDULE = "schedule"  # a named window of the policy raised the count
    HOLD = "hold"  # what runs is right: it covers the plan, and less would not cover what is coming
    STALE_TELEMETRY = "stale-telemetry"  # nothing measured: the fleet is left as it is
    FALLBACK = "fallback"  # nothing measured for longer than the policy allows, or nothing known
    NO_MODEL = "no-model"  # nothing learned yet: sized by measured latency, or by concurrency
    BUDGET = "budget"  # a budget in $/h kept the plan below the requirement
    QUOTA = "quota"  # accelerators ran out
    MIN = "min"  # the policy's minimum
    MAX = "max"  # the policy's maximum
    STABILIZING = "stabilizing"  # a scale-down waits for its stabilization window
    RATE_LIMIT = "rate-limit"  # behavior.scaleUp/scaleDown allow no more at once
    FROZEN = "frozen"  # behavior.freeze


class Role(StrEnum):
    """Which phase of a request a variant serves."""

    BOTH = "Both"
    PREFILL = "Prefill"
    DECODE = "Decode"


class Mode(StrEnum):
    """What is done with a decision."""

    RECOMMEND = "Recommend"
    SCALE = "Scale"
    KEDA = "Keda"


class CapacityType(StrEnum):
    """How an accelerator is bought."""

    ON_DEMAND = "OnDemand"
    SPOT = "Spot"
    RESERVED = "Reserved"


@dataclass(frozen=True, slots=True)
class TargetRef:
    """The workload whose scale subresource is written."""

    api_version: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to serve the model: accelerator, parallelism, role, limits."""

    name: str
    accelerator_class: str
    accelerators_per_replica: int
    min_replicas: int
    max_replicas: int
    target_ref: TargetRef
    role: Role = Role.BOTH
    profile_ref: str | None = None


@dataclass(frozen=True, slots=True)
class ScalingLimit:
    """At most `value` replicas (or percent of the replicas at the period's start) per period."""

    percent: bool
    value: float
    period_seconds: float


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """One direction's damping, as in HPA's behavior: the most generous limit counts."""

    stabilization_window_seconds: float
    limits: tuple[ScalingLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class Behavior:
    """How decisions become effects."""

    mode: Mode
    scale_up: ScalingRules
    scale_down: ScalingRules
    scale_to_zero: bool = False
    freeze: bool = False


@dataclass(frozen=True, slots=True)
class ScheduleWindow:
    """A named window, either weekly (days, start and end of the day) or once (from/until).

    `min_replicas` is a floor for the service's replicas inside the window; `load_multiplier` scales
    the forecast. Seconds of the day are in `time_zone`.
    """

    name: str
    time_zone: str
    min_replicas: int | None = None
    load_multiplier: float = 1.0
    days: tuple[int, ...] = ()  # 0 = Monday
    start_second: int = 0
    end_second: int = 86_400
    from_seconds: float | None = None  # epoch
    until_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Fallback:
    """What happens when telemetry stays away."""

    after_seconds: float
    replicas: int | None  # None: keep holding


@dataclass(frozen=True, slots=True)
class Policy:
    """One service: what it must hold, where it may run, how it may move. Key: `service`."""

    service: str  # namespace/name
    model: str
    targets: SloTargets
    attainment: float
    window_hours: float
    priority: int
    variants: tuple[Variant, ...]
    behavior: Behavior
    fallback: Fallback
    schedule: tuple[ScheduleWindow, ...] = ()
    budget_usd_per_hour: float = math.inf
    max_spot_ratio: float = MAX_SPOT_RATIO  # of what is needed, that may rest on spot
    # index sets of the variants that serve each phase of a request together
    phases: tuple[tuple[int, ...], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Work out the phases, which every step of a tick asks for."""
        object.__setattr__(self, "phases", phases_of([v.role for v in self.variants]))

    @property
    def namespace(self) -> str:
        """The namespace part of the service's name."""
        return self.service.split("/", 1)[0]


@dataclass(frozen=True, slots=True)
class AcceleratorClass:
    """A kind of accelerator that can be had, at a price."""

    name: str
    usd_per_hour: float  # of one accelerator
    quota_count: int | None  # None: no limit of its own
    capacity_type: CapacityType = CapacityType.ON_DEMAND
    resource_name: str = "nvidia.com/gpu"
    interruptions_per_hour: float = 0.0  # of one replica that serves


@dataclass(frozen=True, slots=True)
class Pool:
    """Accelerator classes with a common budget and quotas by namespace."""

    name: str
    classes: tuple[AcceleratorClass, ...]
    budget_usd_per_hour: float = math.inf
    namespace_quotas: Mapping[str, int] = field(default_factory=dict)  # accelerators of this pool


@dataclass(frozen=True, slots=True)
class Policies:
    """Everything the users declared."""

    services: Mapping[str, Policy]
    pools: tuple[Pool, ...]


@dataclass(frozen=True, slots=True)
class VariantObservation:
    """One variant over one interval: counts now, means and percentiles over the interval.

    `running` and `waiting` are totals over the variant; `waiting` includes what the gateway holds.
    Ratios are shares of the requests that ended in the interval.
    """

    ready: int
    starting: int
    draining: int
    desired: int
    running: float = math.nan
    waiting: float = math.nan
    kv_cache_usage_ratio: float = math.nan
    ttft_p50_seconds: float = math.nan
    ttft_p95_seconds: float = math.nan
    ttft_p99_seconds: float = math.nan
    tpot_p50_seconds: float = math.nan
    tpot_p95_seconds: float = math.nan
    tpot_p99_seconds: float = math.nan
    finished_requests: float = math.nan
    ttft_within_slo_ratio: float = math.nan
    tpot_within_slo_ratio: float = math.nan
    slo_attainment_ratio: float = math.nan


@dataclass(frozen=True, slots=True)
class ServiceObservation:
    """One service over one interval. `arrival_rate_rps` NaN: telemetry failed."""

    arrival_rate_rps: float
    isl_tokens: float
    osl_tokens: float
    variants: Mapping[str, VariantObservation]  # a variant without telemetry is absent


@dataclass(frozen=True, slots=True)
class Observation:
    """All services over one interval that ends at `now_seconds`. A silent service is absent.

    free_on_nodes: accelerator class -> accelerators free on each node that is there; absent: not known.
    """

    now_seconds: float
    interval_seconds: float
    services: Mapping[str, ServiceObservation]
    pools: Mapping[
        str, int
    ]  # accelerator class -> accelerators usable in all; absent: no limit known
    free_on_nodes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

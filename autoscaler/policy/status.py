"""What the operator reports in `status`: names, units, meaning. The CRDs are made from these models.

Every field may be absent: nothing is known (yet), or it does not apply. Numbers are rounded where
they are made (`edge.kube.status`), not here.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

MAX_EXCLUDED_NODES = 10  # that a pool's status names
MAX_MESSAGE_CHARACTERS = 1024
MAX_REPLICA_CONCURRENCY = 1_000_000  # no engine holds as many requests
REASON_PATTERN = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"

Time = Annotated[
    str, StringConstraints(max_length=40), Field(json_schema_extra={"format": "date-time"})
]
Message = Annotated[str, StringConstraints(max_length=MAX_MESSAGE_CHARACTERS)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]


class ConditionType(StrEnum):
    """What is true or not of a policy or a pool. Ready comes first everywhere."""

    READY = "Ready"
    TELEMETRY_FRESH = "TelemetryFresh"
    MODEL_TRUSTED = "ModelTrusted"
    SLO_AT_RISK = "SLOAtRisk"
    CONSTRAINED = "Constrained"
    DELIVERED = "Delivered"  # of policies that KEDA asks for
    EXHAUSTED = "Exhausted"  # of a pool


class ConditionReason(StrEnum):
    """Why a condition is as it is: closed, so that alerts and scripts can rely on it."""

    # Ready: what is done with decisions
    RECOMMENDING = "Recommending"
    SCALING = "Scaling"
    SERVING_KEDA = "ServingKeda"
    INVALID_SPEC = "InvalidSpec"
    CONFLICT = "Conflict"
    NO_SCALED_OBJECT = "NoScaledObject"
    PAUSED = "Paused"
    FORBIDDEN = "Forbidden"
    TARGET_NOT_FOUND = "TargetNotFound"
    WRITE_FAILED = "WriteFailed"
    NOTHING_KNOWN = "NothingKnown"
    NO_DECISION = "NoDecision"
    # TelemetryFresh
    MEASURED = "Measured"
    PARTLY_MEASURED = "PartlyMeasured"
    STALE = "Stale"
    NEVER_MEASURED = "NeverMeasured"
    # ModelTrusted
    FORECAST_BETTER_THAN_NAIVE = "ForecastBetterThanNaive"
    FORECAST_NOT_BETTER_THAN_NAIVE = "ForecastNotBetterThanNaive"
    NO_MODEL_YET = "NoModelYet"
    # SLOAtRisk
    ON_TARGET = "OnTarget"
    ERROR_BUDGET_SPENT = "ErrorBudgetSpent"
    CAPACITY_SHORT = "CapacityShort"
    MISS_PREDICTED = "MissPredicted"
    MISS_MEASURED = "MissMeasured"
    # Constrained
    UNCONSTRAINED = "Unconstrained"
    ACCELERATORS_LACKING = "AcceleratorsLacking"
    QUOTA = "Quota"
    BUDGET = "Budget"
    MAX_REPLICAS = "MaxReplicas"
    # Delivered: what the HPA makes of the number that KEDA is told, in the words of core.hpa
    EXACT = "Exact"
    TOLERANCE_LIMITED = "ToleranceLimited"
    BEHAVIOR_LIMITED = "BehaviorLimited"
    STABILIZATION_PENDING = "StabilizationPending"
    BOUNDED_BY_MIN_MAX = "BoundedByMinMax"
    NO_READY_PODS = "NoReadyPods"
    PRECISION_LIMITED = "PrecisionLimited"
    SCALED_TO_ZERO = "ScaledToZero"
    NOT_ASKED = "NotAsked"
    NOT_SERVED = "NotServed"
    NO_HPA = "NoHPA"
    # pools
    INVENTORY_KNOWN = "InventoryKnown"
    INVENTORY_UNKNOWN = "InventoryUnknown"
    AVAILABLE = "Available"
    ALL_IN_USE = "AllInUse"


class _Status(BaseModel):
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
    )

    def manifest(self) -> dict[str, Any]:
        """Return plain data as it stands in `status`; what is not known is left out."""
        return self.model_dump(by_alias=True, exclude_none=True, mode="json")


class Condition(_Status):
    """A Kubernetes condition."""

    type: Annotated[str, StringConstraints(max_length=316)] = Field(
        description="what is true or not"
    )
    status: Literal["True", "False", "Unknown"] = Field(description="whether it is")
    observed_generation: Count | None = Field(
        default=None, description="generation of the object that this was said of"
    )
    last_transition_time: Time = Field(description="when the status last changed")
    reason: Annotated[str, StringConstraints(pattern=REASON_PATTERN, max_length=1024)] = Field(
        description="why, in one word for machines"
    )
    message: Message = Field(description="why, in one sentence with its numbers")


class DeliveryStatus(_Status):
    """The HPA that KEDA made for a variant, as far as it matters, and what it makes of the metric."""

    hpa: Annotated[str, StringConstraints(max_length=253)] | None = Field(
        default=None, description="name of the HPA; absent: none was found, and defaults are taken"
    )
    metric_type: Literal["AverageValue", "Value"] = Field(description="of the metric's target")
    target: Amount = Field(description="the metric's target")
    min_replicas: Count = Field(description="of the HPA")
    max_replicas: Count = Field(description="of the HPA")
    tolerance_up: Amount = Field(description="growth by this ratio or less is ignored")
    tolerance_down: Amount = Field(description="a fall by this ratio or less is ignored")
    existing: Count = Field(description="replicas that the workload's status counts")
    metric: Amount | None = Field(default=None, description="number that KEDA is told")
    lands_on: Count | None = Field(
        default=None, description="replicas that the HPA sets at its next look"
    )
    reason: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        default=None, description="Exact, or what keeps the HPA from the decided count"
    )
    advice: Message | None = Field(default=None, description="the setting that removes that")


class VariantStatus(_Status):
    """One variant."""

    name: Annotated[str, StringConstraints(max_length=63)] = Field(description="of the variant")
    desired: Count | None = Field(default=None, description="replicas decided")
    current: Count | None = Field(default=None, description="replicas the workload asks for now")
    ready: Count | None = Field(default=None, description="replicas that serve")
    starting: Count | None = Field(default=None, description="replicas on their way")
    replica_concurrency: Annotated[float, Field(ge=1, le=MAX_REPLICA_CONCURRENCY)] | None = Field(
        default=None,
        description="in mode Keda: requests running and waiting that a replica holds within the SLO",
    )
    delivery: DeliveryStatus | None = Field(
        default=None, description="in mode Keda: how the decided count reaches the workload"
    )


class ForecastStatus(_Status):
    """The load of the service, measured and predicted."""

    arrival_rate_rps: Amount | None = Field(
        default=None, description="requests per second that arrive now"
    )
    at_horizon_rps: Amount | None = Field(
        default=None, description="predicted at the horizon, median"
    )
    upper_rps: Amount | None = Field(
        default=None, description="predicted at the horizon, 95th percentile"
    )
    planned_rps: Amount | None = Field(
        default=None, description="load that the desired replicas carry within the SLO"
    )
    horizon_seconds: Amount | None = Field(
        default=None, description="how far ahead the decision looked"
    )


class LatencyStatus(_Status):
    """Seconds that requests take: 95th percentiles."""

    predicted_ttft_p95_seconds: Amount | None = Field(
        default=None, description="time to first token with the desired replicas"
    )
    predicted_tpot_p95_seconds: Amount | None = Field(
        default=None, description="time per output token with the desired replicas"
    )
    observed_ttft_p95_seconds: Amount | None = Field(
        default=None, description="time to first token measured, of the slowest variant"
    )
    observed_tpot_p95_seconds: Amount | None = Field(
        default=None, description="time per output token measured, of the slowest variant"
    )


class PolicyDisplay(_Status):
    """Texts for the columns of kubectl; read the numbers beside them instead."""

    reason: str | None = Field(
        default=None, description="of the decision, or why the policy is not Ready"
    )
    error_budget_left: str | None = Field(default=None, description="such as 83%")
    cost_per_hour: str | None = Field(default=None, description="such as $32.80")
    forecast: str | None = Field(default=None, description="such as 12 (up to 16)")
    lead_time: str | None = Field(default=None, description="such as 4m10s")


class ScalingPolicyStatus(_Status):
    """What was decided for one service, and how it fares."""

    observed_generation: Count | None = Field(
        default=None, description="generation of the policy that the rest is about"
    )
    mode: Literal["Recommend", "Scale", "Keda", "Paused"] | None = Field(
        default=None, description="mode in force; Paused: decided and shown, nothing is written"
    )
    desired_replicas: Count | None = Field(
        default=None, description="replicas decided, all variants together"
    )
    ready_replicas: Count | None = Field(
        default=None, description="replicas that serve, all variants together"
    )
    variants: list[VariantStatus] = Field(
        default=[], max_length=16, description="the same by variant"
    )
    reason: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        default=None, description="the step that had the last word on the count"
    )
    detail: Message | None = Field(
        default=None, description="the reason in words, with its numbers"
    )
    forecast: ForecastStatus | None = Field(default=None, description="load now and ahead")
    lead_time_seconds: Amount | None = Field(
        default=None, description="from a decision to a ready replica, upper estimate"
    )
    latency: LatencyStatus | None = Field(
        default=None, description="95th percentiles, predicted and measured"
    )
    predicted_attainment_ratio: float | None = Field(
        default=None, description="share of requests that should meet the SLO"
    )
    error_budget_left_ratio: float | None = Field(
        default=None, description="1: nothing missed; 0: spent; negative: overspent"
    )
    cost_usd_per_hour: Amount | None = Field(
        default=None, description="of the desired replicas, where prices are known"
    )
    model_version: Annotated[str, StringConstraints(max_length=253)] | None = Field(
        default=None, description="of the trained models in use"
    )
    last_decision_time: Time | None = Field(
        default=None, description="when this was decided; refreshed every few minutes"
    )
    display: PolicyDisplay | None = Field(
        default=None, description="texts for the columns of kubectl"
    )
    conditions: list[Condition] = Field(
        default=[],
        max_length=16,
        description="Ready, TelemetryFresh, ModelTrusted, SLOAtRisk, Constrained; Delivered",
    )


class ClassStatus(_Status):
    """One accelerator class."""

    name: Annotated[str, StringConstraints(max_length=63)] = Field(description="of the class")
    usable: Count | None = Field(
        default=None, description="accelerators there are; absent: no limit, or not known"
    )
    in_use: Count | None = Field(
        default=None, description="accelerators that the replicas of policies hold"
    )
    usd_per_hour: Amount | None = Field(
        default=None, description="US dollars per hour of one accelerator"
    )


class ExcludedNode(_Status):
    """One node on which nothing new is counted."""

    name: Annotated[str, StringConstraints(max_length=253)] = Field(description="of the node")
    reason: Annotated[str, StringConstraints(max_length=512)] = Field(
        description="not Ready, cordoned, its taint, the XID that a device reported, or listed in the spec"
    )


class PoolDisplay(_Status):
    """Texts for the columns of kubectl; read the numbers beside them instead."""

    in_use: str | None = Field(default=None, description="such as h100 24/32, l40s 3")
    cost_per_hour: str | None = Field(default=None, description="such as $98.40")


class AcceleratorPoolStatus(_Status):
    """What there is and what is in use."""

    observed_generation: Count | None = Field(
        default=None, description="generation of the pool that the rest is about"
    )
    classes: list[ClassStatus] = Field(
        default=[], max_length=256, description="the kinds of accelerators in the pool"
    )
    excluded_nodes: list[ExcludedNode] | None = Field(
        default=None,
        max_length=MAX_EXCLUDED_NODES,
        description="nodes that classes select and that nothing new is counted on: the first ten by name",
    )
    excluded_node_count: Count | None = Field(
        default=None, description="how many such nodes there are; absent: none"
    )
    cost_usd_per_hour: Amount | None = Field(default=None, description="of the accelerators in use")
    display: PoolDisplay | None = Field(
        default=None, description="texts for the columns of kubectl"
    )
    conditions: list[Condition] = Field(default=[], max_length=16, description="Ready, Exhausted")

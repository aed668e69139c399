"""The resources of foreserve.dev/v1alpha1 as a user writes them: names, types, bounds, defaults, units.

This is the one source: the error messages, the reference in docs/crd-reference.md and the CRDs come from
these models' JSON schema. Rules that span several fields live in `checks`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from autoscaler.core.types import MAX_SPOT_RATIO, SPOT_INTERRUPTIONS_PER_HOUR

API_VERSION = "foreserve.dev/v1alpha1"
MAX_LATENCY_TARGET_SECONDS = 86_400.0
MAX_REPLICAS = 100_000
MAX_INTERRUPTIONS_PER_HOUR = 60.0  # one a minute: more is a count of another span

# Patterns without look-around: Python, Rust (pydantic) and Go (the API server) read them alike.
NAME_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
DNS_LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
RESOURCE_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$"
API_VERSION_PATTERN = r"^([a-z0-9][-a-z0-9.]*/)?v[0-9][a-z0-9]*$"
KIND_PATTERN = r"^[A-Z][A-Za-z0-9]*$"
TEXT_PATTERN = r"^[^\x00-\x1f\x7f]+$"
START_PATTERN = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
END_PATTERN = r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"
TIMESTAMP_PATTERN = (
    r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|[-+]([01][0-9]|2[0-3]):[0-5][0-9])$"  # capitals: the API server reads no others
)
PATTERN_WORDS = {
    NAME_PATTERN: "a name of up to 63 letters, digits, '-', '_' and '.'",
    DNS_LABEL_PATTERN: "a name of up to 63 lower-case letters, digits and '-'",
    DNS_NAME_PATTERN: "a name of up to 253 lower-case letters, digits, '-' and '.'",
    RESOURCE_PATTERN: "a resource name such as nvidia.com/gpu",
    API_VERSION_PATTERN: "a group and version such as apps/v1",
    KIND_PATTERN: "a kind such as Deployment",
    TEXT_PATTERN: "a text in one line",
    START_PATTERN: 'a time of day from "00:00" to "23:59"',
    END_PATTERN: 'a time of day from "00:00" to "24:00"',
    TIMESTAMP_PATTERN: "a time with its zone such as 2026-11-27T06:00:00Z",
}

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=63)]
DnsLabel = Annotated[str, StringConstraints(pattern=DNS_LABEL_PATTERN, max_length=63)]
DnsName = Annotated[str, StringConstraints(pattern=DNS_NAME_PATTERN, max_length=253)]
Text = Annotated[str, StringConstraints(pattern=TEXT_PATTERN, max_length=253)]
# Lengths bound what the CEL rules of the CRDs may cost; the patterns alone would not.
Timestamp = Annotated[str, StringConstraints(pattern=TIMESTAMP_PATTERN, max_length=40)]
Replicas = Annotated[int, Field(ge=0, le=MAX_REPLICAS)]
UsdPerHour = Annotated[float, Field(gt=0)]
Day = Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


class _Model(BaseModel):
    """camelCase in YAML; unknown fields, other types, NaN and infinity are refused."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", alias_generator=to_camel, allow_inf_nan=False
    )


class Objective(_Model):
    """What a request must meet."""

    metric: Literal["ttft", "tpot", "e2e"] = Field(
        description="ttft: arrival to first token, waiting included; tpot: seconds per output token "
        "after the first; e2e: arrival to last token"
    )
    target_seconds: float = Field(
        gt=0,
        le=MAX_LATENCY_TARGET_SECONDS,
        description="seconds; a tpot of more than 60 is refused as milliseconds",
    )


class Slo(_Model):
    """The service-level objective."""

    objectives: list[Objective] = Field(
        min_length=1, max_length=3, description="each metric at most once; a request must meet all"
    )
    attainment: float = Field(
        default=0.99, gt=0, lt=1, description="share of requests that must meet every objective"
    )
    window_hours: float = Field(
        default=24.0, gt=0, le=720, description="hours over which the share is counted, sliding"
    )


class TargetRefSpec(_Model):
    """The workload whose scale subresource is written."""

    api_version: str = Field(
        pattern=API_VERSION_PATTERN, max_length=317, description="of the workload"
    )
    kind: str = Field(
        pattern=KIND_PATTERN,
        max_length=63,
        description="of the workload; it has a scale subresource",
    )
    name: DnsName = Field(description="of the workload, in the policy's namespace")


class VariantSpec(_Model):
    """One way to serve the model."""

    name: Name = Field(description="unique in the policy; telemetry and decisions carry it")
    target_ref: TargetRefSpec = Field(description="what is scaled; no other variant may name it")
    role: Literal["Both", "Prefill", "Decode"] = Field(
        default="Both", description="phase of a request; Prefill needs a Decode or Both beside it"
    )
    accelerator_class: Name = Field(description="a class of some AcceleratorPool")
    accelerators_per_replica: int = Field(
        default=1, ge=1, le=4096, description="accelerators that one replica holds"
    )
    min_replicas: Replicas = Field(default=1, description="never fewer")
    max_replicas: int = Field(ge=1, le=MAX_REPLICAS, description="never more; at least minReplicas")
    profile_ref: Text | None = Field(
        default=None, description="latency profile to start from while there is no history"
    )


class Budget(_Model):
    """A limit on spending."""

    usd_per_hour: UsdPerHour = Field(description="US dollars per hour, all accelerators together")


class ScalingPolicyLimit(_Model):
    """A speed limit."""

    type: Literal["Pods", "Percent"] = Field(
        description="Pods: replicas; Percent: of the replicas at the period's start"
    )
    value: float = Field(gt=0, description="replicas or percent, per period")
    period_seconds: int = Field(ge=1, le=1800, description="seconds")


class ScaleUpSpec(_Model):
    """How fast replicas may be added."""

    stabilization_window_seconds: float = Field(
        default=0.0, ge=0, le=3600, description="seconds a demand must last before it is followed"
    )
    policies: list[ScalingPolicyLimit] = Field(
        default=[], max_length=16, description="the most generous counts; none: no limit"
    )


class ScaleDownSpec(_Model):
    """How fast replicas may be given up."""

    stabilization_window_seconds: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="seconds; the highest count wanted in it is kept. One replica or a tenth less waits five "
        "minutes at least, unless it is 0 or nothing is forecast",
    )
    policies: list[ScalingPolicyLimit] = Field(
        default=[], max_length=16, description="the most generous counts; none: no limit"
    )


class BehaviorSpec(_Model):
    """How decisions become effects."""

    mode: Literal["Recommend", "Scale", "Keda"] = Field(
        default="Recommend",
        description="Recommend: status only; Scale: write the scale subresource; Keda: KEDA asks",
    )
    scale_up: ScaleUpSpec = Field(default=ScaleUpSpec(), description="limits on adding replicas")
    scale_down: ScaleDownSpec = Field(
        default=ScaleDownSpec(), description="limits on giving replicas up"
    )
    scale_to_zero: bool = Field(
        default=False, description="may the whole service go to zero; minReplicas must allow it too"
    )
    freeze: bool = Field(default=False, description="keep every count as it is")


class ScheduleWindowSpec(_Model):
    """A named window, weekly (days, start, end) or once (from, until)."""

    name: Name = Field(description="unique in the policy; the decision's reason names it")
    time_zone: Text = Field(default="UTC", description="IANA zone in which start and end are read")
    days: list[Day] | None = Field(
        default=None, min_length=1, max_length=7, description="days on which it starts; none: daily"
    )
    start: str | None = Field(
        default=None,
        pattern=START_PATTERN,
        max_length=5,
        description="time of day; with end, in quotes",
    )
    end: str | None = Field(
        default=None,
        pattern=END_PATTERN,
        max_length=5,
        description="time of day; before start: the next day",
    )
    from_: Timestamp | None = Field(
        default=None, alias="from", description="start of a window that happens once; with until"
    )
    until: Timestamp | None = Field(default=None, description="its end; after from")
    min_replicas: Replicas | None = Field(
        default=None, description="floor of the service's replicas inside the window"
    )
    load_multiplier: float | None = Field(
        default=None, gt=0, le=1000, description="times the forecast load inside the window"
    )


class FallbackSpec(_Model):
    """What happens when telemetry stays away."""

    after_seconds: float = Field(
        default=600.0, ge=0, le=86_400, description="seconds without telemetry before it applies"
    )
    replicas: Replicas | None = Field(
        default=None, description="replicas of the service then; none: keep what runs"
    )


class ScalingPolicySpec(_Model):
    """One service: what it must hold, where it may run, how it may move."""

    model: Text = Field(description="model name that vLLM serves (its label model_name)")
    telemetry: dict[str, Any] | None = Field(
        default=None, description="free form for now; without it the model is found by its name"
    )
    slo: Slo = Field(description="what requests must meet")
    priority: int = Field(
        default=0, ge=0, le=1000, description="higher keeps its replicas when not all fits"
    )
    variants: list[VariantSpec] = Field(
        min_length=1, max_length=16, description="the workloads that serve the model"
    )
    budget: Budget | None = Field(default=None, description="limit on the service's spending")
    behavior: BehaviorSpec = Field(
        default=BehaviorSpec(), description="how decisions become effects"
    )
    schedule: list[ScheduleWindowSpec] = Field(
        default=[], max_length=64, description="windows known ahead"
    )
    fallback: FallbackSpec = Field(
        default=FallbackSpec(), description="what happens when telemetry stays away"
    )
    max_spot_ratio: float = Field(
        default=MAX_SPOT_RATIO,
        ge=0,
        le=1,
        description="share of the need that may rest on spot, where other capacity is to be had",
    )


class Quota(_Model):
    """How many accelerators there are: exactly one of the three."""

    count: int | None = Field(default=None, ge=0, description="accelerators, in all")
    from_nodes: Literal[True] | None = Field(
        default=None, description="what the nodes selected by nodeSelector can allocate"
    )
    kueue_cluster_queue: DnsName | None = Field(
        default=None, description="nominal quota of this Kueue ClusterQueue"
    )


class WarmCapacitySpec(_Model):
    """Placeholder pods of low priority that hold accelerators until replicas need them."""

    max_accelerators: int = Field(
        ge=1, le=100_000, description="never hold more; the plan decides how many up to it"
    )
    priority_class_name: DnsName = Field(
        default="foreserve-placeholder",
        description="PriorityClass of the placeholders, below that of the replicas",
    )


class AcceleratorClassSpec(_Model):
    """A kind of accelerator, at a price."""

    name: Name = Field(description="unique over all pools; variants name it")
    resource_name: str = Field(
        default="nvidia.com/gpu",
        pattern=RESOURCE_PATTERN,
        max_length=316,
        description="extended resource, MIG profile or DRA device class",
    )
    node_selector: dict[str, str] = Field(
        default={}, description="labels of the nodes that hold it"
    )
    capacity_type: Literal["OnDemand", "Spot", "Reserved"] = Field(
        default="OnDemand", description="how it is bought"
    )
    interruptions_per_hour: float | None = Field(
        default=None,
        ge=0,
        le=MAX_INTERRUPTIONS_PER_HOUR,
        description="times an hour that a replica which serves is taken back; "
        f"none: {SPOT_INTERRUPTIONS_PER_HOUR:g} of Spot, 0 of others",
    )
    usd_per_hour: UsdPerHour = Field(description="US dollars per hour of one accelerator")
    quota: Quota | None = Field(
        default=None, description="how many there are; none: no known limit"
    )
    warm_capacity: WarmCapacitySpec | None = Field(
        default=None, description="placeholder pods, so that nodes arrive before replicas"
    )


class AcceleratorPoolSpec(_Model):
    """Accelerator classes with a common budget and quotas by namespace."""

    classes: list[AcceleratorClassSpec] = Field(
        min_length=1, max_length=256, description="the kinds of accelerators in the pool"
    )
    budget: Budget | None = Field(default=None, description="limit on the pool's spending")
    namespace_quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default={}, description="accelerators of this pool by namespace; not named: no limit"
    )
    excluded: list[DnsName] = Field(
        default=[],
        max_length=10_000,
        description="nodes that are not counted (unhealthy, kept back)",
    )
    telemetry: dict[str, Any] | None = Field(
        default=None, description="free form for now; without it quotas and nodes say what there is"
    )


class PolicyMetadata(_Model):
    """Standard metadata; what is not listed here is accepted and ignored."""

    name: DnsName = Field(description="namespace/name is the service's identity everywhere")
    namespace: DnsLabel = Field(default="default", description="where the workloads live")


class PoolMetadata(_Model):
    """Standard metadata of a cluster-wide resource."""

    name: DnsName = Field(description="of the pool, unique")


class ScalingPolicy(_Model):
    """A namespaced resource: how one service is scaled."""

    api_version: Literal["foreserve.dev/v1alpha1"]
    kind: Literal["ScalingPolicy"]
    metadata: PolicyMetadata
    spec: ScalingPolicySpec

    @property
    def service(self) -> str:
        """The service's identity, namespace/name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class AcceleratorPool(_Model):
    """A cluster-wide resource: which accelerators can be had, at which price."""

    api_version: Literal["foreserve.dev/v1alpha1"]
    kind: Literal["AcceleratorPool"]
    metadata: PoolMetadata
    spec: AcceleratorPoolSpec


RESOURCES: dict[str, type[ScalingPolicy] | type[AcceleratorPool]] = {
    "ScalingPolicy": ScalingPolicy,
    "AcceleratorPool": AcceleratorPool,
}
STANDARD_METADATA = frozenset(
    {
        "annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp",
        "finalizers", "generateName", "generation", "labels", "managedFields", "namespace",
        "ownerReferences", "resourceVersion", "selfLink", "uid",
    }
)  # fmt: skip

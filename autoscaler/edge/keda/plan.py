"""One policy as far as the scaler needs it, from the object that the API server has. Pure.

What the status does not say, or says in a way that makes no sense (it may be of another version of the
operator), is not known. A spec that makes no sense is an error of that one policy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoscaler.core.hpa import TargetType
from autoscaler.core.types import Role
from autoscaler.edge.keda.hpa_facts import HpaFacts
from autoscaler.policy.schema import MAX_REPLICAS
from autoscaler.policy.status import MAX_REPLICA_CONCURRENCY

Json = Mapping[str, Any]
SERVED_MODE = "Keda"
DEFAULT_FALLBACK_AFTER_SECONDS = 600.0  # as in policy.schema


class PlanError(ValueError):
    """A policy that cannot be understood, in one sentence."""


@dataclass(frozen=True, slots=True)
class VariantPlan:
    """One variant as the policy bounds it and its status last told of it; None: not known.

    `current` is what the workload asks for, `existing` what its status counts, `ready` what serves;
    `concurrency`: requests that a replica holds within the SLO.
    """

    name: str
    role: Role
    min_replicas: int
    max_replicas: int
    desired: int | None
    current: int | None
    existing: int | None = None
    ready: int | None = None
    hpa: HpaFacts | None = None
    concurrency: float | None = None

    @property
    def standing(self) -> int | None:
        """The larger of what was decided and what the workload asked for: nothing that serves is less."""
        known = [n for n in (self.desired, self.current) if n is not None]
        return max(known, default=None)


@dataclass(frozen=True, slots=True)
class Plan:
    """One policy's last decision. `decided` is its time as the status has it, "" if there is none."""

    service: str
    model: str
    mode: str
    is_paused: bool
    variants: tuple[VariantPlan, ...]
    fallback_after_seconds: float
    fallback_replicas: int | None
    decided: str

    @property
    def namespace(self) -> str:
        """The service's namespace."""
        return self.service.partition("/")[0]

    @property
    def is_served(self) -> bool:
        """Whether counts are told of it: it is in mode Keda, and not paused."""
        return self.mode == SERVED_MODE and not self.is_paused

    @property
    def at_zero(self) -> bool:
        """Whether KEDA is to have the whole service at zero."""
        return self.is_served and all(v.desired == 0 for v in self.variants)


def service_of(policy: Json) -> str:
    """Return the service's identity, namespace/name."""
    metadata = _part(policy, "metadata")
    return f"{metadata.get('namespace')}/{metadata.get('name')}"


def plan_of(policy: Json) -> Plan:
    """Return what is needed of a ScalingPolicy as the API server has it; PlanError."""
    try:
        return _plan(policy)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise PlanError(
            f"{service_of(policy)}: the policy cannot be understood: {error}"
        ) from error


def _plan(policy: Json) -> Plan:
    spec, status = _part(policy, "spec"), _part(policy, "status")
    behavior, fallback = _part(spec, "behavior"), _part(spec, "fallback")
    after = float(fallback.get("afterSeconds", DEFAULT_FALLBACK_AFTER_SECONDS))
    told = _told(status.get("variants"))
    return Plan(
        service=service_of(policy),
        model=str(spec.get("model", "")),
        mode=str(behavior.get("mode", "Recommend")),
        is_paused=status.get("mode") == "Paused",
        variants=tuple(
            _variant(v, told.get(str(v.get("name")), {})) for v in spec.get("variants", ())
        ),
        fallback_after_seconds=max(after, 0.0),
        fallback_replicas=_count(fallback.get("replicas")),
        decided=str(status.get("lastDecisionTime") or ""),
    )


def _told(variants: object) -> dict[str, Json]:
    """Return what a status says of each variant."""
    each = variants if isinstance(variants, list) else ()
    return {str(v.get("name")): v for v in each if isinstance(v, Mapping)}


def _variant(spec: Json, told: Json) -> VariantPlan:
    delivery = _part(told, "delivery")
    return VariantPlan(
        name=str(spec.get("name")),
        role=Role(spec.get("role", "Both")),
        min_replicas=_bound(spec.get("minReplicas", 1)),
        max_replicas=_bound(spec.get("maxReplicas", MAX_REPLICAS)),
        desired=_count(told.get("desired")),
        current=_count(told.get("current")),
        existing=_count(delivery.get("existing")),
        ready=_count(told.get("ready")),
        hpa=_hpa(delivery),
        concurrency=_concurrency(told.get("replicaConcurrency")),
    )


def _hpa(delivery: Json) -> HpaFacts | None:
    """Return the HPA as the operator saw it; None if it told of none, or of one that cannot be."""
    try:
        facts = HpaFacts(
            target_type=TargetType(delivery["metricType"]),
            target=float(delivery["target"]),
            min_replicas=int(delivery["minReplicas"]),
            max_replicas=int(delivery["maxReplicas"]),
            tolerance_up=float(delivery["toleranceUp"]),
            tolerance_down=float(delivery["toleranceDown"]),
        )
        facts.view(0, 0, 0)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return facts


def _part(value: Json, key: str) -> Json:
    part = value.get(key)
    return part if isinstance(part, Mapping) else {}


def _concurrency(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 1 <= value <= MAX_REPLICA_CONCURRENCY else None


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None


def _bound(value: Any) -> int:  # noqa: ANN401 - a field of parsed JSON
    return min(max(int(value), 0), MAX_REPLICAS)

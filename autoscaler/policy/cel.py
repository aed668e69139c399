"""The rules of `checks` as the API server can apply them: CEL, with the sentence it answers.

Only rules inside one object: what spans objects (two writers of one workload, a class that no pool
has) is found by the operator. Uniqueness of names needs no rule: the lists are maps by that name.
Every list and text that a rule walks is bounded in `schema`: the API server refuses rules that could
cost too much. A rule whose evaluation fails refuses too, and its message is told with the error.
"""

from dataclasses import dataclass
from typing import Any, Literal

from autoscaler.policy.checks import MAX_TPOT_TARGET_SECONDS

_SUM = "self.variants.map(v, v.maxReplicas).sum()"
_TOO_MANY = f"!has(w.minReplicas) || w.minReplicas <= {_SUM}"
_GROUP = "(%s.targetRef.apiVersion.contains('/') ? %s.targetRef.apiVersion.split('/')[0] : '')"
_SAME_TARGET = (
    "w.targetRef.kind == v.targetRef.kind && w.targetRef.name == v.targetRef.name && "
    f"{_GROUP % ('w', 'w')} == {_GROUP % ('v', 'v')}"
)
_ONCE = "(has(self.from) || has(self.until))"
_WEEKLY = "(has(self.days) || has(self.start) || has(self.end))"
_KINDS = "required: either from and until, or days with start and end"
_QUOTAS = "[has(self.count), has(self.fromNodes), has(self.kueueClusterQueue)]"


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition that an object must meet.

    `message` names the field and what is allowed; `expression`, where given, is CEL for the same
    sentence with its numbers. `field` is the path that the answer names, relative to the object.
    """

    rule: str
    message: str
    field: str = ""
    expression: str = ""
    reason: Literal["FieldValueInvalid", "FieldValueRequired"] = "FieldValueInvalid"

    def manifest(self) -> dict[str, Any]:
        """Return the entry of x-kubernetes-validations."""
        out = {"rule": self.rule, "message": self.message, "reason": self.reason}
        if self.expression:
            out["messageExpression"] = self.expression
        if self.field:
            out["fieldPath"] = self.field
        return out


def _beside(role: str, other: str) -> Rule:
    return Rule(
        f"!self.variants.exists(v, v.role == '{role}') || "
        f"self.variants.exists(v, v.role in ['{other}', 'Both'])",
        f"role {role} is not allowed alone; allowed: {role} beside a variant of role {other} or Both",
        ".variants",
    )


def _together(one: str, other: str) -> Rule:
    return Rule(
        f"has(self.{one}) == has(self.{other})",
        f"{one} and {other} belong together; required: both or neither",
        reason="FieldValueRequired",
    )


RULES: dict[str, tuple[Rule, ...]] = {
    "Objective": (
        Rule(
            f"self.metric != 'tpot' || self.targetSeconds <= {MAX_TPOT_TARGET_SECONDS}",
            f"targetSeconds of tpot; allowed: up to {MAX_TPOT_TARGET_SECONDS:g} seconds a token "
            "(is it in milliseconds?)",
            ".targetSeconds",
        ),
    ),
    "VariantSpec": (
        Rule(
            "self.maxReplicas >= self.minReplicas",
            "maxReplicas; allowed: at least minReplicas",
            ".maxReplicas",
            "'maxReplicas %d is not allowed; allowed: at least minReplicas, %d'"
            ".format([self.maxReplicas, self.minReplicas])",
        ),
    ),
    "ScheduleWindowSpec": (
        Rule(
            "has(self.minReplicas) || has(self.loadMultiplier)",
            "says nothing; required: minReplicas, loadMultiplier or both",
            reason="FieldValueRequired",
        ),
        Rule(f"{_ONCE} || {_WEEKLY}", f"has no time; {_KINDS}", reason="FieldValueRequired"),
        Rule(f"!({_ONCE} && {_WEEKLY})", f"has both kinds of window; {_KINDS}"),
        _together("from", "until"),
        Rule(
            "!has(self.from) || !has(self.until) || self.from < self.until",
            "until; allowed: a time after from",
            ".until",
        ),
        _together("start", "end"),
        Rule(
            "!has(self.start) || !has(self.end) || self.start != self.end",
            "end; allowed: another time than start (leave both out for whole days)",
            ".end",
        ),
        Rule(
            # An unknown zone makes getHours fail (kube-apiserver carries the zone database with it).
            # Offsets and Local are known to CEL, not to IANA.
            "!has(self.timeZone) || (!self.timeZone.contains(':') && self.timeZone != 'Local' && "
            "timestamp('2026-01-01T00:00:00Z').getHours(self.timeZone) >= 0)",
            "timeZone; allowed: an IANA time zone such as Europe/Berlin",
            ".timeZone",
        ),
    ),
    "ScalingPolicySpec": (
        _beside("Prefill", "Decode"),
        _beside("Decode", "Prefill"),
        Rule(
            f"self.variants.all(v, self.variants.exists_one(w, {_SAME_TARGET}))",
            "targetRef of two variants is the same workload; allowed: one writer per workload",
            ".variants",
        ),
        Rule(
            f"!has(self.schedule) || self.schedule.all(w, {_TOO_MANY})",
            "minReplicas of a window; allowed: at most the sum of the variants' maxReplicas",
            ".schedule",
            f"'minReplicas of window %s is not allowed; allowed: at most %d, the sum of the variants\\' "
            f"maxReplicas'.format([self.schedule.filter(w, !({_TOO_MANY}))[0].name, {_SUM}])",
        ),
        Rule(
            f"!has(self.fallback) || !has(self.fallback.replicas) || self.fallback.replicas <= {_SUM}",
            "fallback.replicas; allowed: at most the sum of the variants' maxReplicas",
            ".fallback.replicas",
            "'fallback.replicas %d is not allowed; allowed: at most %d, the sum of the variants\\' "
            f"maxReplicas'.format([self.fallback.replicas, {_SUM}])",
        ),
    ),
    "Quota": (
        Rule(
            f"{_QUOTAS}.exists_one(given, given)",
            "quota; required: exactly one of count, fromNodes, kueueClusterQueue",
        ),
    ),
    "AcceleratorClassSpec": (
        Rule(
            "!has(self.quota) || !has(self.quota.fromNodes) || "
            "(has(self.nodeSelector) && size(self.nodeSelector) > 0)",
            "nodeSelector; required: a mapping of node labels, where quota is fromNodes",
            ".nodeSelector",
            reason="FieldValueRequired",
        ),
        Rule(
            "!has(self.interruptionsPerHour) || self.interruptionsPerHour == 0.0 || "
            "self.capacityType == 'Spot'",
            "interruptionsPerHour; allowed: 0, or none, where capacityType is not Spot",
            ".interruptionsPerHour",
        ),
    ),
}

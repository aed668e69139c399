"""What the planner is asked: per service and variant, how much is needed and what is allowed.

Covering: a variant that alone would need `required` replicas covers 1 / required of the service with
each. A service is covered when these shares add up to 1, for each phase of a request (a variant in
the Both role serves either phase).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autoscaler.core.types import Reason, Role
from models.phases import phases_of

COVER_SLACK = 1e-9  # float noise in sums of shares
# Prices of resting on spot beyond the cap, in those of the replicas that would end it. To end an excess x
# takes at most x * future + 1 of them. As little as decides: load unserved costs thirty times it (milp).
EXCESS_AT_ALL = 1.1
EXCESS_SHARE = 1.1


@dataclass(frozen=True, slots=True)
class VariantNeed:
    """One variant's part in its service's plan. Replicas alone: if it had to serve everything.

    `future` at the lead time, `hold` the most up to the lead time plus a restart, `present` the most
    before anything ordered now could be ready; each at least 1.
    """

    name: str
    role: Role
    accelerator_class: str
    accelerators: int  # per replica
    usd_per_hour: float  # per replica
    start_usd: float  # what a start costs before it serves
    current: int  # ready + starting
    ready: int
    lower: int
    upper: int
    future: int
    hold: int
    present: int
    spot: bool = False  # may be taken back, and then together with the other replicas on spot
    restart_usd_per_hour: float = (
        0.0  # of one replica: what its expected interruptions cost in starts
    )


@dataclass(frozen=True, slots=True)
class ServiceNeed:
    """One service's needs. A higher priority is served first when not everything fits."""

    service: str
    namespace: str
    priority: int
    budget_usd_per_hour: float
    variants: tuple[VariantNeed, ...]
    idle: bool = False  # nothing to serve and allowed to have no replica
    max_spot_ratio: float = (
        1.0  # of the future requirement, that may rest on spot; 1 where none can
    )
    unsettled: bool = False  # its counts changed of late: what it runs is given up less easily
    _phases: tuple[tuple[int, ...], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Work out the phases, which every step of planning asks for."""
        phases = () if self.idle else phases_of([v.role for v in self.variants])
        object.__setattr__(self, "_phases", phases)

    def phases(self) -> tuple[tuple[int, ...], ...]:
        """Index sets of the variants that must together cover each phase of a request."""
        return self._phases

    def hold_floor(self, phase: tuple[int, ...], *, starting: bool) -> float:
        """Share of the coming load that replicas which exist must go on covering."""
        have = 0.0
        for i in phase:
            v = self.variants[i]
            have += v.current / v.hold if starting else v.ready / v.present
        return min(1.0, have)

    def kinds(self, phase: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the variants of a phase that stay, and those on spot."""
        stays = tuple(i for i in phase if not self.variants[i].spot)
        return stays, tuple(i for i in phase if self.variants[i].spot)

    def stay_floor(self, phase: tuple[int, ...]) -> float:
        """Share of the future requirement that capacity which stays must cover, as far as it can.

        0 where there is nothing to choose between: on spot alone, the cap leaves a service as it is.
        """
        stays, spots = self.kinds(phase)
        if not spots:
            return 0.0
        most = sum(self.variants[i].upper / self.variants[i].future for i in stays)
        return max(0.0, min(1.0 - self.max_spot_ratio, most))

    def highest_stay_floor(self) -> float:
        """Return the stay_floor of the phase that has the highest; 0: the cap asks for nothing."""
        if self.max_spot_ratio >= 1:
            return 0.0
        return max([0.0, *(self.stay_floor(p) for p in self.phases())])

    def spot_excess(self, lasting: tuple[int, ...]) -> float:
        """Share of the future requirement that rests on spot beyond the cap; of the worst phase."""
        excess = 0.0
        if self.max_spot_ratio >= 1:
            return excess  # nearly always, and this is asked of every plan that is tried
        for phase in self.phases():
            floor = self.stay_floor(phase)
            if floor > 0:
                stays, _ = self.kinds(phase)
                covered = sum(lasting[i] / self.variants[i].future for i in stays)
                excess = max(excess, floor - covered)
        return excess if excess > COVER_SLACK else 0.0

    def excess_prices_usd(self) -> tuple[float, float]:
        """Return what any excess costs, and what an excess of 1 costs beside that.

        Together more than the replicas that would end it: to be over the cap never pays, only lack excuses.
        """
        stays = [v for v in self.variants if not v.spot]
        each = [v.usd_per_hour + v.restart_usd_per_hour + v.start_usd for v in stays]
        alone = [usd * v.future for usd, v in zip(each, stays, strict=True)]
        return EXCESS_AT_ALL * max(each, default=0.0), EXCESS_SHARE * max(alone, default=0.0)

    def covered(self, replicas: tuple[int, ...]) -> float:
        """Return the least covered phase's share of the future requirement, at most 1."""
        least, variants = 1.0, self.variants
        for phase in self._phases:
            least = min(least, sum([replicas[i] / variants[i].future for i in phase]))
        return least

    def usd_per_hour(self, replicas: tuple[int, ...]) -> float:
        """Return what these replicas cost."""
        return sum(n * v.usd_per_hour for n, v in zip(replicas, self.variants, strict=True))

    def objective_usd(self, lasting: tuple[int, ...], replicas: tuple[int, ...]) -> float:
        """Dollars of the next hour: what lasts, its starts, and what is kept until they serve.

        A replica kept beyond the lasting plan is paid for as long as a start takes. What rests on spot
        beyond the cap has a price, too.
        """
        total = self.usd_per_hour(lasting)
        for m, n, v in zip(lasting, replicas, self.variants, strict=True):
            total += (max(0, m - v.current) + n - m) * v.start_usd + m * v.restart_usd_per_hour
        if excess := self.spot_excess(lasting):
            at_all, share = self.excess_prices_usd()
            total += at_all + share * excess
        return total

    def keeps(self, replicas: tuple[int, ...]) -> bool:
        """Whether nothing is given up that is needed before its replacement serves."""
        for phase in self.phases():
            exists = serves = kept = kept_ready = 0.0
            for i in phase:
                v, n = self.variants[i], replicas[i]
                exists += v.current / v.hold
                serves += v.ready / v.present
                kept += min(n, v.current) / v.hold
                kept_ready += min(n, v.ready) / v.present
            if kept < min(1.0, exists) - COVER_SLACK:
                return False
            if kept_ready < min(1.0, serves) - COVER_SLACK:
                return False
        return True

    def satisfied(self, replicas: tuple[int, ...]) -> bool:
        """Whether the future is covered and nothing needed meanwhile is given up."""
        return self.covered(replicas) >= 1 - COVER_SLACK and self.keeps(replicas)


@dataclass(frozen=True, slots=True)
class Limits:
    """What all services together may use. Absent: unlimited."""

    class_accelerators: Mapping[str, int]  # class -> accelerators
    class_pool: Mapping[str, str]  # class -> pool
    pool_budget_usd_per_hour: Mapping[str, float]
    namespace_accelerators: Mapping[tuple[str, str], int]  # (pool, namespace) -> accelerators


@dataclass(frozen=True, slots=True)
class Planned:
    """A service's part of the plan."""

    replicas: tuple[int, ...]
    shortfall_ratio: float
    limited_by: Reason | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the planner answers, and how sure it is that nothing is cheaper."""

    services: Mapping[str, Planned]
    status: str  # separable | optimal | incumbent | priced | greedy
    gap_ratio: float = (
        0.0  # of its cost, that a cheaper plan could save at most; NaN: no bound is known
    )


class Usage:
    """Running totals against the limits; the only mutable thing in planning, local to one call."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.accelerators: dict[str, int] = {}
        self.namespace: dict[tuple[str, str], int] = {}
        self.pool_usd: dict[str, float] = {}

    def add(self, need: ServiceNeed, variant: VariantNeed, replicas: int) -> None:
        """Count `replicas` of a variant."""
        used = replicas * variant.accelerators
        name = variant.accelerator_class
        self.accelerators[name] = self.accelerators.get(name, 0) + used
        pool = self.limits.class_pool.get(name)
        if pool is not None:
            key = (pool, need.namespace)
            self.namespace[key] = self.namespace.get(key, 0) + used
            self.pool_usd[pool] = self.pool_usd.get(pool, 0.0) + replicas * variant.usd_per_hour

    def blocked(self, need: ServiceNeed, variant: VariantNeed) -> Reason | None:
        """Say what forbids one more replica of this variant, if anything does."""
        name = variant.accelerator_class
        limit = self.limits.class_accelerators.get(name)
        if limit is not None and self.accelerators.get(name, 0) + variant.accelerators > limit:
            return Reason.QUOTA
        pool = self.limits.class_pool.get(name)
        if pool is None:
            return None
        key = (pool, need.namespace)
        quota = self.limits.namespace_accelerators.get(key)
        if quota is not None and self.namespace.get(key, 0) + variant.accelerators > quota:
            return Reason.QUOTA
        budget = self.limits.pool_budget_usd_per_hour.get(pool, math.inf)
        if self.pool_usd.get(pool, 0.0) + variant.usd_per_hour > budget * (1 + COVER_SLACK):
            return Reason.BUDGET
        return None

    def fits(self) -> bool:
        """Whether nothing exceeds its limit."""
        limits = self.limits
        return (
            all(self.accelerators.get(c, 0) <= n for c, n in limits.class_accelerators.items())
            and all(self.namespace.get(k, 0) <= n for k, n in limits.namespace_accelerators.items())
            and all(
                self.pool_usd.get(p, 0.0) <= usd * (1 + COVER_SLACK)
                for p, usd in limits.pool_budget_usd_per_hour.items()
            )
        )


def usage_of(
    needs: tuple[ServiceNeed, ...], replicas: Mapping[str, tuple[int, ...]], limits: Limits
) -> Usage:
    """Return the totals of a whole plan."""
    usage = Usage(limits)
    for need in needs:
        for variant, n in zip(need.variants, replicas[need.service], strict=True):
            usage.add(need, variant, n)
    return usage


def why_short(need: ServiceNeed, replicas: tuple[int, ...], usage: Usage) -> Reason | None:
    """Return what keeps a service below its requirement or its least counts; None if nothing does."""
    enough = all(n >= v.lower for n, v in zip(replicas, need.variants, strict=True))
    if enough and need.covered(replicas) >= 1 - COVER_SLACK:
        return None
    reasons: list[Reason] = []
    spent = need.usd_per_hour(replicas)
    for variant, n in zip(need.variants, replicas, strict=True):
        if n >= variant.upper:
            reasons.append(Reason.MAX)
        elif spent + variant.usd_per_hour > need.budget_usd_per_hour * (1 + COVER_SLACK):
            reasons.append(Reason.BUDGET)
        elif (blocked := usage.blocked(need, variant)) is not None:
            reasons.append(blocked)
        # else: more of it would not help, another phase of the request is short
    for reason in (Reason.QUOTA, Reason.BUDGET, Reason.MAX):  # what an operator can change first
        if reason in reasons:
            return reason
    return Reason.QUOTA  # nothing forbids one more, but together with the others it does not fit


def in_mix(counts: Sequence[tuple[int, int]], alone: Sequence[int]) -> int:
    """Return a phase's need in replicas of a mix of (index, count).

    `alone` is the need per index as if its variant were the only one.
    """
    total, covered = 0, 0.0
    for index, count in counts:
        total += count
        covered += count / max(1, alone[index])
    if covered > 0:
        return math.ceil(total / covered - COVER_SLACK)
    return min([alone[index] for index, _ in counts])

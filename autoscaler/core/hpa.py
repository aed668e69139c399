"""The metric value that makes a HorizontalPodAutoscaler land on a planned replica count.

Pure arithmetic on what is known of the HPA. Sources: Kubernetes 1.36, pkg/controller/podautoscaler
(`replica_calculator.go`: GetExternalPerPodMetricReplicas, GetExternalMetricReplicas; `horizontal.go`:
reconcileAutoscaler, normalizeDesiredReplicas[WithBehaviors], calculateScaleUp/DownLimit...), and KEDA 2.10 to
2.20, pkg/scalers (`scaler.go`: GenerateMetricInMili; `external_scaler.go`). With m the metric and t the
target, both in whole thousandths:

- AverageValue: usage ratio m / (t x status replicas); inside the band [1 - down, 1 + up] the HPA recommends
  the *status* replicas, outside ceil(m / t). Pods need not be ready.
- Value: usage ratio m / t; inside the band it recommends the *spec* replicas, outside
  ceil(ratio x ready pods).

Then stabilization, rate limits and min/max apply. A count n is recommended for every m in ((n - 1) t, n t]:
the top escapes the band upwards, the lower part escapes it downwards. The rule of choice: the smallest
count >= planned that the HPA can reach; and never a metric that asks for less than planned unless
minReplicas itself stops the fall, so that a view that is out of date cannot take too much away.
docs/keda.md explains it with numbers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

MAX_REPLICAS = 100_000  # what the arithmetic below is checked for
MAX_MILLI = 10**12  # thousandths up to here survive the double, KEDA's rounding and HPA's division
FACTOR_LIMIT, MINIMUM_LIMIT = 2, 4  # of an HPA without behavior: doubling, or 4 (horizontal.go)


class TargetType(StrEnum):
    """`metricType` of the trigger: KEDA's default is AverageValue."""

    AVERAGE_VALUE = "AverageValue"
    VALUE = "Value"


class SelectPolicy(StrEnum):
    """Which of several policies counts: the greatest change, the smallest, or no scaling at all."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


class DeliveryReason(StrEnum):
    """Why the HPA lands where it lands."""

    EXACT = "Exact"
    TOLERANCE_LIMITED = "ToleranceLimited"
    BEHAVIOR_LIMITED = "BehaviorLimited"
    STABILIZATION_PENDING = "StabilizationPending"
    BOUNDED_BY_MIN_MAX = "BoundedByMinMax"
    NO_READY_PODS = "NoReadyPods"  # target type Value multiplies by the ready pods
    PRECISION_LIMITED = "PrecisionLimited"  # thousandths are too coarse for this target
    SCALED_TO_ZERO = "ScaledToZero"  # the HPA rests at 0 replicas: only KEDA wakes the workload


@dataclass(frozen=True, slots=True)
class HpaPolicy:
    """At most `value` pods (or percent of the count at the period's start) within `period_seconds`."""

    percent: bool
    value: int
    period_seconds: float


@dataclass(frozen=True, slots=True)
class HpaRules:
    """One direction of `behavior`; the API server fills in what was left out."""

    policies: tuple[HpaPolicy, ...]
    stabilization_window_seconds: float
    select: SelectPolicy = SelectPolicy.MAX


DEFAULT_SCALE_UP = HpaRules((HpaPolicy(False, 4, 15.0), HpaPolicy(True, 100, 15.0)), 0.0)
DEFAULT_SCALE_DOWN = HpaRules((HpaPolicy(True, 100, 15.0),), 300.0)  # 300: the controller's flag


@dataclass(frozen=True, slots=True)
class HpaView:
    """What is known of an HPA and its workload.

    Ages are seconds before the HPA's next look. `recommendations` are (age, count) as the HPA computed them
    before it stabilized; None: unknown, then the current count is taken for a fresh one, as the HPA itself
    does after a restart. `events` are (age, change) of past scalings, + up and - down. `behavior` is
    (scaleUp, scaleDown), None where the HPA has none; tolerances are the HPA's own or the cluster's flag.
    """

    spec_replicas: int
    status_replicas: int
    ready_pods: int
    min_replicas: int  # 1 where KEDA's minReplicaCount is 0
    max_replicas: int
    target_type: TargetType = TargetType.AVERAGE_VALUE
    target: float = 1.0
    tolerance_up: float = 0.1
    tolerance_down: float = 0.1
    behavior: tuple[HpaRules, HpaRules] | None = None
    recommendations: tuple[tuple[float, int], ...] | None = None
    events: tuple[tuple[float, int], ...] = ()

    def __post_init__(self) -> None:
        counts = (self.spec_replicas, self.status_replicas, self.ready_pods, self.min_replicas)
        if min(counts) < 0 or not self.min_replicas <= self.max_replicas <= MAX_REPLICAS:
            raise ValueError(
                f"HPA view: counts must be >= 0 and min <= max <= {MAX_REPLICAS}, got {self}"
            )
        if not (0 <= self.tolerance_up <= 1000 and 0 <= self.tolerance_down <= 1000):  # NaN neither
            raise ValueError(
                "HPA view: tolerances must be in [0, 1000],"
                f" got {self.tolerance_up}, {self.tolerance_down}"
            )
        if not 0.001 <= self.target <= MAX_MILLI / 1000 / max(self.max_replicas, 1):
            raise ValueError(
                f"HPA view: target must be in [0.001, {MAX_MILLI / 1000:g} / maxReplicas], got {self.target}"
            )

    @property
    def target_milli(self) -> int:
        """The target in thousandths, as the HPA reads it."""
        return round(self.target * 1000)

    @property
    def unit_milli(self) -> int:
        """The metric at usage ratio 1."""
        pods = self.status_replicas if self.target_type is TargetType.AVERAGE_VALUE else 1
        return self.target_milli * pods


@dataclass(frozen=True, slots=True)
class Delivery:
    """What to serve, and what the HPA does with it at its next look.

    `recommends` is the count that the HPA computes from the metric, before stabilization and limits;
    `advice` is a sentence naming the setting to change, empty if exact.
    """

    value: float
    recommends: int
    lands_on: int
    exact: bool
    reason: DeliveryReason
    advice: str


def metric_for(view: HpaView, planned: int) -> Delivery:
    """Return the metric value with which the HPA lands on `planned`, or as near above it as it can.

    Raises ValueError if planned is not in [0, MAX_REPLICAS] or its metric would pass MAX_MILLI thousandths.
    """
    if not 0 <= planned <= min(MAX_REPLICAS, MAX_MILLI // view.target_milli):
        raise ValueError(
            f"planned must be in [0, {min(MAX_REPLICAS, MAX_MILLI // view.target_milli)}]"
            f" at target {view.target:g}, got {planned}"
        )
    goal = min(max(planned, view.min_replicas), view.max_replicas)
    best = min(_candidates(view, planned), key=lambda m: _rank(view, m, goal))
    recommends = recommendation(view, best)
    lands_on = landing(view, recommends)
    reason = _reason(view, planned, recommends, lands_on)
    advice = _advice(view, planned, reason)
    return Delivery(_served(best), recommends, lands_on, lands_on == planned, reason, advice)


def recommendation(view: HpaView, metric_milli: int) -> int:
    """Return the count that the HPA computes from the metric, in the same double arithmetic."""
    metric, unit = float(metric_milli), float(view.unit_milli)
    average = view.target_type is TargetType.AVERAGE_VALUE
    if not average and view.spec_replicas == 0:  # no tolerance, no pods
        return math.ceil(metric / unit)
    if unit > 0 and 1.0 - view.tolerance_down <= metric / unit <= 1.0 + view.tolerance_up:
        return view.status_replicas if average else view.spec_replicas
    if average:
        return math.ceil(metric / float(view.target_milli))
    return math.ceil(metric / unit * view.ready_pods)


def landing(view: HpaView, recommended: int) -> int:
    """Return the replica count that the HPA writes once it has computed `recommended`."""
    current = view.spec_replicas
    if current == 0:
        return 0  # scaling is disabled until somebody else, KEDA, makes it 1
    if not view.min_replicas <= current <= view.max_replicas:  # moved first, the metric unread
        return min(max(current, view.min_replicas), view.max_replicas)
    stable = _stabilized(view, recommended)
    return min(max(_rate_limited(view, stable), view.min_replicas), view.max_replicas)


def _stabilized(view: HpaView, recommended: int) -> int:
    """Return the count after both stabilization windows (without behavior: 300 s, downwards only)."""
    current, past = view.spec_replicas, view.recommendations
    if past is None:
        past = ((0.0, current),)
    if view.behavior is None:
        window = DEFAULT_SCALE_DOWN.stabilization_window_seconds
        return max([recommended, *(n for age, n in past if age <= window)])
    up, down = (rules.stabilization_window_seconds for rules in view.behavior)
    floor = min([recommended, *(n for age, n in past if age < up)])
    ceiling = max([recommended, *(n for age, n in past if age < down)])
    return min(max(current, floor), ceiling)


def _rate_limited(view: HpaView, stable: int) -> int:
    """Return the count that one step may reach on the way to `stable`."""
    current = view.spec_replicas
    if view.behavior is None:
        return min(stable, max(FACTOR_LIMIT * current, MINIMUM_LIMIT))
    if stable > current:
        return min(stable, max(current, _limit(view, view.behavior[0], up=True)))
    if stable < current:
        return max(stable, min(current, _limit(view, view.behavior[1], up=False)))
    return current


def _limit(view: HpaView, rules: HpaRules, *, up: bool) -> int:
    """Return the furthest count that a direction's policies allow now."""
    current, sign = view.spec_replicas, 1 if up else -1
    if rules.select is SelectPolicy.DISABLED:
        return current
    limits = []
    for policy in rules.policies:
        began = current - sum(n for age, n in view.events if age < policy.period_seconds)
        if not policy.percent:
            limits.append(began + sign * policy.value)
            continue
        share = began * (1 + sign * policy.value / 100)
        limits.append(math.ceil(share) if up else math.trunc(share))
    furthest = (rules.select is SelectPolicy.MAX) == up
    return max(limits) if furthest else min(limits)


def _candidates(view: HpaView, planned: int) -> Iterator[int]:
    """Yield metrics (thousandths) worth comparing: the plan itself first, then the ways around the band."""
    natural = _natural(view, planned)
    exact = _metric_of(view, planned)
    if exact is not None:
        yield exact
    yield natural  # inside the band: the HPA holds, and people read the plan
    if view.unit_milli > 0:
        yield view.unit_milli  # ratio 1: holds in any case
    over = _just_above_band(view, planned)
    if over is not None:
        yield over
    under = _just_below_band(view)
    if under is not None:  # less than planned, so of use only where minReplicas stops the fall
        yield under


def _rank(view: HpaView, metric_milli: int, goal: int) -> tuple[int, int]:
    """Order of preference: the smallest count >= goal in the end, else the largest; ties: as they come.

    What history and rate limits make of it now is no criterion: a metric that asks for the plan from the
    first look on is what shortens a stabilization window.
    """
    recommends = recommendation(view, metric_milli)
    in_the_end = min(max(recommends, view.min_replicas), view.max_replicas)
    return (0, in_the_end) if in_the_end >= goal else (1, -in_the_end)


def _natural(view: HpaView, count: int) -> int:
    """Return the largest metric of which ceil() makes `count`, not looking at the band."""
    if view.target_type is TargetType.AVERAGE_VALUE or view.spec_replicas == 0:
        return count * view.target_milli
    return count * view.target_milli // max(view.ready_pods, 1)


def _metric_of(view: HpaView, count: int) -> int | None:
    """Return a metric for which the HPA recommends exactly `count`; None: there is none."""
    last = _natural(view, count)
    first = _natural(view, count - 1) + 1 if count else 0
    below_band = math.ceil((1.0 - view.tolerance_down) * view.unit_milli) - 1
    # the top is the number that people expect; the middle of what is below the band keeps away from
    # both edges; the rest is for bands and thousandths that leave one value only
    tries = [last, (first + min(last, below_band)) // 2, last - 1, first]
    if view.target_type is TargetType.VALUE and count == view.spec_replicas:
        tries.insert(0, view.unit_milli)
    return next((m for m in tries if m >= 0 and recommendation(view, m) == count), None)


def _just_above_band(view: HpaView, planned: int) -> int | None:
    """Return a metric for the smallest count >= planned above the band; None: without ready pods."""
    edge = math.floor((1.0 + view.tolerance_up) * view.unit_milli)
    start = max(edge, _natural(view, max(planned - 1, 0)))
    for metric in range(start, start + 4):  # doubles may round an edge to either side
        count = recommendation(view, metric)
        outside = view.unit_milli == 0 or metric / view.unit_milli > 1.0 + view.tolerance_up
        if outside and count >= planned:
            best = _metric_of(view, count)
            return metric if best is None else best
    return None


def _just_below_band(view: HpaView) -> int | None:
    """Return the metric nearest below the band; None: no band, or one that reaches down to 0."""
    if view.unit_milli == 0:
        return None
    edge = math.ceil((1.0 - view.tolerance_down) * view.unit_milli)
    below = (m for m in (edge, edge - 1, edge - 2) if m >= 0)
    return next((m for m in below if m / view.unit_milli < 1.0 - view.tolerance_down), None)


def _served(metric_milli: int) -> float:
    """Return the double that KEDA turns into these thousandths.

    KEDA before 2.20 cuts int64(value x 1000), later it prints "%.3f": a double just under a thousandth would
    lose it (8.2 x 1000 is fine, 1.001 x 1000 = 1000.9999999999999 is not), so those get a quarter more.
    """
    value = metric_milli / 1000
    return value if int(value * 1000) == metric_milli else (metric_milli + 0.25) / 1000


def _reason(view: HpaView, planned: int, recommends: int, lands_on: int) -> DeliveryReason:
    """Return the first step on HPA's way from metric to count that misses planned on the side of lands_on."""
    if lands_on == planned:
        return DeliveryReason.EXACT
    current, value_target = view.spec_replicas, view.target_type is TargetType.VALUE
    if current == 0:
        return DeliveryReason.SCALED_TO_ZERO
    if not view.min_replicas <= current <= view.max_replicas:
        return DeliveryReason.BOUNDED_BY_MIN_MAX
    if value_target and view.ready_pods == 0:
        return DeliveryReason.NO_READY_PODS
    if not view.min_replicas <= planned <= view.max_replicas:
        return DeliveryReason.BOUNDED_BY_MIN_MAX
    stable = _stabilized(view, recommends)
    if recommends > planned if lands_on > planned else recommends < planned:
        free = replace(view, tolerance_up=0.0, tolerance_down=0.0)
        sayable = _metric_of(free, planned) is not None
        return DeliveryReason.TOLERANCE_LIMITED if sayable else DeliveryReason.PRECISION_LIMITED
    if stable > planned if lands_on > planned else stable < planned:
        return DeliveryReason.STABILIZATION_PENDING
    return DeliveryReason.BEHAVIOR_LIMITED


def _advice(view: HpaView, planned: int, reason: DeliveryReason) -> str:
    """Return one sentence: the setting that removes the hindrance."""
    up = planned > view.spec_replicas
    rules = f"behavior.{'scaleUp' if up else 'scaleDown'}"
    match reason:
        case DeliveryReason.EXACT:
            return ""
        case DeliveryReason.TOLERANCE_LIMITED:
            rules = f"behavior.{'scaleUp' if planned > view.status_replicas else 'scaleDown'}"
            return (
                f'Set {rules}.tolerance: "0" (Kubernetes >= 1.35, KEDA >= 2.18) or lower'
                " kube-controller-manager's --horizontal-pod-autoscaler-tolerance."
            )
        case DeliveryReason.BEHAVIOR_LIMITED:
            return f"Allow larger steps in {rules}.policies and selectPolicy."
        case DeliveryReason.STABILIZATION_PENDING:
            return f"Set {rules}.stabilizationWindowSeconds: 0; the planner damps already."
        case DeliveryReason.BOUNDED_BY_MIN_MAX if planned == 0:
            return "The HPA keeps 1; KEDA takes the last away: minReplicaCount 0 and no active trigger."
        case DeliveryReason.BOUNDED_BY_MIN_MAX:
            return f"Make minReplicaCount <= {planned} <= maxReplicaCount in the ScaledObject."
        case DeliveryReason.NO_READY_PODS:
            return "Use metricType AverageValue: Value multiplies by the ready pods, and there are none."
        case DeliveryReason.PRECISION_LIMITED:
            return (
                "Use metricType AverageValue: a thousandth of the metric is more than one replica."
            )
        case _:
            return (
                "The HPA rests at 0 replicas; KEDA wakes the workload when the trigger is active."
            )

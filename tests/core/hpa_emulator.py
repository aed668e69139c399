"""A HorizontalPodAutoscaler with one external metric, as Kubernetes documents it; for tests only.

Written from https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/ and the
behaviour of kube-controller-manager 1.36, apart from `autoscaler.core.hpa`: a little machine with a clock and
a memory, where the project's code is arithmetic on a view. KEDA's transport of the metric is here as well.
"""

import math
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal

NEVER = -math.inf


def keda_cuts(value: float) -> int:
    """Thousandths that arrive through KEDA 2.10 to 2.19: int64(value * 1000)."""
    return math.trunc(value * 1000)


def keda_rounds(value: float) -> int:
    """Thousandths that arrive through KEDA 2.20: the value printed with three digits."""
    return int(Decimal(value).quantize(Decimal("0.001"), ROUND_HALF_EVEN).scaleb(3))


@dataclass
class Rules:
    """scaleUp or scaleDown: policies are (type, value, periodSeconds)."""

    policies: list[tuple[str, int, float]]
    window: float
    select: str = "Max"

    def changes(self, began_of: "list[int]", sign: int) -> list[int]:
        out = []
        for (kind, value, _), began in zip(self.policies, began_of, strict=True):
            if kind == "Pods":
                out.append(began + sign * value)
            elif sign > 0:
                out.append(math.ceil(began * (1 + value / 100)))
            else:
                out.append(int(began * (1 - value / 100)))
        return out


@dataclass
class Hpa:
    """`spec` and `status` are the scale's replicas, `ready` the ready pods, `clock` in seconds."""

    spec: int
    target: float
    average: bool = True
    minimum: int = 1
    maximum: int = 100_000
    up_tolerance: float = 0.1
    down_tolerance: float = 0.1
    scale_up: Rules | None = None  # both or none
    scale_down: Rules | None = None
    status: int = -1
    ready: int = -1
    clock: float = 0.0
    recommended: list[tuple[float, int]] = field(default_factory=list)
    scaled: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.status = self.spec if self.status < 0 else self.status
        self.ready = self.status if self.ready < 0 else self.ready

    def look(self, metric_milli: int) -> int:
        """One evaluation; writes and returns the replica count."""
        if self.spec == 0:
            return 0
        if not self.recommended:
            self.recommended.append((self.clock, self.spec))
        if self.spec > self.maximum:
            new = self.maximum
        elif self.spec < self.minimum:
            new = self.minimum
        else:
            new = self._normalized(self.proposal(metric_milli))
        if new != self.spec:
            self.scaled.append((self.clock, new - self.spec))
        self.spec = new
        return new

    def proposal(self, usage: int) -> int:
        target = round(self.target * 1000)
        if self.average:
            divisor = float(target) * float(self.status)
            ratio = usage / divisor if divisor else (math.inf if usage else math.nan)
            return self.status if self._near(ratio) else math.ceil(usage / target)
        ratio = usage / target
        return self.spec if self._near(ratio) else math.ceil(ratio * float(self.ready))

    def _near(self, ratio: float) -> bool:
        return (1.0 - self.down_tolerance) <= ratio <= (1.0 + self.up_tolerance)

    def _normalized(self, proposed: int) -> int:
        if self.scale_up is None or self.scale_down is None:
            kept = [n for t, n in self.recommended if t >= self.clock - 300.0]
            self.recommended.append((self.clock, proposed))
            wanted = max([proposed, *kept])
            highest = min(self.maximum, max(2 * self.spec, 4))
            return self.minimum if wanted < self.minimum else min(wanted, highest)
        lowest_past, highest_past = proposed, proposed
        for t, n in self.recommended:
            if t > self.clock - self.scale_up.window:
                lowest_past = min(lowest_past, n)
            if t > self.clock - self.scale_down.window:
                highest_past = max(highest_past, n)
        self.recommended.append((self.clock, proposed))
        wanted = self.spec
        wanted = max(wanted, lowest_past)
        wanted = min(wanted, highest_past)
        if wanted > self.spec:
            cap = self._furthest(self.scale_up, +1)
            return min(wanted, self.maximum, max(cap, self.spec))
        if wanted < self.spec:
            cap = self._furthest(self.scale_down, -1)
            return max(wanted, self.minimum, min(cap, self.spec))
        return wanted

    def _furthest(self, rules: Rules, sign: int) -> int:
        if rules.select == "Disabled":
            return self.spec
        began = []
        for _, _, period in rules.policies:
            added = sum(n for t, n in self.scaled if n > 0 and t > self.clock - period)
            removed = -sum(n for t, n in self.scaled if n < 0 and t > self.clock - period)
            began.append(self.spec - added + removed)
        limits = rules.changes(began, sign)
        generous = max if sign > 0 else min
        strict = min if sign > 0 else max
        return generous(limits) if rules.select == "Max" else strict(limits)

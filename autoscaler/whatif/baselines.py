"""Rival autoscalers for what-if runs, after their own documentation and source, on the same telemetry.

Each looks after one service with one variant and keeps state between its calls, which come once per
interval of observation. Concurrency is `running + waiting`, the gateway's queue included. Where the
telemetry failed a rival holds what was desired, as each of them does: no data is never zero load.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Observation, VariantObservation

Decision = Mapping[str, Mapping[str, int]]


class BaselineError(ValueError):
    """A rival that is set up wrongly or asked about more than one service with one variant."""


class Autoscaler(Protocol):
    """Whatever sizes fleets from observations."""

    name: str

    def decide(self, observation: Observation) -> Decision:
        """Return the replicas wanted (ready + starting): service -> variant -> count."""
        ...


class _OneVariant(ABC):
    """Finds the one variant in an observation, and holds where its telemetry is missing."""

    name = "one-variant"

    def __init__(self, *, min_replicas: int, max_replicas: int) -> None:
        if not 1 <= min_replicas <= max_replicas:
            raise BaselineError(
                f"{self.name}: min_replicas {min_replicas}, max_replicas {max_replicas}; allowed: "
                "1 <= min_replicas <= max_replicas"
            )
        self.min_replicas, self.max_replicas = min_replicas, max_replicas
        self._last: tuple[str, str, int] | None = None

    def decide(self, observation: Observation) -> Decision:
        """Return this rival's count for the observed variant, or the held one without telemetry."""
        names = [(s, v) for s, seen in observation.services.items() for v in seen.variants]
        if len(names) > 1:
            raise BaselineError(
                f"{self.name}: one service with one variant is allowed, got {names}"
            )
        if not names:  # silent altogether: what was wanted last still is
            return {} if self._last is None else {self._last[0]: {self._last[1]: self._last[2]}}
        service, variant = names[0]
        seen = observation.services[service]
        now = seen.variants[variant]
        wanted = now.desired
        if not math.isnan(seen.arrival_rate_rps):
            wanted = self._wanted(observation.now_seconds, observation.interval_seconds, now)
        wanted = min(max(wanted, self.min_replicas), self.max_replicas)
        self._last = (service, variant, wanted)
        return {service: {variant: wanted}}

    @abstractmethod
    def _wanted(self, now_seconds: float, interval_seconds: float, seen: VariantObservation) -> int:
        """Return the count this autoscaler wants now, before its minimum and maximum."""


class StaticFleet(_OneVariant):
    """A fleet of fixed size: what is bought for the peak."""

    name = "static"

    def __init__(self, replicas: int) -> None:
        super().__init__(min_replicas=replicas, max_replicas=replicas)

    def _wanted(self, now_seconds: float, interval_seconds: float, seen: VariantObservation) -> int:  # noqa: ARG002
        return self.max_replicas


@dataclass(slots=True)
class _Window:
    """Values of the last `seconds`, the newest included however short the window is."""

    seconds: float
    values: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, now_seconds: float, value: float) -> None:
        self.values.append((now_seconds, value))
        while self.values[0][0] <= now_seconds - self.seconds and len(self.values) > 1:
            self.values.popleft()

    def mean(self) -> float:
        return sum(v for _, v in self.values) / len(self.values)

    def max(self) -> float:
        return max(v for _, v in self.values)


class Hpa(_OneVariant):
    """Kubernetes' HorizontalPodAutoscaler (autoscaling/v2) on concurrency as a Pods metric.

    Rules, from kubernetes/pkg/controller/podautoscaler (replica_calculator.go, horizontal.go) and
    https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/:

    - ratio = mean of the metric over the ready pods / target; within 10 % of 1 nothing changes.
    - pods that are not ready yet have no metric: they count as 0 where the ratio asks for more, as the
      target where it asks for less; the new ratio must still be beyond the tolerance, on the same side.
    - replicas = ceil(ratio x pods counted). Draining pods do not count.
    - scale down: not below the highest recommendation of the last 300 s. Scale up: at once, but per
      15 s by no more than 4 pods or 100 %, whichever is more.
    - no ready pod, or no metric: no change.

    metric_window_seconds averages the metric first, as avg_over_time in an adapter's query does.
    """

    name = "hpa"
    TOLERANCE = 0.1
    SCALE_UP_PERIOD_SECONDS = 15.0
    SCALE_UP_PODS = 4
    SCALE_UP_FACTOR = 2.0

    def __init__(
        self,
        *,
        target_concurrency: float,
        min_replicas: int = 1,
        max_replicas: int,
        stabilization_seconds: float = 300.0,
        metric_window_seconds: float = 0.0,
    ) -> None:
        super().__init__(min_replicas=min_replicas, max_replicas=max_replicas)
        _positive(self.name, "target_concurrency", target_concurrency)
        self.target_concurrency = target_concurrency
        self._recommended = _Window(stabilization_seconds)
        self._metric = _Window(metric_window_seconds)
        self._changes: deque[tuple[float, int]] = deque()

    def _wanted(self, now_seconds: float, interval_seconds: float, seen: VariantObservation) -> int:  # noqa: ARG002
        current = seen.desired
        recommended = self._recommendation(now_seconds, seen)
        if recommended is None:
            return current
        recommended = min(max(recommended, self.min_replicas), self.max_replicas)
        self._recommended.add(now_seconds, recommended)
        wanted = recommended
        if recommended < current:  # stabilized, but stabilization never raises the count
            wanted = min(current, int(self._recommended.max()))
        wanted = min(wanted, self._scale_up_limit(now_seconds, current))
        if wanted != current:
            self._changes.append((now_seconds, wanted - current))
        return wanted

    def _recommendation(self, now_seconds: float, seen: VariantObservation) -> int | None:
        """Return the replica count that the metric asks for; None where there is no metric."""
        concurrency = seen.running + seen.waiting
        if math.isnan(concurrency) or seen.ready == 0:
            return None
        self._metric.add(now_seconds, concurrency)
        total, target = self._metric.mean(), self.target_concurrency
        ratio = total / (seen.ready * target)
        pods = seen.ready
        if seen.starting:
            assumed = target * seen.starting if ratio < 1 else 0.0
            pods += seen.starting
            corrected = (total + assumed) / (pods * target)
            if (ratio - 1) * (corrected - 1) < 0:
                return seen.desired
            ratio = corrected
        if 1 - self.TOLERANCE <= ratio <= 1 + self.TOLERANCE:
            return seen.desired
        return math.ceil(ratio * pods)

    def _scale_up_limit(self, now_seconds: float, current: int) -> int:
        """Return the most that may run now, from what ran when the period began."""
        while self._changes and self._changes[0][0] <= now_seconds - self.SCALE_UP_PERIOD_SECONDS:
            self._changes.popleft()
        began = current - sum(change for _, change in self._changes)
        limit = max(began + self.SCALE_UP_PODS, math.ceil(began * self.SCALE_UP_FACTOR))
        return max(limit, current)


class KnativeKpa(_OneVariant):
    """Knative's pod autoscaler on concurrency.

    Rules, from knative/serving pkg/autoscaler/scaling/autoscaler.go and the defaults of
    https://knative.dev/docs/serving/autoscaling/kpa-specific/ and .../concurrency/:

    - pods = ceil(mean concurrency / (target x 0.7)), over the last 60 s (stable) and 6 s (panic), each
      between floor(ready / 2) and ceil(1000 x ready).
    - panic begins when the panic count is at least twice the ready pods, and ends when it has not been
      for a stable window; meanwhile the larger count holds and nothing is taken away.
    - it starts in panic if several pods are ready: it knows no history yet.

    Knative looks every 2 s; here each window holds the observations that end inside it, the latest in
    any case, so that the panic window is as long as one interval at least. Scale to zero is left out.
    """

    name = "kpa"
    STABLE_SECONDS = 60.0
    PANIC_SECONDS = 6.0
    TARGET_UTILIZATION = 0.7
    PANIC_THRESHOLD = 2.0
    MAX_SCALE_UP_RATE = 1000.0
    MAX_SCALE_DOWN_RATE = 2.0

    def __init__(
        self, *, target_concurrency: float, min_replicas: int = 1, max_replicas: int
    ) -> None:
        super().__init__(min_replicas=min_replicas, max_replicas=max_replicas)
        _positive(self.name, "target_concurrency", target_concurrency)
        self.target_concurrency = target_concurrency
        self._stable = _Window(self.STABLE_SECONDS)
        self._panic = _Window(self.PANIC_SECONDS)
        self._panicked_at: float | None = None
        self._most_in_panic = 0
        self._started = False

    def _wanted(self, now_seconds: float, interval_seconds: float, seen: VariantObservation) -> int:  # noqa: ARG002
        concurrency = seen.running + seen.waiting
        if math.isnan(concurrency):
            return seen.desired
        if not self._started and seen.ready > 1:
            self._panicked_at, self._most_in_panic = now_seconds, seen.ready
        self._started = True
        self._stable.add(now_seconds, concurrency)
        self._panic.add(now_seconds, concurrency)
        ready = max(1, seen.ready)
        per_pod = self.target_concurrency * self.TARGET_UTILIZATION
        stable = math.ceil(self._stable.mean() / per_pod)
        panic = math.ceil(self._panic.mean() / per_pod)
        self._note_panic(now_seconds, over=panic / ready >= self.PANIC_THRESHOLD)
        low = math.floor(ready / self.MAX_SCALE_DOWN_RATE)
        high = math.ceil(ready * self.MAX_SCALE_UP_RATE)
        wanted = min(max(stable, low), high)
        if self._panicked_at is None:
            return wanted
        self._most_in_panic = max(self._most_in_panic, wanted, min(max(panic, low), high))
        return self._most_in_panic

    def _note_panic(self, now_seconds: float, *, over: bool) -> None:
        if over:
            self._panicked_at = now_seconds
        elif (
            self._panicked_at is not None and now_seconds - self._panicked_at > self.STABLE_SECONDS
        ):
            self._panicked_at, self._most_in_panic = None, 0


class Clairvoyant(_OneVariant):
    """Knows the requests to come, and orders replicas one lead time ahead of them: the reference.

    need(t) = ceil(margin x arrivals in the window centred at t / window / capacity of a replica); at
    any time it wants the highest need from now until a lead time from now. No rival can know this;
    it is strong, not optimal: it sizes by the mean rate, and knows lead times only as typical.
    """

    name = "clairvoyant"

    def __init__(
        self,
        arrive_seconds: NDArray[np.float64],
        *,
        replica_capacity_rps: float,
        lead_time_seconds: float,
        window_seconds: float = 300.0,
        margin: float = 1.0,
        min_replicas: int = 1,
        max_replicas: int,
    ) -> None:
        super().__init__(min_replicas=min_replicas, max_replicas=max_replicas)
        _positive(self.name, "replica_capacity_rps", replica_capacity_rps)
        _positive(self.name, "window_seconds", window_seconds)
        _positive(self.name, "margin", margin)
        self._arrive = arrive_seconds
        self._per_request = margin / (window_seconds * replica_capacity_rps)
        self._window, self._lead = window_seconds, lead_time_seconds

    def _wanted(self, now_seconds: float, interval_seconds: float, seen: VariantObservation) -> int:  # noqa: ARG002
        # the next decision comes an interval later: what is ordered then is ready an interval later
        ahead = self._lead + interval_seconds
        centres = now_seconds + np.linspace(0.0, ahead, 2 + int(ahead / interval_seconds))
        edges = np.concatenate([centres - self._window / 2, centres + self._window / 2])
        low, high = np.split(np.searchsorted(self._arrive, edges), 2)
        return math.ceil(float((high - low).max()) * self._per_request)


def _positive(where: str, name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise BaselineError(f"{where}: {name} is {value}; more than 0 is allowed")

"""Rival autoscalers for what-if runs: what all have in common, and those that know no Kubernetes.

Each rival looks after one service with one variant and keeps state between its calls, which come once
per interval of observation. Concurrency is `running + waiting`, the gateway's queue included. Where the
telemetry failed a rival holds what was desired, as each of them does: no data is never zero load.
Kubernetes' and Knative's are in baselines_kubernetes.py, those made for LLMs in baselines_llm.py.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Observation, ServiceObservation, VariantObservation

Decision = Mapping[str, Mapping[str, int]]


class BaselineError(ValueError):
    """A rival that is set up wrongly or asked about more than one service with one variant."""


class Autoscaler(Protocol):
    """Whatever sizes fleets from observations."""

    name: str

    def decide(self, observation: Observation) -> Decision:
        """Return the replicas wanted (ready + starting): service -> variant -> count."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What a rival is shown: one interval of its service and of its variant."""

    now_seconds: float
    interval_seconds: float
    service: ServiceObservation
    variant: VariantObservation

    @property
    def concurrency(self) -> float:
        """Requests that are running or waiting anywhere; NaN where that was not measured."""
        return self.variant.running + self.variant.waiting


class OneVariant(ABC):
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
        mine = observation.services[service]
        wanted = mine.variants[variant].desired
        if not math.isnan(mine.arrival_rate_rps):
            seen = Seen(
                observation.now_seconds, observation.interval_seconds, mine, mine.variants[variant]
            )
            wanted = self._wanted(seen)
        wanted = self._within(wanted)
        self._last = (service, variant, wanted)
        return {service: {variant: wanted}}

    @abstractmethod
    def _wanted(self, seen: Seen) -> int:
        """Return the count this autoscaler wants now, before its minimum and maximum."""

    def _within(self, replicas: int) -> int:
        return min(max(replicas, self.min_replicas), self.max_replicas)


class StaticFleet(OneVariant):
    """A fleet of fixed size: what is bought for the peak."""

    name = "static"

    def __init__(self, replicas: int) -> None:
        super().__init__(min_replicas=replicas, max_replicas=replicas)

    def _wanted(self, seen: Seen) -> int:  # noqa: ARG002
        return self.max_replicas


class RecordedFleet:
    """Today's fleet as telemetry recorded it: what was ready or starting then is wanted then.

    `recorded`: service -> variant -> (epoch seconds of the intervals' starts, replicas). Before the
    first record its count holds, after a gap the last one before it. Start-up times are drawn anew,
    so a replica may be ready a little earlier or later than it was.
    """

    name = "recorded"

    def __init__(
        self,
        recorded: Mapping[str, Mapping[str, tuple[NDArray[np.float64], NDArray[np.int64]]]],
    ) -> None:
        self._recorded = recorded

    def decide(self, observation: Observation) -> Decision:
        """Return what ran at this time, for every service and variant that was recorded."""
        at = observation.now_seconds
        return {
            service: {
                variant: int(counts[max(0, int(np.searchsorted(since, at, side="right")) - 1)])
                for variant, (since, counts) in variants.items()
            }
            for service, variants in self._recorded.items()
        }


@dataclass(slots=True)
class Window:
    """Values of the last `seconds`, the newest included however short the window is."""

    seconds: float
    values: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, now_seconds: float, value: float) -> None:
        """Note a value, and forget those that are too old."""
        self.values.append((now_seconds, value))
        while self.values[0][0] <= now_seconds - self.seconds and len(self.values) > 1:
            self.values.popleft()

    def mean(self) -> float:
        """Return the mean of the values held."""
        return sum(v for _, v in self.values) / len(self.values)

    def max(self) -> float:
        """Return the largest of the values held."""
        return max(v for _, v in self.values)

    def min(self) -> float:
        """Return the smallest of the values held."""
        return min(v for _, v in self.values)


class Clairvoyant(OneVariant):
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
        positive(self.name, "replica_capacity_rps", replica_capacity_rps)
        positive(self.name, "window_seconds", window_seconds)
        positive(self.name, "margin", margin)
        self._arrive = arrive_seconds
        self._per_request = margin / (window_seconds * replica_capacity_rps)
        self._window, self._lead = window_seconds, lead_time_seconds

    def _wanted(self, seen: Seen) -> int:
        # the next decision comes an interval later: what is ordered then is ready an interval later
        ahead = self._lead + seen.interval_seconds
        count = 2 + int(ahead / seen.interval_seconds)
        centres = seen.now_seconds + np.linspace(0.0, ahead, count)
        low = self._arrive.searchsorted(centres - self._window / 2)
        high = self._arrive.searchsorted(centres + self._window / 2)
        return math.ceil(float((high - low).max()) * self._per_request)


def positive(where: str, name: str, value: float) -> None:
    """Raise BaselineError unless a setting is a number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise BaselineError(f"{where}: {name} is {value}; more than 0 is allowed")

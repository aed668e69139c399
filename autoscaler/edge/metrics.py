"""The operator's own /metrics: what was decided, what is so, and how good the forecast turned out to be.

Nothing is global: every `OperatorMetrics` has a registry of its own. docs/operations.md lists every name.
"""

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from autoscaler.core.accounts import Account
from autoscaler.core.outcome import Decisions
from autoscaler.core.types import Observation, Policies
from autoscaler.edge.service_metrics import ServiceMetrics

PLAN_STATUSES = ("separable", "optimal", "incumbent", "priced", "greedy")
PHASES = ("collect", "decide", "actuate")
TICK_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)


class StepLike(Protocol):
    """What is read of `autoscaler.loop.Step`."""

    @property
    def observation(self) -> Observation:
        """What was measured."""

    @property
    def decisions(self) -> Decisions:
        """What was decided."""

    @property
    def accounts(self) -> Mapping[str, Account]:
        """The accounts of the hour that it closed."""


class OperatorMetrics:
    """Everything exported. Safe to call from the loop's thread while another one serves /metrics."""

    def __init__(self, version: str) -> None:
        """`version`: of the program, shown in foreserve_build_info."""
        self.registry = CollectorRegistry(auto_describe=False)
        self._services = ServiceMetrics()
        self.registry.register(self._services)
        self._tick = Histogram(
            "foreserve_tick_duration_seconds",
            "Wall time of a tick's phases.",
            ["phase"],
            buckets=TICK_BUCKETS,
            registry=self.registry,
        )
        for phase in PHASES:  # present from the start: rate() needs a first sample
            self._tick.labels(phase)
        self._leader = self._gauge("leader", "1 if this process holds the Lease and may write.")
        self._info = self._gauge("model_info", "The models' generation in use.", ["generation"])
        self._writes = self._counter(
            "writes", "Writes to the API server and the decision log.", ["what", "result"]
        )
        self._errors = self._counter(
            "api_errors",
            "Requests that the API server refused or did not answer, each try.",
            ["verb", "resource", "code"],
        )
        self._gauge("build_info", "The program's version.", ["version"]).labels(version).set(1)
        self._plans = self._counter("plans", "Ticks by how their plan was found.", ["status"])
        for status in PLAN_STATUSES:
            self._plans.labels(status)
        self._leader.set(0)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] | list[str] = ()) -> Gauge:
        return Gauge(f"foreserve_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"foreserve_{name}", text, labels, registry=self.registry)

    def observe_step(self, step: StepLike, policies: Policies) -> None:
        """Take in a tick. `policies`: all that exist; a service that is not among them disappears."""
        self._services.observe(step.observation, step.decisions, policies, step.accounts)
        self._plans.labels(step.decisions.plan_status).inc()

    def observe_phase(self, phase: str, seconds: float) -> None:
        """Count how long one of PHASES took."""
        if phase not in PHASES:
            raise ValueError(f"phase {phase!r} is not allowed; allowed: {', '.join(PHASES)}")
        self._tick.labels(phase).observe(seconds)

    def set_leader(self, *, held: bool) -> None:
        """Say whether this process may write."""
        self._leader.set(1 if held else 0)

    def set_model(self, generation: str) -> None:
        """Name the models in use; the generation before is no longer shown."""
        self._info.clear()
        self._info.labels(generation).set(1)

    def count_write(self, what: str, result: str) -> None:
        """Count a write: `what` (scale, status, event, checkpoint, deletion-cost ...), and its result."""
        self._writes.labels(what, result).inc()

    def count_api_error(self, verb: str, resource: str, code: str) -> None:
        """Count a failed request; `code`: the HTTP status, or a word where there was no answer."""
        self._errors.labels(verb, resource, code).inc()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition and its content type, in the format that `accept` prefers."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

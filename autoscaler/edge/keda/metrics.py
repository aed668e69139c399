"""/metrics of the scaler: what was asked, what was told, and how old it was."""

import math
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from autoscaler.edge.keda.answers import SOURCES, answer_now
from autoscaler.edge.keda.errors import NoAnswerError
from autoscaler.edge.keda.plan import SERVED_MODE
from autoscaler.edge.keda.plans import Dated, Plans

SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)


class ScalerMetrics:
    """Everything exported."""

    def __init__(
        self, version: str, plans: Plans, registry: CollectorRegistry | None = None
    ) -> None:
        """Register with `registry`, the operator's (which tells the version), or with one of its own."""
        self.registry = CollectorRegistry(auto_describe=False) if registry is None else registry
        if registry is None:
            build = Gauge(
                "foreserve_build_info", "Version in use.", ["version"], registry=self.registry
            )
            build.labels(version).set(1)
        self._requests = Counter(
            "foreserve_scaler_requests", "Calls ended.", ["method", "code"], registry=self.registry
        )
        self._answers = Counter(
            "foreserve_scaler_answers",
            "Counts told, by where they are from: plan, or what stands in for one.",
            ["source"],
            registry=self.registry,
        )
        self.answered: dict[str, Callable[[], None]] = {
            s: self._answers.labels(s).inc for s in SOURCES
        }
        self.request_seconds = Histogram(
            "foreserve_scaler_request_seconds",
            "Time in the scaler of calls that have one answer.",
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.open_streams = Gauge(
            "foreserve_scaler_open_streams", "Streams of KEDA.", registry=self.registry
        )
        self._reloads = Counter(
            "foreserve_scaler_certificate_reloads",
            "Changed TLS files, by result.",
            ["result"],
            registry=self.registry,
        )
        self._looks = Counter(
            "foreserve_scaler_gateway_looks",
            "Questions for the gateway's queue, while a service is planned at zero.",
            ["result"],
            registry=self.registry,
        )
        self._load_looks = Counter(
            "foreserve_scaler_load_looks",
            "Questions for the load, while a decision is too old.",
            ["result"],
            registry=self.registry,
        )
        self._ended: dict[tuple[str, str], Callable[[], None]] = {}
        self.registry.register(_Ages(plans))

    def ended(self, method: str, code: str) -> None:
        """Count a call that has ended."""
        inc = self._ended.get((method, code))
        if inc is None:
            inc = self._ended[method, code] = self._requests.labels(method, code).inc
        inc()

    def reloaded(self, ok: bool) -> None:
        """Count changed TLS files that were taken, or refused."""
        self._reloads.labels("ok" if ok else "failed").inc()

    def looked(self, ok: bool) -> None:
        """Count a look at the gateway's queue."""
        self._looks.labels("ok" if ok else "failed").inc()

    def load_looked(self, ok: bool) -> None:
        """Count a look at the load."""
        self._load_looks.labels("ok" if ok else "failed").inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the body of /metrics and its content type."""
        encoder, kind = choose_encoder(accept)
        return encoder(self.registry), kind


class _Ages(Collector):
    """Ages and what they mean are made when they are asked for. What was never decided has none."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def collect(self) -> Iterator[Metric]:
        served = [d for d in self._plans.all() if d.plan.mode == SERVED_MODE]
        ages = GaugeMetricFamily(
            "foreserve_scaler_decision_age_seconds",
            "Age of the last decision of a policy in mode Keda.",
            labels=["service"],
        )
        for dated in served:
            age = self._plans.age_seconds(dated)
            if math.isfinite(age):
                ages.add_metric([dated.plan.service], age)
        yield ages
        yield from self._stages(served)
        silent = self._plans.clock.monotonic() - self._plans.contact_at
        if math.isfinite(silent):
            yield GaugeMetricFamily(
                "foreserve_scaler_api_silence_seconds",
                "Time since the API server last said anything about policies.",
                value=silent,
            )

    def _stages(self, served: Sequence[Dated]) -> Iterator[Metric]:
        """Yield where each variant's count is from now, and what the load needs where that counts."""
        stages = GaugeMetricFamily(
            "foreserve_scaler_decision_stage",
            "1: where a variant's count is from at this age of its decision.",
            labels=["service", "variant", "stage"],
        )
        needs = GaugeMetricFamily(
            "foreserve_scaler_reactive_replicas",
            "Replicas that the load needs, of decisions that are too old.",
            labels=["service", "variant"],
        )
        for dated in served:
            plan = dated.plan
            for v in plan.variants:
                try:
                    answer = answer_now(self._plans, dated, self._plans.trigger_of(plan, v.name))
                except NoAnswerError:
                    continue
                stages.add_metric([plan.service, v.name, answer.source], 1.0)
            for name, replicas in self._plans.floors(plan.service).items():
                needs.add_metric([plan.service, name], replicas)
        yield stages
        yield needs

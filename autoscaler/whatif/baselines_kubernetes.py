"""Kubernetes' and Knative's autoscalers as rivals, after their own documentation and source."""

import math
from collections import deque
from typing import Literal

from autoscaler.whatif.baselines import OneVariant, Seen, Window, positive

TOLERANCE = 0.1  # of HPA's ratio: --horizontal-pod-autoscaler-tolerance
UP_PERIOD_SECONDS = 15.0  # HPA's default behavior.scaleUp
UP_PODS = 4
UP_FACTOR = 2.0
DOWN_SECONDS = 300.0  # HPA's default stabilization of scale-downs


class HpaBehavior:
    """What HPA makes of a recommendation: its defaults for `behavior` (autoscaling/v2).

    Scale down: not below the highest recommendation of the last 300 s. Scale up: at once, but per 15 s
    by no more than 4 pods or 100 %, whichever is more.
    """

    def __init__(self, stabilization_seconds: float = DOWN_SECONDS) -> None:
        self._recommended = Window(stabilization_seconds)
        self._changes: deque[tuple[float, int]] = deque()

    def apply(self, now_seconds: float, current: int, recommended: int) -> int:
        """Return the count that is written, from the one recommended (limits applied)."""
        self._recommended.add(now_seconds, recommended)
        wanted = recommended
        if recommended < current:  # stabilized, but stabilization never raises the count
            wanted = min(current, int(self._recommended.max()))
        wanted = min(wanted, self._scale_up_limit(now_seconds, current))
        if wanted != current:
            self._changes.append((now_seconds, wanted - current))
        return wanted

    def _scale_up_limit(self, now_seconds: float, current: int) -> int:
        """Return the most that may run now, from what ran when the period began."""
        while self._changes and self._changes[0][0] <= now_seconds - UP_PERIOD_SECONDS:
            self._changes.popleft()
        began = current - sum(change for _, change in self._changes)
        return max(began + UP_PODS, math.ceil(began * UP_FACTOR), current)


class Hpa(OneVariant):
    """Kubernetes' HorizontalPodAutoscaler (autoscaling/v2) on concurrency, or queue, as a Pods metric.

    Rules, from kubernetes/pkg/controller/podautoscaler (replica_calculator.go, horizontal.go) and
    https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/:

    - ratio = mean of the metric over the ready pods / target; within 10 % of 1 nothing changes.
    - pods that are not ready yet have no metric: they count as 0 where the ratio asks for more, as the
      target where it asks for less; the new ratio must still be beyond the tolerance, on the same side.
    - replicas = ceil(ratio x pods counted). Draining pods do not count.
    - HpaBehavior's stabilization and limits.
    - no ready pod, or no metric: no change.

    metric: `concurrency`, or `queue` alone, vllm:num_requests_waiting, on which vLLM's production stack
    scales (its Helm chart's ScaledObject; https://docs.vllm.ai/projects/production-stack). An empty
    queue asks for the minimum, whatever runs: that is the rule, not a fault of ours.
    metric_window_seconds averages the metric first, as avg_over_time in an adapter's query does.
    """

    name = "hpa"

    def __init__(
        self,
        *,
        target: float,
        metric: Literal["concurrency", "queue"] = "concurrency",
        min_replicas: int = 1,
        max_replicas: int,
        stabilization_seconds: float = DOWN_SECONDS,
        metric_window_seconds: float = 0.0,
    ) -> None:
        super().__init__(min_replicas=min_replicas, max_replicas=max_replicas)
        positive(self.name, "target", target)
        self.target = target
        self._of_queue = metric == "queue"
        self._metric = Window(metric_window_seconds)
        self._behavior = HpaBehavior(stabilization_seconds)

    def _wanted(self, seen: Seen) -> int:
        current = seen.variant.desired
        recommended = self._recommendation(seen)
        if recommended is None:
            return current
        return self._behavior.apply(seen.now_seconds, current, self._within(recommended))

    def _recommendation(self, seen: Seen) -> int | None:
        """Return the replica count that the metric asks for; None where there is no metric."""
        pods, value = seen.variant, seen.concurrency
        if self._of_queue:
            value = pods.waiting
        if math.isnan(value) or pods.ready == 0:
            return None
        self._metric.add(seen.now_seconds, value)
        total, target = self._metric.mean(), self.target
        ratio = total / (pods.ready * target)
        counted = pods.ready
        if pods.starting:
            assumed = target * pods.starting if ratio < 1 else 0.0
            counted += pods.starting
            corrected = (total + assumed) / (counted * target)
            if (ratio - 1) * (corrected - 1) < 0:
                return pods.desired
            ratio = corrected
        if abs(ratio - 1) <= TOLERANCE + 1e-9:
            return pods.desired
        return math.ceil(ratio * counted - 1e-9)


class KedaSaturation(OneVariant):
    """KEDA on the pool saturation of llm-d's endpoint picker: what llm-d recommends today.

    Rules: the metric `llm_d_epp_flow_control_pool_saturation` is the mean over ready endpoints of
    max(queue / 5, KV usage / 0.8) (llm-d-router, utilization detector and its defaults). KEDA's
    ScaledObject hands `max(...)` of it to an HPA with `metricType: Value`, threshold 0.7 in llm-d's
    guide. HPA for such a metric (replica_calculator.go, getUsageRatioReplicaCount): within 10 % of the
    threshold nothing changes, else ceil(metric / threshold x ready pods); then HpaBehavior.

    Telemetry here is the variant's, so saturation is max of the means: a little below the mean of maxima
    where endpoints differ.
    """

    name = "keda"
    QUEUE_THRESHOLD = 5.0  # requests waiting on one endpoint
    KV_THRESHOLD = 0.8

    def __init__(self, *, threshold: float = 0.7, min_replicas: int = 1, max_replicas: int) -> None:
        super().__init__(min_replicas=min_replicas, max_replicas=max_replicas)
        positive(self.name, "threshold", threshold)
        self.threshold = threshold
        self._behavior = HpaBehavior()

    def saturation(self, seen: Seen) -> float:
        """Return the pool's saturation; NaN without a ready endpoint or a metric."""
        pods = seen.variant
        if pods.ready == 0 or math.isnan(pods.waiting) or math.isnan(pods.kv_cache_usage_ratio):
            return math.nan
        queue = pods.waiting / pods.ready / self.QUEUE_THRESHOLD
        return max(queue, pods.kv_cache_usage_ratio / self.KV_THRESHOLD)

    def _wanted(self, seen: Seen) -> int:
        pods = seen.variant
        ratio = self.saturation(seen) / self.threshold
        if math.isnan(ratio):
            return pods.desired
        recommended = pods.desired
        if abs(ratio - 1) > TOLERANCE + 1e-9:
            recommended = math.ceil(ratio * pods.ready - 1e-9)
        return self._behavior.apply(seen.now_seconds, pods.desired, self._within(recommended))


class KnativeKpa(OneVariant):
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
        positive(self.name, "target_concurrency", target_concurrency)
        self.target_concurrency = target_concurrency
        self._stable = Window(self.STABLE_SECONDS)
        self._panic = Window(self.PANIC_SECONDS)
        self._panicked_at: float | None = None
        self._most_in_panic = 0
        self._started = False

    def _wanted(self, seen: Seen) -> int:
        concurrency, now_seconds, pods = seen.concurrency, seen.now_seconds, seen.variant
        if math.isnan(concurrency):
            return pods.desired
        if not self._started and pods.ready > 1:
            self._panicked_at, self._most_in_panic = now_seconds, pods.ready
        self._started = True
        self._stable.add(now_seconds, concurrency)
        self._panic.add(now_seconds, concurrency)
        ready = max(1, pods.ready)
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

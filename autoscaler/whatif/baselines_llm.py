"""Autoscalers made for LLM serving as rivals: AIBrix, llm-d's WVA, NVIDIA Dynamo's planner."""

import math
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

import numpy as np

from autoscaler.whatif.baselines import OneVariant, Seen, Window, positive
from autoscaler.whatif.baselines_kubernetes import TOLERANCE, HpaBehavior


class AibrixApa(OneVariant):
    """AIBrix's own strategy, APA, on concurrency per pod.

    Rules, from vllm-project/aibrix pkg/controller/podautoscaler (algorithm/apa.go, its tests, and
    stabilizeRecommendation in podautoscaler_controller.go):

    - r = mean of the metric per pod over the last 180 s / target.
    - r > 1.1: ceil(pods x r), at most ceil(2 x pods). r < 0.9: ceil(pods x r), at least
      floor(pods / 2). Else nothing changes.
    - up at once; down to the *lowest* recommendation of the last 300 s (HPA takes the highest), so
      that a dip is followed at once.
    - no pod, or no metric: nothing changes. (AIBrix counts a scrape that failed as 0; ours never do.)

    AIBrix looks every 10 s; here once per observation.
    """

    name = "apa"
    WINDOW_SECONDS = 180.0
    DOWN_SECONDS = 300.0
    MAX_RATE = 2.0

    def __init__(self, *, target: float, min_replicas: int = 1, max_replicas: int) -> None:
        super().__init__(min_replicas=min_replicas, max_replicas=max_replicas)
        positive(self.name, "target", target)
        self.target = target
        self._per_pod = Window(self.WINDOW_SECONDS)
        self._recommended = Window(self.DOWN_SECONDS)

    def recommend(self, pods: int, per_pod: float) -> int:
        """Return the pods for a metric of `per_pod` on each of `pods`."""
        ratio = per_pod / self.target
        if ratio > 1 + TOLERANCE + 1e-9:
            return min(math.ceil(pods * ratio), math.ceil(self.MAX_RATE * pods))
        if ratio < 1 - TOLERANCE - 1e-9:
            return max(math.ceil(pods * ratio), math.floor(pods / self.MAX_RATE))
        return pods

    def _wanted(self, seen: Seen) -> int:
        pods = seen.variant
        if math.isnan(seen.concurrency) or pods.ready == 0:
            return pods.desired
        self._per_pod.add(seen.now_seconds, seen.concurrency / pods.ready)
        recommended = self._within(self.recommend(pods.desired, self._per_pod.mean()))
        self._recommended.add(seen.now_seconds, recommended)
        if recommended >= pods.desired:
            return recommended
        return int(self._recommended.min())


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What vLLM reports of itself: KV tokens, sequences and tokens a step of one replica."""

    kv_capacity_tokens: float
    max_num_seqs: float
    max_num_batched_tokens: float


class WvaSaturation(OneVariant):
    """llm-d's Workload Variant Autoscaler, saturation analyzer V2, for one variant of role Both.

    Rules, from llm-d-workload-variant-autoscaler internal/engines/analyzers/saturation_v2/analyzer.go
    and engine_v2.go (docs: saturation-scaling-config.md):

    - k1 = KV tokens x 0.80. k2 = tokens in use per replica whenever its queue is at least 5, mean of the
      last 10, apart for short (< 100), medium (< 500) and long outputs; before there is one,
      min(B O / (I + O), S) x (I + O / 2), with B tokens a step, S sequences, I and O mean lengths.
      Capacity of a replica = min(k1, k2).
    - demand = tokens in use + queue x (I + O).
    - required = demand / 0.85 - (ready + starting) x capacity: above 0, add ceil(required / capacity).
    - spare = ready x capacity - demand / 0.70: remove one replica for each whole capacity in it.
    - `wva_desired_replicas` goes through an HPA: 10 % tolerance, scale-down stabilization of 120 s as
      in llm-d's guide, HpaBehavior's limit upwards.

    scale_up_threshold is WVA's setting; the boundary below moves with it, as 0.70 to 0.85.
    """

    name = "wva"
    KV_THRESHOLD = 0.80
    QUEUE_THRESHOLD = 5.0
    OBSERVED = 10
    BUCKETS = (100.0, 500.0)  # output tokens
    BOUNDARY_RATIO = 0.70 / 0.85
    STABILIZATION_SECONDS = 120.0

    def __init__(
        self,
        limits: EngineLimits,
        *,
        scale_up_threshold: float = 0.85,
        min_replicas: int = 1,
        max_replicas: int,
    ) -> None:
        super().__init__(min_replicas=min_replicas, max_replicas=max_replicas)
        positive(self.name, "scale_up_threshold", scale_up_threshold)
        self.limits, self.scale_up_threshold = limits, scale_up_threshold
        self._observed: dict[int, deque[float]] = {}
        self._behavior = HpaBehavior(self.STABILIZATION_SECONDS)

    def replica_capacity_tokens(self, seen: Seen) -> float:
        """Return what one replica holds in KV tokens, and learn from a queue that stands now."""
        pods, isl, osl = seen.variant, seen.service.isl_tokens, seen.service.osl_tokens
        held = self._observed.setdefault(
            bisect_right(self.BUCKETS, osl), deque(maxlen=self.OBSERVED)
        )
        if pods.waiting / pods.ready >= self.QUEUE_THRESHOLD:
            held.append(pods.kv_cache_usage_ratio * self.limits.kv_capacity_tokens)
        k1 = self.limits.kv_capacity_tokens * self.KV_THRESHOLD
        if held:
            return min(k1, sum(held) / len(held))
        steady = min(
            self.limits.max_num_batched_tokens * osl / (isl + osl), self.limits.max_num_seqs
        )
        return min(k1, steady * (isl + osl / 2))

    def _wanted(self, seen: Seen) -> int:
        pods, isl, osl = seen.variant, seen.service.isl_tokens, seen.service.osl_tokens
        known = (pods.kv_cache_usage_ratio, pods.waiting, isl, osl)
        if pods.ready == 0 or not all(map(math.isfinite, known)) or isl + osl <= 0:
            return pods.desired
        capacity = self.replica_capacity_tokens(seen)
        if capacity <= 0:  # nothing was ever in use: nothing can be said
            return pods.desired
        used = pods.kv_cache_usage_ratio * self.limits.kv_capacity_tokens * pods.ready
        demand = used + pods.waiting * (isl + osl)
        required = demand / self.scale_up_threshold - (pods.ready + pods.starting) * capacity
        boundary = self.scale_up_threshold * self.BOUNDARY_RATIO
        spare = pods.ready * capacity - demand / boundary
        wanted = pods.desired
        if required > 0:
            wanted += math.ceil(required / capacity)
        elif spare > 0:
            wanted -= math.floor(spare / capacity)
        wanted = self._within(wanted)
        if abs(wanted / pods.desired - 1) <= TOLERANCE + 1e-9:
            wanted = pods.desired
        return self._behavior.apply(seen.now_seconds, pods.desired, wanted)


class LocalLinearTrend:
    """Dynamo's Kalman predictor: observe one value, predict the next.

    level' = level + trend + w, trend' = trend + u; variances q_level 1, q_trend 0.1, of a measurement 10;
    state 0 with variance 1000 at first (dynamo/planner, KalmanPredictor and its defaults). With fewer
    than 5 values the last one is the prediction.
    """

    MIN_POINTS = 5
    MOVE = np.array([[1.0, 1.0], [0.0, 1.0]])
    NOISE = np.diag([1.0, 0.1])
    MEASUREMENT = 10.0

    def __init__(self) -> None:
        self._state = np.zeros(2)
        self._variance = np.eye(2) * 1000.0
        self._seen = 0
        self._last = 0.0

    def observe(self, value: float) -> None:
        """Take the value of the interval that ended."""
        state = self.MOVE @ self._state
        variance = self.MOVE @ self._variance @ self.MOVE.T + self.NOISE
        gain = variance[:, 0] / (variance[0, 0] + self.MEASUREMENT)
        self._state = state + gain * (value - state[0])
        self._variance = variance - np.outer(gain, variance[0])
        self._seen += 1
        self._last = value

    def predict(self) -> float:
        """Return the value expected of the next interval, not below 0."""
        if self._seen < self.MIN_POINTS:
            return self._last
        return max(0.0, float((self.MOVE @ self._state)[0]))


class DynamoPlanner(OneVariant):
    """NVIDIA Dynamo's SLA planner, throughput-based scaling of an aggregated engine.

    Rules, from ai-dynamo's planner design page and dynamo/planner (1.6.1, core/throughput_scaling.py):

    - every 180 s: requests of the interval that ended are given to the predictor (Kalman, above), which
      predicts the next interval's: one interval ahead, however long a start takes.
    - replicas = ceil(predicted requests / s / engine's requests / s under the SLA), at least 1, changed
      by at most 8 at once.
    - nothing while replicas are still starting, or without traffic data; leading idle is skipped.

    engine_rps is what the profile says that one engine serves within the SLA at the mean lengths. Here
    it is the very capacity of the simulated engine, times a share that is tuned, which is kinder than a
    profile measured beforehand. Its load-based mode is reactive and not modelled.
    """

    name = "dynamo"
    INTERVAL_SECONDS = 180.0
    MAX_STEP = 8

    def __init__(self, *, engine_rps: float, min_replicas: int = 1, max_replicas: int) -> None:
        super().__init__(min_replicas=min_replicas, max_replicas=max_replicas)
        positive(self.name, "engine_rps", engine_rps)
        self.engine_rps = engine_rps
        self._predictor = LocalLinearTrend()
        self._requests = 0.0
        self._seconds = 0.0
        self._busy = False  # has there been any traffic yet

    def _wanted(self, seen: Seen) -> int:
        pods = seen.variant
        self._requests += seen.service.arrival_rate_rps * seen.interval_seconds
        self._seconds += seen.interval_seconds
        if self._seconds < self.INTERVAL_SECONDS - 1e-6:
            return pods.desired
        requests = self._requests * self.INTERVAL_SECONDS / self._seconds
        self._requests = self._seconds = 0.0
        self._busy = self._busy or requests > 0
        if not self._busy:
            return pods.desired
        self._predictor.observe(requests)
        if pods.starting:
            return pods.desired
        rate = self._predictor.predict() / self.INTERVAL_SECONDS
        wanted = max(1, math.ceil(rate / self.engine_rps - 1e-9))
        return min(max(wanted, pods.desired - self.MAX_STEP), pods.desired + self.MAX_STEP)

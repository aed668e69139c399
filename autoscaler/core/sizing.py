"""Replicas that each variant alone would need, for all services in one batch.

A newsvendor: the least count whose expected share of requests within the SLO, over the whole
predictive distribution of demand, reaches the target. Where even an idle fleet cannot reach it, the
target is lowered to just below what an idle fleet attains: more replicas than that buy nothing.

A lane is one (service, variant). Lanes of one role are evaluated together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.assess import Situation
from autoscaler.core.demand import PROBABILITIES, WEIGHTS
from autoscaler.core.outcome import FloatArray, Forecasts
from models import capacity
from models.step_time import Coefficients

MOST_REPLICAS = 1000  # of one variant alone; a need beyond it is reported as unmet
IDLE_RPS = 1e-3  # a load that no queue notices
CEILING_SLACK = 0.25  # of the allowed misses, below what an idle fleet attains

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """Lanes of one role: what the capacity functions take, shape (n,) each."""

    index: IntArray
    coefficients: Coefficients
    targets: capacity.TargetArrays
    isl_tokens: FloatArray
    osl_tokens: FloatArray

    def attainment(self, rates_rps: FloatArray, replicas: FloatArray) -> FloatArray:
        """Return the share within the SLO at rates (n, K) with replicas (n,), shape (n, K)."""
        return capacity.attainment(
            self.coefficients.expand(),
            rates_rps,
            replicas[:, np.newaxis],
            self.isl_tokens[:, np.newaxis],
            self.osl_tokens[:, np.newaxis],
            self.targets.expand(),
        )


@dataclass(frozen=True, slots=True)
class Sizes:
    """Needs per lane, shape (N,), as counts of that variant alone; K demand points.

    A lane whose speed is unknown has `known` False.
    """

    lanes: Mapping[tuple[str, str], int]
    batches: tuple[Batch, ...]
    attainment_target: FloatArray
    ceiling: FloatArray  # what an idle fleet attains
    known: NDArray[np.bool_]
    future: IntArray
    hold: IntArray
    present: IntArray
    reactive: IntArray
    future_rps: FloatArray  # (N, K), the demand points at the lead time

    def lane(self, service: str, variant: str) -> int | None:
        """Return the lane of a variant, None if it was not sized or its speed is unknown."""
        at = self.lanes.get((service, variant))
        return at if at is not None and bool(self.known[at]) else None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a chosen count of each lane carries, attains and shows; NaN where it has no replica."""

    carried_rps: FloatArray
    attainment: FloatArray
    ttft_p95_seconds: FloatArray
    tpot_p95_seconds: FloatArray


def size_all(situations: Sequence[Situation], forecasts: Forecasts) -> Sizes:
    """Size every variant of every service that has a demand."""
    keys = [(s.policy.service, v.name) for s in situations for v in s.policy.variants]
    roles = [v.role.value for s in situations for v in s.policy.variants]
    owners = [s for s in situations for _ in s.policy.variants]
    demands = [s.demand for s in owners if s.demand is not None]
    batches = _batches(keys, roles, owners, forecasts)
    most = np.full(len(keys), MOST_REPLICAS, dtype=np.int64)
    idle = np.full((len(keys), 1), IDLE_RPS)
    ceiling = _gather(
        batches, lambda b: b.attainment(idle[b.index], most[b.index].astype(float))[:, 0]
    )
    allowed = np.array([1.0 - s.policy.attainment for s in owners])
    wanted = np.array([s.attainment_target for s in owners])
    target = np.minimum(wanted, ceiling - CEILING_SLACK * allowed)

    def required(rates: FloatArray) -> IntArray:
        found = _gather(batches, lambda b: _required(b, rates[b.index], target, most))
        return np.where(np.isfinite(found), found, -1).astype(np.int64)

    points = [_stack([getattr(d, name) for d in demands]) for name in ("future", "hold", "present")]
    reactive = np.array([d.reactive_rps for d in demands]).reshape(len(demands), 1)
    future = required(points[0])
    return Sizes(
        lanes={key: i for i, key in enumerate(keys)},
        batches=batches,
        attainment_target=target,
        ceiling=ceiling,
        known=future >= 0,
        future=future,
        hold=required(points[1]),
        present=required(points[2]),
        reactive=required(np.broadcast_to(reactive, points[0].shape)),
        future_rps=points[0],
    )


def evaluate(sizes: Sizes, counts: FloatArray, share: FloatArray) -> Evaluation:
    """Evaluate counts (N,) that each serve a share (N,) of their service's load.

    Attainment is expected over the demand at the lead time; latency is at that demand's median.
    """
    used = sizes.known & (counts > 0)
    n = np.where(used, counts, 1.0)
    rates = np.maximum(IDLE_RPS, sizes.future_rps * share[:, np.newaxis])
    weights = WEIGHTS * rates
    median = rates[:, len(PROBABILITIES) // 2]

    def attained(b: Batch) -> FloatArray:
        w = weights[b.index]
        got: FloatArray = (w * b.attainment(rates[b.index], n[b.index])).sum(axis=1) / w.sum(axis=1)
        return got

    def latency(name: str) -> Callable[[Batch], FloatArray]:
        return lambda b: capacity.predicted_latency(
            b.coefficients, median[b.index], n[b.index], b.isl_tokens, b.osl_tokens
        )[name]

    def carried(b: Batch) -> FloatArray:
        goal, count = sizes.attainment_target[b.index], n[b.index]
        per_replica = capacity.replica_capacity_rps(
            b.coefficients, b.isl_tokens, b.osl_tokens, b.targets, goal, count
        )
        return count * per_replica

    found = (
        _gather(sizes.batches, f)
        for f in (carried, attained, latency("ttft_p95"), latency("tpot_p95"))
    )
    return Evaluation(*(np.where(used, values, np.nan) for values in found))


def _batches(
    keys: Sequence[tuple[str, str]],
    roles: Sequence[str],
    owners: Sequence[Situation],
    forecasts: Forecasts,
) -> tuple[Batch, ...]:
    demands = [s.demand for s in owners if s.demand is not None]
    batches = []
    for role in sorted(set(roles)):
        index = np.array([i for i, r in enumerate(roles) if r == role], dtype=np.int64)
        batches.append(
            Batch(
                index=index,
                coefficients=forecasts.latency.coefficients([keys[i] for i in index]),
                targets=capacity.TargetArrays.of([owners[i].policy.targets for i in index], role),
                isl_tokens=np.array([demands[i].isl_tokens for i in index]),
                osl_tokens=np.array([demands[i].osl_tokens for i in index]),
            )
        )
    return tuple(batches)


def _required(b: Batch, rates: FloatArray, target: FloatArray, most: IntArray) -> FloatArray:
    found = capacity.required_replicas(
        b.coefficients,
        rates,
        np.broadcast_to(WEIGHTS, rates.shape),
        b.isl_tokens,
        b.osl_tokens,
        b.targets,
        target[b.index],
        most[b.index],
    )
    return np.where(found >= 0, found, np.nan)


def _gather(batches: Sequence[Batch], f: Callable[[Batch], FloatArray]) -> FloatArray:
    """Evaluate each batch and put the results in the lanes' order."""
    out = np.full(sum(len(b.index) for b in batches), np.nan)
    for b in batches:
        out[b.index] = f(b)
    return out


def _stack(points: Sequence[FloatArray]) -> FloatArray:
    return np.array(points, dtype=np.float64).reshape(len(points), len(PROBABILITIES))

"""Requests that a replica holds at a load: what concurrency, which every engine tells, says of the load.

By Little's law the requests on a replica are the arrival rate times what each of them takes there: waiting,
prefill and decode, of the mean field (`models.step_time`) and its queues (`models.latency_tails`).
"""

import numpy as np

from models.capacity import DECODE, PREFILL, FloatArray, TargetArrays, replica_capacity_rps
from models.latency_tails import tails
from models.step_time import Coefficients, mean_field, request_work


def mean_requests(
    c: Coefficients,
    arrival_rate_rps: FloatArray,
    replicas: FloatArray,
    isl_tokens: FloatArray,
    osl_tokens: FloatArray,
    role: str,
) -> FloatArray:
    """Return the requests running and waiting on each replica, a mean; shapes broadcast.

    `arrival_rate_rps` is the variant's, over all its replicas. Infinite at and beyond saturation.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        work = request_work(
            c, isl_tokens, osl_tokens, prefill=role != DECODE, decode=role != PREFILL
        )
        rate = arrival_rate_rps / replicas
        batch = mean_field(c, work, rate, replicas)
        t = tails(c, work, batch, rate, replicas)
        waits = t.queue_chance * t.queue_seconds + t.slot_chance * t.slot_seconds
        held: FloatArray = np.where(t.saturated, np.inf, batch.running + rate * waits)
    return held


def replica_concurrency(
    c: Coefficients,
    isl_tokens: FloatArray,
    osl_tokens: FloatArray,
    targets: TargetArrays,
    attainment_target: FloatArray,
    replicas: FloatArray,
) -> FloatArray:
    """Return the requests on a replica at the highest load that meets the target, `replicas` sharing it.

    0 where not even an idle replica meets it; NaN where an input is NaN.
    """
    rps = replica_capacity_rps(c, isl_tokens, osl_tokens, targets, attainment_target, replicas)
    held = mean_requests(c, rps * replicas, replicas, isl_tokens, osl_tokens, targets.role)
    return np.where(rps > 0, held, rps)

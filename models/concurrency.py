"""Requests that a replica holds at a load: what concurrency, which every engine tells, says of the load.

By Little's law the requests on a replica are the arrival rate times what each of them takes there: waiting,
prefill and decode, of the mean field (`models.step_time`) and its queues (`models.latency_tails`).
"""

import numpy as np

from models.capacity import DECODE, PREFILL, FloatArray, TargetArrays, replica_capacity_rps
from models.latency_correction import Correction
from models.latency_tails import tails
from models.step_time import Coefficients, mean_field, request_work

BISECTIONS = 12  # of the rate: to a 4,000th of saturation, in a third of the time


def mean_requests(
    c: Coefficients,
    arrival_rate_rps: FloatArray,
    replicas: FloatArray,
    isl_tokens: FloatArray,
    osl_tokens: FloatArray,
    role: str,
    correction: Correction | None = None,
) -> FloatArray:
    """Return the requests running and waiting on each replica, a mean; shapes broadcast.

    `arrival_rate_rps` is the variant's, over all its replicas; `correction`: what was learned beyond the
    physics. Infinite at and beyond saturation.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        work = request_work(
            c, isl_tokens, osl_tokens, prefill=role != DECODE, decode=role != PREFILL
        )
        rate = arrival_rate_rps / replicas
        batch = mean_field(c, work, rate, replicas)
        plain = tails(c, work, batch, rate, replicas)
        t = plain if correction is None else correction.apply(plain, work, rate)
        first = t.start_seconds / plain.start_seconds
        token = t.tpot_floor_seconds / plain.tpot_floor_seconds
        waits = t.queue_chance * t.queue_seconds + t.slot_chance * t.slot_seconds
        prompt = work.prefill_seconds + work.decode_seconds * batch.neighbours
        decode = work.osl_tokens * batch.tpot_seconds
        running = np.minimum(rate * (decode * token + prompt * first), work.slots)
        held: FloatArray = np.where(t.saturated, np.inf, running + rate * waits)
    return held


def replica_concurrency(
    c: Coefficients,
    isl_tokens: FloatArray,
    osl_tokens: FloatArray,
    targets: TargetArrays,
    attainment_target: FloatArray,
    replicas: FloatArray,
    correction: Correction | None = None,
) -> FloatArray:
    """Return the requests on a replica at the highest load that meets the target, `replicas` sharing it.

    0 where not even an idle replica meets it; NaN where an input is NaN.
    """
    mix = (isl_tokens, osl_tokens)
    rps = replica_capacity_rps(
        c,
        *mix,
        targets,
        attainment_target,
        replicas,
        correction=correction,
        bisections=BISECTIONS,
    )
    held = mean_requests(c, rps * replicas, replicas, *mix, targets.role, correction)
    return np.where(rps > 0, held, rps)

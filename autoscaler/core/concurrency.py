"""What a replica holds within the SLO, in requests: by it anybody can count replicas from a queue alone.

The scaler that KEDA asks does so when decisions stay away (docs/design/018).
"""

import math
from collections.abc import Collection

import numpy as np

from autoscaler.core.outcome import FloatArray
from autoscaler.core.sizing import Sizes
from models.capacity import TargetArrays
from models.concurrency import replica_concurrency
from models.step_time import Coefficients

LEAST = 1.0  # a replica holds one request, however tight the SLO


def concurrency_within_slo(
    sizes: Sizes, counts: FloatArray, lanes: Collection[int]
) -> dict[int, float]:
    """Return the requests (running and waiting) of one replica at its SLO, by lane; of `lanes` alone.

    `counts` (N,): the replicas that share the load. A lane whose SLO even an idle replica misses has none.
    """
    out: dict[int, float] = {}
    wanted = np.zeros(len(counts), dtype=bool)
    wanted[list(lanes)] = True
    for b in sizes.batches:
        rows = np.flatnonzero((wanted & sizes.known)[b.index])
        if not rows.size:
            continue
        at, goals = b.index[rows], b.targets
        held = replica_concurrency(
            Coefficients.from_columns(b.coefficients.columns()[:, rows]),
            b.isl_tokens[rows],
            b.osl_tokens[rows],
            TargetArrays(
                goals.ttft_seconds[rows],
                goals.tpot_seconds[rows],
                goals.e2e_seconds[rows],
                goals.role,
            ),
            sizes.attainment_target[at],
            np.maximum(counts[at], 1.0),
            None if b.correction is None else b.correction.rows(rows),
        )
        for lane, requests in zip(at.tolist(), held.tolist(), strict=True):
            if math.isfinite(requests) and requests > 0:
                out[lane] = max(LEAST, requests)
    return out

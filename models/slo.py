"""Service-level objectives as numbers: what a request must meet to count as served well."""

import math
from dataclasses import dataclass

MIN_TPOT_OUTPUT_TOKENS = 8  # a mean over fewer tokens says nothing: judged on TTFT alone (PROTOCOL)


@dataclass(frozen=True, slots=True)
class SloTargets:
    """Per-request targets in seconds; infinity where the policy sets none.

    ttft: arrival to first token, all waiting included. tpot: (last token - first token) divided by
    (output tokens - 1). e2e: arrival to last token.
    """

    ttft_seconds: float = math.inf
    tpot_seconds: float = math.inf
    e2e_seconds: float = math.inf

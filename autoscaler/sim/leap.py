"""Kernels of a leap: the time and the KV blocks of steps that only decode, in closed form."""
# mypy: disable-error-code="no-any-return"

import numpy as np
from numba import njit

from autoscaler.sim.state import Record, Replicas


@njit(nogil=True)
def leap_seconds(s: Record, steps: int) -> float:
    """Seconds of the next `steps` steps if they only decode: each reads one more token a sequence."""
    growth = s.per_context * s.decoding
    first = s.base + s.per_sequence * s.decoding + s.per_context * (s.context + s.decoding)
    return steps * first + growth * (steps * (steps - 1) / 2)


@njit(nogil=True)
def leap_steps(s: Record, seconds: float) -> int:
    """Whole steps that fit into `seconds`: leap_seconds solved for its steps, a quadratic."""
    growth = s.per_context * s.decoding
    linear = leap_seconds(s, 1) - growth / 2
    steps = int(2 * seconds / (linear + np.sqrt(linear * linear + 2 * growth * seconds)))
    if leap_seconds(s, steps + 1) <= seconds:  # rounding must neither lose a step nor invent one
        return steps + 1
    return steps if leap_seconds(s, steps) <= seconds else steps - 1


@njit(nogil=True)
def later_blocks(f: Replicas, r: int, steps: int) -> int:
    """Blocks that the second to the last of the next `steps` decode-only steps take."""
    s = f.state[r]
    needed = ((steps - 1) // s.block) * s.decoding
    at = (s.steps + 1) % s.block
    for _ in range((steps - 1) % s.block):
        needed += f.crossing[r, at]
        at += 1
        if at == s.block:
            at = 0
    return needed

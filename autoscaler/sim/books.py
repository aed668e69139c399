"""Kernels that keep a replica's books: its integrals over time, and its blocks."""
# mypy: disable-error-code="no-any-return"

from numba import njit

from autoscaler.sim.state import NONE, Record


@njit(nogil=True)
def touch(s: Record, now: float) -> None:
    """Integrate what a replica holds up to `now`."""
    seconds = now - s.touched
    s.running_area += seconds * (s.joined + (1 if s.chunked != NONE else 0))
    s.waiting_area += seconds * s.waiting
    s.blocks_area += seconds * (s.blocks - s.free)
    s.touched = now


@njit(nogil=True)
def whole_blocks(tokens: int, block: int) -> int:
    """Return the blocks that so many tokens take."""
    return (tokens + block - 1) // block


@njit(nogil=True)
def take(s: Record, blocks: int) -> None:
    """Hand out free blocks."""
    s.free -= blocks
    s.taken += blocks


@njit(nogil=True)
def free_late(s: Record) -> None:
    """Free what ended late: places and blocks that an asynchronous scheduler did not have yet."""
    s.free += s.late_blocks
    s.late_sequences = s.late_blocks = 0

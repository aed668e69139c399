"""Kernels of the prefix cache: what of a prompt need not be computed again.

vLLM keeps freed blocks in a queue, in the order in which they were freed, the end of a sequence before its
beginning. A block is found again until the blocks ahead of it in the queue, and then it, have been handed
out (vllm/v1/core/block_pool.py, kv_cache_manager.py: whole blocks only, at least one token is computed).
Here a replica counts the blocks that it ever handed out: what was freed with `room` free blocks ahead of
it is whole as long as no more than that were taken since, and then shrinks from its end.

Simplifications: a group of requests has one prefix a replica, as long as the longest of its members'
sequences; blocks are not shared between requests that run together, so that a hit saves work, no memory.
"""
# mypy: disable-error-code="no-any-return"

from numba import njit

from autoscaler.sim.state import NONE, Ledger, Record, Replicas


@njit(nogil=True)
def _left(s: Record, tokens: int, taken: int, room: int) -> int:
    """Tokens that are left, in whole blocks, of what was freed at `taken` behind `room` free blocks."""
    blocks = tokens // s.block - max(0, s.taken - taken - room)
    return max(0, blocks) * s.block


@njit(nogil=True)
def cached_tokens(f: Replicas, q: Ledger, r: int, i: int) -> int:
    """Tokens of request i's prompt that replica r need not compute."""
    s, request = f.state[r], q.request[i]
    if s.caching == 0:
        return 0
    hit = 0
    if request.kept > 0:
        hit = _left(s, request.kept, request.kept_taken, request.kept_room)
    if request.group != NONE:
        c = f.cached[r, request.group]
        tokens = c.tokens
        if c.users == 0:
            tokens = _left(s, tokens, c.taken, c.room)
        hit = max(hit, min(tokens, request.prefix))
    return min(hit, request.input + request.generated - 1) // s.block * s.block


@njit(nogil=True)
def enter_cache(f: Replicas, q: Ledger, r: int, i: int) -> None:
    """Note that the prompt of request i is computed on replica r, and stays while i runs."""
    request = q.request[i]
    request.kept = 0
    if f.state[r].caching == 1 and request.group != NONE:
        c = f.cached[r, request.group]
        known = request.input + request.generated
        if c.users > 0:
            known = max(known, c.tokens)
        c.tokens = known
        c.users += 1


@njit(nogil=True)
def leave_cache(f: Replicas, q: Ledger, r: int, i: int, tokens: int) -> None:
    """Note that a running request, with `tokens` in the cache, has just been taken off replica r."""
    s, request = f.state[r], q.request[i]
    if s.caching == 1 and request.group != NONE:
        c = f.cached[r, request.group]
        c.users -= 1
        c.tokens = max(c.tokens, tokens)
        if c.users == 0:
            c.taken = s.taken
            c.room = max(0, s.free + s.late_blocks - c.tokens // s.block)

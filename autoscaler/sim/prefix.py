"""Kernels of the prefix cache: what of a prompt need not be computed again.

vLLM keeps freed blocks in a queue, in the order in which they were freed, the end of a sequence before its
beginning. A block is found again until the blocks ahead of it in the queue, and then it, have been handed
out (vllm/v1/core/block_pool.py, kv_cache_manager.py: whole blocks only, at least one token is computed).
Here a replica counts the blocks that it ever handed out: what was freed with `room` free blocks ahead of
it is whole as long as no more than that were taken since, and then shrinks from its end.

Requests of a group that run together share the blocks of their prefix. They belong to the group, and are
freed when the last of them leaves. Simplified: of the sequences of a group only the last one that was
freed is remembered, and blocks taken out of the middle of the queue count as taken from its head.
"""
# mypy: disable-error-code="no-any-return"

from numba import njit

from autoscaler.sim.state import NONE, Ledger, Record, Replicas


@njit(nogil=True)
def _left(s: Record, tokens: int, taken: int, room: int) -> int:
    """Blocks that are left of what was freed at `taken` behind `room` free blocks."""
    return max(0, tokens // s.block - max(0, s.taken - taken - room))


@njit(nogil=True)
def _group_blocks(f: Replicas, q: Ledger, r: int, i: int) -> int:
    """Blocks of request i's prefix that replica r has for its group, in use or free."""
    s, request = f.state[r], q.request[i]
    if s.caching == 0 or request.group == NONE:
        return 0
    c = f.cached[r, request.group]
    blocks = max(c.owned, _left(s, c.tokens, c.taken, c.room))
    whole = min(request.prefix, request.input + request.generated - 1) // s.block
    return min(blocks, whole)


@njit(nogil=True)
def cached_tokens(f: Replicas, q: Ledger, r: int, i: int) -> int:
    """Tokens of request i's prompt that replica r need not compute: whole blocks, never all."""
    s, request = f.state[r], q.request[i]
    blocks = _group_blocks(f, q, r, i)
    if s.caching == 1 and request.kept > 0:
        own = _left(s, request.kept, request.kept_taken, request.kept_room)
        blocks = max(blocks, min(own, (request.input + request.generated - 1) // s.block))
    return blocks * s.block


@njit(nogil=True)
def blocks_in_use(f: Replicas, q: Ledger, r: int, i: int) -> int:
    """Blocks of request i's prefix that others hold on replica r: it need not take them."""
    group = q.request[i].group
    if group == NONE:
        return 0
    return min(f.cached[r, group].owned, _group_blocks(f, q, r, i))


@njit(nogil=True)
def join_group(f: Replicas, q: Ledger, r: int, i: int) -> None:
    """Let request i, which is admitted to replica r, share what there is of its prefix."""
    request = q.request[i]
    blocks = _group_blocks(f, q, r, i)
    if blocks > 0:
        c = f.cached[r, request.group]
        c.users += 1
        c.owned = max(c.owned, blocks)
        request.shared = blocks


@njit(nogil=True)
def share_prompt(f: Replicas, q: Ledger, r: int, i: int, tokens: int) -> None:
    """Give the group what request i computed of its prefix, unless another one did meanwhile.

    tokens: of its prompt that are computed when the step ends. As in vLLM a block can be found as soon
    as the step that fills it is scheduled, though the prompt goes on.
    """
    s, request = f.state[r], q.request[i]
    request.kept = 0
    if request.group == NONE:
        return
    c, whole = f.cached[r, request.group], min(request.prefix, tokens) // s.block
    if whole > request.shared and c.owned == request.shared:
        if request.shared == 0:
            c.users += 1
        c.owned = request.shared = whole


@njit(nogil=True)
def give_back(f: Replicas, q: Ledger, r: int, i: int, tokens: int) -> int:
    """Return the blocks that are free now that request i, with `tokens` in the cache, leaves replica r."""
    s, request = f.state[r], q.request[i]
    blocks = (tokens + s.block - 1) // s.block - request.shared
    if request.group != NONE and s.caching == 1:
        c = f.cached[r, request.group]
        if request.shared > 0:
            c.users -= 1
            if c.users == 0:
                blocks += c.owned
                c.owned = 0
        c.tokens, c.taken = tokens, s.taken
        c.room = max(0, s.free + s.late_blocks + blocks - tokens // s.block)
    request.shared = 0
    return blocks

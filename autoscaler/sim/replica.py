"""The compiled heart of the simulator: replicas that batch continuously, as vLLM's V1 scheduler does.

Each step of a replica: (1) every running sequence gets its next token; a sequence that crosses a block
boundary takes one more KV block, and while blocks are short the latest-arrived running sequence is
preempted: its blocks are freed, it returns to the head of the queue and later computes prompt and
generated tokens again. (2) The prompt that is under way gets the next chunk. (3) If nothing was
preempted, waiting requests are admitted in order of arrival while tokens, sequences and blocks last;
the whole prompt must fit into the free blocks, only the chunk takes them.
Source: vllm/v1/core/sched/scheduler.py (`schedule`, FCFS) and `scheduler_reserve_full_isl`, on by default.

Why this is fast: all decoding sequences advance in lockstep, so a replica keeps the step at which each
one ends, the sum of their contexts, and how many cross a block boundary at each step modulo the block
size. A step costs O(1). Where nothing but decoding can happen until the next end, all steps up to it
are one leap, timed by the closed form of an arithmetic series and cut short if a request comes.
All kernels live in this file: numba's cache of a function watches its own file only.
"""
# mypy: disable-error-code="no-any-return"
# (numba compiles field access on records; to Python's type system they are opaque)

import numpy as np
from numba import njit

from autoscaler.sim.state import IDLE, NEVER, NONE, IntArray, Ledger, Record, Replicas

LEAST_LOAD, ROUND_ROBIN, POWER_OF_TWO = 0, 1, 2


@njit(nogil=True)
def _touch(s: Record, now: float) -> None:
    """Integrate what a replica holds up to `now`."""
    seconds = now - s.touched
    s.running_area += seconds * (s.joined + (1 if s.chunked != NONE else 0))
    s.waiting_area += seconds * s.waiting
    s.blocks_area += seconds * (s.blocks - s.free)
    s.touched = now


@njit(nogil=True)
def _blocks(tokens: int, block: int) -> int:
    return (tokens + block - 1) // block


@njit(nogil=True)
def _crossing_key(request: Record, end_step: int, block: int) -> int:
    """Step count (modulo block) at which a decoding request needs a new block.

    At its end the cache holds input + output - 1 tokens; counting back, it holds a multiple of the
    block, and needs one more, before the steps that are congruent to this.
    """
    return (end_step + 1 - request.input - request.output) % block


@njit(nogil=True)
def _leave(f: Replicas, q: Ledger, r: int, k: int, held_tokens: int) -> None:
    """Take member k, which decodes, off replica r and free its blocks."""
    s = f.state[r]
    f.crossing[r, _crossing_key(q.request[f.members[r, k]], f.end_step[r, k], s.block)] -= 1
    s.free += _blocks(held_tokens, s.block)
    s.context -= held_tokens
    s.joined -= 1
    s.decoding = s.joined
    f.members[r, k] = f.members[r, s.joined]
    f.end_step[r, k] = f.end_step[r, s.joined]


@njit(nogil=True)
def _retire(f: Replicas, q: Ledger, r: int, now: float) -> None:
    """End the sequences whose last token came with the step that ends now."""
    s, c = f.state[r], q.tally[0]
    k, soonest = 0, NEVER
    while k < s.decoding:
        if f.end_step[r, k] > s.steps:
            soonest = min(soonest, f.end_step[r, k])
            k += 1
            continue
        i = f.members[r, k]
        q.request[i].end = now
        q.end_log[c.ends] = i
        c.ends += 1
        s.load -= 1
        _leave(f, q, r, k, q.request[i].input + q.request[i].output - 1)
    s.next_end = soonest


@njit(nogil=True)
def _preempt(f: Replicas, q: Ledger, r: int) -> None:
    """Send the latest-arrived running request back to the head of the queue, its blocks freed."""
    s = f.state[r]
    victim = s.chunked
    if victim != NONE:
        s.free += _blocks(s.chunk_done, s.block)
        s.chunked = NONE
    else:
        k = 0
        for j in range(1, s.decoding):
            if f.members[r, j] > f.members[r, k]:
                k = j
        victim = f.members[r, k]
        request = q.request[victim]
        request.generated = request.output - (f.end_step[r, k] - s.steps)
        _leave(f, q, r, k, request.input + request.generated - 1)
        s.next_end = NEVER
        for j in range(s.decoding):
            s.next_end = min(s.next_end, f.end_step[r, j])
    q.request[victim].following = s.head
    s.head = victim
    if s.tail == NONE:
        s.tail = victim
    s.waiting += 1
    q.tally[0].preemptions += 1


@njit(nogil=True)
def _compute_prompt(f: Replicas, q: Ledger, r: int, i: int, done: int, budget: int) -> int:
    """Schedule the next chunk of request i; returns its tokens, 0 when no block is left for it."""
    s, request = f.state[r], q.request[i]
    needed = request.input + request.generated
    chunk = min(needed - done, budget)
    blocks = _blocks(done + chunk, s.block) - _blocks(done, s.block)
    if blocks > s.free:
        return 0
    s.free -= blocks
    if done + chunk < needed:
        s.chunked = i
        s.chunk_done = done + chunk
        return chunk
    s.chunked = NONE
    f.members[r, s.joined] = i  # its first token comes with this step, then one a step
    f.end_step[r, s.joined] = s.steps + request.output - request.generated
    s.joined += 1
    return chunk


@njit(nogil=True)
def _schedule_prompts(f: Replicas, q: Ledger, r: int, preempted: bool) -> tuple[int, int, bool]:
    """Fill the step with prompts; returns (prompts, their tokens, whether anything was preempted)."""
    s = f.state[r]
    budget = s.max_tokens - s.decoding
    prompts, tokens = 0, 0
    if s.chunked != NONE and budget > 0:
        tokens = _compute_prompt(f, q, r, s.chunked, s.chunk_done, budget)
        if tokens == 0:
            _preempt(f, q, r)
            preempted = True
        else:
            prompts = 1
    while not preempted and s.waiting > 0 and s.chunked == NONE and tokens < budget:
        i = s.head
        whole = _blocks(q.request[i].input + q.request[i].generated, s.block)
        if s.joined >= s.max_sequences or whole > s.free:
            break
        s.head = q.request[i].following
        if s.head == NONE:
            s.tail = NONE
        s.waiting -= 1
        tokens += _compute_prompt(f, q, r, i, 0, budget - tokens)
        prompts += 1
    return prompts, tokens, preempted


@njit(nogil=True)
def _leap_seconds(s: Record, steps: int) -> float:
    """Seconds of the next `steps` steps if they only decode: each reads one more token a sequence."""
    growth = s.per_context * s.decoding
    first = s.base + s.per_sequence * s.decoding + s.per_context * (s.context + s.decoding)
    return steps * first + growth * (steps * (steps - 1) / 2)


@njit(nogil=True)
def _leap_steps(s: Record, seconds: float) -> int:
    """Whole steps that fit into `seconds`: _leap_seconds solved for its steps, a quadratic."""
    growth = s.per_context * s.decoding
    linear = _leap_seconds(s, 1) - growth / 2
    steps = int(2 * seconds / (linear + np.sqrt(linear * linear + 2 * growth * seconds)))
    if _leap_seconds(s, steps + 1) <= seconds:  # rounding must neither lose a step nor invent one
        return steps + 1
    return steps if _leap_seconds(s, steps) <= seconds else steps - 1


@njit(nogil=True)
def _later_blocks(f: Replicas, r: int, steps: int) -> int:
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


@njit(nogil=True)
def _start_step(f: Replicas, q: Ledger, r: int, now: float) -> None:
    """Schedule what begins now, a step or a leap of steps, or go idle."""
    s = f.state[r]
    _touch(s, now)
    while True:
        preempted = False
        while f.crossing[r, s.steps % s.block] > s.free:
            _preempt(f, q, r)
            preempted = True
        s.free -= f.crossing[r, s.steps % s.block]
        prompts, tokens, preempted = _schedule_prompts(f, q, r, preempted)
        if s.decoding + prompts > 0:
            break
        if not preempted:
            s.busy_until = IDLE
            s.idle_since = now
            return
    s.leap = 0
    if tokens == 0 and not preempted:  # nothing but decoding is possible until a sequence ends
        s.leap = min(s.next_end - s.steps, s.block * (s.free // s.decoding + 1))
        while _later_blocks(f, r, s.leap) > s.free:
            s.leap -= 1
        s.leap_from = now
        s.busy_until = now + _leap_seconds(s, s.leap)
        return
    s.busy_until = now + (
        s.base
        + s.per_sequence * (s.decoding + prompts)
        + s.per_context * (s.context + s.decoding)
        + s.per_prompt * tokens
    )


@njit(nogil=True)
def _settle(f: Replicas, r: int, steps: int) -> None:
    """Book the first `steps` steps of the leap in flight; the rest, if any, goes on."""
    s = f.state[r]
    seconds = _leap_seconds(s, steps)
    blocks = _later_blocks(f, r, min(steps + 1, s.leap))
    s.blocks_area += seconds * blocks / 2  # blocks are taken evenly over the leap
    s.free -= blocks
    s.steps += steps
    s.context += steps * s.decoding
    s.leap -= steps
    s.leap_from += seconds


@njit(nogil=True)
def _end_step(f: Replicas, q: Ledger, r: int, now: float) -> None:
    """Hand out the tokens of the step or leap that ends now."""
    s, c = f.state[r], q.tally[0]
    _touch(s, now)
    if s.leap > 0:
        _settle(f, r, s.leap)
    else:
        s.steps += 1
        s.context += s.decoding
    for k in range(s.decoding, s.joined):
        i = f.members[r, k]
        request = q.request[i]
        if np.isnan(request.first):
            request.first = now
            q.first_log[c.firsts] = i
            c.firsts += 1
        s.context += request.input + request.generated
        f.crossing[r, _crossing_key(request, f.end_step[r, k], s.block)] += 1
        s.next_end = min(s.next_end, f.end_step[r, k])
    s.decoding = s.joined
    if s.next_end <= s.steps:
        _retire(f, q, r, now)


@njit(nogil=True)
def _run(f: Replicas, q: Ledger, r: int, until: float) -> None:
    """Let replica r work off everything that ends before `until`."""
    s = f.state[r]
    while s.busy_until < until:
        now = s.busy_until
        _end_step(f, q, r, now)
        _start_step(f, q, r, now)


@njit(nogil=True)
def _pause(f: Replicas, r: int, now: float) -> None:
    """Bring replica r's books up to `now`."""
    s = f.state[r]
    _touch(s, now)
    if s.busy_until != IDLE and s.leap > 1:
        steps = _leap_steps(s, now - s.leap_from)
        if 0 < steps < s.leap:
            _settle(f, r, steps)


@njit(nogil=True)
def _pick(f: Replicas, q: Ledger, ready: IntArray, routing: int, i: int) -> int:
    """Choose the slot among `ready` that request i is sent to."""
    n, c = len(ready), q.tally[0]
    turn = c.turn % n
    c.turn = turn + 1
    if routing == ROUND_ROBIN:
        return ready[turn]
    if routing == POWER_OF_TWO and n > 1:
        mixed = (np.uint64(i) + c.seed) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(29)
        one = np.int64(mixed >> np.uint64(40)) % n
        other = (one + 1 + np.int64(mixed & np.uint64(0xFFFFF)) % (n - 1)) % n
        lighter = f.state[ready[one]].load <= f.state[ready[other]].load
        return ready[one] if lighter else ready[other]
    best = ready[turn]  # ties go round, as behind a gateway that breaks them at random
    for j in range(1, n):
        slot = ready[(turn + j) % n]
        if f.state[slot].load < f.state[best].load:
            best = slot
    return best


@njit(nogil=True)
def _send(f: Replicas, q: Ledger, r: int, i: int, now: float) -> None:
    """Queue request i at replica r: an idle one wakes, a leap ends with the step under way."""
    s, request = f.state[r], q.request[i]
    request.slot = r
    if _blocks(request.input + request.output - 1, s.block) > s.blocks:
        return  # longer than the whole cache: vLLM answers with an error
    _touch(s, now)
    request.following = NONE
    if s.tail == NONE:
        s.head = i
    else:
        q.request[s.tail].following = i
    s.tail = i
    s.waiting += 1
    s.load += 1
    if s.busy_until == IDLE:
        s.leap, s.busy_until = (
            0,
            now,
        )  # an empty step that ends now: what is sent now shares the next
    elif s.leap > 1 and s.waiting == 1:  # behind others that wait for an end it waits as well
        s.leap = min(s.leap, _leap_steps(s, now - s.leap_from) + 1)
        s.busy_until = s.leap_from + _leap_seconds(s, s.leap)


@njit(nogil=True)
def _hold(q: Ledger, i: int) -> None:
    """Queue request i at the gateway."""
    c = q.tally[0]
    q.request[i].following = NONE
    if c.gate_tail == NONE:
        c.gate_head = i
    else:
        q.request[c.gate_tail].following = i
    c.gate_tail = i
    c.gate_waiting += 1


@njit(nogil=True)
def _release(f: Replicas, q: Ledger, ready: IntArray, routing: int, now: float) -> None:
    """Send what the gateway holds, oldest first, to the replicas that are ready."""
    c = q.tally[0]
    while c.gate_waiting > 0:
        i = c.gate_head
        c.gate_head = q.request[i].following
        c.gate_waiting -= 1
        _send(f, q, _pick(f, q, ready, routing, i), i, now)
    c.gate_tail = NONE


@njit(cache=True, nogil=True)
def serve(
    f: Replicas, q: Ledger, ready: IntArray, alive: IntArray, routing: int, now: float, until: float
) -> float:
    """Serve from `now` to `until` with a fleet that does not change in between.

    `ready` takes requests; `alive` (ready and draining) works. Arrivals before `until` are routed, steps
    that end before it are done; what comes just as a step ends is there for the next one. Returns the
    integral of the gateway's queue, in request-seconds.
    """
    c = q.tally[0]
    held, last = 0.0, now
    if len(ready) > 0:
        _release(f, q, ready, routing, now)
    while True:
        i = c.arrived
        comes = i < len(q.request) and q.request[i].arrive < until
        at = q.request[i].arrive if comes else until
        for r in alive:
            if f.state[r].busy_until < at:
                _run(f, q, r, at)
        held += (at - last) * c.gate_waiting
        last = at
        if not comes:
            break
        c.arrived += 1
        if len(ready) == 0:
            _hold(q, i)
        else:
            _send(f, q, _pick(f, q, ready, routing, i), i, at)
    for r in alive:
        _pause(f, r, until)
    return held

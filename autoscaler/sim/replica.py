"""The compiled heart of the simulator: replicas that batch continuously, as vLLM's V1 scheduler does.

Each step of a replica: (1) every running sequence gets its next token; a sequence that crosses a block
boundary takes one more KV block, and while blocks are short the running sequence that was admitted last is
preempted: its blocks are freed, it returns to the head of the queue and later computes prompt and
generated tokens again. (2) The prompt that is under way gets the next chunk. (3) If nothing was
preempted, waiting requests are admitted in order of arrival while tokens, sequences and blocks last;
the whole prompt must fit into the free blocks, only the chunk takes them.
Source: vllm/v1/core/sched/scheduler.py (`schedule`, FCFS) and `scheduler_reserve_full_isl`, on by default.

An asynchronous scheduler (vllm/v1/engine/core.py, `step_with_batch_queue`) puts a step together while
the one before it runs. It does not know yet of requests that came meanwhile, and what ends meanwhile
still holds its place and its blocks. Here: at the start of a step, requests that came after the start of
the step before are passed over, and places and blocks of the sequences that just ended are late by one
step; only an engine that would stand still takes both at once.

Why this is fast: all decoding sequences advance in lockstep, so a replica keeps the step at which each
one ends, the sum of their contexts, and how many cross a block boundary at each step modulo the block
size. A step costs O(1). Where nothing but decoding can happen until the next end, all steps up to it
are one leap, timed by the closed form of an arithmetic series and cut short if a request comes.
"""
# mypy: disable-error-code="no-any-return"
# (numba compiles field access on records; to Python's type system they are opaque)

import numpy as np
from numba import njit

from autoscaler.sim.books import free_late, take, touch, whole_blocks
from autoscaler.sim.leap import later_blocks, leap_seconds, leap_steps
from autoscaler.sim.prefix import (
    blocks_in_use,
    cached_tokens,
    give_back,
    join_group,
    share_prompt,
)
from autoscaler.sim.state import (
    ACCEPTED,
    BEYOND_CACHE,
    BEYOND_WINDOW,
    IDLE,
    NEVER,
    NO_OUTPUT,
    NONE,
    PREFILL,
    Ledger,
    Record,
    Replicas,
)
from autoscaler.sim.transfer import put_under_way


@njit(nogil=True)
def _crossing_key(request: Record, end_step: int, block: int) -> int:
    """Step count (modulo block) at which a decoding request needs a new block.

    At its end the cache holds input + output - 1 tokens; counting back, it holds a multiple of the
    block, and needs one more, before the steps that are congruent to this.
    """
    return (end_step + 1 - request.input - request.output) % block


@njit(nogil=True)
def _leave(f: Replicas, q: Ledger, r: int, k: int, held_tokens: int, ahead: bool) -> None:
    """Take member k, which decodes, off replica r and free its blocks, with the next step if `ahead`."""
    s, i = f.state[r], f.members[r, k]
    f.crossing[r, _crossing_key(q.request[i], f.end_step[r, k], s.block)] -= 1
    freed = whole_blocks(held_tokens, s.block)
    if s.caching == 1:
        freed = give_back(f, q, r, i, held_tokens)
    if ahead:
        s.late_sequences += 1
        s.late_blocks += freed
    else:
        s.free += freed
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
        _leave(f, q, r, k, q.request[i].input + q.request[i].output - 1, s.ahead == 1)
    s.next_end = soonest


@njit(nogil=True)
def _preempt(f: Replicas, q: Ledger, r: int) -> None:
    """Send the running request that was admitted last back to the head of the queue, its blocks freed."""
    s = f.state[r]
    room = s.free + s.late_blocks
    victim = s.chunked
    if victim != NONE:
        held = s.chunk_done
        s.free += give_back(f, q, r, victim, held)  # what it shared may stay
        s.chunked = NONE
    else:
        k = 0
        for j in range(1, s.decoding):
            if q.request[f.members[r, j]].turn > q.request[f.members[r, k]].turn:
                k = j
        victim = f.members[r, k]
        request = q.request[victim]
        request.generated = request.output - (f.end_step[r, k] - s.steps)
        held = request.input + request.generated - 1
        _leave(f, q, r, k, held, False)
        s.next_end = NEVER
        for j in range(s.decoding):
            s.next_end = min(s.next_end, f.end_step[r, j])
    request = q.request[victim]
    request.moved = 0  # a preempted request computes its prompt where it is
    request.kept, request.kept_taken, request.kept_room = held, s.taken, room
    request.following = s.head
    s.head = victim
    if s.tail == NONE:
        s.tail = victim
    s.waiting += 1
    q.tally[0].preemptions += 1


@njit(nogil=True)
def _compute_prompt(
    f: Replicas, q: Ledger, r: int, i: int, done: int, held: int, budget: int
) -> int:
    """Schedule the next chunk of request i, of which `done` tokens are computed and `held` blocks taken.

    Returns its tokens, 0 when no block is left for it.
    """
    s, request = f.state[r], q.request[i]
    needed = request.input + request.generated
    chunk = min(needed - done, budget)
    blocks = whole_blocks(done + chunk, s.block) - held
    if blocks > s.free:
        return 0
    take(s, blocks)
    if s.caching == 1:
        share_prompt(f, q, r, i, done + chunk)
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
def _admit(f: Replicas, q: Ledger, r: int, budget: int) -> int:
    """Take the head of the queue into the batch; returns the tokens that it computes in this step."""
    s = f.state[r]
    i = s.head
    request = q.request[i]
    s.head = request.following
    if s.head == NONE:
        s.tail = NONE
    s.waiting -= 1
    s.admitted += 1
    request.turn = s.admitted
    held, done = 0, 0
    if request.moved == 1:
        done = request.input - 1
    elif s.caching == 1:
        held, done = blocks_in_use(f, q, r, i), cached_tokens(f, q, r, i)
        join_group(f, q, r, i)
        if request.generated == 0:
            request.hit = done
    return _compute_prompt(f, q, r, i, done, held, budget)


@njit(nogil=True)
def _schedule_prompts(f: Replicas, q: Ledger, r: int, preempted: bool) -> tuple[int, int, bool]:
    """Fill the step with prompts; returns (prompts, their tokens, whether anything was preempted)."""
    s = f.state[r]
    budget = s.max_tokens - s.decoding
    prompts, tokens = 0, 0
    if s.chunked != NONE and budget > 0:
        held = whole_blocks(s.chunk_done, s.block)
        tokens = _compute_prompt(f, q, r, s.chunked, s.chunk_done, held, budget)
        if tokens == 0:
            _preempt(f, q, r)
            preempted = True
        else:
            prompts = 1
    while not preempted and s.waiting > 0 and s.chunked == NONE and tokens < budget:
        request = q.request[s.head]
        whole = whole_blocks(request.input + request.generated, s.block)
        if s.caching == 1 and request.moved == 0:
            whole -= blocks_in_use(f, q, r, s.head)
        if s.joined + s.late_sequences >= s.max_sequences or whole > s.free:
            break
        if s.ahead == 1 and request.sent > s.began:
            break
        tokens += _admit(f, q, r, budget - tokens)
        prompts += 1
    return prompts, tokens, preempted


@njit(nogil=True)
def _start_step(f: Replicas, q: Ledger, r: int, now: float) -> None:
    """Schedule what begins now, a step or a leap of steps, or go idle."""
    s = f.state[r]
    touch(s, now)
    while True:
        preempted = False
        while f.crossing[r, s.steps % s.block] > s.free:
            _preempt(f, q, r)
            preempted = True
        take(s, f.crossing[r, s.steps % s.block])
        prompts, tokens, preempted = _schedule_prompts(f, q, r, preempted)
        if s.decoding + prompts > 0:
            break
        if s.ahead == 1 and (s.late_sequences > 0 or (s.waiting > 0 and s.began < IDLE)):
            free_late(s)
            s.began = IDLE  # with nothing in flight the scheduler sees all that there is
        elif not preempted:
            s.busy_until = IDLE
            s.idle_since = now
            return
    more = (  # one step later there is more to schedule
        s.ahead == 1
        and s.waiting > 0
        and (s.late_sequences > 0 or q.request[s.head].sent > s.began)
    )
    free_late(s)
    s.began = now
    s.leap = 0
    if tokens == 0 and not preempted and not more:
        # nothing but decoding is possible until a sequence ends
        s.leap = min(s.next_end - s.steps, s.block * (s.free // s.decoding + 1))
        while later_blocks(f, r, s.leap) > s.free:
            s.leap -= 1
        s.leap_from = now
        s.busy_until = now + leap_seconds(s, s.leap)
        return
    s.busy_until = now + (
        s.base
        + s.per_sequence * (s.decoding + prompts)
        + s.per_context * (s.context + s.decoding)
        + s.per_prompt * tokens
        + (s.prompt_step if tokens > 0 else 0.0)
    )


@njit(nogil=True)
def _settle(f: Replicas, r: int, steps: int) -> None:
    """Book the first `steps` steps of the leap in flight; the rest, if any, goes on."""
    s = f.state[r]
    seconds = leap_seconds(s, steps)
    blocks = later_blocks(f, r, min(steps + 1, s.leap))
    s.blocks_area += seconds * blocks / 2  # blocks are taken evenly over the leap
    take(s, blocks)
    s.steps += steps
    s.context += steps * s.decoding
    s.leap -= steps
    s.leap_from += seconds


@njit(nogil=True)
def _hand_over(f: Replicas, q: Ledger, r: int, i: int, now: float) -> None:
    """Take request i, whose prompt is computed, off a prefill replica and send its keys and values on."""
    s, request = f.state[r], q.request[i]
    s.late_blocks += give_back(f, q, r, i, request.input)
    s.late_sequences += 1
    s.joined -= 1
    s.load -= 1
    put_under_way(q, i, now, now + s.transfer_base + s.transfer_per_token * request.input)


@njit(nogil=True)
def _end_step(f: Replicas, q: Ledger, r: int, now: float) -> None:
    """Hand out the tokens of the step or leap that ends now."""
    s, c = f.state[r], q.tally[0]
    touch(s, now)
    if s.leap > 0:
        _settle(f, r, s.leap)
        s.began = now - s.base - s.per_sequence * s.decoding
        s.began -= s.per_context * s.context  # the start of the last step
    else:
        s.steps += 1
        s.context += s.decoding
    joined = s.joined
    for k in range(s.decoding, joined):
        i = f.members[r, k]
        request = q.request[i]
        if s.role == PREFILL:
            _hand_over(f, q, r, i, now)
            continue
        if np.isnan(request.first):
            request.first = now
            q.first_log[c.firsts] = i
            c.firsts += 1
        s.context += request.input + request.generated
        f.crossing[r, _crossing_key(request, f.end_step[r, k], s.block)] += 1
        s.next_end = min(s.next_end, f.end_step[r, k])
    if s.ahead == 0:
        free_late(s)
    s.decoding = s.joined
    if s.next_end <= s.steps:
        _retire(f, q, r, now)


@njit(nogil=True)
def run(f: Replicas, q: Ledger, r: int, until: float) -> None:
    """Let replica r work off everything that ends before `until`."""
    s = f.state[r]
    while s.busy_until < until:
        now = s.busy_until
        _end_step(f, q, r, now)
        _start_step(f, q, r, now)


@njit(nogil=True)
def pause(f: Replicas, r: int, now: float) -> None:
    """Bring replica r's books up to `now`."""
    s = f.state[r]
    touch(s, now)
    if s.busy_until != IDLE and s.leap > 1:
        steps = leap_steps(s, now - s.leap_from)
        if 0 < steps < s.leap:
            _settle(f, r, steps)


@njit(nogil=True)
def _refuse(s: Record, request: Record) -> int:
    """Why vLLM answers a request with an error, or ACCEPTED."""
    if request.output < 1:
        return NO_OUTPUT
    if request.input + request.output > s.window:
        return BEYOND_WINDOW
    if whole_blocks(request.input + request.output - 1, s.block) > s.blocks:
        return BEYOND_CACHE
    return ACCEPTED


@njit(nogil=True)
def send(f: Replicas, q: Ledger, r: int, i: int, now: float) -> None:
    """Queue request i at replica r: an idle one wakes, a leap ends with the step under way.

    (With the one after it where the scheduler is a step ahead.)
    """
    s, request = f.state[r], q.request[i]
    request.slot = r
    request.refused = _refuse(s, request)
    if request.refused != ACCEPTED:
        return
    touch(s, now)
    request.sent = now
    request.kept = 0
    request.following = NONE
    if s.tail == NONE:
        s.head = i
    else:
        q.request[s.tail].following = i
    s.tail = i
    s.waiting += 1
    s.load += 1
    if s.busy_until == IDLE:
        request.seen = s.began = now
        s.leap = 0
        s.busy_until = now  # an empty step that ends now: what is sent now shares the next
    elif s.leap > 1:
        steps = leap_steps(s, now - s.leap_from) + 1
        request.seen = s.leap_from + leap_seconds(s, steps)
        if s.waiting == 1:  # behind others that wait for an end it waits as well
            s.leap = min(s.leap, steps + s.ahead)
            s.busy_until = s.leap_from + leap_seconds(s, s.leap)
    else:
        request.seen = s.busy_until

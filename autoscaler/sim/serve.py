"""Kernels of the fleet: which replica a request is sent to, and the loop that serves an interval."""
# mypy: disable-error-code="no-any-return"

import hashlib
from collections.abc import Callable

import numpy as np
from numba import njit

from autoscaler.sim import books, leap, prefix, replica, transfer
from autoscaler.sim.prefix import cached_tokens
from autoscaler.sim.replica import pause, run, send
from autoscaler.sim.state import NONE, PREFILL, IntArray, Ledger, Replicas

LEAST_LOAD, ROUND_ROBIN, POWER_OF_TWO, PREFIX_AWARE = 0, 1, 2, 3
# A prefix draws a request to its replica while that has at most these more requests than the idlest:
PREFIX_LOAD_RATIO = 1.5
PREFIX_LOAD_MARGIN = 4


@njit(nogil=True)
def _two_choices(f: Replicas, q: Ledger, slots: IntArray, i: int) -> int:
    """Return the less loaded of two slots drawn by request number and seed."""
    n, c = len(slots), q.tally[0]
    mixed = (np.uint64(i) + c.seed) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    one = np.int64(mixed >> np.uint64(40)) % n
    other = (one + 1 + np.int64(mixed & np.uint64(0xFFFFF)) % (n - 1)) % n
    lighter = f.state[slots[one]].load <= f.state[slots[other]].load
    return slots[one] if lighter else slots[other]


@njit(nogil=True)
def _longest_prefix(f: Replicas, q: Ledger, slots: IntArray, i: int, idlest: int) -> int:
    """Return the slot that has most of the prompt in its cache, `idlest` if all such are overloaded."""
    most = f.state[idlest].load * PREFIX_LOAD_RATIO + PREFIX_LOAD_MARGIN
    best, longest = idlest, cached_tokens(f, q, idlest, i)
    for slot in slots:
        hit = cached_tokens(f, q, slot, i)
        if hit > longest and f.state[slot].load <= most:
            best, longest = slot, hit
    return best


@njit(nogil=True)
def _pick(f: Replicas, q: Ledger, slots: IntArray, routing: int, i: int) -> int:
    """Choose the slot among `slots` that request i is sent to."""
    n, c = len(slots), q.tally[0]
    turn = c.turn % n
    c.turn = turn + 1
    if routing == ROUND_ROBIN:
        return slots[turn]
    if routing == POWER_OF_TWO and n > 1:
        return _two_choices(f, q, slots, i)
    best = slots[turn]  # ties go round, as behind a gateway that breaks them at random
    for j in range(1, n):
        slot = slots[(turn + j) % n]
        if f.state[slot].load < f.state[best].load:
            best = slot
    if routing == PREFIX_AWARE and q.request[i].group != NONE:
        return _longest_prefix(f, q, slots, i, best)
    return best


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
def _release(f: Replicas, q: Ledger, front: IntArray, routing: int, now: float) -> None:
    """Send what the gateway holds, oldest first, to the replicas that are ready."""
    c = q.tally[0]
    while c.gate_waiting > 0:
        i = c.gate_head
        c.gate_head = q.request[i].following
        c.gate_waiting -= 1
        send(f, q, _pick(f, q, front, routing, i), i, now)
    c.gate_tail = NONE


@njit(nogil=True)
def _run_all(f: Replicas, q: Ledger, alive: IntArray, until: float) -> None:
    for r in alive:
        if f.state[r].busy_until < until:
            run(f, q, r, until)


@njit(nogil=True)
def _work(
    f: Replicas, q: Ledger, back: IntArray, alive: IntArray, routing: int, now: float, until: float
) -> None:
    """Do the steps that end in [now, until), and start what is transferred by then on `back`."""
    c = q.tally[0]
    if len(back) > 0:
        for r in alive:  # prefill replicas wait for no other
            if f.state[r].role == PREFILL:
                run(f, q, r, until)
        while c.moving_head < c.moving_tail and q.moving[c.moving_head].until < until:
            i, since = q.moving[c.moving_head].request, q.moving[c.moving_head].since
            at = max(now, q.moving[c.moving_head].until)
            c.moving_head += 1
            _run_all(f, q, alive, at)
            q.request[i].moved = 1
            r = _pick(f, q, back, routing, i)
            send(f, q, r, i, at)
            f.state[r].waiting_area += at - since  # what is under way waits, as vLLM counts it
    _run_all(f, q, alive, until)


def _fingerprint(*modules: object) -> str:
    """Return a digest of all kernels. numba itself looks at the file of the outermost one alone."""
    digest = hashlib.sha256()
    for value in (v for m in modules for v in vars(m).values()):
        if hasattr(value, "py_func"):
            code = value.py_func.__code__
            digest.update(code.co_code + repr((code.co_names, code.co_consts)).encode())
        elif isinstance(value, (int, float)):
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _compiled(fingerprint: str) -> Callable[..., float]:
    """Return `serve`, cached on disk by what it closes over: `fingerprint`, so that no edit goes unseen."""

    @njit(cache=True, nogil=True)
    def serve(
        f: Replicas,
        q: Ledger,
        slots: tuple[IntArray, IntArray, IntArray],
        routing: int,
        now: float,
        until: float,
    ) -> float:
        """Serve from `now` to `until` with a fleet that does not change in between.

        slots: `front` takes new requests, `back` (decode) what was transferred, and `alive` (these and
        the draining) works. Arrivals before `until` are routed, steps that end before it are done; what
        comes just as a step ends is there for the next one. Returns the integral of the gateway's
        queue, in request-seconds.
        """
        c = q.tally[0]
        front, back, alive = slots
        held, last = 0.0, now
        if fingerprint and len(front) > 0:
            _release(f, q, front, routing, now)
        while True:
            i = c.arrived
            comes = i < len(q.request) and q.request[i].arrive < until
            at = q.request[i].arrive if comes else until
            _work(f, q, back, alive, routing, last, at)
            held += (at - last) * c.gate_waiting
            last = at
            if not comes:
                break
            c.arrived += 1
            if len(front) == 0:
                _hold(q, i)
            else:
                send(f, q, _pick(f, q, front, routing, i), i, at)
        for r in alive:
            pause(f, r, until)
        return held

    return serve


serve = _compiled(_fingerprint(books, leap, prefix, replica, transfer))

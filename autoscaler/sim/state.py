"""The arrays that the kernels work on: their fields, and how they are made, grown and filled."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.workload import Requests

IntArray = NDArray[np.int64]
Record = Any  # one row of a structured array: opaque to the type checker
NONE = -1
IDLE = np.inf
NEVER = np.iinfo(np.int64).max
BOTH, PREFILL, DECODE = 0, 1, 2  # roles of a replica
ACCEPTED, NO_OUTPUT, BEYOND_WINDOW, BEYOND_CACHE = 0, 1, 2, 3  # why a request is refused

REPLICA = np.dtype(
    [
        ("base", "f8"),  # the engine's coefficients, in seconds
        ("per_sequence", "f8"),
        ("per_context", "f8"),
        ("per_prompt", "f8"),
        ("prompt_step", "f8"),
        ("max_sequences", "i8"),
        ("max_tokens", "i8"),  # a step
        ("blocks", "i8"),
        ("block", "i8"),  # tokens a block
        ("busy_until", "f8"),  # end of the step or leap in flight; infinity when idle
        ("leap_from", "f8"),  # when the leap in flight began
        ("leap", "i8"),  # its steps; 0: a single step, with prompts, is in flight
        ("idle_since", "f8"),  # when it last ran empty
        ("touched", "f8"),  # up to when the three integrals over time reach
        ("running_area", "f8"),
        ("waiting_area", "f8"),
        ("blocks_area", "f8"),
        ("steps", "i8"),  # steps done
        ("decoding", "i8"),  # members[:decoding] decode
        ("joined", "i8"),  # members[decoding:joined] end their prompt in the step in flight
        ("chunked", "i8"),  # the request whose prompt is under way, or NONE
        ("chunk_done", "i8"),  # its tokens that are computed
        ("context", "i8"),  # tokens that the decoding sequences have in the cache
        ("free", "i8"),  # free blocks
        ("head", "i8"),  # first and last waiting request, or NONE
        ("tail", "i8"),
        ("waiting", "i8"),
        ("load", "i8"),  # requests here, waiting or running
        ("next_end", "i8"),  # the step count at which the first sequence ends
        ("began", "f8"),  # when the step in flight, or the one that just ended, began
        ("taken", "i8"),  # blocks ever handed out
        ("admitted", "i8"),  # requests ever admitted
        (
            "late_sequences",
            "i8",
        ),  # ended with the last step: not yet free for an asynchronous scheduler
        ("late_blocks", "i8"),
        ("window", "i8"),  # most tokens of a request
        ("transfer_base", "f8"),  # seconds to hand a prompt's keys and values to another replica
        ("transfer_per_token", "f8"),
        ("role", "i1"),
        ("ahead", "i1"),  # schedules asynchronously, one step ahead
        ("caching", "i1"),  # keeps freed blocks for prefixes
    ],
    align=True,
)
REQUEST = np.dtype(  # what every step may touch first: it shares a line of the processor's cache
    [
        ("arrive", "f8"),  # seconds from the fleet's start
        ("sent", "f8"),  # when it came to its replica
        ("first", "f8"),  # first token, or NaN
        ("end", "f8"),  # last token, or NaN
        ("input", "i4"),  # tokens
        ("output", "i4"),
        ("generated", "i4"),  # tokens that a preempted request already has
        ("following", "i4"),  # the next request in the same queue, or NONE
        ("slot", "i4"),  # where it was sent, or NONE
        ("turn", "i4"),  # how many its replica had admitted when it was
        ("group", "i4"),  # requests that share a prefix, or NONE
        ("refused", "i1"),
        ("moved", "i1"),  # its prompt was computed elsewhere and has been transferred
        ("shared", "i4"),  # blocks of its beginning that belong to the group
        ("prefix", "i4"),  # its first tokens, which the group shares
        ("hit", "i4"),  # prompt tokens found in the cache and not computed
        ("kept", "i4"),  # tokens it had in the cache when it was preempted,
        ("kept_room", "i4"),  # and the free blocks that were to be overwritten before them,
        ("kept_taken", "i8"),  # the replica's `taken` then
        ("seen", "f8"),  # when that replica's scheduler learned of it
    ],
    align=True,
)
CACHED = np.dtype(
    [
        ("users", "i8"),  # running requests that share a group's prefix on a replica
        ("owned", "i8"),  # its blocks that they share
        ("tokens", "i8"),  # of the sequence that was freed last,
        ("taken", "i8"),  # the replica's `taken` then,
        ("room", "i8"),  # and the free blocks that were to be overwritten before it
    ]
)
MOVING = np.dtype(
    [
        ("request", "i8"),  # whose keys and values are under way
        ("since", "f8"),
        ("until", "f8"),
    ]
)
TALLY = np.dtype(
    [
        ("arrived", "i8"),
        ("firsts", "i8"),
        ("ends", "i8"),
        ("gate_head", "i8"),
        ("gate_tail", "i8"),
        ("gate_waiting", "i8"),
        ("turn", "i8"),
        ("preemptions", "i8"),
        (
            "moving_head",
            "i8",
        ),  # transfers under way are moving[moving_head:moving_tail], by arrival
        ("moving_tail", "i8"),
        ("seed", "u8"),
    ]
)


class Replicas(NamedTuple):
    """R replica slots; S = most sequences, B = largest block, over all profiles; G = groups of prefixes."""

    state: NDArray[Any]  # (R,) of REPLICA
    members: IntArray  # (R, S) requests
    end_step: IntArray  # (R, S) the step count at which each of them ends
    crossing: (
        IntArray  # (R, B) decoding sequences that need a block at step counts = b modulo the block
    )
    cached: NDArray[Any]  # (R, G) of CACHED


class Ledger(NamedTuple):
    """N requests and what became of them."""

    request: NDArray[Any]  # (N,) of REQUEST
    first_log: IntArray  # (N,) requests in order of first token
    end_log: IntArray  # (N,) requests in order of end
    moving: NDArray[Any]  # (N,) of MOVING, `until` ascending between head and tail
    tally: NDArray[Any]  # (1,) of TALLY


def new_replicas(slots: int, sequences: int, block: int, groups: int) -> Replicas:
    """Return `slots` empty slots for at most `sequences` sequences and blocks of up to `block`."""
    state = np.zeros(slots, dtype=REPLICA)
    state["busy_until"] = IDLE
    return Replicas(
        state,
        np.zeros((slots, sequences), dtype=np.int64),
        np.zeros((slots, sequences), dtype=np.int64),
        np.zeros((slots, block), dtype=np.int64),
        np.zeros((slots, groups), dtype=CACHED),
    )


def more_replicas(f: Replicas) -> Replicas:
    """Return the same replicas with twice the slots."""
    empty = new_replicas(len(f.state), f.members.shape[1], f.crossing.shape[1], f.cached.shape[1])
    return Replicas(*(np.concatenate(pair) for pair in zip(f, empty, strict=True)))


def put_replica(f: Replicas, slot: int, profile: EngineProfile, now: float) -> None:
    """Start an idle replica of `profile` in a slot, `now` seconds from the fleet's start."""
    f.state[slot] = np.zeros((), dtype=REPLICA)
    f.crossing[slot] = 0
    f.cached[slot] = np.zeros((), dtype=CACHED)
    s = f.state[slot]
    s["busy_until"], s["next_end"] = IDLE, NEVER
    s["chunked"] = s["head"] = s["tail"] = NONE
    s["base"] = profile.base_seconds
    s["per_sequence"] = profile.per_sequence_seconds
    s["per_context"] = profile.per_context_token_seconds
    s["per_prompt"] = profile.per_prompt_token_seconds
    s["prompt_step"] = profile.prompt_step_seconds
    s["max_sequences"] = profile.max_num_seqs
    s["max_tokens"] = profile.max_num_batched_tokens
    s["blocks"] = s["free"] = profile.kv_blocks
    s["block"] = profile.block_tokens
    s["window"] = NEVER if profile.max_model_len is None else profile.max_model_len
    s["ahead"], s["caching"] = profile.async_scheduling, profile.prefix_caching
    s["idle_since"] = s["touched"] = now


def clear_areas(f: Replicas, slots: IntArray) -> None:
    """Begin a new interval: the integrals over time start again from zero."""
    for area in ("running_area", "waiting_area", "blocks_area"):
        f.state[area][slots] = 0.0


def new_ledger(requests: Requests, start_seconds: float, seed: int) -> Ledger:
    """Return the ledger of the requests that arrive at `start_seconds` or later.

    Times count from the start: seconds since the epoch would leave a float 0.2 microseconds.
    """
    offered = requests.between(start_seconds, np.inf)
    n = len(offered.arrive_seconds)
    request = np.zeros(n, dtype=REQUEST)
    request["arrive"] = offered.arrive_seconds - start_seconds
    for time in ("sent", "seen", "first", "end"):
        request[time] = np.nan
    request["input"], request["output"] = offered.input_tokens, offered.output_tokens
    request["group"] = _numbered(offered.groups)
    request["prefix"] = offered.prefixes
    request["following"] = request["slot"] = NONE
    tally = np.zeros(1, dtype=TALLY)
    tally["gate_head"] = tally["gate_tail"] = NONE
    tally["seed"] = seed
    first_log, end_log = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    return Ledger(request, first_log, end_log, np.zeros(n, dtype=MOVING), tally)


def _numbered(groups: IntArray) -> IntArray:
    """Return the groups numbered 0, 1, ...; NONE stays."""
    return (np.unique(np.append(groups, NONE), return_inverse=True)[1] - 1)[:-1].astype(np.int64)

"""The arrays that the kernels work on: made, grown, and filled from a profile."""

import numpy as np

from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.replica import IDLE, NEVER, NONE, REPLICA, REQUEST, TALLY, Ledger, Replicas
from autoscaler.sim.workload import Requests


def new_replicas(slots: int, sequences: int, block: int) -> Replicas:
    """Return `slots` empty slots for at most `sequences` sequences and blocks of up to `block`."""
    state = np.zeros(slots, dtype=REPLICA)
    state["busy_until"] = IDLE
    state["next_end"] = NEVER
    for queue in ("chunked", "head", "tail"):
        state[queue] = NONE
    return Replicas(
        state,
        np.zeros((slots, sequences), dtype=np.int64),
        np.zeros((slots, sequences), dtype=np.int64),
        np.zeros((slots, block), dtype=np.int64),
    )


def more_replicas(f: Replicas) -> Replicas:
    """Return the same replicas with twice the slots."""
    empty = new_replicas(len(f.state), f.members.shape[1], f.crossing.shape[1])
    return Replicas(*(np.concatenate(pair) for pair in zip(f, empty, strict=True)))


def put_replica(f: Replicas, slot: int, profile: EngineProfile, now: float) -> None:
    """Start an idle replica of `profile` in an empty slot, `now` seconds from the fleet's start."""
    s = f.state[slot]
    s["base"] = profile.base_seconds
    s["per_sequence"] = profile.per_sequence_seconds
    s["per_context"] = profile.per_context_token_seconds
    s["per_prompt"] = profile.per_prompt_token_seconds
    s["max_sequences"] = profile.max_num_seqs
    s["max_tokens"] = profile.max_num_batched_tokens
    s["blocks"] = s["free"] = profile.kv_blocks
    s["block"] = profile.block_tokens
    s["idle_since"] = s["touched"] = now
    clear_areas(f, np.array([slot]))


def clear_areas(f: Replicas, slots: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
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
    request["first"] = request["end"] = np.nan
    request["input"], request["output"] = offered.input_tokens, offered.output_tokens
    request["following"] = request["slot"] = NONE
    tally = np.zeros(1, dtype=TALLY)
    tally["gate_head"] = tally["gate_tail"] = NONE
    tally["seed"] = seed
    return Ledger(request, np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), tally)

"""How long an engine's steps take under load: the physical core of the latency model.

An engine with continuous batching and chunked prefill (vLLM V1) works in steps of

    step = base + per_sequence * B + per_context_token * KV + per_prompt_token * P      seconds,

with B decoding sequences, the KV context tokens that they hold and P prompt tokens in the step
(Yu et al., Orca, OSDI 2022; Agrawal et al., Sarathi-Serve, OSDI 2024). Every prompt token attends to
those before it, so a prompt of X tokens costs per_prompt_token * X * (1 + prompt_growth * X): the
square matters from some ten thousand tokens (Llama-3.1-8B on an H100, Qwen2.5-14B: 1 / 10,000). Tokens
found in the prefix cache cost nothing themselves, but are attended to. From these coefficients
follows a mean field. Per replica let lam be the arrival rate, X the prompt tokens not found in the
prefix cache, L the output tokens, d = per_sequence + per_context_token * (isl + L / 2) what one
decoding neighbour adds to a step, and k = d + per_prompt_token * X / L what a neighbour adds to each
of my tokens, its prompt included. With `o` neighbours on average,

    tpot = base + d + k * o,          a = lam * (prefill + L * tpot)      (Little's law: requests on it)

A router that sends to the least loaded replica gives fewer neighbours than a random one (o = a):
with an idle replica to go to there are none. `o` solves

    o^2 - (a - g) * o + e * (o - a) = 0,      g = 0.92 * routing * (1 - 1/R),    e = 0.66 / R,

a hyperbola between 0 and a - g, which agrees within 0.2 neighbours with a simulation of R infinite
servers behind a least-load router (R from 1 to 48; at R = 1 it is o = a exactly). Evenly spaced
arrivals collide less in the same way, which adds to g. `a` is linear in
`o`, so both equations close in one quadratic, and at R = 1 give tpot = (base + d) / (1 - lam*L*k).

A replica saturates where the steps that a request needs no longer fit into the time between arrivals:
1 / lam_max = L*d + per_prompt_token*X + base * max(L / slots, (X + L) * steps_per_token).
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

ROUTING_GAP = 0.92  # neighbours that least-load routing saves at large R (simulated, see above)
ROUTING_BEND = 0.66  # times 1/R: how softly it does so around one request a replica
NO_LIMIT = 1e7  # sequences or tokens: a limit that was never seen to bind
FULL = 1.0 - 1e-9  # of the saturation rate: beyond it the batch no longer grows


@dataclass(frozen=True, slots=True)
class Coefficients:
    """What was learned of each (service, variant): arrays of one shape, NaN where nothing is known.

    base, per_sequence, per_context_token, per_prompt_token: seconds of a step (module docstring).
    prompt_growth_per_token: how much dearer a prompt's mean token is for each token of the prompt.
    steps_per_token: 1 / token budget of a step. overhead: network and tokenizer, seconds of TTFT.
    start_steps: steps of the batch that a new request waits for before its prompt joins (theory: 0.5).
    max_sequences, kv_tokens: limits of a replica's batch. isl_sigma: spread (log) of prompt lengths.
    wait_scale, tpot_spread: factors on the theory's waiting time and TPOT variance (theory: 1).
    routing_ratio: 0 = arrivals spread at random over replicas, 1 = to the least loaded.
    regularity_ratio: 0 = Poisson arrivals, 1 = evenly spaced (load generators, paced clients).
    burst_ratio: load that a window's queue feels, over its mean load; >= 1.
    tpot_scatter_ratio: how much windows of like load differ in what neighbours add to TPOT.
    prefix_cache_hit_ratio: share of prompt tokens found in the cache, as seen.
    seen_load_ratio: the highest share of saturation at which windows were seen, 0 to 1.
    seen_isl_tokens, seen_osl_tokens: the longest mean lengths that windows showed.
    """

    base_seconds: FloatArray
    per_sequence_seconds: FloatArray
    per_context_token_seconds: FloatArray
    per_prompt_token_seconds: FloatArray
    prompt_growth_per_token: FloatArray
    steps_per_token: FloatArray
    overhead_seconds: FloatArray
    max_sequences: FloatArray
    kv_tokens: FloatArray
    isl_sigma: FloatArray
    start_steps: FloatArray
    wait_scale: FloatArray
    tpot_spread: FloatArray
    routing_ratio: FloatArray
    regularity_ratio: FloatArray
    burst_ratio: FloatArray
    tpot_scatter_ratio: FloatArray
    prefix_cache_hit_ratio: FloatArray
    seen_load_ratio: FloatArray
    seen_isl_tokens: FloatArray
    seen_osl_tokens: FloatArray

    @classmethod
    def from_columns(cls, columns: FloatArray) -> Self:
        """Build from shape (F, ...): a row per field, in the order of the fields."""
        return cls(*columns)

    def columns(self) -> FloatArray:
        """Return shape (F, ...): a row per field, in the order of the fields."""
        return np.stack([getattr(self, name) for name in NAMES])

    def expand(self) -> Self:
        """Return the same with a last axis of length 1, to broadcast against (N, K) demand."""
        return type(self)(*[getattr(self, name)[..., None] for name in NAMES])


NAMES = tuple(f.name for f in fields(Coefficients))
N_COEFFICIENTS = len(NAMES)


@dataclass(frozen=True, slots=True)
class Work:
    """What one request asks of an engine, independent of the load. Seconds, tokens, sequences.

    decode (d) and neighbour (k) are seconds per step, as in the module docstring; prompt_tokens is X;
    serial_prompt: engine seconds of a prompt in full steps; saturation: 1 / lam_max;
    slots: sequences that fit on a replica.
    """

    isl_tokens: FloatArray
    prompt_tokens: FloatArray
    osl_tokens: FloatArray
    decode_seconds: FloatArray
    neighbour_seconds: FloatArray
    alone_seconds: FloatArray  # TPOT on an empty replica
    prompt_seconds: FloatArray  # engine time of the prompt's tokens, without the steps' base
    serial_prompt_seconds: FloatArray
    prefill_seconds: FloatArray  # prefill on an empty replica, steps' base included
    saturation_seconds: FloatArray
    slots: FloatArray


def request_work(
    c: Coefficients,
    isl_tokens: FloatArray,
    osl_tokens: FloatArray,
    prefix_cache_hit_ratio: FloatArray | None = None,
    *,
    prefill: bool = True,
    decode: bool = True,
) -> Work:
    """Return what a mean request costs; all shapes broadcast.

    `prefill` or `decode` False: another variant does that phase (disaggregated serving).
    """
    hit = c.prefix_cache_hit_ratio if prefix_cache_hit_ratio is None else prefix_cache_hit_ratio
    length = np.maximum(osl_tokens, 1.0) if decode else np.ones_like(osl_tokens)
    prompt = isl_tokens * (1.0 - hit) if prefill else np.zeros_like(isl_tokens + hit)
    context = isl_tokens + 0.5 * length
    one = c.per_sequence_seconds + c.per_context_token_seconds * context
    growth = 1.0 + c.prompt_growth_per_token * (2.0 * isl_tokens - prompt)
    prompt_seconds = c.per_prompt_token_seconds * prompt * growth
    chunks = prompt * c.steps_per_token
    slots = np.maximum(1.0, np.minimum(c.max_sequences, c.kv_tokens / np.maximum(context, 1.0)))
    steps = np.maximum(length / slots, chunks + length * c.steps_per_token)
    return Work(
        isl_tokens=isl_tokens,
        prompt_tokens=prompt,
        osl_tokens=length,
        decode_seconds=one,
        neighbour_seconds=one + prompt_seconds / length,
        alone_seconds=c.base_seconds + one,
        prompt_seconds=prompt_seconds,
        serial_prompt_seconds=prompt_seconds + c.base_seconds * chunks,
        prefill_seconds=prompt_seconds + c.base_seconds * (1.0 + chunks),
        saturation_seconds=length * one + prompt_seconds + c.base_seconds * steps,
        slots=slots,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """The mean field of a replica under load. Rates are per replica and in requests/s.

    neighbours: other requests that a request shares the replica with; running: Little's law.
    """

    rate_rps: FloatArray  # not beyond saturation
    neighbours: FloatArray
    running: FloatArray
    tpot_seconds: FloatArray
    decode_load: FloatArray  # lam * L * k, below 1


def observed_field(
    c: Coefficients, work: Work, batch: Batch, running: FloatArray, replicas: FloatArray
) -> Batch:
    """Return `batch` with the neighbours that `running` requests per replica mean, where measured.

    What a step takes follows from the batch, whatever load made it: a window whose batch a backlog
    filled, or a burst emptied, tells as much of the step as one in balance. Shapes broadcast.
    """
    gap, bend = _routing_terms(c, replicas)
    half = 0.5 * (running - gap - bend)
    seen = np.minimum(half + np.sqrt(half * half + bend * running), work.slots - 1.0)
    neighbours = np.where(np.isfinite(running), np.maximum(seen, 0.0), batch.neighbours)
    tpot = work.alone_seconds + work.neighbour_seconds * neighbours
    return replace(batch, neighbours=neighbours, tpot_seconds=tpot)


def _routing_terms(c: Coefficients, replicas: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return g and e of the module docstring."""
    uneven = (1.0 - c.regularity_ratio) * (1.0 - c.routing_ratio * (1.0 - 1.0 / replicas))
    return ROUTING_GAP * (1.0 - uneven), ROUTING_BEND / replicas


def mean_field(c: Coefficients, work: Work, rate_rps: FloatArray, replicas: FloatArray) -> Batch:
    """Return the mean field at `rate_rps` requests/s per replica; all shapes broadcast."""
    rate = np.minimum(rate_rps, FULL / work.saturation_seconds)
    load = rate * work.osl_tokens * work.neighbour_seconds
    idle = rate * (work.osl_tokens * work.alone_seconds + work.prefill_seconds)
    gap, bend = _routing_terms(c, replicas)
    half = 0.5 * (idle - gap - bend * (1.0 - load))
    root = np.sqrt(half * half + (1.0 - load) * bend * idle)
    neighbours = np.minimum((half + root) / (1.0 - load), work.slots - 1.0)
    tpot = work.alone_seconds + work.neighbour_seconds * neighbours
    running = rate * (
        work.osl_tokens * tpot + work.prefill_seconds + work.decode_seconds * neighbours
    )
    return Batch(rate, neighbours, np.minimum(running, work.slots), tpot, load)

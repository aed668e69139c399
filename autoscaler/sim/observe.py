"""The observation of one interval (PROTOCOL section 3), from the fleet's arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import ServiceObservation, VariantObservation
from autoscaler.sim.state import NONE, IntArray, Ledger, Record, Replicas, clear_areas
from autoscaler.sim.telemetry import NAN, Latencies, latencies
from autoscaler.sim.variants import FleetVariant, Pod
from models.slo import SloTargets

LATENCIES = tuple(field.name for field in fields(Latencies))


@dataclass(frozen=True, slots=True)
class Interval:
    """What went by: its length, the tally at its beginning, and integrals over it."""

    seconds: float
    before: Record
    ready_seconds: NDArray[np.float64]  # (variants,)
    gate_seconds: float  # request-seconds at the gateway
    lost_seconds: NDArray[np.float64]  # (variants, 2): running and waiting, of replicas taken away


def observe(
    f: Replicas,
    q: Ledger,
    owner: IntArray,
    variants: Sequence[FleetVariant],
    living: Sequence[Pod],
    desired: Sequence[int],
    interval: Interval,
    targets: SloTargets,
) -> ServiceObservation:
    """Return what telemetry shows of the interval; the integrals of the replicas begin anew.

    owner: slot -> variant, shape (R,). The gateway's queue counts as the first variant's.
    """
    before, after = interval.before, q.tally[0]
    arrived = slice(int(before["arrived"]), int(after["arrived"]))
    started = q.first_log[before["firsts"] : after["firsts"]]
    started = started[np.isfinite(q.request["first"][started])]  # an interruption lost the others
    ended = q.end_log[before["ends"] : after["ends"]]
    arrivals = arrived.stop - arrived.start
    seen = {}
    for number, variant in enumerate(variants):
        times = latencies(
            q,
            started[owner[q.request["slot"][started]] == number],
            ended[owner[q.request["slot"][ended]] == number],
            targets,
        )
        mine = [r for r in living if r.variant == number]
        blocks = float(interval.ready_seconds[number]) * variant.profile.kv_blocks
        running, waiting = interval.lost_seconds[number].tolist()
        waiting += interval.gate_seconds * (number == 0)
        part = _Part(interval.seconds, blocks, running, waiting, desired[number])
        seen[variant.name] = _of_variant(f, mine, part, times)
    return ServiceObservation(
        arrival_rate_rps=arrivals / interval.seconds,
        isl_tokens=float(q.request["input"][arrived].mean()) if arrivals else NAN,
        osl_tokens=float(q.request["output"][ended].mean()) if len(ended) else NAN,
        variants=seen,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    seconds: float
    block_seconds: float  # that the ready replicas had
    running_seconds: float  # request-seconds beside those on the replicas that live
    waiting_seconds: float
    desired: int


def _of_variant(
    f: Replicas, mine: Sequence[Pod], part: _Part, times: Latencies
) -> VariantObservation:
    steady = [r.slot for r in mine if r.slot != NONE and not r.draining]
    draining = [r.slot for r in mine if r.draining]
    slots = np.array(steady + draining, dtype=np.int64)
    state = f.state[slots]  # a copy
    clear_areas(f, slots)
    used = float(state["blocks_area"][: len(steady)].sum())
    return VariantObservation(
        ready=len(steady),
        starting=len(mine) - len(slots),
        # those that ran empty in this interval are gone
        draining=int(np.count_nonzero(state["load"][len(steady) :])),
        desired=part.desired,
        running=(float(state["running_area"].sum()) + part.running_seconds) / part.seconds,
        waiting=(float(state["waiting_area"].sum()) + part.waiting_seconds) / part.seconds,
        kv_cache_usage_ratio=used / part.block_seconds if part.block_seconds else NAN,
        **{name: getattr(times, name) for name in LATENCIES},
    )

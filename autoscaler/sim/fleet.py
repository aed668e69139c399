"""A simulated fleet: variants whose replicas start, serve, drain and cost, behind one gateway."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from autoscaler.core.types import ServiceObservation, VariantObservation
from autoscaler.sim.engine import EngineProfile, SimulationError
from autoscaler.sim.replica import (
    LEAST_LOAD,
    POWER_OF_TWO,
    ROUND_ROBIN,
    serve,
)
from autoscaler.sim.state import (
    IDLE,
    NONE,
    IntArray,
    Record,
    clear_areas,
    more_replicas,
    new_ledger,
    new_replicas,
    put_replica,
)
from autoscaler.sim.telemetry import NAN, Latencies, Verdict, judge, latencies
from autoscaler.sim.workload import Requests
from models.slo import SloTargets

ROUTINGS = {"least-load": LEAST_LOAD, "round-robin": ROUND_ROBIN, "power-of-two": POWER_OF_TWO}
SPARE_SLOTS = 8  # draining replicas keep theirs; more are made when needed


@dataclass(frozen=True, slots=True)
class FleetVariant:
    """One way to serve: an engine, its accelerators, its limits, and how long a start takes.

    `startup` draws the seconds from created to ready. At most max_replicas are ready or starting.
    """

    name: str
    profile: EngineProfile
    accelerators_per_replica: int
    initial_replicas: int
    max_replicas: int
    startup: Callable[[np.random.Generator], float]


@dataclass(slots=True)
class _Replica:
    """One replica from its creation to its end; times in seconds from the fleet's start."""

    variant: int
    created: float
    ready: float  # when it is (to be) ready
    first: bool  # there from the beginning: its start was not seen
    slot: int = NONE  # while ready or draining
    draining: bool = False
    ended: float = math.inf


class Fleet:
    """Serves `requests` from `start_seconds` on; earlier ones are not offered.

    The same arguments and calls give the same results. A request longer than a replica's whole cache
    is refused, as vLLM does, and stays unserved.

    Parameters
    ----------
    requests : what arrives at the gateway, in order.
    variants : at least one; a gateway's queue (while no replica is ready) counts as the first one's.
    targets : what the shares within the SLO and the verdict are judged by.
    start_seconds : the time at which the fleet starts, on the clock of the requests.
    seed : of start-up times and of power-of-two routing.
    routing : least-load (fewest requests, ties in turn), round-robin or power-of-two.
    """

    now_seconds: float
    scale_ups: int
    scale_downs: int

    def __init__(
        self,
        requests: Requests,
        variants: Sequence[FleetVariant],
        targets: SloTargets,
        *,
        start_seconds: float,
        seed: int,
        routing: str = "least-load",
    ) -> None:
        if routing not in ROUTINGS:
            raise SimulationError(f"routing is '{routing}'; allowed: {', '.join(ROUTINGS)}")
        if not variants or len({v.name for v in variants}) < len(variants):
            raise SimulationError("a fleet needs at least one variant, each with a name of its own")
        self.now_seconds = start_seconds
        self.scale_ups = self.scale_downs = 0
        self._start, self._now = start_seconds, 0.0
        self._variants, self._targets, self._routing = tuple(variants), targets, ROUTINGS[routing]
        self._rng = np.random.default_rng(seed)
        self._q = new_ledger(requests, start_seconds, seed)
        self._f = new_replicas(
            sum(v.max_replicas for v in variants) + SPARE_SLOTS,
            max(v.profile.max_num_seqs for v in variants),
            max(v.profile.block_tokens for v in variants),
        )
        self._free_slots = list(range(len(self._f.state)))[::-1]
        self._owner = np.full(len(self._f.state), NONE, dtype=np.int64)  # slot -> variant
        self._living: list[_Replica] = []
        self._over: list[_Replica] = []
        self._desired = [v.initial_replicas for v in variants]
        for number, variant in enumerate(variants):
            if not 0 <= variant.initial_replicas <= variant.max_replicas:
                raise SimulationError(
                    f"variant '{variant.name}': initial_replicas is {variant.initial_replicas}; "
                    f"allowed: 0 to max_replicas ({variant.max_replicas})"
                )
            for _ in range(variant.initial_replicas):
                self._living.append(_Replica(number, 0.0, 0.0, first=True))
        self._open()

    @property
    def preemptions(self) -> int:
        """Running requests that lost their KV blocks so far."""
        return int(self._q.tally["preemptions"][0])

    def scale(self, variant: str, replicas: int) -> None:
        """Ask for `replicas` ready or starting replicas of a variant, at most its max_replicas.

        Given up first: those that are starting, youngest first; then the ready ones with the least
        load, which take no new requests and end when theirs are done. A draining one never comes back.
        """
        number = self._number(variant)
        if replicas < 0:
            raise SimulationError(
                f"variant '{variant}': {replicas} replicas; 0 or more are allowed"
            )
        wanted = min(replicas, self._variants[number].max_replicas)
        self.scale_ups += wanted > self._desired[number]
        self.scale_downs += wanted < self._desired[number]
        self._desired[number] = wanted
        mine = [r for r in self._living if r.variant == number and not r.draining]
        for _ in range(wanted - len(mine)):
            seconds = float(self._variants[number].startup(self._rng))
            if not (math.isfinite(seconds) and seconds >= 0):
                raise SimulationError(
                    f"variant '{variant}': a start takes {seconds} s; allowed: >= 0"
                )
            self._living.append(_Replica(number, self._now, self._now + seconds, first=False))
        surplus = len(mine) - wanted
        if surplus > 0:
            for replica in sorted(mine, key=self._keep)[:surplus]:
                self._give_up(replica)
        self._open()

    def advance(self, seconds: float) -> ServiceObservation:
        """Let `seconds` go by and return what telemetry shows of them (PROTOCOL section 3)."""
        if not (math.isfinite(seconds) and seconds > 0):
            raise SimulationError(f"advance by {seconds} s; more than 0 is allowed")
        before, until = self._q.tally[0].copy(), self._now + seconds
        ready_seconds = np.zeros(len(self._variants))
        gate_seconds = 0.0
        while self._now < until:
            self._open()
            coming = [r.ready for r in self._living if r.slot == NONE]
            stop = min([until, *coming])
            ready, alive = self._slots(ready=True), self._slots(ready=False)
            ready_seconds += np.bincount(self._owner[ready], minlength=len(ready_seconds)) * (
                stop - self._now
            )
            gate_seconds += serve(self._f, self._q, ready, alive, self._routing, self._now, stop)
            self._now = stop
        self._open()
        observation = self._observe(seconds, before, ready_seconds, gate_seconds)
        self._close()
        self.now_seconds = self._start + self._now
        return observation

    def accelerator_seconds(self) -> dict[str, float]:
        """Accelerator-seconds used so far by each variant, starting and draining replicas included."""
        used = dict.fromkeys((v.name for v in self._variants), 0.0)
        for r in (*self._over, *self._living):
            variant = self._variants[r.variant]
            lived = min(r.ended, self._now) - r.created
            used[variant.name] += lived * variant.accelerators_per_replica
        return used

    def starts(self) -> pd.DataFrame:
        """Return a row per start that was asked for, as in startups.parquet, times as the requests'.

        Columns variant, created_seconds, ready_seconds (NaN while starting or if given up before) and
        ended_seconds (NaN while it lives).
        """
        rows = [
            (
                self._variants[r.variant].name,
                self._start + r.created,
                self._start + r.ready if r.ready <= min(self._now, r.ended) else NAN,
                self._start + r.ended if math.isfinite(r.ended) else NAN,
            )
            for r in (*self._over, *self._living)
            if not r.first
        ]
        columns = ["variant", "created_seconds", "ready_seconds", "ended_seconds"]
        frame = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[1:], np.float64))
        return frame.sort_values(["created_seconds", "variant"], kind="stable", ignore_index=True)

    def verdict(self, since_seconds: float, until_seconds: float) -> Verdict:
        """Judge the requests that arrived in [since, until): those without a last token are missed."""
        edges = np.array([since_seconds, until_seconds]) - self._start
        arrived = self._q.request["arrive"][: int(self._q.tally["arrived"][0])]
        low, high = np.searchsorted(arrived, edges)
        return judge(self._q, int(low), int(high), self._targets)

    def outcomes(self) -> pd.DataFrame:
        """Return a row per request that has arrived, in order: its lengths and times as the requests'.

        Columns arrive_seconds, first_seconds, end_seconds (NaN while there is none), input_tokens,
        output_tokens.
        """
        rows = self._q.request[: int(self._q.tally["arrived"][0])]
        times = {f"{key}_seconds": self._start + rows[key] for key in ("arrive", "first", "end")}
        tokens = {f"{key}_tokens": rows[key] for key in ("input", "output")}
        return pd.DataFrame(times | tokens)

    def _number(self, variant: str) -> int:
        for number, known in enumerate(self._variants):
            if known.name == variant:
                return number
        raise SimulationError(
            f"no variant '{variant}'; allowed: {', '.join(v.name for v in self._variants)}"
        )

    def _keep(self, r: _Replica) -> tuple[bool, int, float, float]:
        """Sort key: what is given up first comes first."""
        load = int(self._f.state["load"][r.slot]) if r.slot != NONE else 0
        return (r.slot != NONE, load, -r.created, -r.ready)

    def _give_up(self, r: _Replica) -> None:
        if r.slot == NONE:
            r.ended = self._now
            self._living.remove(r)
            self._over.append(r)
            return
        r.draining = True
        if self._f.state["load"][r.slot] == 0:
            self._f.state["idle_since"][r.slot] = self._now
        self._close()

    def _open(self) -> None:
        """Give a slot to every replica that has become ready."""
        for r in self._living:
            if r.slot == NONE and r.ready <= self._now:
                if not self._free_slots:
                    size = len(self._f.state)
                    self._f = more_replicas(self._f)
                    self._owner = np.concatenate([self._owner, np.full(size, NONE, dtype=np.int64)])
                    self._free_slots = list(range(size, 2 * size))[::-1]
                r.slot = self._free_slots.pop()
                self._owner[r.slot] = r.variant
                put_replica(self._f, r.slot, self._variants[r.variant].profile, self._now)

    def _close(self) -> None:
        """End the draining replicas that have run empty."""
        for r in [r for r in self._living if r.draining]:
            state = self._f.state[r.slot]
            if state["load"] == 0 and state["busy_until"] == IDLE:
                r.ended = float(state["idle_since"])
                self._free_slots.append(r.slot)
                r.slot = NONE
                self._living.remove(r)
                self._over.append(r)

    def _slots(self, *, ready: bool) -> IntArray:
        """Slots in order of becoming ready: only those that take requests, or also the draining."""
        slots = [r.slot for r in self._living if r.slot != NONE and not (ready and r.draining)]
        return np.array(slots, dtype=np.int64)

    def _observe(
        self,
        seconds: float,
        before: Record,
        ready_seconds: NDArray[np.float64],
        gate_seconds: float,
    ) -> ServiceObservation:
        q, after = self._q, self._q.tally[0]
        arrived = slice(int(before["arrived"]), int(after["arrived"]))
        started = q.first_log[before["firsts"] : after["firsts"]]
        ended = q.end_log[before["ends"] : after["ends"]]
        arrivals = arrived.stop - arrived.start
        variants = {}
        for number, variant in enumerate(self._variants):
            seen = latencies(
                q,
                started[self._owner[q.request["slot"][started]] == number],
                ended[self._owner[q.request["slot"][ended]] == number],
                self._targets,
            )
            variants[variant.name] = self._observe_variant(
                number, seconds, float(ready_seconds[number]), gate_seconds * (number == 0), seen
            )
        return ServiceObservation(
            arrival_rate_rps=arrivals / seconds,
            isl_tokens=float(q.request["input"][arrived].mean()) if arrivals else NAN,
            osl_tokens=float(q.request["output"][ended].mean()) if len(ended) else NAN,
            variants=variants,
        )

    def _observe_variant(
        self,
        number: int,
        seconds: float,
        ready_seconds: float,
        gate_seconds: float,
        seen: Latencies,
    ) -> VariantObservation:
        mine = [r for r in self._living if r.variant == number]
        steady = [r.slot for r in mine if r.slot != NONE and not r.draining]
        draining = [r.slot for r in mine if r.draining]
        slots = np.array(steady + draining, dtype=np.int64)
        state = self._f.state[slots]  # a copy
        clear_areas(self._f, slots)
        used = float(state["blocks_area"][: len(steady)].sum())
        blocks = ready_seconds * self._variants[number].profile.kv_blocks
        return VariantObservation(
            ready=len(steady),
            starting=len(mine) - len(slots),
            # those that ran empty in this interval are gone
            draining=int(np.count_nonzero(state["load"][len(steady) :])),
            desired=self._desired[number],
            running=float(state["running_area"].sum()) / seconds,
            waiting=(float(state["waiting_area"].sum()) + gate_seconds) / seconds,
            kv_cache_usage_ratio=used / blocks if blocks else NAN,
            **asdict(seen),
        )

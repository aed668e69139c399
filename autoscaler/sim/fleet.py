"""A simulated fleet: variants whose replicas start, serve, drain and cost, behind one gateway."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from autoscaler.core.types import ServiceObservation
from autoscaler.sim.engine import SimulationError
from autoscaler.sim.interrupt import send_back
from autoscaler.sim.observe import Interval, observe
from autoscaler.sim.serve import (
    LEAST_LOAD,
    POWER_OF_TWO,
    PREFIX_AWARE,
    ROUND_ROBIN,
    serve,
)
from autoscaler.sim.state import (
    IDLE,
    NONE,
    IntArray,
    more_replicas,
    new_ledger,
    new_replicas,
    put_replica,
)
from autoscaler.sim.telemetry import NAN, Verdict, judge
from autoscaler.sim.variants import ROLES, Counts, FleetVariant, KvTransfer, Pod, Spot
from autoscaler.sim.workload import Requests
from models.slo import SloTargets

__all__ = ["REFUSALS", "Fleet", "FleetVariant", "KvTransfer", "Spot"]

ROUTINGS = {
    "least-load": LEAST_LOAD,
    "round-robin": ROUND_ROBIN,
    "power-of-two": POWER_OF_TWO,
    "prefix-aware": PREFIX_AWARE,
}
REFUSALS = ("", "no-output-token", "beyond-context-window", "beyond-kv-cache")
SPARE_SLOTS = 8  # draining replicas keep theirs; more are made when needed
SECONDS_PER_HOUR = 3600.0


class Fleet:
    """Serves `requests` from `start_seconds` on; earlier ones are not offered.

    The same arguments and calls give the same results. A request that a replica must refuse, as vLLM
    does, stays unserved; `outcomes` says why (docs/simulator.md).

    Parameters
    ----------
    requests : what arrives at the gateway, in order.
    variants : at least one; a gateway's queue (while no replica is ready) counts as the first one's.
    targets : what the shares within the SLO and the verdict are judged by.
    start_seconds : the time at which the fleet starts, on the clock of the requests.
    seed : of start-up times, interruptions and power-of-two routing.
    routing : least-load (fewest requests, ties in turn), round-robin, power-of-two or prefix-aware
        (the longest prefix in a cache, unless that replica is much busier than the idlest).
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
        if any(v.role == "prefill" for v in variants) != any(v.role == "decode" for v in variants):
            raise SimulationError("roles: prefill and decode variants need each other")
        self._f = new_replicas(
            sum(v.max_replicas for v in variants) + SPARE_SLOTS,
            max(v.profile.max_num_seqs for v in variants),
            max(v.profile.block_tokens for v in variants),
            int(self._q.request["group"].max(initial=NONE)) + 1,
        )
        self._free_slots = list(range(len(self._f.state)))[::-1]
        self._owner = np.full(len(self._f.state), NONE, dtype=np.int64)  # slot -> variant
        self._living: list[Pod] = []
        self._next: float | None = None  # the next change of the living; None: to be found anew
        self._over: list[Pod] = []
        self._used = [0.0] * len(variants)  # seconds that those over lived
        self._lost_seconds = np.zeros((len(variants), 2))
        self._desired = [v.initial_replicas for v in variants]
        for number, variant in enumerate(variants):
            for _ in range(variant.initial_replicas):
                self._living.append(Pod(number, 0.0, 0.0, first=True))
        self._open()

    @property
    def preemptions(self) -> int:
        """Running requests that lost their KV blocks so far."""
        return int(self._q.tally["preemptions"][0])

    @property
    def busy(self) -> bool:
        """Whether any request that has arrived is still served, or waits for a replica that is there."""
        q = self._q.tally[0]
        return bool(self._f.state["load"].any() or q["moving_head"] < q["moving_tail"])

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
        if wanted == self._desired[number]:  # as many are ready or starting: nothing is to be done
            return
        self.scale_ups += wanted > self._desired[number]
        self.scale_downs += wanted < self._desired[number]
        self._desired[number] = wanted
        self._create(number)
        mine = [r for r in self._living if r.variant == number and not r.draining]
        surplus = len(mine) - wanted
        if surplus > 0:
            for replica in sorted(mine, key=self._keep)[:surplus]:
                self._give_up(replica)
        self._open()

    def interrupt(self, variant: str, replicas: int, notice_seconds: float) -> None:
        """Announce that ready replicas of a variant, the oldest first, are taken away after the notice.

        From now on they take no new requests and others start in their place. What they have not
        answered by then goes back to the gateway and begins again; its tokens so far are lost.
        """
        number = self._number(variant)
        ready = [r for r in self._living if r.variant == number and r.slot != NONE]
        ready = [r for r in ready if not r.draining]
        if not (math.isfinite(notice_seconds) and notice_seconds >= 0):
            raise SimulationError(f"interrupt: notice of {notice_seconds} s; allowed: >= 0")
        if not 0 <= replicas <= len(ready):
            raise SimulationError(
                f"variant '{variant}': {replicas} interrupted; allowed: 0 to {len(ready)}, the ready ones"
            )
        for r in ready[:replicas]:
            self._announce(r, notice_seconds)
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
            stop = min(until, self._next_change())
            front, back, alive = self._slots()
            for ready in (front, back):
                owned = np.bincount(self._owner[ready], minlength=len(ready_seconds))
                ready_seconds += owned * (stop - self._now)
            slots = (front, back, alive)
            gate_seconds += serve(self._f, self._q, slots, self._routing, self._now, stop)
            self._now = stop
        self._open()
        observation = observe(
            self._f,
            self._q,
            self._owner,
            self._variants,
            self._living,
            self._desired,
            Interval(seconds, before, ready_seconds, gate_seconds, self._lost_seconds),
            self._targets,
        )
        self._lost_seconds = np.zeros_like(self._lost_seconds)
        self._close()
        self.now_seconds = self._start + self._now
        return observation

    def pass_idle(self, seconds: float) -> list[Counts]:
        """Let `seconds` go by in a fleet without requests; returns the counts of each variant's replicas.

        As `advance`, without the engines: a fluid asks for this twenty thousand times a fortnight.
        """
        until = self._now + seconds
        while self._now < until:
            self._open()
            self._now = min(until, self._next_change())
        self._open()
        self._close()
        self.now_seconds = self._start + self._now
        counts = []
        for number, desired in enumerate(self._desired):
            slots = [r.slot for r in self._living if r.variant == number]
            starting = slots.count(NONE)  # none drains: they are idle
            counts.append(Counts(len(slots) - starting, starting, desired))
        return counts

    def accelerator_seconds(self) -> dict[str, float]:
        """Accelerator-seconds used so far by each variant, starting and draining replicas included."""
        used = self._used.copy()
        for r in self._living:
            used[r.variant] += self._now - r.created
        return {
            v.name: seconds * v.accelerators_per_replica
            for v, seconds in zip(self._variants, used, strict=True)
        }

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

        Columns arrive_seconds, seen_seconds (when its replica's scheduler learned of it, from which
        vLLM's own TTFT counts), first_seconds, end_seconds (NaN while there is none), input_tokens,
        output_tokens, hit_tokens (found in the prefix cache), refused ("" or why).
        """
        rows = self._q.request[: int(self._q.tally["arrived"][0])]
        times = {
            f"{key}_seconds": self._start + rows[key] for key in ("arrive", "seen", "first", "end")
        }
        tokens = {f"{key}_tokens": rows[key] for key in ("input", "output", "hit")}
        return pd.DataFrame(times | tokens | {"refused": np.array(REFUSALS)[rows["refused"]]})

    def _number(self, variant: str) -> int:
        for number, known in enumerate(self._variants):
            if known.name == variant:
                return number
        raise SimulationError(
            f"no variant '{variant}'; allowed: {', '.join(v.name for v in self._variants)}"
        )

    def _create(self, number: int) -> None:
        """Start replicas until as many as desired are ready or starting."""
        variant = self._variants[number]
        mine = sum(r.variant == number and not r.draining for r in self._living)
        for _ in range(self._desired[number] - mine):
            seconds = float(variant.startup(self._rng))
            if not (math.isfinite(seconds) and seconds >= 0):
                raise SimulationError(
                    f"variant '{variant.name}': a start takes {seconds} s; allowed: >= 0"
                )
            self._living.append(Pod(number, self._now, self._now + seconds, first=False))
            self._next = None

    def _keep(self, r: Pod) -> tuple[bool, int, float, float]:
        """Sort key: what is given up first comes first."""
        load = int(self._f.state["load"][r.slot]) if r.slot != NONE else 0
        return (r.slot != NONE, load, -r.created, -r.ready)

    def _give_up(self, r: Pod) -> None:
        if r.slot == NONE:
            self._end(r, self._now)
            return
        r.draining, self._next = True, None
        if self._f.state["load"][r.slot] == 0:
            self._f.state["idle_since"][r.slot] = self._now
        self._close()

    def _announce(self, r: Pod, notice_seconds: float) -> None:
        """Drain a replica that will be lost, and start another one."""
        r.lost = self._now + notice_seconds
        self._give_up(r)
        self._create(r.variant)

    def _end(self, r: Pod, at: float) -> None:
        r.ended = at
        if r.slot != NONE:
            self._free_slots.append(r.slot)
            r.slot = NONE
        self._living.remove(r)
        self._next = None
        self._over.append(r)
        self._used[r.variant] += at - r.created

    def _next_change(self) -> float:
        """Return when the next replica becomes ready, is told that it will be lost, or is lost."""
        if self._next is None:  # seldom: a fleet stands still for most of its ticks
            self._next = min((r.next_change for r in self._living), default=math.inf)
        return self._next

    def _open(self) -> None:
        """Let happen what is due: replicas become ready, are told that they will be lost, are lost."""
        if self._next_change() > self._now:
            return
        self._next = None
        for r in [r for r in self._living if r.next_change <= self._now]:
            if r.slot == NONE:
                self._become_ready(r)
            elif not r.draining:
                spot = self._variants[r.variant].spot
                self._announce(r, spot.notice_seconds if spot is not None else 0.0)
            if r.lost <= self._now and r.slot != NONE:
                state = self._f.state[r.slot]
                self._lost_seconds[r.variant] += state["running_area"], state["waiting_area"]
                self._q = send_back(self._f, self._q, r.slot)
                self._end(r, self._now)

    def _become_ready(self, r: Pod) -> None:
        if not self._free_slots:
            size = len(self._f.state)
            self._f = more_replicas(self._f)
            self._owner = np.concatenate([self._owner, np.full(size, NONE, dtype=np.int64)])
            self._free_slots = list(range(size, 2 * size))[::-1]
        r.slot = self._free_slots.pop()
        self._owner[r.slot] = r.variant
        variant = self._variants[r.variant]
        put_replica(self._f, r.slot, variant.profile, self._now)
        state = self._f.state[r.slot]
        state["role"] = ROLES[variant.role]
        state["transfer_base"] = variant.transfer.base_seconds
        state["transfer_per_token"] = variant.transfer.seconds_per_token
        if variant.spot is not None and variant.spot.interruptions_per_hour > 0:
            mean = SECONDS_PER_HOUR / variant.spot.interruptions_per_hour
            r.told = self._now + float(self._rng.exponential(mean))

    def _close(self) -> None:
        """End the draining replicas that have run empty."""
        for r in [r for r in self._living if r.draining]:
            state = self._f.state[r.slot]
            if state["load"] == 0 and state["busy_until"] == IDLE:
                self._end(r, float(state["idle_since"]))

    def _slots(self) -> tuple[IntArray, IntArray, IntArray]:
        """Slots in order of becoming ready: those that take requests, those that decode, all at work."""
        alive = [r for r in self._living if r.slot != NONE]
        ready = [r for r in alive if not r.draining]
        back = [r for r in ready if self._variants[r.variant].role == "decode"]
        front = [r for r in ready if self._variants[r.variant].role != "decode"]
        one, two, three = (np.array([r.slot for r in k], np.int64) for k in (front, back, alive))
        return one, two, three

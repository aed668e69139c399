"""An independent oracle of fleets: one event after the other, the next one found by looking at all."""

import math
from collections import deque
from collections.abc import Sequence

from slow_engine import Job, SlowReplica

from autoscaler.sim.engine import EngineProfile


def two_of(count: int, number: int, seed: int) -> tuple[int, int]:
    """The dice of power-of-two routing: two replicas by the number of a request, both engines' alike."""
    word = (1 << 64) - 1
    mixed = ((number + seed) * 0x9E3779B97F4A7C15) & word
    mixed = ((mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9) & word
    mixed ^= mixed >> 29
    one = (mixed >> 40) % count
    return one, (one + 1 + (mixed & 0xFFFFF) % (count - 1)) % count


class SlowFleet:
    """`fronts` replicas take requests; with `backs`, they compute prompts, and those decode.

    interrupted: (told, lost) times of front replicas, the oldest first; another one is ready
    `startup` seconds after each was told.
    """

    def __init__(
        self,
        profile: EngineProfile,
        fronts: int = 1,
        backs: int = 0,
        *,
        routing: str = "least-load",
        transfer: tuple[float, float] = (0.0, 0.0),
        interrupted: Sequence[tuple[float, float]] = (),
        startup: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.profile, self.routing, self.transfer, self.seed = profile, routing, transfer, seed
        self.number: dict[Job, int] = {}
        self.fronts = [SlowReplica(profile, prefill_only=backs > 0) for _ in range(fronts)]
        self.backs = [SlowReplica(profile) for _ in range(backs)]
        self.alive = [*self.fronts, *self.backs]
        self.gate: deque[Job] = deque()
        self.moves: list[tuple[float, Job]] = []
        self.turn = 0
        # (time, order among equals, what, which interruption)
        self.plan = sorted(
            entry
            for k, (told, lost) in enumerate(interrupted)
            for entry in ((told, 1, "told", k), (lost, 2, "lost", k), (told + startup, 0, "new", k))
        )
        self.doomed: dict[int, SlowReplica] = {}

    def run(self, jobs: list[Job]) -> None:
        coming = deque(jobs)
        self.number = {job: n for n, job in enumerate(jobs)}
        while True:
            step = min(self.alive, key=lambda r: r.end) if self.alive else None
            times = {
                "plan": self.plan[0][0] if self.plan else math.inf,
                "arrival": coming[0].arrive if coming else math.inf,
                "move": min((t for t, _ in self.moves), default=math.inf),
                "step": math.inf if step is None else step.end,
            }
            what = min(times, key=lambda k: times[k])  # the first of equals
            now = times[what]
            if now == math.inf:
                return
            if what == "plan":
                self._change(now)
            elif what == "arrival":
                self._route(coming.popleft(), now)
            elif what == "move":
                self._arrive(now)
            elif step is not None:
                for job in step.finish_step(now):
                    base, per_token = self.transfer
                    self.moves.append((now + base + per_token * job.input_tokens, job))
                self._wake(now)

    def _wake(self, now: float) -> None:
        for replica in self.alive:
            replica.wake(now)

    def _change(self, now: float) -> None:
        _, _, what, k = self.plan.pop(0)
        if what == "told":
            self.doomed[k] = self.fronts.pop(0)
            return
        if what == "new":
            self.fronts.append(SlowReplica(self.profile))
            self.alive.append(self.fronts[-1])
        else:
            gone = self.doomed[k]
            self.alive.remove(gone)
            for job in gone.jobs:
                job.blocks = []
                job.computed = job.generated = job.pending = 0
                job.decoding, job.first = False, math.nan
            self.gate.extendleft(sorted(gone.jobs, key=lambda job: -job.arrive))
        while self.gate and self.fronts:
            self._route(self.gate.popleft(), now)

    def _route(self, job: Job, now: float) -> None:
        if not self.fronts:
            self.gate.append(job)
            return
        self._send(self._pick(self.fronts, job), job, now)

    def _arrive(self, now: float) -> None:
        move = min(self.moves, key=lambda m: m[0])
        self.moves.remove(move)
        move[1].moved = True
        self._send(self._pick(self.backs, move[1]), move[1], now)

    def _send(self, replica: SlowReplica, job: Job, now: float) -> None:
        replica.waiting.append(job)
        replica.wake(now)

    def _pick(self, among: list[SlowReplica], job: Job) -> SlowReplica:
        turn = self.turn % len(among)
        self.turn = turn + 1
        order = among[turn:] + among[:turn]
        if self.routing == "round-robin":
            return order[0]
        if self.routing == "power-of-two":
            one, other = (among[k] for k in two_of(len(among), self.number[job], self.seed))
            return one if len(one.jobs) <= len(other.jobs) else other
        idlest = min(order, key=lambda r: len(r.jobs))
        if self.routing == "prefix-aware":
            most = 1.5 * len(idlest.jobs) + 4
            fit = [idlest, *(r for r in among if len(r.jobs) <= most)]
            return max(fit, key=lambda r: len(r.found(job)))
        return idlest

"""An independent oracle: engines and a fleet, step by step, request by request, block by block.

It walks the list of running requests in order, hands out numbered KV blocks from a queue, and, where the
scheduler is asynchronous, keeps the step that is planned beside the one in flight, as the text of vLLM
describes it. Nothing is shared with the kernels but EngineProfile's limits.
"""

import math
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field

from autoscaler.sim.engine import EngineProfile


@dataclass(slots=True, eq=False)
class Job:
    arrive: float
    input_tokens: int
    output_tokens: int
    group: int = -1
    prefix: int = 0
    computed: int = 0  # tokens computed or in the step in flight or planned
    generated: int = 0  # tokens handed out
    pending: int = 0  # tokens that the step in flight or planned will bring
    decoding: bool = False  # it has sampled since it was admitted last
    moved: bool = False  # its prompt came from a prefill replica
    blocks: list[int] = field(default_factory=list)
    first: float = math.nan
    end: float = math.nan

    @property
    def known(self) -> int:
        return self.input_tokens + self.generated + self.pending

    def key(self, block: int, size: int) -> tuple[object, int]:
        """What a block of the sequence holds: the group's prefix, or what is the request's own."""
        shared = self.group >= 0 and (block + 1) * size <= self.prefix
        return (self.group if shared else self, block)


class Blocks:
    """The pool: free blocks in the order in which they were freed, and what each still holds."""

    def __init__(self, count: int) -> None:
        self.free: OrderedDict[int, None] = OrderedDict((b, None) for b in range(count))
        self.holds: dict[int, object] = {}
        self.where: dict[object, int] = {}
        self.users: Counter[int] = Counter()

    def take(self) -> int:
        block, _ = self.free.popitem(last=False)
        if (old := self.holds.pop(block, None)) is not None:
            del self.where[old]
        self.users[block] = 1
        return block

    def note(self, key: object, block: int) -> None:
        """The block holds this now, unless another one does already."""
        if key not in self.where and block not in self.holds:
            self.holds[block], self.where[key] = key, block

    def share(self, block: int) -> None:
        self.free.pop(block, None)
        self.users[block] += 1

    def give_back(self, blocks: list[int]) -> None:
        for block in reversed(blocks):
            self.users[block] -= 1
            if self.users[block] == 0:
                self.free[block] = None


@dataclass(slots=True)
class Step:
    chunks: dict[Job, int]  # tokens that each computes
    sampling: list[Job]  # those that get a token from it
    seconds: float
    end: float = math.nan  # once it is in flight


class SlowReplica:
    def __init__(self, profile: EngineProfile, *, prefill_only: bool = False) -> None:
        self.p, self.prefill_only = profile, prefill_only
        self.pool = Blocks(profile.kv_blocks)
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.flying: Step | None = None
        self.planned: Step | None = None  # behind it, if the scheduler is asynchronous
        self.preemptions = 0

    @property
    def end(self) -> float:
        return math.inf if self.flying is None else self.flying.end

    @property
    def jobs(self) -> list[Job]:
        return [*self.running, *self.waiting]

    def wake(self, now: float) -> None:
        """Begin to work if something waits and nothing is under way."""
        step = None
        while self.flying is None and step is None and self.jobs:
            step = self._plan()  # None: all was preempted, and is admitted again
        if step is not None:
            self._fly(step, now)

    def finish_step(self, now: float) -> list[Job]:
        """End the step in flight, start the next; returns the jobs whose prompt alone was wanted."""
        assert self.flying is not None
        sampling, planned = self.flying.sampling, self.planned
        self.flying = self.planned = None
        for job in sampling:
            self._token(job, now)
        if planned is not None:
            self._fly(planned, now)
        return sampling if self.prefill_only else []

    def found(self, job: Job) -> list[int]:
        """The blocks of the job's beginning that are still in the cache; one token is always computed."""
        found: list[int] = []
        if self.p.prefix_caching and not job.moved:
            for k in range((job.known - 1) // self.p.block_tokens):
                block = self.pool.where.get(job.key(k, self.p.block_tokens))
                if block is None:
                    break
                found.append(block)
        return found

    def _fly(self, step: Step, now: float) -> None:
        step.end = now + step.seconds
        self.flying = step
        self.planned = self._plan() if self.p.async_scheduling else None

    def _token(self, job: Job, now: float) -> None:
        job.pending -= 1
        if self.prefill_only:
            self._release(job)
            return
        job.generated += 1
        if math.isnan(job.first):
            job.first = now
        if job.generated == job.output_tokens:
            job.end = now
            self._release(job)

    def _release(self, job: Job) -> None:
        (self.running if job in self.running else self.waiting).remove(job)
        self.pool.give_back(job.blocks)
        job.blocks = []
        job.computed, job.decoding = 0, False

    def _grow(self, job: Job, tokens: int) -> bool:
        """Take the blocks that the job needs for so many tokens; False if there are too few."""
        need = math.ceil(tokens / self.p.block_tokens)
        if need - len(job.blocks) > len(self.pool.free):
            return False
        job.blocks += [self.pool.take() for _ in range(len(job.blocks), need)]
        if self.p.prefix_caching:  # whole blocks can be found from now on
            for k in range(tokens // self.p.block_tokens):
                self.pool.note(job.key(k, self.p.block_tokens), job.blocks[k])
        return True

    def _plan(self) -> Step | None:
        chunks: dict[Job, int] = {}
        preempted = self._plan_running(chunks)
        budget = self.p.max_num_batched_tokens - sum(chunks.values())
        while not preempted and self.waiting and budget > 0:
            if len(self.running) >= self.p.max_num_seqs or not self._admit():
                break
            job = self.running[-1]
            chunks[job] = min(job.known - job.computed, budget)
            self._grow(job, job.computed + chunks[job])
            budget -= chunks[job]
        seconds = self._seconds(chunks)
        sampling = []
        for job, chunk in chunks.items():
            job.computed += chunk
            if job.computed == job.known:
                job.pending += 1
                job.decoding = True
                sampling.append(job)
        return Step(chunks, sampling, seconds) if chunks else None

    def _plan_running(self, chunks: dict[Job, int]) -> bool:
        budget, preempted = self.p.max_num_batched_tokens, False
        for job in list(self.running):
            wanted = 1 if self.prefill_only else job.output_tokens
            if job not in self.running or not budget or job.generated + job.pending >= wanted:
                continue
            chunk = min(job.known - job.computed, budget)
            while job in self.running and not self._grow(job, job.computed + chunk):
                self._preempt(self.running.pop())
                preempted = True
            if job not in self.running:
                break
            chunks[job] = chunk
            budget -= chunk
        return preempted

    def _admit(self) -> bool:
        job = self.waiting[0]
        found = self.found(job)
        fresh = math.ceil(job.known / self.p.block_tokens) - len(found)
        if fresh > len(self.pool.free) - sum(b in self.pool.free for b in found):
            return False
        self.waiting.popleft()
        for block in found:
            self.pool.share(block)
        job.blocks = found
        job.computed = job.input_tokens - 1 if job.moved else len(found) * self.p.block_tokens
        self.running.append(job)
        return True

    def _preempt(self, job: Job) -> None:
        self.pool.give_back(job.blocks)
        job.blocks = []
        job.computed, job.decoding, job.moved = 0, False, False
        self.waiting.appendleft(job)
        self.preemptions += 1

    def _seconds(self, chunks: dict[Job, int]) -> float:
        p = self.p
        prompt = sum(c for j, c in chunks.items() if not j.decoding)
        return (
            p.base_seconds
            + p.per_sequence_seconds * len(chunks)
            + p.per_context_token_seconds * sum(j.computed + 1 for j in chunks if j.decoding)
            + p.per_prompt_token_seconds * prompt
            + (p.prompt_step_seconds if prompt else 0.0)
        )

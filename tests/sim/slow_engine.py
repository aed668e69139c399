"""An independent oracle: one replica, step by step, request by request, in plain Python.

It walks the list of running requests in order and allocates blocks one request at a time, as the text
of vLLM's scheduler describes it; nothing is shared with the kernels but EngineProfile's limits.
"""

import math
from collections import deque
from dataclasses import dataclass

from autoscaler.sim.engine import EngineProfile


@dataclass(slots=True, eq=False)
class Job:
    arrive: float
    input_tokens: int
    output_tokens: int
    computed: int = 0
    generated: int = 0
    decoding: bool = False
    first: float = math.nan
    end: float = math.nan

    @property
    def known(self) -> int:
        return self.input_tokens + self.generated


class SlowReplica:
    def __init__(self, profile: EngineProfile, jobs: list[Job]) -> None:
        self.p, self.coming = profile, deque(jobs)
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.preemptions = 0

    def run(self) -> None:
        now = 0.0
        while self.coming or self.waiting or self.running:
            while self.coming and self.coming[0].arrive <= now:
                self.waiting.append(self.coming.popleft())
            if not self.waiting and not self.running:
                now = self.coming[0].arrive
                continue
            chunks = self.schedule()
            if chunks:
                now += self.seconds(chunks)
                self.hand_out(chunks, now)

    def blocks(self, tokens: int) -> int:
        return math.ceil(tokens / self.p.block_tokens)

    def free(self) -> int:
        return self.p.kv_blocks - sum(self.blocks(job.computed) for job in self.running)

    def schedule(self) -> dict[Job, int]:
        budget, chunks, preempted, taken = self.p.max_num_batched_tokens, {}, False, 0
        for job in list(self.running):
            if job not in self.running or budget == 0:
                continue
            chunk = min(job.known - job.computed, budget)
            more = self.blocks(job.computed + chunk) - self.blocks(job.computed)
            while more > self.free() - taken and job in self.running:
                victim = self.running.pop()
                victim.computed, victim.decoding = 0, False
                self.waiting.appendleft(victim)
                self.preemptions += 1
                preempted = True
            if job not in self.running:
                break
            chunks[job] = chunk
            taken += more
            budget -= chunk
        while (
            not preempted
            and self.waiting
            and budget > 0
            and len(self.running) < self.p.max_num_seqs
            and self.blocks(self.waiting[0].known) <= self.free() - taken
        ):
            job = self.waiting.popleft()
            chunks[job] = min(job.known, budget)
            taken += self.blocks(chunks[job])
            budget -= chunks[job]
            self.running.append(job)
        return chunks

    def seconds(self, chunks: dict[Job, int]) -> float:
        return (
            self.p.base_seconds
            + self.p.per_sequence_seconds * len(chunks)
            + self.p.per_context_token_seconds * sum(j.computed + 1 for j in chunks if j.decoding)
            + self.p.per_prompt_token_seconds * sum(c for j, c in chunks.items() if not j.decoding)
        )

    def hand_out(self, chunks: dict[Job, int], now: float) -> None:
        for job, chunk in chunks.items():
            job.computed += chunk
            if job.computed < job.known:
                continue
            job.generated += 1
            job.decoding = True
            if math.isnan(job.first):
                job.first = now
            if job.generated == job.output_tokens:
                job.end = now
                self.running.remove(job)

"""What one replica can do: the seconds of an engine step, and the limits that vLLM is started with.

A step computes one new token for every decoding sequence and a chunk of prompt for others:

    seconds = base + per_sequence x sequences + per_context_token x context + per_prompt_token x prompt
              (+ prompt_step, in a step that computes prompts)

where `sequences` counts all that are scheduled, `context` the tokens whose keys and values the decoding
sequences read (their new one included) and `prompt` the prompt tokens computed. Weights are read once
a step (base), attention reads the context, prompts are bound by arithmetic. Steps of decodes alone
replay a CUDA graph; a step with prompts launches its kernels one by one, which costs prompt_step.
"""

import math
from dataclasses import dataclass, fields


class SimulationError(ValueError):
    """A simulation that cannot be run as asked; the message says where, what and what is allowed."""


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """One variant's engine: four step-time coefficients and vLLM's scheduler limits.

    max_num_seqs: sequences running at once. max_num_batched_tokens: tokens computed in a step, decodes
    and prompt chunks together. kv_capacity_tokens: tokens whose keys and values fit into memory, given
    out in blocks of block_tokens. max_model_len: the context window, prompt and output together; None is
    as much as the cache holds. async_scheduling: the next step is put together while one runs, so that
    a request waits a step longer (on by default in vLLM of 2026; the engines of the shipped step times
    did not have it). prefix_caching: blocks that were freed are found again until they are overwritten.
    Raises SimulationError on values that no engine has.
    """

    name: str
    base_seconds: float
    per_sequence_seconds: float
    per_context_token_seconds: float
    per_prompt_token_seconds: float
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    kv_capacity_tokens: int = 400_000
    block_tokens: int = 16
    max_model_len: int | None = None
    async_scheduling: bool = False
    prefix_caching: bool = False
    prompt_step_seconds: float = 0.0

    def __post_init__(self) -> None:
        for field in (*fields(self)[1:5], fields(self)[-1]):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise SimulationError(
                    f"engine profile '{self.name}': {field.name} is {value}; a number >= 0 is allowed"
                )
        if self.base_seconds <= 0:
            raise SimulationError(
                f"engine profile '{self.name}': base_seconds is {self.base_seconds}; more than 0 is "
                "allowed (a step that takes no time never ends)"
            )
        for field in fields(self)[5:9]:
            if getattr(self, field.name) < 1:
                raise SimulationError(
                    f"engine profile '{self.name}': {field.name} is {getattr(self, field.name)}; "
                    "at least 1 is allowed"
                )
        if self.max_num_batched_tokens < self.max_num_seqs:  # vLLM refuses to start with that, too
            raise SimulationError(
                f"engine profile '{self.name}': max_num_batched_tokens {self.max_num_batched_tokens} is "
                f"below max_num_seqs {self.max_num_seqs}; every sequence needs a token a step"
            )

        if (
            self.max_model_len is not None
            and not 1 <= self.max_model_len <= self.kv_capacity_tokens
        ):
            raise SimulationError(  # vLLM refuses to start when one full context does not fit
                f"engine profile '{self.name}': max_model_len is {self.max_model_len}; allowed: 1 to "
                f"kv_capacity_tokens ({self.kv_capacity_tokens})"
            )

    @property
    def kv_blocks(self) -> int:
        """Whole blocks that the cache holds."""
        return self.kv_capacity_tokens // self.block_tokens

    def step_seconds(self, sequences: int, context_tokens: int, prompt_tokens: int) -> float:
        """Seconds of one step (the formula at the head of this module)."""
        return (
            self.base_seconds
            + self.per_sequence_seconds * sequences
            + self.per_context_token_seconds * context_tokens
            + self.per_prompt_token_seconds * prompt_tokens
            + (self.prompt_step_seconds if prompt_tokens > 0 else 0.0)
        )

"""Engines whose step times were measured on real accelerators, fitted to EngineProfile's formula.

Data: bundle/splitwise_step_times.csv, Llama-2-70B in fp16 on DGX-A100 and DGX-H100 (Splitwise, ISCA
2024; see DATA_NOTICE.md). The software is of 2023: today's vLLM is faster on the same boards.

A prompt pass of b prompts of p tokens is a step with b sequences and b p prompt tokens; a decode step
at batch b reads b (p + output / 2) tokens of context on average. Coefficients are non-negative least
squares on the relative error, so that 30 ms and 300 ms weigh the same. Prompt passes of more tokens
than a step of a chunking engine ever computes are left out.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls

from autoscaler.sim.bundle import read_bundled
from autoscaler.sim.engine import EngineProfile, SimulationError
from models.profiles import ProfileError, profile
from models.step_time import Coefficients

FloatArray = NDArray[np.float64]
STEP_TIMES = "splitwise_step_times.csv"
CONFIGURATION = ["prompt_tokens", "batch_size", "output_tokens"]
MOST_PROMPT_TOKENS = 4096  # in one step: twice vLLM's default budget

# KV capacity = (accelerators x memory x utilization - weights - other) / bytes a token
MEMORY_BYTES = 80e9  # of one accelerator, all that are measured here
UTILIZATION = 0.9  # vLLM's gpu_memory_utilization by default
OTHER_BYTES = 4e9  # activations and graphs, on each accelerator: typical of vLLM's memory profile
WEIGHT_BYTES = 2 * 69e9  # Llama-2-70B: 69 G parameters in fp16
KV_BYTES_PER_TOKEN = 2 * 80 * 8 * 128 * 2  # keys and values, layers, KV heads, head size, fp16


@dataclass(frozen=True, slots=True)
class ProfileFit:
    """A fitted profile and how well it fits: relative errors, root mean square."""

    profile: EngineProfile
    prompt_error_ratio: float
    decode_error_ratio: float
    measurements: int


def profile_names() -> list[str]:
    """Return what `measured_profile` knows, as model-accelerator-tpN."""
    return sorted(_measured())


def measured_profile(name: str) -> EngineProfile:
    """Return the engine fitted to measurements of `name`, e.g. llama2-70b-h100-80gb-tp4.

    Or one of the profiles that ship with the models, e.g. qwen3-32b-h100-tp2 (models.profiles).
    """
    if name in _measured():
        return fit_measured(name).profile
    try:
        c = Coefficients.from_columns(profile(name).columns)
    except ProfileError as error:
        raise SimulationError(str(error)) from error
    return EngineProfile(
        name=name,
        base_seconds=float(c.base_seconds),
        per_sequence_seconds=float(c.per_sequence_seconds),
        per_context_token_seconds=float(c.per_context_token_seconds),
        per_prompt_token_seconds=float(c.per_prompt_token_seconds),
        kv_capacity_tokens=int(c.kv_tokens),
    )


def fit_measured(name: str) -> ProfileFit:
    """Fit the four coefficients to the measured medians; raise SimulationError on an unknown name."""
    table = _measured().get(name)
    if table is None:
        raise SimulationError(
            f"no measured profile '{name}'; allowed: {', '.join(profile_names())}"
        )
    prompts, decodes = _prompt_rows(table), _decode_rows(table)
    rows = np.vstack([prompts, decodes])
    seconds = rows[:, -1]
    coefficients, _ = nnls(rows[:, :-1] / seconds[:, np.newaxis], np.ones(len(rows)))
    error = rows[:, :-1] @ coefficients / seconds - 1
    tensor_parallel = int(table.tensor_parallel.iloc[0])
    spare = tensor_parallel * (MEMORY_BYTES * UTILIZATION - OTHER_BYTES) - WEIGHT_BYTES
    return ProfileFit(
        EngineProfile(
            name=name,
            base_seconds=float(coefficients[0]),
            per_sequence_seconds=float(coefficients[1]),
            per_context_token_seconds=float(coefficients[2]),
            per_prompt_token_seconds=float(coefficients[3]),
            kv_capacity_tokens=int(spare / KV_BYTES_PER_TOKEN),
        ),
        prompt_error_ratio=float(np.sqrt(np.mean(error[: len(prompts)] ** 2))),
        decode_error_ratio=float(np.sqrt(np.mean(error[len(prompts) :] ** 2))),
        measurements=len(rows),
    )


@cache
def _measured() -> dict[str, pd.DataFrame]:
    table = read_bundled(STEP_TIMES)
    names = table.model + "-" + table.hardware + "-tp" + table.tensor_parallel.astype(str)
    return {str(name): rows for name, rows in table.groupby(names)}


def _prompt_rows(table: pd.DataFrame) -> FloatArray:
    """Return rows of 1, sequences, 0, prompt tokens, seconds: a median a configuration."""
    median = table.groupby(CONFIGURATION[:2], as_index=False).prompt_time_ms.median()
    tokens = median.prompt_tokens * median.batch_size
    rows = _rows(median.batch_size, 0 * tokens, tokens, median.prompt_time_ms)
    return rows[rows[:, 3] <= MOST_PROMPT_TOKENS]


def _decode_rows(table: pd.DataFrame) -> FloatArray:
    """Return rows of 1, sequences, context tokens, 0, seconds: a median a configuration."""
    median = table.groupby(CONFIGURATION, as_index=False).token_time_ms_per_token.median()
    context = median.batch_size * (median.prompt_tokens + median.output_tokens / 2)
    return _rows(median.batch_size, context, 0 * context, median.token_time_ms_per_token)


def _rows(
    sequences: "pd.Series[int]",
    context: "pd.Series[float]",
    prompt: "pd.Series[float]",
    milliseconds: "pd.Series[float]",
) -> FloatArray:
    columns = [np.ones(len(sequences)), sequences, context, prompt, milliseconds / 1e3]
    return np.column_stack([np.asarray(c, dtype=np.float64) for c in columns])

"""The free parameters of a latency fit, and what is believed of them before any telemetry.

Logarithms, two of them logits; step times relative to the base of a step. What telemetry cannot tell
apart (one constant length pair fits any split between prompt and base time) is held by these priors.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.latency_windows import Limits
from models.step_time import NO_LIMIT, Coefficients

FloatArray = NDArray[np.float64]

# Prior mean and standard deviation. Ratios to the base time of a step: Llama-2-70B on 4 boards of A100
# and H100, Llama-3.1-8B on one H100 and Qwen2.5-14B (public step-time tables) lie within a factor of 3.
PRIOR = (
    ("base", np.log(0.02), 1.5),
    ("per_sequence", np.log(6e-3), 1.2),  # of base
    ("per_context_token", np.log(4e-6), 1.5),  # of base
    ("per_prompt_token", np.log(4e-3), 1.0),  # of base
    ("prompt_growth", np.log(1.0 / 15000.0), 1.0),  # attention against the rest of a prompt's work
    ("steps_per_token", np.log(1.0 / 3000.0), 0.7),  # token budgets of 512 to 16,384 are usual
    ("overhead", np.log(0.005), 1.0),  # seconds: HTTP, tokenizer, scheduler
    ("isl_sigma", np.log(0.7), 0.8),  # chat and code traces: 0.5 to 1.2; load generators: 0.05
    ("start_steps", np.log(0.6), 0.5),  # the rest of one, or more where scheduling runs ahead
    ("wait_scale", 0.0, 0.6),
    (
        "tpot_spread",
        np.log(1.5),
        0.8,
    ),  # lengths of outputs differ: a step-by-step engine shows 1.3 to 1.8
    ("regularity", -2.5, 1.5),  # 0.08: users are independent
    ("routing", 1.5, 1.5),  # 0.8: gateways send to the least loaded, not perfectly
    ("pace", 0.0, 0.3),  # log of the steps' time now over before a change (models.latency_pace)
)
N_FREE = len(PRIOR) - 1  # parameters of the engine as it is now: all but the pace
CLIP = 12.0  # of a logit


@dataclass(frozen=True, slots=True)
class Prior:
    """Normal prior of the free parameters, shapes (P,)."""

    mean: FloatArray
    sigma: FloatArray


def usual_prior() -> Prior:
    """Return what is believed of any engine."""
    return Prior(
        np.array([mean for _, mean, _ in PRIOR]), np.array([sigma for _, _, sigma in PRIOR])
    )


def prior_from_tpot(log_tpot: FloatArray) -> Prior:
    """Return the usual prior, with the step's base at the lowest TPOT seen (log seconds, may be NaN)."""
    prior = usual_prior()
    if np.isfinite(log_tpot).any():
        prior.mean[0] = np.nanquantile(log_tpot, 0.05) + np.log(0.95)
    return prior


def unpack(x: FloatArray, limits: Limits) -> Coefficients:
    """Return coefficients of shape (..., 1) from free parameters x (..., P)."""
    logs = np.exp(np.clip(x[..., : N_FREE - 2], -30.0, 10.0))
    base, seq, ctx, prompt, growth, steps, over, sigma, starts, wait, spread = np.moveaxis(
        logs, -1, 0
    )
    logits = np.clip(x[..., N_FREE - 2 : N_FREE], -CLIP, CLIP)
    regular, routing = np.moveaxis(1.0 / (1.0 + np.exp(-logits)), -1, 0)
    full = np.ones_like(base)
    values = {
        "base_seconds": base,
        "per_sequence_seconds": base * seq,
        "per_context_token_seconds": base * ctx,
        "per_prompt_token_seconds": base * prompt,
        "prompt_growth_per_token": growth,
        "steps_per_token": steps,
        "overhead_seconds": over,
        "max_sequences": full * limits.max_sequences,
        "kv_tokens": full * limits.kv_tokens,
        "isl_sigma": sigma,
        "start_steps": starts,
        "wait_scale": wait,
        "tpot_spread": spread,
        "routing_ratio": routing,
        "regularity_ratio": regular,
        "burst_ratio": full,
        "tpot_scatter_ratio": 0.0 * full,
        "prefix_cache_hit_ratio": full * limits.prefix_cache_hit_ratio,
        "seen_load_ratio": full,
        "seen_isl_tokens": full * NO_LIMIT,
        "seen_osl_tokens": full * NO_LIMIT,
    }
    return Coefficients(**{name: value[..., None] for name, value in values.items()})


def default_columns() -> FloatArray:
    """Return coefficients (F,) of an engine of which nothing is known: the priors' centre."""
    return unpack(usual_prior().mean, Limits(NO_LIMIT, NO_LIMIT, 0.0)).columns()[:, 0]

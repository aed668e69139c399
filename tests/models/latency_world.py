"""Engines and telemetry for the latency tests: known coefficients, windows drawn from them."""

import numpy as np
import pandas as pd

from models.capacity import predicted_latency
from models.frames import validate_serving
from models.step_time import NO_LIMIT, Coefficients

# a 70B model on four accelerators: 30 ms a step, 0.1 ms a prompt token, 2048 tokens a step
ENGINE = {
    "base_seconds": 0.03,
    "per_sequence_seconds": 2.5e-4,
    "per_context_token_seconds": 1e-7,
    "per_prompt_token_seconds": 1e-4,
    "prompt_growth_per_token": 0.0,
    "steps_per_token": 1 / 2048,
    "overhead_seconds": 0.0,
    "max_sequences": NO_LIMIT,
    "kv_tokens": NO_LIMIT,
    "isl_sigma": 0.8,
    "start_steps": 0.5,
    "wait_scale": 1.0,
    "tpot_spread": 1.0,
    "routing_ratio": 1.0,
    "regularity_ratio": 0.0,
    "burst_ratio": 1.0,
    "tpot_scatter_ratio": 0.0,
    "prefix_cache_hit_ratio": 0.0,
    "seen_load_ratio": 1.0,
    "seen_isl_tokens": 1e7,
    "seen_osl_tokens": 1e7,
}


def engine(n: int = 1, **changes: float) -> Coefficients:
    """Coefficients of shape (n,)."""
    numbers = ENGINE | changes
    return Coefficients(**{name: np.full(n, float(value)) for name, value in numbers.items()})


def telemetry(
    c: Coefficients, windows: int = 300, noise: float = 0.05, seed: int = 3, key: str = "prod/chat"
) -> pd.DataFrame:
    """A validated serving frame: loads from light to 85 % of saturation on 1 to 12 replicas."""
    rng = np.random.default_rng(seed)
    replicas = rng.integers(1, 13, windows).astype(float)
    phase = (
        np.arange(windows) / 30.0
    )  # lengths move over an hour or more, not from window to window
    isl = 1200.0 * np.exp(0.4 * np.sin(phase))
    osl = 120.0 * np.exp(0.4 * np.cos(1.7 * phase))
    rate = rng.uniform(0.05, 0.85, windows) * replicas / (1.3e-4 * isl + 4e-4 * osl)
    got = predicted_latency(c, rate, replicas, isl, osl)
    frame = pd.DataFrame({f"{name}_seconds": values for name, values in got.items()})
    frame *= np.exp(rng.normal(0, noise, frame.shape))
    start = pd.Timestamp("2025-06-01", tz="UTC")
    frame["ts"] = start + pd.to_timedelta(30 * np.arange(windows), unit="s")
    frame["service"], frame["variant"] = key, "h100"
    frame["ready_replicas"], frame["arrival_rate_rps"] = replicas, rate
    frame["isl_tokens"], frame["osl_tokens"] = isl, osl
    frame["finished_requests"] = 1e4
    return validate_serving(frame, "serving")

"""Make models/bundle/engine_profiles.csv: step times of engines from published measurements.

    python benchmarks/make_engine_profiles.py --data DIR      DIR: the tables named in models/bundle/NOTICE.md

Closed-loop tables (a fixed number of clients) go through models/closed_loop.py; what a prompt token costs
is bounded by the TTFT at few clients, where little waits, as TPOT alone can hardly tell prompts from
context. Rate sweeps go through the latency fit itself.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from autoscaler.sim.profiles import fit_measured, profile_names
from models.closed_loop import ClosedLoop, fit_closed_loop
from models.frames import validate_serving
from models.latency import LatencyModel

OUT = Path(__file__).parent.parent / "models" / "bundle" / "engine_profiles.csv"
SILICON = Path(__file__).parent / "data" / "silicon_vllm.csv.gz"
FEW_CLIENTS, LONG_PROMPT_TOKENS = 16, 1000
PROMPT_SHARES = (0.25, 0.4, 0.6, 0.8, 1.0)  # of what TTFT says: it holds queues and overheads, too
WORSE_RATIO, WORSE = 1.2, 0.01  # than the best fit: TPOT does not contradict
MOST_ERROR_RATIO = 0.2  # of a profile worth shipping
FEWEST_KV_TOKENS = 30_000.0
MIN_CONCURRENCIES = 4
LONG_QUEUE_SECONDS = 10.0  # of mean TTFT: the batch was full before that concurrency
USABLE_MEMORY_RATIO = 0.9  # vLLM's default
OTHER_BYTES = 4e9  # activations and graphs on each accelerator
MEMORY_BYTES = {
    "h100": 80e9,
    "h200": 141e9,
    "b200": 180e9,
    "b300": 270e9,
    "a100": 80e9,
    "l40s": 48e9,
}
# billions of parameters; KV bytes per token in 16 bits: layers * KV heads * head size * 4
MODELS = {
    "llama-3.1-8b": (8.0, 32 * 8 * 128 * 4),
    "llama-3.1-70b": (70.6, 80 * 8 * 128 * 4),
    "qwen3-32b": (32.8, 64 * 8 * 128 * 4),
    "qwen3-235b-a22b": (235.0, 94 * 4 * 128 * 4),
    "gpt-oss-120b": (117.0, 36 * 8 * 64 * 4),
    "minimax-m2.5": (229.0, 62 * 8 * 128 * 4),
    "kimi-k2.5": (1040.0, 61 * 576 * 2),
}
BITS = {"fp4": 4.5, "int4": 4.5, "fp8": 8.0, "bf16": 16.0, "unstated": 16.0}
NAMES = {
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama/Meta-Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama/Meta-Llama-3.1-8B": "llama-3.1-8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "openai/gpt-oss-120b": "gpt-oss-120b",
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2.5",
    "moonshotai/Kimi-K2.5": "kimi-k2.5",
}


def kv_tokens(model: str, accelerator: str, precision: str, tensor_parallel: int) -> float:
    """Return what fits beside the weights: computed, not measured."""
    billions, kv_bytes = MODELS[model]
    memory = tensor_parallel * (USABLE_MEMORY_RATIO * MEMORY_BYTES[accelerator] - OTHER_BYTES)
    return max(1.0, np.floor((memory - billions * 1e9 * BITS[precision] / 8) / kv_bytes))


def closed_loop_row(rows: pd.DataFrame) -> dict[str, float]:
    """Return step times of one configuration's closed-loop rows, with the median error of TPOT.

    What a prompt token costs: the most that TTFT at few clients allows and TPOT does not contradict.
    """
    rows = rows[rows.ttft_seconds < LONG_QUEUE_SECONDS]
    calm = (rows.concurrency <= FEW_CLIENTS) & (rows.isl_tokens >= LONG_PROMPT_TOKENS)
    alone = ((rows.ttft_seconds - 1.5 * rows.tpot_seconds) / rows.isl_tokens)[calm]
    most = max(float(alone.median()), 0.0) if calm.any() else 0.0
    tried = [_with_prompts(rows, None)] + [_with_prompts(rows, most * s) for s in PROMPT_SHARES]
    best = min(row["tpot_error_ratio"] for row in tried)
    fair = [row for row in tried if row["tpot_error_ratio"] <= WORSE_RATIO * best + WORSE]
    return max(fair, key=lambda row: row["per_prompt_token_seconds"])


def _with_prompts(rows: pd.DataFrame, prompt: float | None) -> dict[str, float]:
    """Return step times with a prompt token's time given, or fitted to TPOT where it is None."""
    points = ClosedLoop(
        *(rows[c].to_numpy(np.float64) for c in ("concurrency", "isl_tokens", "osl_tokens"))
    )
    tpot = rows.tpot_seconds.to_numpy(np.float64)
    per_prompt = points.design()[:, 3] * (prompt or 0.0)
    fit = fit_closed_loop(points, np.maximum(tpot - per_prompt, 0.1 * tpot), prompts=prompt is None)
    said = fit.tpot_seconds(points) + per_prompt
    return {
        "base_seconds": fit.base_seconds,
        "per_sequence_seconds": fit.per_sequence_seconds,
        "per_context_token_seconds": fit.per_context_token_seconds,
        "per_prompt_token_seconds": fit.per_prompt_token_seconds if prompt is None else prompt,
        "tpot_error_ratio": float(np.median(np.abs(said / tpot - 1.0))),
        "points": len(rows),
    }


def named(model: str, gpu: str, precision: str, tensor_parallel: int) -> dict[str, object]:
    accelerator = gpu.removesuffix("_sxm")
    shown = "" if precision == "unstated" else f"-{precision}"
    return {
        "name": f"{model}-{accelerator}{shown}-tp{tensor_parallel}",
        "kv_tokens": kv_tokens(model, accelerator, precision, tensor_parallel),
    }


def silicon() -> list[dict[str, object]]:
    table = pd.read_csv(SILICON)
    table = table[table.tensor_parallel.notna() & table.concurrency.notna()]
    found = []
    for (model, gpu, tp, precision), rows in table.groupby(
        ["model", "gpu", "tensor_parallel", "precision"]
    ):
        if rows.concurrency.nunique() >= MIN_CONCURRENCIES:
            about = named(NAMES[model], gpu, precision, int(tp))
            found.append(
                {**about, **closed_loop_row(rows), "kind": "measured", "source": "silicon"}
            )
    return found


def modelled(folder: Path) -> list[dict[str, object]]:
    table = pd.read_csv(folder / "aiconfigurator_modelled_vllm.csv")
    table = table.rename(columns={"input_tokens": "isl_tokens", "output_tokens": "osl_tokens"})
    table["ttft_seconds"], table["tpot_seconds"] = table.ttft_ms / 1e3, table.tpot_ms / 1e3
    return [
        {
            **named(NAMES[model], gpu, "bf16", int(tp)),
            **closed_loop_row(rows),
            "kind": "modelled",
            "source": "aiconfigurator",
        }
        for (model, gpu, tp), rows in table.groupby(["model", "gpu", "tp_size"])
    ]


def sweep(folder: Path) -> list[dict[str, object]]:
    """Return Llama-3.1-8B on an H100 from its rate sweeps, by the latency fit."""
    table = pd.read_csv(folder / "inferno_guidellm_llama31_8b_h100.csv")
    table = table[table.strategy.str.startswith("constant@") & (table.median_ttft_ms < 5000)]
    rows = pd.DataFrame(
        {
            "ts": pd.Timestamp("2025-10-21", tz="UTC")
            + pd.to_timedelta(np.arange(len(table)) * 360, unit="s"),
            "service": "llama",
            "variant": "h100",
            "ready_replicas": 1.0,
            "arrival_rate_rps": table.strategy.str.removeprefix("constant@").astype(float),
            "isl_tokens": table.mean_prompt_tokens,
            "osl_tokens": table.mean_output_tokens,
            "running": table.mean_concurrency,
            "ttft_p50_seconds": table.median_ttft_ms / 1e3,
            "tpot_p50_seconds": table.mean_tpot_ms / 1e3,
        }
    )
    model = LatencyModel.fit(validate_serving(rows, "sweep"))
    c = model.coefficients(model.keys)
    names = (
        "base_seconds",
        "per_sequence_seconds",
        "per_context_token_seconds",
        "per_prompt_token_seconds",
        "prompt_growth_per_token",
    )
    return [
        {
            **named("llama-3.1-8b", "h100", "bf16", 1),
            **{name: float(getattr(c, name)[0]) for name in names},
            "tpot_error_ratio": model.scores["llama/h100"]["in_sample"]["tpot_p50_seconds"],
            "points": len(rows),
            "kind": "measured",
            "source": "inferno",
        }
    ]


def splitwise() -> list[dict[str, object]]:
    """Return the engines that the simulator ships, under the names that it knows them by."""
    found = []
    for name in profile_names():
        fit = fit_measured(name)
        p = fit.profile
        found.append(
            {
                "name": name,
                "kv_tokens": float(p.kv_capacity_tokens),
                "base_seconds": p.base_seconds,
                "per_sequence_seconds": p.per_sequence_seconds,
                "per_context_token_seconds": p.per_context_token_seconds,
                "per_prompt_token_seconds": p.per_prompt_token_seconds,
                "tpot_error_ratio": fit.decode_error_ratio,
                "points": fit.measurements,
                "kind": "measured",
                "source": "splitwise",
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    table = pd.DataFrame(silicon() + sweep(folder) + splitwise() + modelled(folder))
    plausible = (table.base_seconds > 0) & (table.per_prompt_token_seconds > 0)
    plausible &= (table.per_sequence_seconds > 0) | (table.per_context_token_seconds > 0)
    plausible &= table.tpot_error_ratio <= MOST_ERROR_RATIO
    plausible &= table.kv_tokens >= FEWEST_KV_TOKENS
    print("left out:", ", ".join(sorted(table[~plausible].name)))
    table = (
        table[plausible].sort_values(["name", "kind"]).drop_duplicates("name")
    )  # measured before modelled
    for column in table.select_dtypes("float"):
        table[column] = table[column].map(lambda x: float(f"{x:.5g}"))
    OUT.write_text(table.to_csv(index=False), encoding="utf-8")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()

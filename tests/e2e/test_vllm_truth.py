"""The checks of `make e2e-vllm` on telemetry made by hand: they hold for the truth and can fail."""

import json
from pathlib import Path

import make_tiny_model
import numpy as np
import pandas as pd
import pytest
import vllm_load
import vllm_truth

START, STEPS = 1_800_000_000.0, 6
BOUNDS = {"ttft": np.array([0.1, 0.25, 0.5, np.inf]), "tpot": np.array([0.01, 0.05, np.inf])}


def clients() -> list[vllm_load.Seen]:
    """Two requests a second, in the middle of half seconds; TTFT 0.2 s, TPOT 0.02 s."""
    times = START - 1.5 + np.arange(0.25, 15.0 * STEPS, 0.5)
    return [vllm_load.Seen(t, t + 0.2, t + 0.4, 100, 11) for t in times]


def telemetry(folder: Path, *, requests: float = 30.0, ttft_seconds: float = 0.175) -> Path:
    """30 requests in 15 s; estimates of quantiles in the middle of the true values' buckets."""
    load = pd.DataFrame({"ts": pd.to_datetime(START + 15.0 * np.arange(STEPS), unit="s", utc=True)})
    load["service"] = "lab/tiny"
    serving = load.assign(variant="cpu", ready_replicas=1.0, arrival_rate_rps=requests / 15.0)
    serving = serving.assign(isl_tokens=100.0, osl_tokens=11.0)
    for suffix in ("p50", "p95"):
        serving[f"ttft_{suffix}_seconds"] = ttft_seconds
        serving[f"tpot_{suffix}_seconds"] = 0.03
    load = load.assign(
        requests=requests, input_tokens=100.0 * requests, output_tokens=11.0 * requests
    )
    load.to_parquet(folder / "load.parquet")
    serving.to_parquet(folder / "serving.parquet")
    return folder


def wrong(folder: Path) -> list[str]:
    found = vllm_truth.compare(folder, clients(), START, 15.0 * STEPS, BOUNDS)
    return [what for holds, what in found if not holds]


def test_the_truth_passes(tmp_path: Path) -> None:
    assert wrong(telemetry(tmp_path)) == []


def test_arrivals_that_are_off_by_five_percent_do_not(tmp_path: Path) -> None:
    found = wrong(telemetry(tmp_path, requests=28.5))
    assert [what.split(":")[0] for what in found] == ["arrivals", "input_tokens", "output_tokens"]
    assert "-5.00%" in found[0]


def test_neither_does_a_quantile_in_the_next_bucket(tmp_path: Path) -> None:
    found = wrong(telemetry(tmp_path, ttft_seconds=0.3))
    assert [what.split(":")[0] for what in found] == ["ttft p50", "ttft p95"]
    assert "0 of 6" in found[0]


def test_arrivals_are_poisson_in_each_phase() -> None:
    calls = vllm_load.schedule([2.0, 20.0], 500.0, seed=3)
    times = np.array([c.after_seconds for c in calls])
    assert (np.diff(times) > 0).all()
    assert (times < 500).sum() == pytest.approx(1000, abs=100)  # 3 times sqrt(1000)
    assert (times >= 500).sum() == pytest.approx(10_000, abs=300)
    gaps = np.diff(times[times >= 500])
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)  # exponential
    assert all(6 <= c.output_tokens <= 128 and len(c.prompt) <= 764 for c in calls)


def test_the_tokenizer_has_a_token_a_byte(tmp_path: Path) -> None:
    make_tiny_model.write_model(tmp_path)
    words = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert len(words) == config["vocab_size"] == 259
    assert max(words.values()) == vllm_load.LAST_TOKEN_ID
    assert words["A"] == 3 + 65  # a letter stands for itself
    assert words["\u0120"] == 3 + 32  # the blank is the 33rd byte that cannot be shown

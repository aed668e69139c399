"""A small telemetry folder: one service, two days of load, half a day of serving, some starts."""

from pathlib import Path

import numpy as np
import pandas as pd

START = pd.Timestamp("2026-01-03", tz="UTC")
SERVICE = "prod/chat"
STEPS = 2 * 1440
END_SECONDS = START.timestamp() + STEPS * 60.0

POLICY = """
apiVersion: foreserve.dev/v1alpha1
kind: AcceleratorPool
metadata: {name: gpus}
spec:
  classes:
    - {name: h100, usdPerHour: 4.0, quota: {count: 32}}
---
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: chat, namespace: prod}
spec:
  model: llama
  slo:
    objectives:
      - {metric: ttft, targetSeconds: 1.0}
      - {metric: tpot, targetSeconds: 0.08}
  variants:
    - name: h100
      acceleratorClass: h100
      targetRef: {apiVersion: apps/v1, kind: Deployment, name: chat}
      maxReplicas: 20
"""


def load_frame(steps: int = STEPS, service: str = SERVICE) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    t = np.arange(steps)
    mean = 120.0 + 80.0 * np.sin(2 * np.pi * t / 1440.0)
    requests = rng.poisson(mean).astype(float)
    return pd.DataFrame(
        {
            "ts": START + pd.to_timedelta(t * 60, unit="s"),
            "service": service,
            "requests": requests,
            "input_tokens": requests * 1000.0,
            "output_tokens": requests * 100.0,
        }
    )


def serving_frame(rows: int = 720) -> pd.DataFrame:
    """Latency by a formula that the physical model can follow: a queue that grows to saturation."""
    rng = np.random.default_rng(6)
    rate = rng.uniform(0.5, 12.0, rows)
    ready = np.ceil(rate / 3.0)
    x = rate / ready / 5.0
    ttft, tpot = 0.12 / (1.0 - 0.6 * x), 0.02 / (1.0 - 0.5 * x)
    return pd.DataFrame(
        {
            "ts": START + pd.to_timedelta(86_400 + np.arange(rows) * 60, unit="s"),
            "service": SERVICE,
            "variant": "h100",
            "ready_replicas": ready,
            "starting_replicas": 0.0,
            "arrival_rate_rps": rate,
            "isl_tokens": 1000.0,
            "osl_tokens": 100.0,
            "running": rate * 100.0 * tpot,
            "waiting": 0.0,
            "kv_cache_usage_ratio": 0.3 * x,
            "prefix_cache_hit_ratio": np.nan,
            "ttft_p50_seconds": ttft,
            "ttft_p95_seconds": ttft * 2.0,
            "ttft_p99_seconds": ttft * 2.8,
            "tpot_p50_seconds": tpot,
            "tpot_p95_seconds": tpot * 1.3,
            "tpot_p99_seconds": tpot * 1.5,
        }
    )


def startups_frame(starts: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    created = START + pd.to_timedelta(np.arange(starts) * 3600.0, unit="s")
    seconds = 120.0 * np.exp(rng.normal(0, 0.2, starts))
    return pd.DataFrame(
        {
            "service": SERVICE,
            "variant": "h100",
            "created_ts": created,
            "ready_ts": created + pd.to_timedelta(seconds, unit="s"),
        }
    )


def write_telemetry(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    load_frame().to_parquet(folder / "load.parquet")
    serving_frame().to_parquet(folder / "serving.parquet")
    startups_frame().to_parquet(folder / "startups.parquet")
    return folder

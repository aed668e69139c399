"""A made-up comparison: a day of three autoscalers over one service, for the result and page tests."""

import math

import numpy as np
import pandas as pd
import pytest

from autoscaler.whatif.results import Comparison, Measures, RunResult

TICK_SECONDS = 15.0
START_SECONDS = 1_715_731_200.0  # 2024-05-15 00:00 UTC
SERVICE = "prod/code"


def measures(**changes: float) -> Measures:
    base: dict[str, float] = {
        "gpu_hours": 800.0,
        "cost_usd": 5504.0,
        "slo_attainment_ratio": 0.9925,
        "ttft_p50_seconds": 0.3,
        "ttft_p95_seconds": 1.2,
        "ttft_p99_seconds": 2.2,
        "tpot_p95_seconds": 0.06,
        "scale_ups": 120,
        "scale_downs": 118,
        "max_replicas": 17,
        "requests": 690_000,
        "unserved_requests": 0,
    }
    return Measures(**{**base, **changes})  # type: ignore[arg-type]


def series(replicas_per_rps: float, *, hours: float = 24.0, forecast: bool = False) -> pd.DataFrame:
    n = int(hours * 3600 / TICK_SECONDS)
    at = START_SECONDS + TICK_SECONDS * np.arange(1, n + 1)
    rng = np.random.default_rng(5)
    shape = 9.0 - 7.5 * np.cos((at - START_SECONDS) / 86_400 * 2 * math.pi)
    rate = shape * rng.lognormal(0.0, 0.15, n)
    ready = np.ceil(shape * replicas_per_rps)
    frame = pd.DataFrame(
        {
            "ts_seconds": at,
            "service": SERVICE,
            "arrival_rate_rps": rate,
            "ready_replicas": ready,
            "starting_replicas": (np.arange(n) % 400 < 10).astype(float),
            "desired_replicas": ready,
            "required_replicas": np.nan,
            "accelerators": 4 * ready,
            "cost_usd": 4 * ready * 6.88 * TICK_SECONDS / 3600,
            "finished_requests": np.round(rate * TICK_SECONDS),
            "slo_attainment_ratio": 0.992,
            "ttft_p95_seconds": 0.9 * rng.lognormal(0.0, 0.4, n) * 0.5 / replicas_per_rps,
        }
    )
    if forecast:
        frame["required_replicas"] = ready
        frame["reason"] = np.where(np.arange(n) % 5 == 0, "stabilizing", "forecast")
        frame["horizon_seconds"] = 240.0
        frame["forecast_p10_rps"] = shape * 0.8
        frame["forecast_p50_rps"] = shape
        frame["forecast_p95_rps"] = shape * 1.3
    return frame


def run_result(name: str, made: Measures, frame: pd.DataFrame, **changes: object) -> RunResult:
    base: dict[str, object] = {
        "setting": "defaults",
        "tuned": name != "foreserve",
        "tried": 5,
    }
    return RunResult(
        name=name,
        measures=made,
        services={SERVICE: made},
        series=frame,
        **{**base, **changes},  # type: ignore[arg-type]
    )


@pytest.fixture
def comparison() -> Comparison:
    return made_comparison()


def made_comparison() -> Comparison:
    return Comparison(
        scenario={"name": "a day", "seed": 7, "engineErrorRatio": 0.08, "tickSeconds": 15.0},
        attainments={SERVICE: 0.99},
        ttft_targets_seconds={SERVICE: 2.5},
        runs=(
            run_result("foreserve", measures(), series(0.7, forecast=True)),
            run_result(
                "static",
                measures(gpu_hours=1440.0, cost_usd=9907.2, slo_attainment_ratio=0.991),
                series(1.3),
                setting="15 replicas",
            ),
            run_result(
                "hpa",
                measures(gpu_hours=1080.0, cost_usd=7430.4, slo_attainment_ratio=0.9912),
                series(1.0),
                setting="1.8 requests a replica, mean over 300 s",
            ),
            run_result(
                "kpa",
                measures(gpu_hours=1500.0, cost_usd=10_320.0, slo_attainment_ratio=0.9868),
                series(1.1),
                setting="1.1 requests a replica",
            ),
            run_result(
                "clairvoyant",
                measures(gpu_hours=600.0, cost_usd=4128.0, slo_attainment_ratio=0.9929),
                series(0.55),
                setting="margin 0.8",
            ),
        ),
    )

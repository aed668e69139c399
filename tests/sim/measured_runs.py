"""The runs of a real vLLM in tests/data/vllm_requests, as the simulator replays them."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from autoscaler.sim.calibrate import EngineFit, MeasuredRequests, errors, fit_engine
from autoscaler.sim.engine import EngineProfile
from autoscaler.sim.workload import Requests

DATA = Path(__file__).parent.parent / "data" / "vllm_requests"


@dataclass(frozen=True)
class Run:
    """One run; the first half of its requests, by arrival, is for fitting."""

    name: str
    measured: MeasuredRequests
    limits: EngineProfile
    engines: int

    @property
    def first_half(self) -> NDArray[np.bool_]:
        n = len(self.measured.ttft_seconds)
        return np.arange(n) < n // 2

    def fit(self) -> EngineFit:
        return fit_engine(self.measured, self.limits, self.first_half)

    def held_out_errors(self, fit: EngineFit) -> tuple[float, float]:
        return errors(self.measured, fit.profile, ~self.first_half)


def measured_runs() -> list[Run]:
    requests, series, meta = (
        pd.read_csv(DATA / f"vllm_measured_{part}.csv")
        for part in ("requests", "timeseries_1s", "runs_meta")
    )
    meta["model"] = meta.model.str.split("/").str[-1]
    keys = ["gpu", "model"]
    return [
        _run(rows, meta.set_index(keys).loc[key], series.set_index(keys).loc[key])
        for key, rows in requests.groupby(keys, sort=False)
    ]


def _run(rows: pd.DataFrame, meta: pd.Series, series: pd.DataFrame) -> Run:
    # More run at once than one engine may: the run had several, in data parallel. Those of a model of
    # experts step together and share the waiting requests, as one engine with the sum of their limits.
    engines = math.ceil(series.running.max() / meta.max_num_seqs)
    name = f"{rows.model.iloc[0]} on {rows.gpu.iloc[0]}"
    limits = EngineProfile(
        name,
        *(0.01, 0.0, 0.0, 0.0),  # to be fitted
        max_num_seqs=engines * int(meta.max_num_seqs),
        max_num_batched_tokens=engines * int(meta.max_num_batched_tokens),
        async_scheduling=True,  # vLLM 0.19 schedules so and caches prefixes unless told otherwise
        prefix_caching=True,
    )
    measured = MeasuredRequests(
        Requests(
            rows.arrival_s.to_numpy(dtype=np.float64),
            rows.input_tokens.to_numpy(dtype=np.int64),
            rows.output_tokens.to_numpy(dtype=np.int64),
        ),
        rows.ttft_ms.to_numpy(dtype=np.float64) / 1e3,
        rows.tpot_ms.to_numpy(dtype=np.float64) / 1e3,
        from_scheduler=True,
    )
    return Run(name, measured, limits, engines)

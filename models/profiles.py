"""Engines known before they are seen: step times of common models and accelerators, shipped as data.

models/bundle/engine_profiles.csv, from public measurements (models/bundle/NOTICE.md; made by
benchmarks/make_engine_profiles.py). A profile serves a variant that has no history, at the safe side of its
uncertainty, and is the prior of the fit while history is thin; telemetry leaves it behind. Other
software, clocks and networks make another engine of the same boards: between publishers, step times
of one model on one accelerator differ by 10 to 30 %.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.latency_parameters import Prior, default_columns, usual_prior
from models.step_time import Coefficients

FloatArray = NDArray[np.float64]
TABLE = "engine_profiles.csv"
STEP_TIMES = (
    "base_seconds",
    "per_sequence_seconds",
    "per_context_token_seconds",
    "per_prompt_token_seconds",
)
MAX_SEQUENCES = 256.0  # vLLM's default
BURST, SCATTER = 1.05, 0.25  # as where telemetry has no tail to calibrate on
BASE_SIGMA = {"measured": 0.25, "modelled": 0.5}  # of the logarithm, from engine to engine
RATIO_SIGMA = 0.6  # of the other step times over the base
SAFE_SIGMAS = 0.5  # steps count as that much slower while nothing else is known
LEAST_SHARE = 0.1  # of the usual ratio to the base: a coefficient fitted to zero is not zero


class ProfileError(ValueError):
    """A profile that does not exist; the message says which do."""


@dataclass(frozen=True, slots=True)
class Profile:
    """An engine's coefficients (F,), what they rest on and their median error of TPOT (a ratio)."""

    name: str
    columns: FloatArray
    kind: str  # measured or modelled
    source: str
    points: int
    tpot_error_ratio: float

    def safe_columns(self) -> FloatArray:
        """Return coefficients (F,) at the safe side, to size from while nothing else is known."""
        c = Coefficients.from_columns(self.columns)
        slower = np.exp(SAFE_SIGMAS * BASE_SIGMA[self.kind])
        return replace(c, **{name: getattr(c, name) * slower for name in STEP_TIMES}).columns()


def profile(name: str) -> Profile:
    """Return a shipped profile; raise ProfileError on an unknown name."""
    found = _table().get(name)
    if found is None:
        raise ProfileError(f"no profile '{name}'; allowed: {', '.join(profile_names())}")
    return found


def prior_of(known: Profile) -> Prior:
    """Return what a profile lets one believe of an engine before any telemetry."""
    c = Coefficients.from_columns(known.columns)
    prior = usual_prior()
    prior.mean[0] = np.log(c.base_seconds)
    prior.sigma[0] = BASE_SIGMA[known.kind]
    for row, name in enumerate(STEP_TIMES[1:], start=1):
        prior.mean[row] = np.log(getattr(c, name) / c.base_seconds)
        prior.sigma[row] = RATIO_SIGMA
    return prior


@cache
def profile_names() -> tuple[str, ...]:
    """Return what `profile` knows, as model-accelerator-precision-tpN."""
    return tuple(sorted(_table()))


@cache
def _table() -> Mapping[str, Profile]:
    text = Path(__file__).with_name("bundle").joinpath(TABLE).read_text(encoding="utf-8")
    rows = pd.read_csv(StringIO(text)).to_dict("records")
    return {
        str(row["name"]): Profile(
            name=str(row["name"]),
            columns=_columns({str(key): value for key, value in row.items()}),
            kind=str(row["kind"]),
            source=str(row["source"]),
            points=int(row["points"]),
            tpot_error_ratio=float(row["tpot_error_ratio"]),
        )
        for row in rows
    }


def _columns(row: Mapping[str, float]) -> FloatArray:
    """Return coefficients (F,): the row's, and the usual ones for what it does not say."""
    usual = dict(zip(Coefficients.__dataclass_fields__, default_columns(), strict=True))
    base = float(row["base_seconds"])
    for name in STEP_TIMES:
        least = LEAST_SHARE * usual[name] / usual["base_seconds"] * base
        known = float(row[name])
        usual[name] = max(known, least)
    growth = float(row.get("prompt_growth_per_token", np.nan))
    return np.array(
        list(
            {
                **usual,
                "prompt_growth_per_token": growth
                if growth > 0
                else usual["prompt_growth_per_token"],
                "max_sequences": MAX_SEQUENCES,
                "kv_tokens": float(row["kv_tokens"]),
                "burst_ratio": BURST,
                "tpot_scatter_ratio": SCATTER,
                "seen_load_ratio": 0.0,
            }.values()
        ),
        dtype=np.float64,
    )

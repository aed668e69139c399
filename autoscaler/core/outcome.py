"""What a tick is told about the future, what it remembers, and what it answers. All values."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import Reason
from models.latency import LatencyModel

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outlook:
    """The predicted load of one service.

    `arrival_rate_rps` has shape (L, Q): quantiles of the mean rate over each step, non-decreasing
    along both the quantile axis and never negative. Lead l is the middle of a step, in seconds after
    `cutoff_seconds`; rates between leads are interpolated, beyond the last one held.
    """

    cutoff_seconds: float
    leads_seconds: FloatArray  # (L,)
    quantiles: FloatArray  # (Q,)
    arrival_rate_rps: FloatArray  # (L, Q)
    isl_tokens: float  # mean lengths of the recent traffic
    osl_tokens: float
    trusted: bool  # False: the backtest found nothing better than the last value
    ahead_tokens: FloatArray | None = (
        None  # (L, 2), mean input and output length; None: as recently
    )
    mix_drift: str = ""  # a class of traffic that is not as it was, in words


@dataclass(frozen=True, slots=True)
class StartLead:
    """Seconds from a decision to a ready replica: what is typical, and what rarely is exceeded."""

    typical_seconds: float
    upper_seconds: float


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Everything learned that a tick needs. A service without an outlook has no load model (yet)."""

    outlooks: Mapping[str, Outlook]
    latency: LatencyModel
    starts: Mapping[tuple[str, str], StartLead]  # (service, variant)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one interval measured of a service, kept for the reactive guard."""

    end_seconds: float
    interval_seconds: float
    arrival_rate_rps: float
    waiting: float


@dataclass(frozen=True, slots=True)
class BudgetHour:
    """Requests that ended in one hour, and those of them that missed an objective.

    What was foretold, NaN where nothing was: misses that the latency model expects of the load measured on
    what was ready; misses that the plans' aims allowed; misses that the plans, as rounded and held, expected.
    """

    hour: int  # hours since the epoch
    finished: float
    missed: float
    foretold: float = math.nan
    aimed: float = math.nan
    promised: float = math.nan


@dataclass(frozen=True, slots=True)
class Told:
    """What one tick said of a service's attainment: shares of requests within the SLO, NaN if unknown."""

    expected: float = math.nan  # of the load measured, on what is ready
    aimed: float = math.nan  # by the plan
    promised: float = math.nan  # of the plan, as rounded and held


@dataclass(frozen=True, slots=True)
class PaceDrift:
    """How an engine departs from its fit (models.latency_drift.Drift, for one variant)."""

    log_factor: float = 0.0
    windows: float = 0.0
    odd_windows: float = 0.0


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What a service's next tick must know of the earlier ones."""

    desired: Mapping[str, int] = field(default_factory=dict)  # the last decision, per variant
    last_telemetry_seconds: float = -math.inf  # until it is measured: when it was first seen
    samples: tuple[Sample, ...] = ()
    changes: tuple[tuple[float, Mapping[str, int]], ...] = ()  # (seconds, desired after it)
    holds: Mapping[str, tuple[tuple[float, int], ...]] = field(default_factory=dict)
    rises: Mapping[str, tuple[tuple[float, int], ...]] = field(default_factory=dict)
    budget: tuple[BudgetHour, ...] = ()
    told: Told = Told()  # by the last tick
    drifts: Mapping[str, PaceDrift] = field(default_factory=dict)  # per variant
    # per variant: the counts of the last tick's sizing, where the next begins to look (sizing.Sizes.alone)
    sized: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """The controller's memory between ticks; a fresh one is `State()`."""

    services: Mapping[str, ServiceState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServiceDecision:
    """What one service should have, and the numbers behind it. NaN: does not apply."""

    variants: Mapping[str, int]  # ready + starting wanted, draining not counted
    reason: Reason
    detail: str  # the reason in words, with its numbers
    horizon_seconds: float  # how far ahead the plan looked: upper lead time + one interval
    quantile: float  # of the predicted load that the planned replicas carry within the SLO
    forecast_arrival_rate_rps: float  # that load: the highest rate carried within the SLO, or p99
    forecast_median_rps: float  # at the horizon
    forecast_upper_rps: float  # 0.95 quantile at the horizon
    required_replicas: int  # of the variants as planned, before limits; of one variant if alone
    needed_replicas: float  # the same for the load measured now: least within the SLO, in hindsight
    attainment_target_ratio: float  # what the plan aimed at, after the error budget
    predicted_attainment_ratio: float
    predicted_ttft_p95_seconds: float
    predicted_tpot_p95_seconds: float
    error_budget_left_ratio: float  # of the window; negative when overspent
    shortfall_ratio: float  # share of the requirement that did not fit
    cost_usd_per_hour: float
    trusted: bool
    # in mode Keda: requests that a replica holds within the SLO, of variants whose speed is known
    replica_concurrency: Mapping[str, float] = field(default_factory=dict)
    # of this mix, before quota and budget: for the accounts, not on the wire
    guarded_replicas: float = math.nan


@dataclass(frozen=True, slots=True)
class Decisions:
    """The answer of one tick."""

    now_seconds: float
    services: Mapping[str, ServiceDecision]
    plan_status: str  # separable | optimal | incumbent | priced | greedy
    plan_gap_ratio: float = (
        0.0  # of its cost, that a cheaper plan could save; NaN: no bound is known
    )

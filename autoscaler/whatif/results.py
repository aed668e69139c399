"""What a comparison found: the numbers of each autoscaler. output.py writes them, words.py reads them out."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

FORESERVE = "foreserve"
CLAIRVOYANT = "clairvoyant"
LABELS = {
    FORESERVE: "Foreserve",
    "recorded": "Today's fleet",
    "static": "Static fleet",
    "hpa": "HPA on concurrency",
    "hpa-queue": "HPA on queue",
    "keda": "KEDA on saturation",
    "kpa": "Knative KPA",
    "apa": "AIBrix APA",
    "wva": "llm-d WVA",
    "dynamo": "Dynamo planner",
    CLAIRVOYANT: "Clairvoyant plan",
}


@dataclass(frozen=True, slots=True)
class Measures:
    """One run's numbers, as in report.json (PROTOCOL.md section 7).

    Cost and GPU-hours are over all the hours driven; latency, attainment and requests leave the
    warm-up out. NaN: nothing was measured.
    """

    gpu_hours: float
    cost_usd: float
    slo_attainment_ratio: float
    ttft_p50_seconds: float
    ttft_p95_seconds: float
    ttft_p99_seconds: float
    tpot_p95_seconds: float
    scale_ups: int
    scale_downs: int
    max_replicas: int
    requests: int
    unserved_requests: int


@dataclass(frozen=True, slots=True)
class World:
    """A run of one seed: requests, engines and start-ups drawn with it.

    hours: a row an hour of cost_usd, met and ended requests, all services together.
    """

    seed: int
    measures: Measures
    hours: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Try:
    """One setting that was run to find the best one."""

    setting: str
    cost_usd: float
    slo_attainment_ratio: float


@dataclass(frozen=True, slots=True)
class RunResult:
    """One autoscaler, driven through the judged hours.

    `series` has a row per service and tick: ts_seconds (end of the tick, epoch), service,
    arrival_rate_rps, ready_replicas, starting_replicas, desired_replicas, required_replicas,
    accelerators, cost_usd (of that tick), finished_requests, slo_attainment_ratio,
    ttft_p95_seconds, and for Foreserve reason, horizon_seconds, forecast_p10_rps,
    forecast_p50_rps, forecast_p95_rps; NaN where an autoscaler says nothing of the kind.
    """

    name: str
    setting: str  # in words
    tuned: bool  # the setting was found with hindsight
    tried: int  # runs that were made to find it
    measures: Measures
    services: Mapping[str, Measures]
    series: pd.DataFrame
    tries: tuple[Try, ...] = ()  # in the order in which they were run
    worlds: tuple[World, ...] = ()  # the first is this run

    @property
    def label(self) -> str:
        """The name that people read."""
        return LABELS.get(self.name, self.name)


@dataclass(frozen=True, slots=True)
class Variation:
    """One change of the scenario and what it did: measures by autoscaler, or why there are none."""

    label: str
    change: Mapping[str, Any]  # as written
    attainments: Mapping[str, float]  # asked for then, by service
    runs: tuple[RunResult, ...]
    gap: str | None = None  # a sentence: it could not be computed


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of one scenario, in the order to show them."""

    scenario: Mapping[str, Any]  # as read, with the defaults filled in
    attainments: Mapping[str, float]  # asked for, by service
    ttft_targets_seconds: Mapping[str, float]  # by service; infinity: no such objective
    runs: tuple[RunResult, ...]
    notes: tuple[str, ...] = ()  # what a reader has to know, in sentences
    gaps: tuple[str, ...] = ()  # what could not be computed, in sentences
    variations: tuple[Variation, ...] = ()
    capacity_rps: Mapping[str, float] = field(default_factory=dict)  # of a replica, by service
    tpot_targets_seconds: Mapping[str, float] = field(default_factory=dict)
    policies_text: str = ""  # of the services and pools compared, as YAML

    def run(self, name: str) -> RunResult | None:
        """Return the run of that autoscaler, or None where it was not compared."""
        return next((r for r in self.runs if r.name == name), None)

    @property
    def attainment(self) -> float:
        """The attainment asked for; the strictest where services differ."""
        return max(self.attainments.values())

    def met(self, run: RunResult) -> bool:
        """Whether each service's requests met their SLO as often as asked."""
        return all(
            run.services[service].slo_attainment_ratio >= ratio
            for service, ratio in self.attainments.items()
        )

    def best_rival(self) -> RunResult | None:
        """Return the cheapest autoscaler that could be used today and met the attainment.

        Where none met it: the one with the highest attainment. None where no rival ran.
        """
        rivals = [r for r in self.runs if r.name not in (FORESERVE, CLAIRVOYANT)]
        met = [r for r in rivals if self.met(r)]
        if met:
            return min(met, key=lambda r: r.measures.cost_usd)
        return max(rivals, key=lambda r: r.measures.slo_attainment_ratio, default=None)

    def times_clairvoyant(self, run: RunResult) -> float:
        """Return GPU-hours over those of the clairvoyant plan, NaN where it did not run."""
        bound = self.run(CLAIRVOYANT)
        if bound is None or bound.measures.gpu_hours == 0:
            return math.nan
        return run.measures.gpu_hours / bound.measures.gpu_hours


def combine(services: Mapping[str, Measures], max_replicas: int) -> Measures:
    """Add services up to one row.

    Costs, counts and moves are sums; attainment is weighted by requests; a percentile cannot be
    combined, so the row has the worst service's. `max_replicas`: the most at one time, over all.
    """
    rows = list(services.values())
    if len(rows) == 1:
        return rows[0]
    requests = sum(r.requests for r in rows)
    weighted = [r.slo_attainment_ratio * r.requests for r in rows if r.requests]
    return Measures(
        gpu_hours=sum(r.gpu_hours for r in rows),
        cost_usd=sum(r.cost_usd for r in rows),
        slo_attainment_ratio=sum(weighted) / requests if requests else math.nan,
        ttft_p50_seconds=_worst(r.ttft_p50_seconds for r in rows),
        ttft_p95_seconds=_worst(r.ttft_p95_seconds for r in rows),
        ttft_p99_seconds=_worst(r.ttft_p99_seconds for r in rows),
        tpot_p95_seconds=_worst(r.tpot_p95_seconds for r in rows),
        scale_ups=sum(r.scale_ups for r in rows),
        scale_downs=sum(r.scale_downs for r in rows),
        max_replicas=max_replicas,
        requests=requests,
        unserved_requests=sum(r.unserved_requests for r in rows),
    )


def _worst(values: Iterable[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return max(known) if known else math.nan

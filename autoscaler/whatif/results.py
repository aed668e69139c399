"""What a comparison found: the numbers of each autoscaler, and the files that carry them.

Percent signs, dollar signs and thousands separators exist only in the functions at the end.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
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

    @property
    def label(self) -> str:
        """The name that people read."""
        return LABELS.get(self.name, self.name)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All runs of one scenario, in the order to show them."""

    scenario: Mapping[str, Any]  # as read, with the defaults filled in
    attainments: Mapping[str, float]  # asked for, by service
    ttft_targets_seconds: Mapping[str, float]  # by service; infinity: no such objective
    runs: tuple[RunResult, ...]
    notes: tuple[str, ...] = ()  # what a reader has to know, in sentences

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


def report_json(comparison: Comparison) -> dict[str, Any]:
    """Return report.json as a value: PROTOCOL.md section 7, missing numbers as null."""
    return {
        "autoscalers": {r.name: _nullable(asdict(r.measures)) for r in comparison.runs},
        "scenario": dict(comparison.scenario),
        "tuning": {
            r.name: {"setting": r.setting, "best_with_hindsight": r.tuned, "runs_tried": r.tried}
            for r in comparison.runs
        },
        "services": {
            r.name: {s: _nullable(asdict(m)) for s, m in r.services.items()}
            for r in comparison.runs
        },
        "notes": list(comparison.notes),
    }


def write_json(comparison: Comparison, path: Path) -> None:
    """Write report.json, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report_json(comparison), indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(comparison: Comparison, folder: Path) -> None:
    """Write autoscalers.csv (the table) and series-NAME.csv (a row per service and tick)."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(
        [
            {"autoscaler": r.name, "setting": r.setting, **asdict(r.measures)}
            for r in comparison.runs
        ],
        columns=["autoscaler", "setting", *(f.name for f in fields(Measures))],
    )
    table.to_csv(folder / "autoscalers.csv", index=False)
    for run in comparison.runs:
        run.series.to_csv(folder / f"series-{run.name}.csv", index=False)


def headline(comparison: Comparison) -> str:
    """Return the one sentence for a reader who reads only one.

    It never claims a saving over a rival unless both met the attainment that was asked for.
    """
    ours = comparison.run(FORESERVE)
    if ours is None:
        return f"{len(comparison.runs)} autoscalers compared; Foreserve was not among them."
    m = ours.measures
    done = (
        f"Foreserve served {percent(m.slo_attainment_ratio)} of {m.requests:,} requests "
        f"within the SLO for {usd(m.cost_usd)}"
    )
    if not comparison.met(ours):
        done += f", short of the {percent(comparison.attainment)} asked for"
    rival = comparison.best_rival()
    if rival is None:
        return f"{done}."
    return f"{done}{_beside(comparison, ours, rival)}."


def _beside(comparison: Comparison, ours: RunResult, rival: RunResult) -> str:
    other = rival.measures
    theirs = f"{usd(other.cost_usd)}, {percent(other.slo_attainment_ratio)}"
    tuned = "the cheapest rival, " if comparison.met(rival) else "the rival that came closest, "
    if not (comparison.met(ours) and comparison.met(rival)) or other.cost_usd == 0:
        return f"; {tuned}{rival.label}, took {theirs}"
    saving = 1 - ours.measures.cost_usd / other.cost_usd
    more_or_less = "less" if saving >= 0 else "more"
    return f": {abs(saving) * 100:.0f} % {more_or_less} than {tuned}{rival.label} ({theirs})"


def _worst(values: Iterable[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return max(known) if known else math.nan


def _nullable(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


# rendering: the only place where numbers become text for people


def percent(ratio: float) -> str:
    """Render a ratio, rounded down: 0.98996 has not reached 99 % and must not read as if."""
    if math.isnan(ratio):
        return "-"
    return f"{math.floor(ratio * 10_000 + 1e-9) / 100:.2f} %"


def usd(amount: float) -> str:
    """Render an amount of money."""
    if math.isnan(amount):
        return "-"
    return f"−${-amount:,.0f}" if round(amount) < 0 else f"${abs(amount):,.0f}"


def seconds(value: float) -> str:
    """Render a latency."""
    if math.isnan(value):
        return "-"
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.2f} s"


def times(ratio: float) -> str:
    """Render a ratio to the clairvoyant plan."""
    return "-" if math.isnan(ratio) else f"{ratio:.2f} ×"


TABLE_HEADER = (
    "Autoscaler",
    "GPU-hours",
    "Cost",
    "× clairvoyant",
    "SLO attainment",
    "p95 TTFT",
    "Scale-ups",
    "Scale-downs",
    "Setting",
)


def table_row(comparison: Comparison, run: RunResult) -> tuple[str, ...]:
    """Return one row under TABLE_HEADER, rendered."""
    m = run.measures
    return (
        run.label,
        f"{m.gpu_hours:,.1f}",
        usd(m.cost_usd),
        times(comparison.times_clairvoyant(run)),
        percent(m.slo_attainment_ratio),
        seconds(m.ttft_p95_seconds),
        f"{m.scale_ups:,}",
        f"{m.scale_downs:,}",
        run.setting,
    )

"""report.json and the tables: every number of a comparison, for machines."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from autoscaler.whatif.accounting import hourly, over_plan
from autoscaler.whatif.results import (
    CLAIRVOYANT,
    FORESERVE,
    Comparison,
    Measures,
    RunResult,
    Variation,
)
from autoscaler.whatif.uncertainty import Estimate, attainment, saving


def report_json(comparison: Comparison) -> dict[str, Any]:
    """Return report.json as a value: PROTOCOL.md section 7 and docs/whatif.md, missing numbers as null."""
    return {
        "autoscalers": {r.name: _nullable(asdict(r.measures)) for r in comparison.runs},
        "scenario": dict(comparison.scenario),
        "tuning": {
            r.name: {
                "setting": r.setting,
                "best_with_hindsight": r.tuned,
                "runs_tried": r.tried,
                "tries": [_nullable(asdict(t)) for t in r.tries],
            }
            for r in comparison.runs
        },
        "services": {
            r.name: {s: _nullable(asdict(m)) for s, m in r.services.items()}
            for r in comparison.runs
        },
        "asked": {
            service: {
                "attainment": ratio,
                "ttft_seconds": _finite(comparison.ttft_targets_seconds.get(service, math.inf)),
                "tpot_seconds": _finite(comparison.tpot_targets_seconds.get(service, math.inf)),
                "replica_capacity_rps": _finite(comparison.capacity_rps.get(service, math.nan)),
            }
            for service, ratio in comparison.attainments.items()
        },
        "uncertainty": {r.name: _sure(comparison, r) for r in comparison.runs},
        "variations": [_variation(v) for v in comparison.variations],
        "recommended_policies": comparison.policies_text,
        "notes": list(comparison.notes),
        "could_not_be_computed": list(comparison.gaps),
    }


def write_json(comparison: Comparison, path: Path) -> None:
    """Write report.json, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report_json(comparison), indent=2, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(comparison: Comparison, folder: Path) -> None:
    """Write autoscalers, services, worlds, tries, variations and hours as CSV, and series-NAME.csv.

    series-NAME.csv has a row per service and tick, hours.csv one per autoscaler and hour, with what
    Foreserve spent over the clairvoyant plan by cause.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = comparison.runs
    measures = [f.name for f in fields(Measures)]
    tables: dict[str, tuple[list[str], list[dict[str, Any]]]] = {
        "autoscalers": (
            ["autoscaler", "setting", *measures],
            [{"autoscaler": r.name, "setting": r.setting, **asdict(r.measures)} for r in runs],
        ),
        "services": (
            ["autoscaler", "service", *measures],
            [
                {"autoscaler": r.name, "service": s, **asdict(m)}
                for r in runs
                for s, m in r.services.items()
            ],
        ),
        "worlds": (
            ["autoscaler", "seed", *measures],
            [
                {"autoscaler": r.name, "seed": w.seed, **asdict(w.measures)}
                for r in runs
                for w in r.worlds
            ],
        ),
        "tries": (
            ["autoscaler", "setting", "cost_usd", "slo_attainment_ratio"],
            [{"autoscaler": r.name, **asdict(t)} for r in runs for t in r.tries],
        ),
        "variations": (
            ["variation", "autoscaler", "setting", *measures],
            [
                {
                    "variation": v.label,
                    "autoscaler": r.name,
                    "setting": r.setting,
                    **asdict(r.measures),
                }
                for v in comparison.variations
                for r in v.runs
            ],
        ),
    }
    for name, (columns, rows) in tables.items():
        pd.DataFrame(rows, columns=columns).to_csv(folder / f"{name}.csv", index=False)
    _hours(comparison).to_csv(folder / "hours.csv", index=False)
    for run in runs:
        run.series.to_csv(folder / f"series-{run.name}.csv", index=False)


def _hours(comparison: Comparison) -> pd.DataFrame:
    """Return a row per autoscaler and hour; Foreserve's with what it spent over the plan, by cause."""
    plan = comparison.run(CLAIRVOYANT)
    parts = []
    for run in comparison.runs:
        table = hourly(run)
        if run.name == FORESERVE and plan is not None:
            table = table.join(over_plan(run, plan))
        parts.append(table.reset_index().assign(autoscaler=run.name))
    return pd.concat(parts, ignore_index=True)


def _sure(comparison: Comparison, run: RunResult) -> dict[str, Any]:
    ours = comparison.run(FORESERVE)
    out: dict[str, Any] = {
        "worlds": len(run.worlds),
        "slo_attainment_ratio": _estimate(attainment(run)),
    }
    if ours is not None and run is not ours:
        share = saving(ours, run)
        out["foreserve_saves_ratio"] = _estimate(share)
        out["difference_is_noise"] = not share.excludes(0.0) if share.is_known else None
    return out


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return _nullable(asdict(estimate))


def _variation(variation: Variation) -> dict[str, Any]:
    return {
        "name": variation.label,
        "change": dict(variation.change),
        "could_not_be_computed": variation.gap,
        "asked": dict(variation.attainments),
        "autoscalers": {
            r.name: {"setting": r.setting, **_nullable(asdict(r.measures))} for r in variation.runs
        },
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _nullable(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}

"""report.html: one self-contained page. It loads nothing: scripts, styles and data are inside it.

A reader who stops after the first screen has the sentence and the table; below are the plots, then
how each number is defined and how the rivals were set.
"""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from markupsafe import Markup

from autoscaler.pages.page import render_page
from autoscaler.whatif.accounting import CAUSES, hourly, over_plan
from autoscaler.whatif.definitions import DEFINITIONS
from autoscaler.whatif.plots import COLOURS, plot_parts
from autoscaler.whatif.plots_more import regret_legend
from autoscaler.whatif.results import CLAIRVOYANT, FORESERVE, Comparison, RunResult, Variation
from autoscaler.whatif.uncertainty import attainment, saving
from autoscaler.whatif.verdict import shown_runs, verdict
from autoscaler.whatif.words import TABLE_HEADER, headline, percent, seconds, span, table_row, usd

BAND_COLUMN = TABLE_HEADER.index("SLO attainment") + 1  # Jinja's loop.index starts at 1


def write_report(
    comparison: Comparison, path: Path, *, attribution: tuple[str, ...] = (), written: str = ""
) -> None:
    """Write the page, its folder too.

    attribution: sentences for the foot of the page. written: the day, the only thing on the page that
    is not the comparison's own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = render(comparison, attribution=attribution, written=written)
    path.write_text(text, encoding="utf-8")


def render(comparison: Comparison, *, attribution: tuple[str, ...] = (), written: str = "") -> str:
    """Return the page as text."""
    script, plots = plot_parts(comparison)
    return render_page(
        "whatif.html.j2",
        scenario={"name": comparison.scenario["name"]},
        script=Markup(script),  # noqa: S704  (data are JSON, < is escaped by Bokeh)
        plots={name: Markup(div) for name, div in plots.items()},  # noqa: S704
        headline=headline(comparison),
        period=_period(comparison),
        objective=_objective(comparison),
        header=TABLE_HEADER,
        attainment_column=BAND_COLUMN,
        attainment=percent(comparison.attainment),
        rows=[_row(comparison, run) for run in comparison.runs],
        ours=comparison.run(FORESERVE) is not None,
        written=written,
        verdict=verdict(comparison),
        policies_text=comparison.policies_text,
        shown=[run.label for run in shown_runs(comparison)],
        causes=regret_legend(),
        looked_at=(comparison.run(FORESERVE) or comparison.runs[0]).label,
        legend_items=_legend(comparison),
        all_items=[(COLOURS[run.name], run.label) for run in comparison.runs],
        notes=comparison.notes,
        gaps=comparison.gaps,
        sure=_sure(comparison),
        tuning=_tuning(comparison),
        definitions=DEFINITIONS,
        engine=_engine(comparison.scenario),
        scenario_text=yaml.safe_dump(dict(comparison.scenario), sort_keys=False),
        attribution=attribution,
        **_hours(comparison),
        **_services(comparison),
        **_variations(comparison),
    )


def _row(comparison: Comparison, run: RunResult) -> dict[str, Any]:
    kinds = {FORESERVE: "ours", CLAIRVOYANT: "bound"}
    return {
        "cells": table_row(comparison, run),
        "colour": COLOURS[run.name],
        "met": comparison.met(run),
        "kind": kinds.get(run.name, "rival"),
    }


def _legend(comparison: Comparison) -> list[tuple[str, str]]:
    return [(COLOURS[run.name], run.label) for run in shown_runs(comparison)]


def _sure(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return what each autoscaler's figures are worth: attainment and saving with their intervals."""
    ours = comparison.run(FORESERVE)
    rows: list[tuple[str, ...]] = []
    for run in comparison.runs:
        got = attainment(run)
        other, word = "-", "-"
        if ours is not None and run is not ours:
            share = saving(ours, run)
            other = f"{share.value * 100:.1f} % ({span(share)})"
            word = "unknown"
            if share.is_known:
                word = "clear" if share.excludes(0.0) else "noise"
        rows.append((run.label, f"{percent(got.value)} ({span(got)})", other, word))
    return rows


def _period(comparison: Comparison) -> str:
    at = comparison.runs[0].series.ts_seconds
    tick = float(comparison.scenario["tickSeconds"])
    since, until = (pd.Timestamp(s, unit="s") for s in (at.min() - tick, at.max()))
    hours = (until - since).total_seconds() / 3600
    services = ", ".join(comparison.attainments)
    return f"{services}: {hours:g} hours from {since:%A %d %B %Y %H:%M} UTC"


def _objective(comparison: Comparison) -> str:
    parts = []
    for service, share in comparison.attainments.items():
        target = comparison.ttft_targets_seconds.get(service, math.inf)
        first = f", first token within {seconds(target)}" if math.isfinite(target) else ""
        parts.append(f"{percent(share)} of requests within the SLO{first}")
    return f"Asked for: {'; '.join(dict.fromkeys(parts))}."


def _tuning(comparison: Comparison) -> list[str]:
    tuned = [r for r in comparison.runs if r.tuned]
    fixed = [r for r in comparison.runs if not r.tuned and r.name != FORESERVE]
    out = []
    if tuned:
        each = "; ".join(f"{r.label}: {r.setting} ({r.tried} runs)" for r in tuned)
        out.append(
            "Each rival got its best setting with hindsight: a few runs over the very hours that are "
            "judged looked for the cheapest setting that meets the attainment (where none does: "
            f"the one that comes closest). Nobody has that knowledge beforehand. {each}."
        )
    if fixed:
        each = "; ".join(f"{r.label}: {r.setting}" for r in fixed)
        out.append(f"As the scenario sets it: {each}.")
    if comparison.run(FORESERVE) is not None:
        out.append(
            "Foreserve ran once, with its defaults and the policies as given, and knew only what "
            "came before each moment. All of them saw the same requests, the same engines, the "
            "same start-up times and the same first fleet."
        )
    return out


def _engine(scenario: Mapping[str, Any]) -> str:
    error = float(scenario["engineErrorRatio"])
    return (
        "The engines are simulated: continuous batching with chunked prefill. Their step times are "
        f"not those that the planner works with: each coefficient was drawn (seed {scenario['seed']}) "
        f"with a relative error of {error * 100:.0f} % around the profile or the fit, as a measurement "
        "would be off."
    )


def _hours(comparison: Comparison) -> dict[str, Any]:
    """Return Foreserve's hours beside the clairvoyant plan's and the best rival's."""
    ours, plan, rival = (
        comparison.run(FORESERVE),
        comparison.run(CLAIRVOYANT),
        comparison.best_rival(),
    )
    if ours is None:
        return {"hours": [], "hours_header": (), "hours_caption": ""}
    others = [run for run in (rival, plan) if run is not None]
    mine, *theirs = (hourly(run) for run in (ours, *others))
    over = None if plan is None else over_plan(ours, plan)
    rows = [
        (
            f"{hour:%a %H:%M}",
            f"{mine.requests[hour]:,.0f}",
            percent(mine.slo_attainment_ratio[hour]),
            *(usd(table.cost_usd[hour]) for table in (mine, *theirs)),
            *(() if over is None else (usd(over[cause][hour]) for cause in CAUSES)),
            mine.reasons[hour],
        )
        for hour in mine.index
    ]
    header = (
        "Hour (UTC)",
        "Requests ended",
        "SLO attainment",
        *(f"{run.label}, cost" for run in (ours, *others)),
        *(() if over is None else CAUSE_HEADER),
        "What decided",
    )
    return {"hours": rows, "hours_header": header, "hours_caption": _hours_caption(over)}


CAUSE_HEADER = ("over it: forecast", "guard", "limits", "lead time")


def _hours_caption(over: pd.DataFrame | None) -> str:
    first = (
        "What Foreserve spent and served in each hour, and which steps of its decisions counted."
    )
    if over is None:
        return first
    total = over.sum()
    parts = ", ".join(
        f"{name.removeprefix('over it: ')} {usd(total[cause])}"
        for name, cause in zip(CAUSE_HEADER, CAUSES, strict=True)
    )
    return (
        f"{first} Over the clairvoyant plan in all: {usd(total.over_usd)}, of which {parts}. "
        "Forecast: the predicted load, its risk margin and the latency model; guard: reactive floor, "
        "stabilization, rate limits; limits: minimum, maximum, quota and budget; lead time: replicas "
        "that were starting. Negative: less than the plan. Each tick's difference is booked on the "
        "step that had the last word, which is a convention."
    )


def _services(comparison: Comparison) -> dict[str, Any]:
    """Return a row per service and autoscaler, each cell with the number that it sorts by."""
    rows = [
        (
            (service, service),
            (run.label, run.label),
            (f"{m.requests:,}", m.requests),
            (usd(m.cost_usd), m.cost_usd),
            (f"{m.gpu_hours:,.1f}", m.gpu_hours),
            (percent(m.slo_attainment_ratio), _key(m.slo_attainment_ratio)),
            (seconds(m.ttft_p95_seconds), _key(m.ttft_p95_seconds)),
            (seconds(m.tpot_p95_seconds), _key(m.tpot_p95_seconds)),
            (f"{m.max_replicas:,}", m.max_replicas),
        )
        for service in comparison.attainments
        for run in comparison.runs
        for m in (run.services[service],)
    ]
    return {"services": rows, "services_header": SERVICES_HEADER}


SERVICES_HEADER = (
    "Service",
    "Autoscaler",
    "Requests",
    "Cost",
    "GPU-hours",
    "SLO attainment",
    "p95 TTFT",
    "p95 TPOT",
    "Most replicas",
)
VARIATIONS_HEADER = (
    "Variation",
    "Autoscaler",
    "Cost",
    "beside as it is",
    "SLO attainment",
    "Setting",
)


def _key(value: float) -> float:
    """Return what a number sorts by; a missing one comes last."""
    return value if math.isfinite(value) else sys.float_info.max


def _variations(comparison: Comparison) -> dict[str, Any]:
    """Return a row per variation and autoscaler, after the scenario as it is; and what has no numbers."""
    rows = []
    as_is = Variation("as it is", {}, comparison.attainments, comparison.runs)
    for varied in (as_is, *comparison.variations):
        for run in varied.runs:
            base = comparison.run(run.name)
            share = math.nan
            if base is not None and base.measures.cost_usd:
                share = run.measures.cost_usd / base.measures.cost_usd - 1
            met = all(
                run.services[s].slo_attainment_ratio >= asked
                for s, asked in varied.attainments.items()
            )
            got = run.measures.slo_attainment_ratio
            rows.append(
                (
                    (varied.label, varied.label),
                    (run.label, run.label),
                    (usd(run.measures.cost_usd), run.measures.cost_usd),
                    ("-" if math.isnan(share) else f"{share * 100:+.1f} %", _key(share)),
                    (f"{percent(got)} {'✓' if met else '✗'}", _key(got)),
                    (run.setting, run.setting),
                )
            )
    gaps = [f"{v.label}: {v.gap}" for v in comparison.variations if v.gap is not None]
    shown = rows if comparison.variations else []
    return {"variations": shown, "variations_header": VARIATIONS_HEADER, "variation_gaps": gaps}

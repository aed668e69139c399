"""The report's plots over time, in Bokeh: load and forecast, replicas, TTFT, cost. One point a minute."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from bokeh.embed import components
from bokeh.models import (
    ColumnDataSource,
    CustomJSTickFormatter,
    DataRange1d,
    HoverTool,
    HSpan,
    Model,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.models.renderers import DataRenderer
from bokeh.plotting import figure

from autoscaler.pages.look import HEIGHT_PIXELS, OBSERVED, ORANGE, OURS, TOOLS, clock_axis, dressed
from autoscaler.whatif.plots_more import frontier, heat, percentiles, regret
from autoscaler.whatif.results import CLAIRVOYANT, FORESERVE, Comparison, RunResult
from autoscaler.whatif.verdict import shown_runs

POINT_SECONDS = 60.0
MOST_POINTS = 1440  # of one line: a page of a fortnight stays small
COLOURS = {
    FORESERVE: OURS,
    "recorded": "#6b4fbb",
    "static": OBSERVED,
    "hpa": ORANGE,
    "hpa-queue": "#b5651d",
    "keda": "#d4a017",
    "kpa": "#c46aa5",
    "apa": "#d1495b",
    "wva": "#3d9da8",
    "dynamo": "#7a9e2e",
    CLAIRVOYANT: "#12a37a",
}


def point_seconds(run: RunResult) -> float:
    """Return how far apart the points of a line are: whole minutes."""
    at = run.series.ts_seconds
    return POINT_SECONDS * max(1, math.ceil(float(at.max() - at.min()) / 60 / MOST_POINTS))


def by_minute(
    run: RunResult,
    capacity_rps: Mapping[str, float] | None = None,
    seconds: float = POINT_SECONDS,
) -> pd.DataFrame:
    """Return one row a minute (or `seconds`) over all services of a run, indexed by (naive) UTC time.

    Counts and rates of the services are summed and averaged over the minute, cost is cumulative;
    TTFT is the worst service's, each tick weighted by the requests that finished in it. need_low and
    need_high are the forecast's band in replicas of this capacity (req/s, by service).
    """
    ticks = run.series.copy()
    if capacity_rps and "forecast_p95_rps" in ticks:
        capacity = ticks.service.map(capacity_rps)
        ticks["need_low"] = np.ceil(ticks.forecast_p10_rps / capacity)
        ticks["need_high"] = np.ceil(ticks.forecast_p95_rps / capacity)
    ticks["weighted_ttft"] = ticks.ttft_p95_seconds * ticks.finished_requests
    ticks.loc[ticks.weighted_ttft.isna(), "finished_requests"] = 0.0
    ticks["minute"] = np.ceil(ticks.ts_seconds / seconds) * seconds
    grouped = ticks.groupby(["service", "minute"])
    means = grouped[[c for c in _MEANS if c in ticks]].mean()
    weights = grouped.finished_requests.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        means["ttft_p95_seconds"] = grouped.weighted_ttft.sum() / weights.where(weights > 0)
    means["cost_usd"] = grouped.cost_usd.sum()
    total = means.groupby("minute").sum(min_count=1)
    total["ttft_p95_seconds"] = means.ttft_p95_seconds.groupby("minute").max()
    total["cost_usd"] = total.cost_usd.cumsum()
    if "horizon_seconds" in means:
        total["horizon_seconds"] = means.horizon_seconds.groupby("minute").mean()
    total.index = pd.to_datetime(total.index, unit="s")  # Bokeh knows no time zones
    return total


_MEANS = (
    "arrival_rate_rps",
    "ready_replicas",
    "starting_replicas",
    "required_replicas",
    "accelerators",
    "horizon_seconds",
    "forecast_p10_rps",
    "forecast_p50_rps",
    "forecast_p95_rps",
    "need_low",
    "need_high",
)


def plot_parts(comparison: Comparison) -> tuple[str, dict[str, str]]:
    """Return Bokeh's script and one <div> per plot: load, replicas, ttft, cost and plots_more's."""
    runs = shown_runs(comparison)
    seconds = point_seconds(runs[0])
    minutes = {run.name: by_minute(run, comparison.capacity_rps, seconds) for run in runs}
    any_frame = next(iter(minutes.values()))
    x_range = Range1d(any_frame.index[0], any_frame.index[-1])
    target = min(comparison.ttft_targets_seconds.values(), default=math.inf)
    ours, plan = comparison.run(FORESERVE), comparison.run(CLAIRVOYANT)
    looked_at = ours or comparison.runs[0]
    plots: dict[str, Model] = {
        "frontier": frontier(comparison, COLOURS),
        "load": _load(minutes, x_range),
        "replicas": _replicas(minutes, runs, x_range),
        "percentiles": percentiles(comparison, comparison.runs, COLOURS),
        "ttft": _ttft(minutes, runs, target, x_range),
        "heat_load": heat(looked_at, "load"),
        "heat_missed": heat(looked_at, "missed"),
        "cost": _cost(minutes, runs, x_range),
    }
    if ours is not None and plan is not None:
        plots["regret"] = regret(ours, plan)
    script, divs = components(plots, wrap_script=False)
    rename = _Renamed()
    return rename(str(script)), {name: rename(str(div)) for name, div in divs.items()}


class _Renamed:
    """Gives what Bokeh names at random, or by what it drew before, names in order: same data, same bytes."""

    NAMES = re.compile(
        r"\b(?:p\d{4,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b"
    )

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        return self.NAMES.sub(self._name, text)

    def _name(self, match: "re.Match[str]") -> str:
        known = self._known
        return known.setdefault(
            match[0], f"{match[0][0] if match[0][0] == 'p' else 'u'}{10_000 + len(known)}"
        )


def _figure(
    title: str,
    x_range: Range1d,
    *,
    y_range: DataRange1d | None = None,
    y_axis_type: Literal["linear", "log"] = "linear",
) -> figure:
    plot = figure(
        height=HEIGHT_PIXELS,
        x_axis_type="datetime",
        y_axis_type=y_axis_type,
        x_range=x_range,
        y_range=y_range or DataRange1d(start=0.0),
        tools=TOOLS,
        active_drag=None,  # a finger over the plot scrolls the page
        toolbar_location="above",
        min_border_left=78,
    )
    plot.yaxis.axis_label = title
    clock_axis(plot)
    return dressed(plot)


def _hover(plot: figure, label: str, column: str, unit: str, renderer: DataRenderer) -> None:
    tips = [(label, f"@{column}{{0,0.00}} {unit}"), ("at", "@t{%a %H:%M} UTC")]
    plot.add_tools(
        HoverTool(
            renderers=[renderer],
            tooltips=tips,
            formatters={"@t": "datetime"},
            mode="vline",
            visible=False,
        )
    )


def _source(index: pd.Index, **columns: "pd.Series | np.ndarray") -> ColumnDataSource:
    # float32 halves the page; times need the whole float64
    data = {name: np.asarray(v, dtype=np.float32) for name, v in columns.items()}
    return ColumnDataSource({"t": index, **data})


def _load(minutes: dict[str, pd.DataFrame], x_range: Range1d) -> figure:
    plot = _figure("requests/s", x_range)
    ours = minutes.get(FORESERVE)
    if ours is not None and ours.get("forecast_p95_rps", pd.Series(dtype=float)).notna().any():
        known = ours[ours.forecast_p95_rps.notna()]
        ahead = pd.Index(known.index + pd.to_timedelta(known.horizon_seconds, unit="s"))
        band = _source(
            ahead,
            low=known.forecast_p10_rps,
            mid=known.forecast_p50_rps,
            high=known.forecast_p95_rps,
        )
        colour = COLOURS[FORESERVE]
        plot.varea("t", "low", "high", source=band, fill_color=colour, fill_alpha=0.28)
        plot.line("t", "mid", source=band, line_color=colour, line_width=1.2)
    frame = next(iter(minutes.values()))
    seen = _source(frame.index, rate=frame.arrival_rate_rps)
    line = plot.line("t", "rate", source=seen, line_color=OBSERVED, line_width=1.2)
    _hover(plot, "arrived", "rate", "requests/s", line)
    return plot


def _replicas(
    minutes: dict[str, pd.DataFrame], runs: Sequence[RunResult], x_range: Range1d
) -> figure:
    plot = _figure("replicas, starting ones too", x_range)
    ours_minutes = minutes.get(FORESERVE)
    if ours_minutes is not None and "need_high" in ours_minutes:
        known = ours_minutes[ours_minutes.need_high.notna()]
        ahead = pd.Index(known.index + pd.to_timedelta(known.horizon_seconds, unit="s"))
        band = _source(ahead, low=known.need_low, high=known.need_high)
        colour = COLOURS[FORESERVE]
        plot.varea_step("t", "low", "high", source=band, fill_color=colour, fill_alpha=0.22)
    for run in _bound_first(runs):
        frame, colour = minutes[run.name], COLOURS[run.name]
        source = _source(frame.index, n=frame.ready_replicas + frame.starting_replicas)
        if run.name == CLAIRVOYANT:
            plot.varea_step("t", 0, "n", source=source, fill_color=colour, fill_alpha=0.25)
            continue
        ours = run.name == FORESERVE
        line = plot.step(
            "t",
            "n",
            source=source,
            line_color=colour,
            line_width=2.0 if ours else 1.0,
            line_alpha=1.0 if ours else 0.7,
            mode="after",
        )
        _hover(plot, run.label, "n", "replicas", line)
    return plot


def _ttft(
    minutes: dict[str, pd.DataFrame],
    runs: Sequence[RunResult],
    target_seconds: float,
    x_range: Range1d,
) -> figure:
    slowest = np.array([minutes[run.name].ttft_p95_seconds.max() for run in runs])
    shown = np.append(slowest[np.isfinite(slowest)], 1e-3)
    if math.isfinite(target_seconds):  # in the picture, also where all are far below it
        shown = np.append(shown, target_seconds)
    top = 1.3 * float(shown.max())
    plot = _figure("p95 TTFT", x_range, y_range=DataRange1d(end=top), y_axis_type="log")
    for run in _bound_first(runs):
        frame = minutes[run.name]
        source = _source(frame.index, s=frame.ttft_p95_seconds.clip(lower=1e-3))
        ours = run.name == FORESERVE
        line = plot.line(
            "t",
            "s",
            source=source,
            line_color=COLOURS[run.name],
            line_width=1.6 if ours else 0.8,
            line_alpha=1.0 if ours else 0.6,
        )
        _hover(plot, run.label, "s", "s", line)
    if math.isfinite(target_seconds):
        plot.add_glyph(
            HSpan(y=target_seconds, line_color="#d23f4b", line_dash="dashed", line_width=1.5)
        )
    plot.yaxis.formatter = CustomJSTickFormatter(
        code="return tick < 1 ? Math.round(tick * 1000) + ' ms' : tick + ' s'"
    )
    return plot


def _cost(minutes: dict[str, pd.DataFrame], runs: Sequence[RunResult], x_range: Range1d) -> figure:
    plot = _figure("USD so far", x_range)
    for run in _bound_first(runs):
        frame = minutes[run.name]
        source = _source(frame.index, usd=frame.cost_usd)
        width = 2.0 if run.name == FORESERVE else 1.4
        line = plot.line("t", "usd", source=source, line_color=COLOURS[run.name], line_width=width)
        _hover(plot, run.label, "usd", "USD", line)
    plot.yaxis.formatter = NumeralTickFormatter(format="$0,0")
    return plot


def _bound_first(runs: Sequence[RunResult]) -> list[RunResult]:
    """Draw the bound first and Foreserve last, so that neither hides what matters."""
    rank: Callable[[RunResult], int] = lambda r: {CLAIRVOYANT: 0, FORESERVE: 2}.get(r.name, 1)  # noqa: E731
    return sorted(runs, key=rank)

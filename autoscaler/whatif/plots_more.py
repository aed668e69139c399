"""Plots of a comparison that are not over time: frontier, percentiles, heat maps, regret by cause."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    DataRange1d,
    FactorRange,
    HoverTool,
    HSpan,
    LinearColorMapper,
    NumeralTickFormatter,
    Range1d,
    VSpan,
)
from bokeh.models.annotations import ColorBar
from bokeh.palettes import Blues9, Oranges9
from bokeh.plotting import figure

from autoscaler.pages.look import (
    HEIGHT_PIXELS,
    MUTED,
    OBSERVED,
    ORANGE,
    OURS,
    TOOLS,
    clock_axis,
    dressed,
)
from autoscaler.whatif.accounting import CAUSES, over_plan
from autoscaler.whatif.results import Comparison, RunResult
from autoscaler.whatif.uncertainty import by_hour

LEAST_MISSED = 1e-5  # what is drawn for none missed, on a logarithmic axis
TARGET = "#d23f4b"
CAUSE_COLOURS = {
    "forecast_usd": OURS,
    "guard_usd": ORANGE,
    "limits_usd": "#c46aa5",
    "lead_time_usd": OBSERVED,
}
CAUSE_WORDS = {
    "forecast_usd": "forecast",
    "guard_usd": "guard",
    "limits_usd": "limits",
    "lead_time_usd": "lead time",
}
FEW_TICKS = 4  # more run into each other on a phone: a price is seven characters wide
MANY_HOURS = 72  # beyond, regret is by day
SECONDS_CODE = "return tick < 1 ? Math.round(tick * 1000) + ' ms' : tick + ' s'"


def frontier(comparison: Comparison, colours: Mapping[str, str]) -> figure:
    """Draw cost against the share of missed requests: every setting that was run, one line an autoscaler."""
    plot = figure(
        height=HEIGHT_PIXELS + 60,
        y_axis_type="log",
        x_axis_label="USD in the judged hours",
        y_axis_label="missed requests",
        tools=TOOLS,
        active_drag=None,
        min_border_left=78,
    )
    for run in comparison.runs:
        tries = sorted(run.tries, key=lambda t: t.cost_usd)
        known = [t for t in tries if math.isfinite(t.slo_attainment_ratio)]
        source = ColumnDataSource(
            {
                "usd": [t.cost_usd for t in known],
                "missed": [max(1 - t.slo_attainment_ratio, LEAST_MISSED) for t in known],
                "setting": [t.setting for t in known],
                "name": [run.label] * len(known),
            }
        )
        colour = colours[run.name]
        plot.line("usd", "missed", source=source, line_color=colour, line_alpha=0.45)
        dots = plot.scatter("usd", "missed", source=source, size=7, color=colour)
        best: dict[str, Sequence[float]] = {
            "usd": [run.measures.cost_usd],
            "missed": [max(1 - run.measures.slo_attainment_ratio, LEAST_MISSED)],
        }
        if math.isfinite(best["missed"][0]):
            plot.scatter(
                "usd",
                "missed",
                source=ColumnDataSource(dict(best)),
                size=14,
                fill_color=None,
                line_color=colour,
                line_width=2,
            )
        tips = [
            ("", "@name"),
            ("", "@setting"),
            ("cost", "@usd{$0,0}"),
            ("missed", "@missed{0.00%}"),
        ]
        plot.add_tools(HoverTool(renderers=[dots], tooltips=tips, visible=False))
    allowed = 1 - comparison.attainment
    plot.add_glyph(HSpan(y=allowed, line_color=TARGET, line_dash="dashed", line_width=1.5))
    plot.xaxis.ticker = BasicTicker(desired_num_ticks=FEW_TICKS)
    plot.xaxis.formatter = NumeralTickFormatter(format="$0,0")
    plot.yaxis.formatter = CustomJSTickFormatter(code="return +(tick * 100).toPrecision(2) + ' %'")
    return dressed(plot)


def percentiles(
    comparison: Comparison, runs: Sequence[RunResult], colours: Mapping[str, str]
) -> figure:
    """Draw TTFT p50, p95 and p99 of each autoscaler on one line, with the SLO's target."""
    labels = [r.label for r in reversed(runs)]
    target = min(comparison.ttft_targets_seconds.values(), default=math.inf)
    plot = figure(
        height=90 + 34 * len(labels),
        y_range=FactorRange(factors=labels),
        x_axis_type="log",
        x_axis_label="time to first token",
        tools="save",
        min_border_left=78,
    )
    for run in runs:
        m = run.measures
        values = [m.ttft_p50_seconds, m.ttft_p95_seconds, m.ttft_p99_seconds]
        source = ColumnDataSource(
            {
                "s": [max(v, 1e-3) if math.isfinite(v) else math.nan for v in values],
                "y": [run.label] * 3,
                "what": ["p50", "p95", "p99"],
                "size": [7, 10, 13],
            }
        )
        plot.line("s", "y", source=source, line_color=colours[run.name], line_width=2)
        dots = plot.scatter("s", "y", source=source, size="size", color=colours[run.name])
        tips = [("", "@y @what"), ("TTFT", "@s{0.000} s")]
        plot.add_tools(HoverTool(renderers=[dots], tooltips=tips, visible=False))
    if math.isfinite(target):
        plot.add_glyph(VSpan(x=target, line_color=TARGET, line_dash="dashed", line_width=1.5))
        ends = [m for r in runs for m in (r.measures.ttft_p50_seconds, r.measures.ttft_p99_seconds)]
        shown = [v for v in (*ends, target) if math.isfinite(v) and v > 0]
        plot.x_range = DataRange1d(start=min(shown) / 1.5, end=max(shown) * 1.5)
    plot.xaxis.formatter = CustomJSTickFormatter(code=SECONDS_CODE)
    return dressed(plot)


def heat(run: RunResult, what: str) -> figure:
    """Draw hours of the day by days, coloured by `load` (requests an hour) or `missed` (share of them)."""
    hours = by_hour(run.series)
    first = pd.Timestamp(float(run.series.ts_seconds.min()), unit="s").floor("h")
    at = first + pd.to_timedelta(hours.index.to_numpy(), unit="h")
    missed = (1 - hours.met / hours.ended.where(hours.ended > 0)).to_numpy()
    value = hours.ended.to_numpy() if what == "load" else missed
    days = [f"{d:%a %d}" for d in at]
    order = list(dict.fromkeys(days))[::-1]
    source = ColumnDataSource(
        {
            "hour": at.hour.to_numpy() + 0.5,
            "day": days,
            "value": np.asarray(value, dtype=np.float64),
            "load": hours.ended.to_numpy(),
            "missed": missed,
        }
    )
    known = np.asarray(value)[np.isfinite(value)]
    top = float(known.max()) if len(known) and known.max() > 0 else 1.0
    palette = list(reversed(Blues9 if what == "load" else Oranges9))
    mapper = LinearColorMapper(palette=palette, low=0.0, high=top, nan_color="#8884")
    plot = figure(
        height=110 + 24 * max(2, len(order)),
        y_range=FactorRange(factors=order),
        x_range=Range1d(start=0, end=24),
        x_axis_label="hour of the day (UTC)",
        tools="save",
        min_border_left=78,
    )
    cells = plot.rect(
        "hour",
        "day",
        width=0.96,
        height=0.92,
        source=source,
        fill_color={"field": "value", "transform": mapper},
        line_color=None,
    )
    tips = [("", "@day @hour{0}:00"), ("requests", "@load{0,0}"), ("missed", "@missed{0.00%}")]
    plot.add_tools(HoverTool(renderers=[cells], tooltips=tips, visible=False))
    scale = NumeralTickFormatter(format="0,0" if what == "load" else "0.0%")
    bar = ColorBar(
        color_mapper=mapper,
        width=8,
        formatter=scale,
        background_fill_alpha=0.0,
        major_label_text_color=MUTED,
    )
    plot.add_layout(bar, "right")
    plot.xaxis.ticker = list(range(0, 25, 3))
    return dressed(plot)


def regret(ours: RunResult, plan: RunResult) -> figure:
    """Bars of what was spent over the clairvoyant plan, by cause: one an hour, or one a day."""
    over = over_plan(ours, plan)
    if len(over) > MANY_HOURS:
        over = over.groupby(pd.DatetimeIndex(over.index).floor("D")).sum()
    width = (over.index[1] - over.index[0]) * 0.8 if len(over) > 1 else pd.Timedelta("48min")
    plot = figure(
        height=HEIGHT_PIXELS,
        x_axis_type="datetime",
        y_axis_label="USD over the plan",
        tools=TOOLS,
        active_drag=None,
        min_border_left=78,
    )
    for sign in (1.0, -1.0):
        base = np.zeros(len(over))
        for cause in CAUSES:
            part = over[cause].to_numpy(dtype=np.float64)
            part = np.where(part * sign > 0, part, 0.0)
            source = ColumnDataSource(
                {"t": over.index + width / 2, "low": base, "high": base + part, "usd": part}
            )
            bars = plot.vbar(
                "t",
                width,
                "high",
                "low",
                source=source,
                color=CAUSE_COLOURS[cause],
                line_color=None,
            )
            tips = [(CAUSE_WORDS[cause], "@usd{$0,0.00}")]
            plot.add_tools(HoverTool(renderers=[bars], tooltips=tips, visible=False))
            base = base + part
    plot.yaxis.formatter = NumeralTickFormatter(format="$0,0")
    clock_axis(plot)
    return dressed(plot)


def regret_legend() -> list[tuple[str, str]]:
    """Return (colour, word) of each cause."""
    return [(CAUSE_COLOURS[c], CAUSE_WORDS[c]) for c in CAUSES]

"""Plots of the backtest's page, in Bokeh: fans over a day, calibration, coverage by lead, importances."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from bokeh.models import (
    ColumnDataSource,
    DataRange1d,
    FactorRange,
    HoverTool,
    HSpan,
    NumeralTickFormatter,
    Range,
    Range1d,
)
from bokeh.plotting import figure
from numpy.typing import NDArray

from autoscaler.pages.look import (
    HEIGHT_PIXELS,
    MUTED,
    OBSERVED,
    OURS,
    TOOLS,
    clock_axis,
    dressed,
)
from models.features import DAY_SECONDS
from models.forecast_account import Contest, ServiceAccount
from models.quantiles import QUANTILES, FloatArray

LOW, MEDIAN, HIGH, TOP = (QUANTILES.index(q) for q in (0.1, 0.5, 0.9, 0.99))
SMALL_HEIGHT_PIXELS = 220
BAR_PIXELS = 22
QUANTILE_NAMES = tuple(f"P{round(100 * q)}" for q in QUANTILES)


Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Load:
    """One service's load per step, (T,), from `start_seconds` on, and what is counted."""

    values: FloatArray
    start_seconds: float
    unit: str


def fan_plot(contest: Contest, service: str, day_seconds: float, *, load: Load) -> figure:
    """Draw one day (UTC) of one service: load and fans, each from its cutoff to its horizon.

    Of fans that would overlap, the first is drawn.
    """
    values, start_seconds = load.values, load.start_seconds
    plot = figure(
        height=HEIGHT_PIXELS,
        x_axis_type="datetime",
        x_range=Range1d(start=1000.0 * day_seconds, end=1000.0 * (day_seconds + DAY_SECONDS)),
        y_range=DataRange1d(start=0.0),
        tools=TOOLS,
        active_drag=None,  # a finger over the plot scrolls the page
        toolbar_location="above",
        min_border_left=78,
    )
    clock_axis(plot)
    plot.yaxis.axis_label = f"{load.unit}/s"
    plot.yaxis.formatter = NumeralTickFormatter(format="0.[00]a")
    fans = _fans(contest, service, day_seconds, load)
    bands: dict[str, list[NDArray[Any]]] = {
        "t": [t for t, _ in fans],
        "around": [np.concatenate([t, t[::-1]]) for t, _ in fans],
        "tail": [np.concatenate([q[:, HIGH], q[::-1, TOP]]) for _, q in fans],
        "body": [np.concatenate([q[:, LOW], q[::-1, HIGH]]) for _, q in fans],
        "middle": [q[:, MEDIAN] for _, q in fans],
    }
    source = ColumnDataSource(dict(bands))
    for name, alpha in (("tail", 0.16), ("body", 0.34)):
        plot.patches(
            "around", name, source=source, fill_color=OURS, fill_alpha=alpha, line_color=None
        )
    plot.multi_line("t", "middle", source=source, line_color=OURS, line_width=1.2)
    first = max(0, round((day_seconds - start_seconds) / contest.step_seconds))
    steps = np.arange(first, min(values.size, first + round(DAY_SECONDS / contest.step_seconds)))
    seen = ColumnDataSource(
        {
            "t": _times(np.float64(start_seconds) + steps * contest.step_seconds),
            "load": (values[steps] / contest.step_seconds).astype(np.float32),
        }
    )
    line = plot.line("t", "load", source=seen, line_color=OBSERVED, line_width=1.4)
    plot.add_tools(
        HoverTool(
            renderers=[line],
            tooltips=[("load", "@load{0,0.00}/s"), ("at", "@t{%a %H:%M} UTC")],
            formatters={"@t": "datetime"},
            mode="vline",
            visible=False,
        )
    )
    return dressed(plot)


def _fans(
    contest: Contest, service: str, day_seconds: float, load: Load
) -> list[tuple[FloatArray, Float32Array]]:
    """Return times and quantiles (points, Q) per second of each fan, from the last known value on."""
    step = contest.step_seconds
    cutoff = contest.cutoff_seconds
    mine = contest.row == contest.services.index(service)
    at = np.flatnonzero(mine & (cutoff >= day_seconds) & (cutoff < day_seconds + DAY_SECONDS))
    horizon = contest.served.shape[1]
    fans, free_from = [], -np.inf
    for n in at[np.argsort(cutoff[at], kind="stable")]:
        if cutoff[n] < free_from - 1e-6:
            continue
        free_from = cutoff[n] + horizon * step
        seconds = cutoff[n] + np.arange(-1, horizon) * step
        known = load.values[round((cutoff[n] - load.start_seconds) / step) - 1]
        quantiles = np.vstack([np.full(len(QUANTILES), known), contest.served[n]]) / step
        from_first = 0 if np.isfinite(known) else 1
        fans.append((_times(seconds[from_first:]), quantiles[from_first:].astype(np.float32)))
    return fans


def calibration_plot(
    coverage: FloatArray, low: FloatArray | None = None, high: FloatArray | None = None
) -> figure:
    """Draw how many points more or less often than promised the load stayed at or below each quantile.

    Each (Q,), as shares; `low` and `high` bound what other days might have shown.
    """
    plot = _small(FactorRange(factors=list(QUANTILE_NAMES)))
    plot.yaxis.axis_label = "points above the promise"
    miss = 100.0 * (coverage - np.array(QUANTILES))
    _across(plot, 0.0)
    bounds = [100.0 * (b - np.array(QUANTILES)) for b in (low, high) if b is not None]
    if np.isfinite(bounds).all() and bounds:
        ends = ColumnDataSource({"name": list(QUANTILE_NAMES), "low": bounds[0], "high": bounds[1]})
        plot.segment("name", "low", "name", "high", source=ends, line_color=OURS, line_width=2)
    data = ColumnDataSource({"name": list(QUANTILE_NAMES), "miss": miss, "share": 100.0 * coverage})
    dots = plot.scatter("name", "miss", source=data, size=9, color=OURS)
    tips = [("at or below @name", "@share{0.0} % of steps")]
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tips, visible=False))
    reach = max(5.0, 1.15 * float(np.nanmax(np.abs([miss, *bounds]))))
    plot.y_range = DataRange1d(start=-reach, end=reach)
    return dressed(plot)


def coverage_by_lead_plot(account: ServiceAccount, step_seconds: float) -> figure:
    """Draw the share of steps at or below the 0.9 quantile, by how far ahead they were."""
    plot = _small()
    minutes = np.arange(1, account.coverage_by_lead.shape[0] + 1) * step_seconds / 60.0
    share = account.coverage_by_lead[:, HIGH]
    data = ColumnDataSource({"m": minutes, "share": share})
    _across(plot, QUANTILES[HIGH])
    plot.line("m", "share", source=data, line_color=OURS, line_width=2)
    dots = plot.scatter("m", "share", source=data, size=6, color=OURS)
    tips = [("@m min ahead", "@share{0.0 %} at or below P90")]
    plot.add_tools(HoverTool(renderers=[dots], tooltips=tips, visible=False))
    least = min(0.8, float(share.min()) - 0.02)
    plot.y_range = Range1d(start=least, end=1.0)
    plot.yaxis.formatter = NumeralTickFormatter(format="0 %")
    plot.xaxis.axis_label = "minutes ahead"
    plot.yaxis.axis_label = "at or below P90"
    return dressed(plot)


def importance_plot(shares: Mapping[str, float], most: int) -> figure:
    """Draw the largest shares of gain as bars."""
    names = sorted(shares, key=lambda n: shares[n], reverse=True)[:most]
    plot = figure(
        height=BAR_PIXELS * len(names) + 50,
        y_range=FactorRange(factors=names[::-1]),
        x_range=DataRange1d(start=0.0),
        tools="",
        toolbar_location=None,
    )
    data = ColumnDataSource({"name": names, "share": [shares[n] for n in names]})
    bars = plot.hbar("name", right="share", source=data, height=0.7, color=OURS)
    tips = [("@name", "@share{0.0 %}")]
    plot.add_tools(HoverTool(renderers=[bars], tooltips=tips, visible=False))
    plot.xaxis.formatter = NumeralTickFormatter(format="0 %")
    plot.ygrid.visible = False
    return dressed(plot)


def _small(x_range: Range | None = None) -> figure:
    return figure(
        height=SMALL_HEIGHT_PIXELS,
        x_range=x_range or DataRange1d(),
        tools="",
        toolbar_location=None,
    )


def _across(plot: figure, at: float) -> None:
    """Draw the dashed line of what was promised."""
    plot.add_glyph(HSpan(y=at, line_color=MUTED, line_dash="dashed"))


def _times(seconds: FloatArray) -> FloatArray:
    """Return milliseconds since the epoch, as Bokeh takes them."""
    return np.asarray(seconds, dtype=np.float64) * 1000.0

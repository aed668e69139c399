"""The backtest's page: how good the forecast was, service by service, and what it was made of.

The first screen has the sentence and the table, worst service first; below, one part a service: its
contestants, its calibration, the fans of its worst and its median day. Plots of a part are drawn when
it is opened.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from bokeh.embed import json_item
from bokeh.plotting import figure
from markupsafe import Markup

from autoscaler.pages.backtest_plots import (
    HIGH,
    TOP,
    Load,
    calibration_plot,
    coverage_by_lead_plot,
    fan_plot,
    importance_plot,
)
from autoscaler.pages.feature_words import contestant_words, meaning
from autoscaler.pages.page import render_page
from models.forecast_account import Contest, Ratio, ServiceAccount, account_of
from models.frames import LOAD_NUMBERS, LoadSeries
from models.mix_drift import DriftSpan
from models.quantiles import FloatArray

MOST_DRAWN = 60  # services with plots: the page stays of a size that a browser opens
MOST_FEATURES = 20
UNITS = {
    "requests": "requests",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
}
HEADER = (
    "Service",
    "× last value",
    "× best simple rule",
    "Best simple rule",
    "Within P90",
    "Within P99",
    "Loss",
    "Served by",
)
DRIFT_HEADER = (
    "Service",
    "Class: tokens in, out",
    "At cutoffs",
    "From",
    "Until",
    "What was told last",
)
DEFINITIONS = (
    (
        "Cutoff",
        "A moment at which a forecast was made, from nothing but the load up to it. The models were "
        "fitted anew at each midnight (UTC), on the load up to that midnight.",
    ),
    (
        "Loss",
        "Pinball loss, the price of a quantile forecast: a miss costs more on the side that the "
        "quantile promises to cover. Mean over all steps ahead and the quantiles P10 to P99, as a "
        "share of the service's mean load. Zero is perfect; compare it within a service only.",
    ),
    (
        "× last value",
        "The loss of what served over the loss of “the load stays as it is”, with the spread that "
        "this rule's own past errors give it. Below 1 the forecast earned its place. In brackets: "
        "the range in which nine of ten redrawn samples of this period lie (blocks of six hours).",
    ),
    (
        "× best simple rule",
        "The same beside the simple rule that was best over this period, which nobody could know "
        "beforehand.",
    ),
    (
        "P90, P99",
        "The load should stay at or below P90 in 90 of 100 steps. Clearly less often: the forecast "
        "is too sure of itself and replicas come too late. Clearly more often: it is too wide and "
        "replicas idle.",
    ),
    (
        "Served by",
        "The contestant that this service's own held-out days had elected at most of the cutoffs; "
        "the election was made before the day that is judged here.",
    ),
    (
        "Contestants",
        "Each forecast at the same cutoffs: the one that served as it served, calibrated and with its "
        "coverage followed from step to step; the others as their own fit left them.",
    ),
    (
        "Share of gain",
        "How much of the training loss that the global model's trees took away was taken away by "
        "splits on this feature. It says what the model looked at, not what causes the load.",
    ),
)


@dataclass(frozen=True, slots=True)
class Backtest:
    """What the page shows: the contest, and the load and the model that it was held with."""

    contest: Contest
    series: LoadSeries
    target: str
    importances: Mapping[str, float]
    drifts: Sequence[DriftSpan] = ()  # of classes of traffic, at the same cutoffs


def render(backtest: Backtest, *, name: str) -> str:
    """Return the page as text; `name` says whose load it is.

    Raises ValueError if no cutoff has a known truth after it.
    """
    contest = backtest.contest
    found = {s: account_of(contest, s) for s in _asked(contest)}
    accounts = sorted(
        (a for a in found.values() if a is not None), key=lambda a: -a.to_last_value.value
    )
    if not accounts:
        raise ValueError("no cutoff has known load after it: there is nothing to judge")
    drawn = accounts[:MOST_DRAWN]
    coverage = _pooled_coverage(accounts)
    whole = {"calibration": calibration_plot(coverage)}
    if backtest.importances:
        whole["importances"] = importance_plot(backtest.importances, MOST_FEATURES)
    return render_page(
        "backtest.html.j2",
        name=name,
        headline=headline(accounts, coverage),
        period=_period(backtest, accounts),
        header=HEADER,
        rows=[_row(a) for a in accounts],
        silent=[s for s, a in found.items() if a is None],
        whole=_items("whole", whole),
        services=[_part(k, a, backtest) for k, a in enumerate(drawn)],
        left_out=len(accounts) - len(drawn),
        drift_header=DRIFT_HEADER,
        drifts=[_drift_row(span) for span in backtest.drifts],
        features=_features(backtest.importances),
        definitions=DEFINITIONS,
    )


def headline(accounts: Sequence[ServiceAccount], coverage: FloatArray) -> str:
    """Return the sentence for a reader who stops there."""
    better = sum(a.to_last_value.value < 1 for a in accounts)
    who = (
        f"{better} of {len(accounts)} services are forecast better than by their last value"
        if len(accounts) > 1
        else f"{accounts[0].service} is forecast "
        + ("better" if better else "no better")
        + " than by its last value"
    )
    last, best = (
        float(np.exp(np.mean([np.log(max(r.value, 1e-9)) for r in ratios])))
        for ratios in ([a.to_last_value for a in accounts], [a.to_best_rule for a in accounts])
    )
    return (
        f"{who}: {last:.2f} times its loss, {best:.2f} times that of the simple rule "
        f"that was best in hindsight. "
        f"{percent(coverage[HIGH])} of the load stayed within P90."
    )


def percent(share: float) -> str:
    """Return a share in percent, to the tenth."""
    return f"{100 * share:.1f} %"


def _asked(contest: Contest) -> list[str]:
    return [contest.services[k] for k in np.unique(contest.row)]


def _pooled_coverage(accounts: Sequence[ServiceAccount]) -> FloatArray:
    """Coverage (Q,) over all services, each counting alike."""
    return np.asarray(np.mean([a.coverage for a in accounts], axis=0))


def _period(backtest: Backtest, accounts: Sequence[ServiceAccount]) -> str:
    since, until = (
        pd.Timestamp(f(getattr(a, field) for a in accounts), unit="s")
        for f, field in ((min, "first_seconds"), (max, "last_seconds"))
    )
    contest = backtest.contest
    minutes = contest.actual.shape[1] * contest.step_seconds / 60
    cutoffs = sum(a.cutoffs for a in accounts)
    return (
        f"{UNITS[backtest.target].capitalize()} per {contest.step_seconds / 60:g} min, forecast for the "
        f"next {minutes:g} min at {cutoffs:,} cutoffs from {since:%d %B %Y %H:%M} to "
        f"{until:%d %B %Y %H:%M} UTC"
    )


def _row(account: ServiceAccount) -> dict[str, Any]:
    served = Counter(account.served_by).most_common(1)[0][0]
    others = len(account.served_by) - 1
    return {
        "cells": (
            account.service,
            ratio_text(account.to_last_value),
            ratio_text(account.to_best_rule),
            account.best_rule,
            percent(account.coverage[HIGH]),
            percent(account.coverage[TOP]),
            percent(account.loss_ratio),
            served + (f" (and {others} more)" if others else ""),
        ),
        "marks": {
            HEADER.index("× last value"): _mark(account.to_last_value),
            HEADER.index("× best simple rule"): _mark(account.to_best_rule),
        },
    }


def _drift_row(span: DriftSpan) -> tuple[str, ...]:
    since, until = (pd.Timestamp(x, unit="s") for x in (span.first_seconds, span.last_seconds))
    return (
        span.service,
        f"{span.lengths[0]:,.0f}, {span.lengths[1]:,.0f}",
        f"{span.moments:,} of {span.looked_at:,}",
        f"{since:%d %B %H:%M}",
        f"{until:%d %B %H:%M}",
        span.sentence,
    )


def _mark(ratio: Ratio) -> str:
    """Return met where clearly better, missed where clearly worse, else nothing."""
    low, high = (ratio.value if np.isnan(x) else x for x in (ratio.low, ratio.high))
    return "met" if high < 1 else "missed" if low > 1 else ""


def ratio_text(ratio: Ratio) -> str:
    """Return a ratio, and its range where it is known."""
    if np.isnan(ratio.low):
        return f"{ratio.value:.2f}"
    return f"{ratio.value:.2f} ({ratio.low:.2f}–{ratio.high:.2f})"


def _part(k: int, account: ServiceAccount, backtest: Backtest) -> dict[str, Any]:
    """Return one service's part of the page."""
    contest, series = backtest.contest, backtest.series
    values = series.values[
        series.services.index(account.service), :, LOAD_NUMBERS.index(backtest.target)
    ]
    load = Load(values, series.start_seconds, UNITS[backtest.target])
    days = {"worst": account.worst_day, "median": account.median_day}
    if account.worst_day == account.median_day:
        days.pop("median")
    plots: dict[str, figure] = {
        f"fan-{which}": fan_plot(contest, account.service, day[0], load=load)
        for which, day in days.items()
    }
    plots["calibration"] = calibration_plot(
        account.coverage, account.coverage_low, account.coverage_high
    )
    if contest.actual.shape[1] > 1:
        plots["leads"] = coverage_by_lead_plot(account, contest.step_seconds)
    items = _items(f"s{k}", plots)
    return {
        "name": account.service,
        "summary": f"× last value {ratio_text(account.to_last_value)}, "
        f"within P90 {percent(account.coverage[HIGH])}, {account.cutoffs:,} cutoffs",
        "contestants": _contestants(account),
        "fans": [
            {
                "id": f"s{k}-fan-{which}",
                "title": f"{which.capitalize()} day" if len(days) > 1 else "The only whole day",
                "when": f"{pd.Timestamp(day[0], unit='s'):%A %d %B %Y}",
                "loss": percent(day[1]),
            }
            for which, day in days.items()
        ],
        "leads": "leads" in plots,
        **items,
    }


def _contestants(account: ServiceAccount) -> list[dict[str, Any]]:
    ranked = sorted(account.contestants.items(), key=lambda pair: pair[1])
    rows = [
        {
            "cells": (
                name,
                percent(loss),
                f"{loss / account.contestants['last-value']:.2f}",
                f"{account.served_by[name]:,}" if name in account.served_by else "–",
                contestant_words(name),
            ),
            "ours": False,
        }
        for name, loss in ranked
    ]
    place = sum(loss < account.loss_ratio for _, loss in ranked)
    cells = (
        "Foreserve, as it served",
        percent(account.loss_ratio),
        f"{account.to_last_value.value:.2f}",
        f"{account.cutoffs:,}",
        "each cutoff by the contestant elected before that day",
    )
    rows.insert(place, {"cells": cells, "ours": True})
    return rows


def _items(prefix: str, plots: Mapping[str, figure]) -> dict[str, Any]:
    """Return an id, and as JSON what the page's script draws into elements called prefix-name."""
    items = {f"{prefix}-{name}": json_item(plot) for name, plot in plots.items()}
    # "<" inside a <script> could end it
    text = json.dumps(items, separators=(",", ":")).replace("<", "\\u003c")
    return {"id": prefix, "items": Markup(text)}  # noqa: S704  (JSON, escaped above)


def _features(importances: Mapping[str, float]) -> list[tuple[str, str, str]]:
    ranked = sorted(importances.items(), key=lambda pair: -pair[1])
    return [(name, percent(share), meaning(name)) for name, share in ranked if share > 0]

"""The metric contract against a live server: found or not, under which name, labels, age, plausibility.

A fixed number of instant queries. What is found here is what ingest and the online reader will read.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from models import contract_series as of
from models.contract import Kind, Labels, Quantity, Series, select
from models.contract_api import QueryApi, Row
from models.contract_queries import SCRAPE_WINDOW_SECONDS, bounds_query, scrape_query

STALE_SCRAPES = 3.0
MIN_STALE_SECONDS = 60.0
MAX_MEAN_TTFT_SECONDS = 600.0
MAX_MEAN_TPOT_SECONDS = 10.0
PLAUSIBLE = {
    "ttft": (
        0.0,
        MAX_MEAN_TTFT_SECONDS,
        "mean seconds over 5 minutes; is the source in milliseconds?",
    ),
    "tpot": (
        0.0,
        MAX_MEAN_TPOT_SECONDS,
        "mean seconds over 5 minutes; is the source in milliseconds?",
    ),
    "input_tokens": (1.0, 10_000_000.0, "mean tokens a prompt"),
    "output_tokens": (0.0, 10_000_000.0, "mean tokens an answer"),
    "kv_usage": (0.0, 1.0, "a share: is the source in percent?"),
}


Ask = Callable[[str], list[Row]]


class Status(StrEnum):
    """Verdict on one quantity."""

    OK = "ok"
    MISSING = "missing"
    LABELS = "labels"  # series without a label that the mapping needs
    STALE = "stale"
    IMPLAUSIBLE = "implausible"
    CAVEAT = "caveat"  # usable, with a difference to know


@dataclass(frozen=True, slots=True)
class Finding:
    """One quantity: the verdict and why, what does not work without it and what gives it."""

    quantity: str
    required: bool
    status: Status
    names: tuple[str, ...]  # found, with the engine in brackets
    series: int
    age_seconds: float
    detail: str
    without: str
    remedy: str

    @property
    def fails(self) -> bool:
        """Whether something required cannot be used."""
        return self.required and self.status not in {Status.OK, Status.CAVEAT}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the server said about every series name."""

    counts: Mapping[str, float]
    newest: Mapping[str, float]
    labelled: Mapping[str, Mapping[str, float]]  # label -> name -> series that have it
    values: Mapping[str, float]  # quantity -> mean or maximum
    scrape_seconds: float
    bounds: Mapping[str, tuple[float, ...]]  # ttft, tpot
    duplicated: float  # engines that are scraped more than once


class Bounded(Protocol):
    """Facts that know the bounds of buckets, of ttft and of tpot."""

    @property
    def bounds(self) -> Mapping[str, tuple[float, ...]]:
        """Upper bounds in seconds, rising."""
        ...


def look(api: QueryApi, labels: Labels, now_seconds: float) -> Facts:
    """Ask the server; ApiError."""

    def ask(query: str) -> list[Row]:
        return api.instant(query, now_seconds)

    engine, other = _names(of.ENGINE), _names((*of.AT_GATEWAY, *of.KUBERNETES))
    selector = labels.selector
    counts = _by_name(ask(f"count by (__name__) ({_matcher(engine, selector)})"))
    counts |= _by_name(ask(f"count by (__name__) ({_matcher(other)})"))
    labelled = {}
    for label in (*labels.group, labels.pod, labels.model_name):
        having = _matcher(engine, selector, f'{label}!=""')
        labelled[label] = _by_name(ask(f"count by (__name__) ({having})"))
    return Facts(
        counts=counts,
        newest=_by_name(ask(_newest(engine, labels) + " or " + _newest(other, Labels()))),
        labelled=labelled,
        values=_means(ask, labels),
        scrape_seconds=SCRAPE_WINDOW_SECONDS / (_first(ask(scrape_query(labels))) - 0.5),
        bounds={q.name: _bounds(ask(bounds_query(q, labels, 600.0))) for q in (of.TTFT, of.TPOT)},
        duplicated=_duplicated(ask, labels),
    )


def judge(facts: Facts, labels: Labels, now_seconds: float) -> list[Finding]:
    """Return a finding per quantity of the contract, in its order."""
    return [_judge(quantity, facts, labels, now_seconds) for quantity in of.QUANTITIES]


def target_findings(
    facts: Bounded, targets: Sequence[tuple[str, float, float]]
) -> list[tuple[str, str, float, str]]:
    """Return (service, ttft or tpot, target, sentence) for targets that are not the bound of a bucket."""
    out = []
    for service, ttft, tpot in targets:
        for what, target in (("ttft", ttft), ("tpot", tpot)):
            bounds = facts.bounds.get(what, ())
            if math.isinf(target) or not bounds:
                continue
            if not any(math.isclose(b, target, rel_tol=1e-9) for b in bounds):
                near = [
                    *[b for b in bounds if b < target][-1:],
                    *[b for b in bounds if b > target][:1],
                ]
                shown = " and ".join(f"{b:g} s" for b in near)
                out.append(
                    (
                        service,
                        what,
                        target,
                        f"is between the buckets {shown}: ticks estimate the share within it, history "
                        "has none; choose one of them, or set vLLM's --custom-histogram-buckets",
                    )
                )
    return out


def _judge(quantity: Quantity, facts: Facts, labels: Labels, now_seconds: float) -> Finding:
    found = [s for s in quantity.series if _count(quantity, s, facts) > 0]
    series = sum(_count(quantity, s, facts) for s in found)
    newest = max(
        (facts.newest.get(_probe(quantity, s, facts), math.nan) for s in found), default=math.nan
    )
    age = now_seconds - newest
    status, detail = _verdict(quantity, found, age, facts, labels)
    return Finding(
        quantity=quantity.name,
        required=quantity.required,
        status=status,
        names=tuple(f"{s.name} ({s.engine})" for s in found),
        series=int(series),
        age_seconds=age,
        detail=detail,
        without=quantity.without,
        remedy=quantity.remedy,
    )


def _verdict(
    quantity: Quantity, found: Sequence[Series], age: float, facts: Facts, labels: Labels
) -> tuple[Status, str]:
    if not found:
        names = " or ".join(s.name for s in quantity.series)
        return Status.MISSING, f"no {names} in the last 5 minutes"
    lacking = _lacking(quantity, found, facts, labels)
    if lacking:
        return Status.LABELS, lacking
    limit = max(MIN_STALE_SECONDS, STALE_SCRAPES * facts.scrape_seconds)
    if age > limit:
        return Status.STALE, f"newest sample {age:.0f} s old; fresh is up to {limit:.0f} s"
    low, high, what = PLAUSIBLE.get(quantity.name, (-math.inf, math.inf, ""))
    value = facts.values.get(quantity.name, math.nan)
    if value < low or value > high:
        return Status.IMPLAUSIBLE, f"{value:g}; plausible is {low:g} to {high:g} ({what})"
    if quantity in (of.TTFT, of.TPOT) and not any(
        f"{s.name}_bucket" in facts.counts for s in found
    ):
        return Status.CAVEAT, "native histogram: only history reads it, ticks need classic buckets"
    caveats = [s.caveat for s in found if s.caveat]
    if caveats and len(caveats) == len(found):
        return Status.CAVEAT, caveats[0]
    return Status.OK, ""


def _lacking(quantity: Quantity, found: Sequence[Series], facts: Facts, labels: Labels) -> str:
    """Return a sentence about labels that the mapping needs and series lack; else the empty text."""
    if quantity not in of.ENGINE:
        return ""
    for label in (labels.namespace, labels.service, labels.pod):
        if label is None:
            continue
        for series in found:
            name = _probe(quantity, series, facts)
            without = facts.counts[name] - facts.labelled.get(label, {}).get(name, 0.0)
            if without > 0:
                return (
                    f"{without:.0f} of {facts.counts[name]:.0f} series of {name} have no label "
                    f"{label!r}; relabel them, or map another in --config"
                )
    return ""


def _names(quantities: Sequence[Quantity]) -> list[str]:
    out = []
    for quantity in quantities:
        for series in quantity.series:
            out.append(series.name)
            if quantity.kind is Kind.HISTOGRAM:
                out += [f"{series.name}_bucket", f"{series.name}_count"]
    return out


def _probe(quantity: Quantity, series: Series, facts: Facts) -> str:
    """Return the name that stands for a series: the _count of a classic histogram."""
    if quantity.kind is not Kind.HISTOGRAM:
        return series.name
    count = f"{series.name}_count"
    native = quantity in (of.TTFT, of.TPOT) and count not in facts.counts
    return series.name if native else count


def _count(quantity: Quantity, series: Series, facts: Facts) -> float:
    return facts.counts.get(_probe(quantity, series, facts), 0.0)


def _matcher(names: Sequence[str], *more: str) -> str:
    inside = ",".join(['__name__=~"' + "|".join(names) + '"', *(m for m in more if m)])
    return f"{{{inside}}}"


def _newest(names: Sequence[str], labels: Labels) -> str:
    """Return the time of the newest sample by name; `timestamp` wants each selector by itself."""
    return " or ".join(
        f'label_replace(max(timestamp({select(n, labels)})), "name", "{n}", "", "")' for n in names
    )


def _by_name(rows: Sequence[Row]) -> dict[str, float]:
    return {
        row.labels.get("__name__", row.labels.get("name", "")): float(row.values[-1])
        for row in rows
    }


def _first(rows: Sequence[Row]) -> float:
    return float(rows[0].values[-1]) if rows else math.nan


def _bounds(rows: Sequence[Row]) -> tuple[float, ...]:
    return tuple(sorted({float(row.labels["le"]) for row in rows if "le" in row.labels}))


def _means(ask: Ask, labels: Labels) -> dict[str, float]:
    out = {}
    for quantity in (of.TTFT, of.TPOT, of.INPUT_TOKENS, of.OUTPUT_TOKENS):
        parts = []
        for s in quantity.series:
            above, below = (f"{select(s.name + end, labels)}[5m]" for end in ("_sum", "_count"))
            parts.append(f"sum(rate({above})) / sum(rate({below}))")
        out[quantity.name] = _first(ask(" or ".join(parts)))
    out["kv_usage"] = _first(
        ask(" or ".join(f"max({select(s.name, labels)})" for s in of.KV_USAGE.series))
    )
    return out


def _duplicated(ask: Ask, labels: Labels) -> float:
    """Return how many engines are scraped more than once (harmless: the maximum is taken)."""
    keep = ", ".join((*labels.group, labels.pod, "instance", "engine", "dp_rank", "tp_rank"))
    names = " or ".join(select(s.name, labels) for s in of.RUNNING.series)
    found = _first(ask(f"count(count by ({keep}) ({names}) > 1)"))
    return 0.0 if math.isnan(found) else found

"""What a server holds in the range, before anything is planned: scrapes, rows, engines, histograms."""

import json
import math
from collections.abc import Callable, Sequence

import numpy as np

from models import contract_series as of
from models.contract import Labels, Quantity, any_of, duration, select
from models.contract_api import QueryApi, Row, TooMuchError
from models.contract_queries import (
    SCRAPE_WINDOW_SECONDS,
    engines_query,
    growth_query,
    models_query,
    native_names_query,
    native_rates,
    scrape_query,
)
from models.histograms import bounds_with_mass
from training.ingest import IngestError
from training.ingest.assemble import FloatArray, services_in
from training.ingest.fetch import with_retries
from training.ingest.plan import Histogram, Probe, Request, window_for

GROWTH_SECONDS = 21_600.0  # buckets are looked over in pieces of six hours
PROBES = 50  # looks at the range to find scrape interval, engines and services

Ask = Callable[[str], list[Row]]


def look(api: QueryApi, request: Request) -> Probe:
    """Return scrape interval, rows, engines and histograms. IngestError if nothing is there."""
    labels = request.labels
    span = request.end_seconds - request.start_seconds
    every = max(request.step_seconds, span / PROBES)
    every = round(every / request.step_seconds) * request.step_seconds
    first = min(request.start_seconds + every, request.end_seconds)

    def ask(query: str) -> list[Row]:
        return with_retries(lambda: api.range(query, first, request.end_seconds, every))

    window = min(SCRAPE_WINDOW_SECONDS, max(request.step_seconds, span // 4))
    scrapes = ask(scrape_query(labels, window))
    if not scrapes:
        names = " or ".join(s.name for s in of.RUNNING.series)
        raise IngestError(
            f"{request.source}: no series {names}"
            f"{' with ' + labels.selector if labels.selector else ''} in the range; is this the "
            "server that scrapes the engines? `foreserve lint` says what it holds"
        )
    keys = services_in(ask(models_query(labels, min(3600.0, max(every, 60.0)))), labels)
    if not keys:
        raise IngestError(_missing_labels(api, request, labels))
    count = float(np.median(scrapes[0].values))
    scrape_seconds = scrape_interval(
        _gaps(api, labels, window, float(scrapes[0].times[-1])), window / (count - 0.5)
    )
    engines = [float(np.nanmax(row.values)) for row in ask(engines_query(labels))]
    return Probe(
        window_for(request.step_seconds, scrape_seconds),
        scrape_seconds,
        len(keys),
        round(max(engines, default=1.0)),
        _histograms(api, ask, request, scrape_seconds, every),
    )


def scrape_interval(gaps: FloatArray, guess_seconds: float) -> float:
    """Return the seconds between scrapes: whole ones, for nobody sets 15.2 s.

    gaps: between samples of one engine; jitter and missed scrapes leave their median where it is. With
    fewer than two it is the guess from a count, which is off by a few per cent.
    """
    return float(max(1, round(np.median(gaps) if len(gaps) > 1 else guess_seconds)))


def _gaps(api: QueryApi, labels: Labels, window_seconds: float, at_seconds: float) -> FloatArray:
    """Return the times between the samples of the most scraped engine in a window."""

    def ask(query: str) -> list[Row]:
        return with_retries(lambda: api.instant(query, at_seconds))

    window = duration(window_seconds)
    for series in of.RUNNING.series:
        best = ask(f"topk(1, count_over_time({select(series.name, labels)}[{window}]))")
        if best:
            own = (f"{k}={json.dumps(v)}" for k, v in best[0].labels.items() if k != "__name__")
            rows = ask(f"{select(series.name, Labels(), *own)}[{window}]")
            return np.diff(rows[0].times) if rows else np.empty(0)
    return np.empty(0)


def _histograms(
    api: QueryApi, ask: Ask, request: Request, scrape_seconds: float, every: float
) -> dict[str, Histogram]:
    native = {
        row.labels.get("__name__", "") for row in ask(native_names_query(request.labels, every))
    }
    out = {}
    for quantity in (of.TTFT, of.TPOT, of.INPUT_TOKENS, of.OUTPUT_TOKENS):
        is_native = any(s.name in native for s in quantity.series)
        if quantity in (of.INPUT_TOKENS, of.OUTPUT_TOKENS):
            out[quantity.name] = Histogram(native=is_native)
            continue
        bounds, matcher, kept = _bounds(api, quantity, request, scrape_seconds)
        factor = _native_factor(api, quantity, request) if is_native else 1.0
        out[quantity.name] = Histogram(bounds, matcher, kept, is_native, factor)
    return out


def _bounds(
    api: QueryApi, quantity: Quantity, request: Request, scrape_seconds: float
) -> tuple[tuple[float, ...], str, int]:
    """Return all bounds, a matcher of those that any service ever used (empty: all) and their number.

    Most bounds are never used, and quantiles stay exactly the same without them.
    """
    query = growth_query(quantity, request.labels, GROWTH_SECONDS + 2 * scrape_seconds)
    first = min(request.start_seconds + GROWTH_SECONDS, request.end_seconds)
    last = first + math.ceil((request.end_seconds - first) / GROWTH_SECONDS) * GROWTH_SECONDS
    try:
        rows = with_retries(lambda: api.range(query, first, last, GROWTH_SECONDS))
    except TooMuchError:
        return (), "", 0
    found = [row for row in rows if "le" in row.labels]
    spelled = {row.labels["le"] for row in found}
    bounds = tuple(sorted({float(le) for le in spelled}))
    kept: set[str] = set()
    for alias in sorted({row.labels.get("alias", "") for row in found}):
        own = [row for row in found if row.labels.get("alias", "") == alias]
        used = _used(own)
        if used is None:
            return bounds, "", len(bounds)
        kept |= used
    return bounds, any_of("le", sorted(kept, key=float)) if kept else "", len(kept)


def _used(rows: Sequence[Row]) -> set[str] | None:
    """Return the bounds of one alias with anything beside them; None if they are no histogram."""
    growth = {float(row.labels["le"]): float(np.nansum(row.values)) for row in rows}
    edges = sorted(growth)
    if len(edges) != len(rows) or len(edges) < 2 or not math.isinf(edges[-1]):
        return None  # two spellings of a bound, or no +Inf: nothing is left out
    keep = bounds_with_mass(edges, [growth[b] for b in edges])
    used = {b for b, k in zip(edges, keep, strict=True) if k}
    return {row.labels["le"] for row in rows if float(row.labels["le"]) in used}


def _native_factor(api: QueryApi, quantity: Quantity, request: Request) -> float:
    """Return upper over lower bound of a native bucket, of the coarsest there is at a probe's end.

    Buckets of schema s end at powers of 2^(2^-s): any filled bucket tells it. 1 where none is filled.
    """
    query = native_rates(quantity, request.labels, GROWTH_SECONDS)
    times = np.arange(request.end_seconds, request.start_seconds, -GROWTH_SECONDS)
    factors = [1.0]
    for at in times[:PROBES].tolist():
        by_row: dict[str, list[float]] = {}
        for row in with_retries(lambda t=at: api.instant(query, t)):  # type: ignore[misc]
            bound = float(row.labels.get("le", "inf"))
            if math.isfinite(bound) and bound > 0:
                name = "\n".join(f"{k}={v}" for k, v in row.labels.items() if k != "le")
                by_row.setdefault(name, []).append(bound)
        for edges in by_row.values():
            if len(edges) > 1:
                e = np.sort(edges)
                factors.append(float((e[1:] / e[:-1]).min()))
        if len(factors) > 1:
            break
    return max(factors)


def _missing_labels(api: QueryApi, request: Request, labels: Labels) -> str:
    rows: list[Row] = []
    for series in of.RUNNING.series:
        found = f"topk(1, last_over_time({select(series.name, labels)}[1d]))"
        rows += with_retries(lambda q=found: api.instant(q, request.end_seconds))  # type: ignore[misc]
    present = sorted({name for row in rows for name in row.labels if name != "__name__"})
    wanted = ", ".join(x for x in (labels.namespace, labels.service) if x)
    return (
        f"{request.source}: no engine series has the labels {wanted}; they have "
        f"{', '.join(present) or 'none'}; map them in --config (labels: service: ...)"
    )

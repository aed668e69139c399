"""Weeks of history from a Prometheus-compatible server into the telemetry folder.

Read from `ingest_prometheus`: probe, plan, fetch (resumable), assemble, write.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models import contract_series as of
from models.contract import Labels, Quantity, any_of, select
from models.contract_api import QueryApi, Row, TooMuchError
from models.contract_queries import (
    SCRAPE_WINDOW_SECONDS,
    bounds_query,
    gateway_query,
    growth_query,
    models_query,
    pods_query,
    scrape_query,
    serving_queries,
    share_queries,
    startup_queries,
)
from models.frames import (
    LATENCY_NUMBERS,
    SERVING_OPTIONAL,
    SERVING_REQUIRED,
    validate_load,
    validate_serving,
    validate_startups,
)
from models.histograms import bounds_with_mass, error_bound
from models.progress import Progress
from training.ingest import IngestError
from training.ingest.assemble import (
    Doubts,
    Grid,
    Key,
    arrivals_rps,
    column,
    gateway_arrivals,
    load_frame,
    services_in,
    serving_frame,
)
from training.ingest.fetch import Task, fetch, with_retries
from training.ingest.plan import (
    Cache,
    Chunk,
    Probe,
    Request,
    chunks,
    fact_chunks,
    replace_file,
    window_for,
)
from training.ingest.startups import starting_counts, startups_frame
from training.telemetry import LOAD_FILE, SERVING_FILE, STARTUPS_FILE

FloatArray = NDArray[np.float64]
GROWTH_SECONDS = 21_600.0  # buckets are looked over in pieces of six hours
PROBES = 50  # looks at the range to find scrape interval and services
SUMMARY_FILE = "ingest.json"
ROWS_AT_ONCE = 50  # (service, variant) rows of serving written together
MIN_COVERAGE_RATIO = 0.65  # scrapes in the window of those expected: one of three may be missing
RATES = ("completion_rate_rps", "rejection_rate_rps", "running_change", "waiting_change")


@dataclass(frozen=True, slots=True)
class Plan:
    """Range queries over chunks, instants over days."""

    series: Mapping[str, str]
    facts: Mapping[str, Mapping[float, str]]  # name -> window -> query
    chunks: Sequence[Chunk]
    days: Sequence[Chunk]


def ingest_prometheus(
    api: QueryApi,
    request: Request,
    out: Path,
    *,
    resume: bool,
    parallel: int,
    progress: Progress,
    fetch_parts: Callable[..., None] = fetch,
) -> dict[str, Any]:
    """Write load, serving and startups Parquet and ingest.json into `out`; return the summary.

    Raises ApiError (parts already fetched stay for `resume`), IngestError, FrameError.
    """
    cache = Cache(out)
    probe = cache.open(request, resume=resume)
    if probe is None:
        probe = look(api, request)
        cache.begin(request, probe)
    plan = make_plan(request, probe)
    fetch_parts(api, tasks_of(plan, request), cache, parallel, progress)
    return write_frames(cache, plan, request, probe, out, progress)


def look(api: QueryApi, request: Request) -> Probe:
    """Return scrape interval, rows and kind of histogram. IngestError if nothing is there."""
    labels = request.labels
    every = max(request.step_seconds, (request.end_seconds - request.start_seconds) / PROBES)
    every = round(every / request.step_seconds) * request.step_seconds
    first = min(request.start_seconds + every, request.end_seconds)

    def ask(query: str) -> list[Row]:
        return with_retries(lambda: api.range(query, first, request.end_seconds, every))

    span = request.end_seconds - request.start_seconds
    window = min(SCRAPE_WINDOW_SECONDS, max(request.step_seconds, span // 4))
    scrapes = ask(scrape_query(labels, window))
    if not scrapes:
        names = " or ".join(s.name for s in of.RUNNING.series)
        raise IngestError(
            f"{request.source}: no series {names}"
            f"{' with ' + labels.selector if labels.selector else ''} in the range; is this the "
            "server that scrapes the engines? `foreserve lint` says what it holds"
        )
    models = ask(models_query(labels, min(3600.0, max(every, 60.0))))
    keys = services_in(models, labels)
    if not keys:
        raise IngestError(_missing_labels(api, request, labels))
    # a window holds one sample more where both of its ends count (Prometheus 2)
    scrape_seconds = float(round(window / (np.median(scrapes[0].values) - 0.5), 1))
    classic = ask(f"count({select(of.TTFT.series[0].name + '_bucket', labels)})")
    native = not classic and bool(ask(f"count({select(of.TTFT.series[0].name, labels)})"))
    buckets = {
        q.name: "" if native else _bounds_in_use(api, q, request, scrape_seconds)
        for q in (of.TTFT, of.TPOT)
    }
    return Probe(
        window_for(request.step_seconds, scrape_seconds), scrape_seconds, len(keys), native, buckets
    )


def _bounds_in_use(
    api: QueryApi, quantity: Quantity, request: Request, scrape_seconds: float
) -> str:
    """Return a matcher of the bounds that any service ever used; empty to keep all.

    Adding up buckets is most of the server's work, and most bounds are never used: quantiles stay
    exactly the same without them.
    """
    query = growth_query(quantity, request.labels, GROWTH_SECONDS + 2 * scrape_seconds)
    first = min(request.start_seconds + GROWTH_SECONDS, request.end_seconds)
    last = first + math.ceil((request.end_seconds - first) / GROWTH_SECONDS) * GROWTH_SECONDS
    try:
        rows = with_retries(lambda: api.range(query, first, last, GROWTH_SECONDS))
    except TooMuchError:
        return ""
    spelled: dict[str, set[str]] = {}
    kept: set[str] = set()
    for alias in sorted({row.labels.get("alias", "") for row in rows}):
        own = [r for r in rows if r.labels.get("alias", "") == alias and "le" in r.labels]
        growth: dict[float, float] = {}
        for row in own:
            growth[float(row.labels["le"])] = float(np.nansum(row.values))
            spelled.setdefault(alias, set()).add(row.labels["le"])
        bounds = sorted(growth)
        if len(bounds) != len(spelled[alias]) or len(bounds) < 2 or not math.isinf(bounds[-1]):
            return ""  # two spellings of a bound, or no histogram: nothing is left out
        keep = bounds_with_mass(bounds, [growth[b] for b in bounds])
        used = {b for b, k in zip(bounds, keep, strict=True) if k}
        kept |= {le for le in spelled[alias] if float(le) in used}
    return any_of("le", sorted(kept, key=float)) if kept else ""


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


def make_plan(request: Request, probe: Probe) -> Plan:
    """Return every query of the run; their number does not depend on services or pods."""
    w = probe.window_seconds
    labels = request.labels
    series = dict(serving_queries(labels, w, native=probe.native, buckets=probe.buckets))
    ttft = tuple(sorted({t for _, t, _ in request.targets if np.isfinite(t)}))
    tpot = tuple(sorted({t for _, _, t in request.targets if np.isfinite(t)}))
    if not probe.native:
        series |= share_queries(ttft, tpot, labels, w)
    series["gateway"] = gateway_query(labels, w)
    days = fact_chunks(request)
    widths = {day.end_seconds - day.start_seconds for day in days}
    facts: dict[str, dict[float, str]] = {}
    for width in widths:
        day = {
            "models": models_query(labels, width),
            "pods": pods_query(labels, width),
            "ttft_bounds": bounds_query(of.TTFT, labels, width),
            "tpot_bounds": bounds_query(of.TPOT, labels, width),
            **{f"start_{k}": q for k, q in startup_queries(width).items()},
        }
        for name, query in day.items():
            facts.setdefault(name, {})[width] = query
    return Plan(series, facts, chunks(request, probe.series), days)


def tasks_of(plan: Plan, request: Request) -> list[Task]:
    """Return every part of the plan, oldest first."""
    tasks = [
        Task(name, query, chunk, request.step_seconds)
        for chunk in plan.chunks
        for name, query in plan.series.items()
    ]
    tasks += [
        Task(name, by_width[day.end_seconds - day.start_seconds], day, None)
        for day in plan.days
        for name, by_width in plan.facts.items()
    ]
    return tasks


def write_frames(
    cache: Cache, plan: Plan, request: Request, probe: Probe, out: Path, progress: Progress
) -> dict[str, Any]:
    """Assemble the frames from complete parts, check and write them; return the summary."""
    grid, doubts, labels = Grid(request), Doubts(), request.labels

    def facts(name: str) -> list[Row]:
        return [row for day in plan.days for row in cache.read(name, day)]

    models = facts("models")
    keys = services_in(models, labels)
    columns: dict[str, FloatArray] = {}
    names = [n for n in plan.series if n != "gateway"]
    for done, name in enumerate(names):
        progress("assembling", done, len(names))
        columns[name] = column(name, _parts(cache, name, plan.chunks), keys, labels, grid, doubts)
    for (
        name
    ) in RATES:  # VictoriaMetrics looks before the window: no sample inside is a gap all the same
        columns[name] = np.where(np.isnan(columns["ready_replicas"]), np.nan, columns[name])
    columns["arrival_rate_rps"] = arrivals_rps(columns, probe.window_seconds, doubts)
    columns["finished_requests"] = columns["completion_rate_rps"] * request.step_seconds
    columns |= _shares(columns, keys, request)
    gateway, unclear = gateway_arrivals(_parts(cache, "gateway", plan.chunks), models, labels, grid)
    starts = {k: facts(f"start_{k}") for k in ("created", "ready", "deleted", "seen", "owner")}
    startups, unknown = startups_frame(starts, facts("pods"), labels, request.end_seconds)
    if starts["created"]:
        columns["starting_replicas"] = np.array(
            [
                starting_counts(startups, k, grid.start_seconds, grid.step_seconds, grid.steps)
                for k in keys
            ]
        )
    load = validate_load(load_frame(keys, columns, gateway, grid), LOAD_FILE)
    _write(out / LOAD_FILE, iter([load]))
    _write(out / SERVING_FILE, _serving(keys, columns, grid))
    _write(out / STARTUPS_FILE, iter([validate_startups(startups, STARTUPS_FILE)]))
    progress("assembling", len(names), len(names))
    summary = {
        "source": request.source,
        "from_seconds": request.start_seconds,
        "to_seconds": request.end_seconds,
        "step_seconds": request.step_seconds,
        "window_seconds": probe.window_seconds,
        "scrape_seconds": probe.scrape_seconds,
        "native_histograms": probe.native,
        "queries": len(plan.series) + len(plan.facts),
        "services": len({k[0] for k in keys}),
        "variants": len(keys),
        "load_rows": len(load),
        "starts": len(startups),
        "pods_without_a_start": unknown,
        "arrivals_from_gateway": sorted(gateway),
        "arrivals_gateway_unclear": unclear,
        "load_gap_ratio": float(load.requests.isna().mean()),
        "gap_ratio": {n: float(np.isnan(c).mean()) for n, c in columns.items()},
        "infinite": {k: v for k, v in doubts.infinite.items() if v},
        "implausible": {k: v for k, v in doubts.implausible.items() if v},
        "unlabelled": {k: v for k, v in doubts.unlabelled.items() if v},
        "negative_arrivals": doubts.negative_arrivals,
        "bucket_error": _bucket_error(columns, {x: facts(f"{x}_bounds") for x in ("ttft", "tpot")}),
    }
    replace_file(out / SUMMARY_FILE, json.dumps(summary, indent=1, allow_nan=False).encode())
    return summary


def _parts(cache: Cache, name: str, of_chunks: Sequence[Chunk]) -> Iterator[Row]:
    for chunk in of_chunks:
        yield from cache.read(name, chunk)


def _shares(
    columns: Mapping[str, FloatArray], keys: Sequence[Key], request: Request
) -> dict[str, FloatArray]:
    """Return the share within each service's own targets; NaN where it has none or no bucket fits."""
    targets = {service: {"ttft": a, "tpot": b} for service, a, b in request.targets}
    out = {}
    for what in ("ttft", "tpot"):
        share = np.full((len(keys), request.steps), np.nan)
        for i, (service, _) in enumerate(keys):
            name = f"{what}_within:{targets.get(service, {}).get(what, np.inf):g}"
            if name in columns:
                share[i] = columns[name][i]
        out[f"{what}_within_slo_ratio"] = share
    return out


def _serving(
    keys: Sequence[Key], columns: Mapping[str, FloatArray], grid: Grid
) -> Iterator[pd.DataFrame]:
    names = [n for n in (*SERVING_REQUIRED, *SERVING_OPTIONAL) if n in columns]
    for first in range(0, len(keys), ROWS_AT_ONCE):
        block = slice(first, first + ROWS_AT_ONCE)
        own = {n: columns[n][block] for n in names}
        yield validate_serving(serving_frame(keys[block], own, names, grid), SERVING_FILE)


def _bucket_error(
    columns: Mapping[str, FloatArray], bounds: Mapping[str, Sequence[Row]]
) -> dict[str, dict[str, float | None]]:
    """Return by column how far estimates can be from the truth, relative: median and 95th percentile."""
    out: dict[str, dict[str, float | None]] = {}
    for name in LATENCY_NUMBERS:
        found = {float(row.labels["le"]) for row in bounds[name[:4]] if "le" in row.labels}
        values = columns[name][~np.isnan(columns[name])]
        if len(found) < 2 or not len(values):
            continue
        edges = sorted(found | {np.inf})
        relative = error_bound(edges, values) / np.maximum(values, 1e-9)
        finite = relative[np.isfinite(relative)]
        out[name] = {
            "median_ratio": float(np.median(finite)) if len(finite) else None,
            "p95_ratio": float(np.quantile(finite, 0.95)) if len(finite) else None,
            "above_highest_bound_share": float((~np.isfinite(relative)).mean()),
        }
    return out


def _write(path: Path, frames: Iterator[pd.DataFrame]) -> None:
    """Write a Parquet file block by block; it replaces the old one only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    writer: pq.ParquetWriter | None = None
    try:
        for frame in frames:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            writer = writer or pq.ParquetWriter(draft, table.schema, compression="zstd")
            writer.write_table(table.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()
    draft.replace(path)

"""Weeks of history from a Prometheus-compatible server into the telemetry folder.

Read from `ingest_prometheus`: probe, plan, fetch (resumable), assemble, write.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import contract_series as of
from models.contract import Labels, full_scrapes
from models.contract_api import QueryApi, Row
from models.contract_queries import (
    QUOTIENTS,
    READINGS,
    Fold,
    Reading,
    gateway_held_query,
    gateway_query,
    models_query,
    native_queries,
    reading_query,
    startup_queries,
)
from models.frames import (
    validate_startups,
)
from models.progress import Progress
from training.ingest.assemble import (
    AtGateway,
    Doubts,
    Grid,
    Key,
    arrivals_rps,
    by_column,
    by_service,
    column,
    quotient,
    services_in,
)
from training.ingest.fetch import Task, fetch
from training.ingest.fold import Folding
from training.ingest.labels import label_gaps
from training.ingest.plan import (
    Cache,
    Chunk,
    Histogram,
    Probe,
    Request,
    chunks,
    fact_chunks,
    replace_file,
)
from training.ingest.probe import look
from training.ingest.startups import starting_counts, startups_frame
from training.ingest.write import (
    Tally,
    bucket_error,
    load_blocks,
    serving_blocks,
    shares,
    write_file,
)
from training.telemetry import LOAD_FILE, SERVING_FILE, STARTUPS_FILE

log = logging.getLogger("foreserve")
FloatArray = NDArray[np.float64]
SUMMARY_FILE = "ingest.json"
MIN_COVERAGE_RATIO = 0.65  # scrapes in the window of those expected: one of three may be missing
NATIVE = ":native"
RATES = ("completion_rate_rps", "rejection_rate_rps", "running_change", "waiting_change")


@dataclass(frozen=True, slots=True)
class Part:
    """Range queries over chunks whose answers become rows together."""

    name: str
    queries: tuple[str, ...]  # one an alias, the preferred first
    chunks: Sequence[Chunk]
    fold: Folding | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Range queries over chunks, instants over days."""

    parts: Sequence[Part]
    facts: Mapping[str, Mapping[float, str]]  # name -> window -> query
    days: Sequence[Chunk]

    def part(self, name: str) -> Part:
        """Return the part of that name."""
        return next(p for p in self.parts if p.name == name)


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


def make_plan(request: Request, probe: Probe) -> Plan:
    """Return every query of the run; their number does not depend on services or pods."""
    labels, w = request.labels, probe.window_seconds
    full = full_scrapes(w, probe.scrape_seconds)
    parts = []
    for reading in READINGS:
        known = probe.histograms.get(reading.name, Histogram())
        summed = probe.summed(reading.fold)
        rows = probe.series if summed else max(probe.series, probe.engines)
        queries = tuple(
            reading_query(reading, s, labels, w, summed=summed, matcher=known.matcher)
            for s in reading.quantity.series
        )
        targets = _targets(reading, request, known)
        fold = Folding(reading, labels, request.step_seconds, full, targets)
        lines = rows * (max(known.kept, 1) if reading.fold is Fold.BUCKETS else 1)
        parts.append(Part(reading.name, queries, chunks(request, lines), fold))
    natives = tuple(name for name, h in probe.histograms.items() if h.native)
    every = chunks(request, probe.series)
    for name, query in native_queries(natives, labels, w).items():
        parts.append(Part(f"{name}{NATIVE}", (query,), every))
    for name, query in (
        ("gateway", gateway_query(labels, w)),
        ("gateway_held", gateway_held_query(labels, w)),
    ):
        parts.append(Part(name, (query,), every))
    days = fact_chunks(request)
    facts: dict[str, dict[float, str]] = {}
    for width in {day.end_seconds - day.start_seconds for day in days}:
        starts = {f"start_{k}": q for k, q in startup_queries(width).items()}
        for name, query in ({"models": models_query(labels, width)} | starts).items():
            facts.setdefault(name, {})[width] = query
    return Plan(parts, facts, days)


def _targets(reading: Reading, request: Request, known: Histogram) -> tuple[float, ...]:
    """Return the targets that are bounds of buckets: the others' shares are not guessed."""
    if reading.fold is not Fold.BUCKETS:
        return ()
    targets = {a if reading.quantity is of.TTFT else b for _, a, b in request.targets}
    asked = sorted(t for t in targets if np.isfinite(t))
    bounds = np.array(known.bounds)
    return tuple(t for t in asked if np.isclose(bounds, t, rtol=1e-9, atol=0.0).any())


def tasks_of(plan: Plan, request: Request) -> list[Task]:
    """Return every part of the plan, oldest first."""
    tasks = [
        Task(p.name, p.queries[0], chunk, request.step_seconds, p.queries[1:], p.fold)
        for p in plan.parts
        for chunk in p.chunks
    ]
    tasks.sort(key=lambda t: t.chunk.end_seconds)
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

    engines = facts("models")
    keys = services_in(engines, labels)
    columns = _read_columns(cache, plan, keys, grid, doubts, labels, progress)
    columns |= _derived(columns, keys, request, probe, doubts)
    counted = _parts(cache, plan.part("gateway"))
    gateway, unclear = by_service(counted, engines, labels, grid)
    grown, _ = by_service(_parts(cache, plan.part("gateway_held")), engines, labels, grid)
    held = {name: change / probe.window_seconds for name, change in grown.items()}
    starts = {k: facts(f"start_{k}") for k in ("created", "ready", "deleted", "seen", "owner")}
    startups, unknown = startups_frame(starts, engines, labels, request.end_seconds)
    if starts["created"]:
        columns["starting_replicas"] = np.array(
            [
                starting_counts(startups, k, grid.start_seconds, grid.step_seconds, grid.steps)
                for k in keys
            ]
        )
    tally = Tally()
    roles = {(service, variant): role for service, variant, role in request.roles}
    write_file(
        out / LOAD_FILE, load_blocks(keys, columns, AtGateway(gateway, held), grid, tally, roles)
    )
    write_file(out / SERVING_FILE, serving_blocks(keys, columns, grid))
    write_file(out / STARTUPS_FILE, iter([validate_startups(startups, STARTUPS_FILE)]))
    lost, partly = label_gaps(engines, labels)
    for sentence in partly:
        log.warning("%s", sentence)
    summary = {
        "source": request.source,
        "from_seconds": request.start_seconds,
        "to_seconds": request.end_seconds,
        "step_seconds": request.step_seconds,
        "window_seconds": probe.window_seconds,
        "scrape_seconds": probe.scrape_seconds,
        "native_histograms": sorted(n for n, h in probe.histograms.items() if h.native),
        "added_up_by_server": [f.value for f in Fold if probe.summed(f)],
        "queries": sum(len(p.queries) for p in plan.parts) + len(plan.facts),
        "services": len({k[0] for k in keys}),
        "variants": len(keys),
        "load_rows": tally.rows,
        "starts": len(startups),
        "pods_without_a_start": unknown,
        "arrivals_from_gateway": sorted(gateway),
        "arrivals_gateway_unclear": unclear,
        "arrivals_with_gateway_queue": sorted(set(held) - set(gateway)),
        "load_gap_ratio": tally.gaps / tally.rows,
        "gap_ratio": {n: float(np.isnan(c).mean()) for n, c in columns.items()},
        "infinite": {k: v for k, v in doubts.infinite.items() if v},
        "implausible": {k: v for k, v in doubts.implausible.items() if v},
        "unlabelled": dict.fromkeys(lost, doubts.unlabelled["samples"]),
        "label_gaps": partly,
        "negative_arrivals": doubts.negative_arrivals,
        "bucket_error": bucket_error(columns, probe.histograms),
    }
    replace_file(out / SUMMARY_FILE, json.dumps(summary, indent=1, allow_nan=False).encode())
    return summary


def _derived(
    columns: Mapping[str, FloatArray],
    keys: Sequence[Key],
    request: Request,
    probe: Probe,
    doubts: Doubts,
) -> dict[str, FloatArray]:
    """Return rates without those of too few scrapes, and what follows from rates and shares."""
    thin = ~(columns["samples"] >= MIN_COVERAGE_RATIO * probe.window_seconds / probe.scrape_seconds)
    out = {name: np.where(thin, np.nan, columns[name]) for name in RATES}
    out["arrival_rate_rps"] = arrivals_rps(out, probe.window_seconds, doubts)
    out["finished_requests"] = out["completion_rate_rps"] * request.step_seconds
    return out | shares(columns, keys, request)


def _read_columns(
    cache: Cache,
    plan: Plan,
    keys: Sequence[Key],
    grid: Grid,
    doubts: Doubts,
    labels: Labels,
    progress: Progress,
) -> dict[str, FloatArray]:
    """Return every column, shape (rows, steps), from the parts."""
    columns: dict[str, FloatArray] = {}
    parts = [p for p in plan.parts if not p.name.startswith("gateway")]
    for done, part in enumerate(parts):
        progress("assembling", done, len(parts))
        if part.fold is None:  # native histograms: for what the classic ones do not tell
            name = part.name.removesuffix(NATIVE)
            own = column(name, _parts(cache, part), keys, labels, grid, doubts)
            before = columns[name]
            columns[name] = np.where(np.isnan(before), own, before)
            continue
        for name in part.fold.columns:
            columns[name] = np.full((len(keys), grid.steps), np.nan)
        columns |= by_column(_parts(cache, part), keys, labels, grid, doubts)
        for name, (above, below) in QUOTIENTS.items():
            if below == part.name:
                columns[name] = quotient(name, columns.pop(above), columns.pop(below), doubts)
    progress("assembling", len(parts), len(parts))
    return columns


def _parts(cache: Cache, part: Part) -> Iterator[Row]:
    for chunk in part.chunks:
        yield from cache.read(part.name, chunk)

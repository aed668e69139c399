"""Columns of an ingest -> the files of the telemetry folder, block by block, and how good they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.frames import (
    LATENCY_NUMBERS,
    SERVING_OPTIONAL,
    SERVING_REQUIRED,
    validate_load,
    validate_serving,
)
from models.histograms import error_bound
from training.ingest.assemble import AtGateway, Grid, Key, load_frame, serving_frame
from training.ingest.plan import Histogram, Request
from training.telemetry import LOAD_FILE, SERVING_FILE

FloatArray = NDArray[np.float64]
ROWS_AT_ONCE = 25  # services of load, (service, variant) rows of serving written together
LOAD_COLUMNS = ("completion_rate_rps", "arrival_rate_rps", "isl_tokens", "osl_tokens")


def shares(
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


@dataclass(slots=True)
class Tally:
    """Rows of load that were written, and those whose requests are not known."""

    rows: int = 0
    gaps: int = 0


def load_blocks(
    keys: Sequence[Key],
    columns: Mapping[str, FloatArray],
    gateway: AtGateway,
    grid: Grid,
    tally: Tally,
    roles: Mapping[Key, str],
) -> Iterator[pd.DataFrame]:
    """Yield the load frame some services at a time: whole it would take more memory than its columns."""
    services = sorted({service for service, _ in keys})
    for first in range(0, len(services), ROWS_AT_ONCE):
        block = set(services[first : first + ROWS_AT_ONCE])
        at = [i for i, key in enumerate(keys) if key[0] in block]
        own = {n: columns[n][at] for n in LOAD_COLUMNS}
        frame = load_frame([keys[i] for i in at], own, gateway, grid, roles)
        tally.rows += len(frame)
        tally.gaps += int(frame.requests.isna().sum())
        yield validate_load(frame, LOAD_FILE)


def serving_blocks(
    keys: Sequence[Key], columns: Mapping[str, FloatArray], grid: Grid
) -> Iterator[pd.DataFrame]:
    """Yield the serving frame some rows at a time."""
    names = [n for n in (*SERVING_REQUIRED, *SERVING_OPTIONAL) if n in columns]
    for first in range(0, len(keys), ROWS_AT_ONCE):
        block = slice(first, first + ROWS_AT_ONCE)
        own = {n: columns[n][block] for n in names}
        yield validate_serving(serving_frame(keys[block], own, names, grid), SERVING_FILE)


def bucket_error(
    columns: Mapping[str, FloatArray], histograms: Mapping[str, Histogram]
) -> dict[str, dict[str, float | None]]:
    """Return by column how far estimates can be from the truth, relative: median and 95th percentile.

    `native_ratio`: of an estimate from a native histogram, at most.
    """
    out: dict[str, dict[str, float | None]] = {}
    for name in LATENCY_NUMBERS:
        known = histograms.get(name[:4], Histogram())
        values = columns[name][~np.isnan(columns[name])]
        own: dict[str, float | None] = {}
        if len(known.bounds) > 1 and len(values):
            relative = error_bound(known.bounds, values) / np.maximum(values, 1e-9)
            finite = relative[np.isfinite(relative)]
            own = {
                "median_ratio": float(np.median(finite)) if len(finite) else None,
                "p95_ratio": float(np.quantile(finite, 0.95)) if len(finite) else None,
                "above_highest_bound_share": float((~np.isfinite(relative)).mean()),
            }
        if known.native and known.factor > 1:
            own["native_ratio"] = known.factor - 1
        if own:
            out[name] = own
    return out


def write_file(path: Path, frames: Iterator[pd.DataFrame]) -> None:
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

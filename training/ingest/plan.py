"""What one ingest asks for, cut into parts that the server can answer; how a killed run goes on.

A part is one query over one chunk. The manifest with the plan is written before the first part and
each part is renamed into place: a part that has its name is complete.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.contract import Labels
from models.contract_api import Row
from models.contract_queries import Fold
from training.ingest import IngestError

CACHE = ".ingest"  # inside the output folder
MANIFEST = "manifest.json"
VERSION = 4
MAX_POINTS = 10_000  # Prometheus refuses more than 11,000 a series
MIN_POINTS = 30
SAMPLES_PER_PART = 300_000  # about 10 MB of JSON
FACT_SECONDS = 86_400.0  # pods and models are asked for by the day
# with more engines per row the server adds up (docs/design/010-history-folded-here.md)
MAX_ENGINES_PER_ROW = 10.0
MAX_ENGINES_PER_ROW_BUCKETS = 2.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. Times in seconds since the epoch, multiples of the step.

    `targets` holds (TTFT, TPOT) targets in seconds by service, for shares within them. `roles` holds
    (service, variant, role) where a service splits prefill and decode: both count every request.
    """

    source: str
    start_seconds: float
    end_seconds: float
    step_seconds: float
    labels: Labels
    targets: tuple[tuple[str, float, float], ...] = ()
    roles: tuple[tuple[str, str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.step_seconds < 1 or self.step_seconds != round(self.step_seconds):
            raise IngestError(f"step {self.step_seconds:g} s; allowed: whole seconds, 1 or more")
        if self.steps < 1:
            raise IngestError(
                f"from {self.start_seconds:.0f} to {self.end_seconds:.0f}: no whole step of "
                f"{self.step_seconds:g} s; allowed: an end after the start"
            )

    @property
    def steps(self) -> int:
        """Number of intervals."""
        return int((self.end_seconds - self.start_seconds) // self.step_seconds)


@dataclass(frozen=True, slots=True)
class Histogram:
    """What is known of a histogram over the whole range, by quantity.

    bounds: every bound of classic buckets. matcher: PromQL for those that anything ever fell next to
    (empty: all), `kept` of them. native: some services have native histograms. factor: greatest upper
    bound of a native bucket over its lower.
    """

    bounds: tuple[float, ...] = ()
    matcher: str = ""
    kept: int = 0
    native: bool = False
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What the server was found to hold before the plan was made."""

    window_seconds: float
    scrape_seconds: float
    series: int  # rows (service, variant) in the whole range
    engines: int = 1  # engine processes at once
    histograms: Mapping[str, Histogram] = field(default_factory=dict)  # by quantity

    def summed(self, fold: Fold) -> bool:
        """Whether the server adds up engines before it answers."""
        buckets = fold is Fold.BUCKETS
        limit = MAX_ENGINES_PER_ROW_BUCKETS if buckets else MAX_ENGINES_PER_ROW
        return self.engines > limit * self.series


def probe_of(content: Mapping[str, Any]) -> Probe:
    """Return the probe that a manifest holds; KeyError, TypeError or ValueError if it is not one."""
    held = dict(content)
    histograms = {
        name: Histogram(**{**h, "bounds": tuple(float(b) for b in h["bounds"])})
        for name, h in held.pop("histograms").items()
    }
    return Probe(**held, histograms=histograms)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Evaluation times start, start + step, ..., end (inclusive)."""

    start_seconds: float
    end_seconds: float


def aligned(start_seconds: float, end_seconds: float, step_seconds: float) -> tuple[float, float]:
    """Return the range with both ends moved down to multiples of the step."""
    start, end = (math.floor(t / step_seconds) * step_seconds for t in (start_seconds, end_seconds))
    return start, end


def window_for(step_seconds: float, scrape_seconds: float) -> float:
    """Return the window of rates: a step and one scrape, at least 2.5 scrapes.

    With a scrape more than the step, the last sample before the interval is inside: what happened
    between the last sample of one interval and the first of the next is counted, and counted once.
    """
    return float(math.ceil(max(step_seconds + scrape_seconds, 2.5 * scrape_seconds)))


def chunks(request: Request, series: int) -> list[Chunk]:
    """Cut the evaluation times (ends of intervals) into chunks of about SAMPLES_PER_PART samples."""
    points = min(MAX_POINTS, max(MIN_POINTS, SAMPLES_PER_PART // max(1, series)))
    step = request.step_seconds
    out = []
    for first in range(0, request.steps, points):
        last = min(first + points, request.steps)
        out.append(
            Chunk(request.start_seconds + (first + 1) * step, request.start_seconds + last * step)
        )
    return out


def fact_chunks(request: Request) -> list[Chunk]:
    """Cut the range into days: facts of the window that ends at end_seconds."""
    out = []
    start = request.start_seconds
    while start < request.end_seconds:
        end = min(start + FACT_SECONDS, request.end_seconds)
        out.append(Chunk(start, end))
        start = end
    return out


class Cache:
    """Parts on disk below `folder`; complete ones only."""

    def __init__(self, out: Path) -> None:
        self.folder = out / CACHE
        self.parts = self.folder / "parts"

    def open(self, request: Request, *, resume: bool) -> Probe | None:
        """Return what an earlier run of the same request had found; None to begin anew.

        Raises IngestError where parts exist but are not to be, or cannot be, continued.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            return None
        if not resume:
            raise IngestError(
                f"{self.folder}: holds parts of an earlier run; give --resume to go on, or remove it"
            )
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            before = dict(held["request"])
            version = held["version"]
            probe = probe_of(held["probe"]) if version == VERSION else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IngestError(f"{path}: not a manifest ({error}); remove {self.folder}") from error
        now = _plain(request)
        other = [k for k in now if before.get(k) != now[k]]
        if probe is None:
            other.append("version")
        if other:
            raise IngestError(
                f"{self.folder}: was made with another {', '.join(other)}; "
                "give the same as then, or remove it"
            )
        return probe

    def range_of(self) -> tuple[float, float] | None:
        """Return start and end of the earlier run; None where there is none that can be read."""
        try:
            held = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))["request"]
            return float(held["start_seconds"]), float(held["end_seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # `open` says what is wrong with it

    def begin(self, request: Request, probe: Probe) -> None:
        """Write the manifest; the first thing on disk."""
        self.parts.mkdir(parents=True, exist_ok=True)
        content = {"version": VERSION, "request": _plain(request), "probe": asdict(probe)}
        replace_file(self.folder / MANIFEST, json.dumps(content, indent=1).encode())

    def path(self, name: str, chunk: Chunk) -> Path:
        """Return where a part lies."""
        safe = name.replace(":", "-").replace("/", "-")
        return self.parts / f"{safe}.{chunk.end_seconds:.0f}.parquet"

    def write(self, name: str, chunk: Chunk, rows: Sequence[Row]) -> None:
        """Write a part in one step: it is there as a whole or not at all."""
        codes = np.repeat(np.arange(len(rows), dtype=np.int32), [len(r.times) for r in rows])
        labels = json.dumps([dict(r.labels) for r in rows])
        table = pa.table(
            {
                "series": codes,
                "ts": _joined([r.times for r in rows]),
                "value": _joined([r.values for r in rows]),
            }
        ).replace_schema_metadata({"labels": labels})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        replace_file(self.path(name, chunk), sink.getvalue().to_pybytes())

    def read(self, name: str, chunk: Chunk) -> list[Row]:
        """Return the rows of a part. Raises IngestError if the file was damaged."""
        path = self.path(name, chunk)
        try:
            table = pq.read_table(path)
            labels = json.loads(table.schema.metadata[b"labels"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IngestError(
                f"{path}: damaged ({error}); remove it and run with --resume"
            ) from error
        codes = table["series"].to_numpy()
        times = table["ts"].to_numpy()
        values = table["value"].to_numpy()
        edges = np.searchsorted(codes, np.arange(len(labels) + 1))
        return [
            Row(label, times[a:b], values[a:b])
            for label, a, b in zip(labels, edges[:-1], edges[1:], strict=True)
        ]


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    with draft.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.float64)


def _plain(request: Request) -> dict[str, Any]:
    return dict(json.loads(json.dumps(asdict(request))))

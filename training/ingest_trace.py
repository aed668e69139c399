"""Request logs in, telemetry folder out: one pass, bounded memory, whole or not at all."""

import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from models.frames import validate_load, validate_serving
from models.progress import Progress
from models.trace_columns import Bad, Reading, Rows, canonical
from models.trace_latency import LatencyCounter
from models.trace_load import LoadCounter
from models.trace_shapes import Layout, RowKind, TraceError
from models.trace_times import FloatArray
from training.telemetry import LOAD_FILE, SERVING_FILE, STARTUPS_FILE
from training.trace_reader import Chunk, read_chunks
from training.trace_servegen import is_client, read_client

DEFAULT_STEP_SECONDS = 60.0
MIN_STEP_SECONDS, MAX_STEP_SECONDS = 1.0, 86_400.0
MEBIBYTE = 2**20
RELATIVE_BEFORE_SECONDS = 315_532_800.0  # 1980: no log is that old, its times count from its start
OURS = frozenset({LOAD_FILE, SERVING_FILE, STARTUPS_FILE})  # what --force may replace


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """How logs are to be read; see docs/ingest-trace.md.

    step_seconds None: 60 s, or the window of logs whose rows are windows. start_seconds None: numeric
    timestamps count from the epoch. zone None: times without a zone are refused (Azure's are taken as UTC).
    """

    shape: str = "auto"
    mapping: Mapping[str, str] = field(default_factory=dict)
    service: str | None = None
    variant: str | None = None
    step_seconds: float | None = None
    zone: ZoneInfo | None = None
    start_seconds: float | None = None
    max_bad_ratio: float = 0.0
    whole_steps: bool = False


@dataclass(frozen=True, slots=True)
class Ingested:
    """What was written, for people and for tests."""

    rows: int
    bad_rows: int
    services: int
    step_seconds: float
    load_rows: int
    serving_rows: int
    first: pd.Timestamp
    last: pd.Timestamp
    notes: tuple[str, ...]


def ingest_trace(
    files: Sequence[Path],
    out: Path,
    options: TraceOptions,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Ingested:
    """Write the telemetry folder `out` from request logs.

    Raises TraceError on input that cannot be used and OSError on what cannot be read or written; in
    both cases `out` is as it was before.
    """
    _check(files, out, options, force=force)
    job = _Job(options)
    total = sum(f.stat().st_size for f in files if f.is_file())
    before = 0
    for number, path in enumerate(files):
        for chunk in _chunks(path, options):
            job.add(number, path, chunk)
            if progress is not None:
                done = min((before + chunk.bytes_read) // MEBIBYTE, math.ceil(total / MEBIBYTE) - 1)
                progress("reading logs (MiB)", max(done, 0), math.ceil(total / MEBIBYTE))
        before += path.stat().st_size
    if progress is not None:
        progress("reading logs (MiB)", math.ceil(total / MEBIBYTE), math.ceil(total / MEBIBYTE))
    where = ", ".join(map(str, files[:3])) + (" and more" if len(files) > 3 else "")
    frames, result = job.finish(where)
    _write(frames, out, force=force)
    return result


def _chunks(path: Path, options: TraceOptions) -> Iterable[Chunk]:
    if options.shape not in ("auto", "servegen") or not is_client(path):
        return read_chunks(path, shape=options.shape, mapping=options.mapping)
    if options.mapping:
        raise TraceError(f"--columns: {path.name} of ServeGen has no column names; allowed: none")
    return [read_client(path)]


def _check(files: Sequence[Path], out: Path, options: TraceOptions, *, force: bool) -> None:
    step, ratio = options.step_seconds, options.max_bad_ratio
    if not files:
        raise TraceError("FILE: none given; allowed: one or more request logs")
    if step is not None and not (MIN_STEP_SECONDS <= step <= MAX_STEP_SECONDS and step % 1 == 0):
        raise TraceError(f"--step: {step:g} s; allowed: whole seconds from 1 s to 1d")
    if not 0 <= ratio < 1:
        raise TraceError(f"--max-bad-ratio: {ratio:g}; allowed: from 0 to less than 1")
    if options.service is not None and "service" in options.mapping:
        raise TraceError("--service and --columns service=... are both given; allowed: one of them")
    if options.variant is not None and "variant" in options.mapping:
        raise TraceError("--variant and --columns variant=... are both given; allowed: one of them")
    same = [f for f in files if [g.resolve() for g in files].count(f.resolve()) > 1]
    if same:
        raise TraceError(f"{same[0]}: given twice; its requests would count twice; allowed: once")
    _check_out(out, force=force)


def _check_out(out: Path, *, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise TraceError(f"--out: {out} is a file; allowed: a folder, made if absent")
    there = {p.name for p in out.iterdir()}
    if there and not force:
        raise TraceError(
            f"--out: {out} exists and is not empty; allowed: a new folder, or --force to replace it"
        )
    foreign = sorted(there - OURS)
    if foreign:
        raise TraceError(
            f"--out: {out} also holds {foreign[0]}, which is no telemetry; allowed with --force: "
            f"a folder with nothing but {', '.join(sorted(OURS))}"
        )


class _Job:
    """The counters of one run over all files."""

    def __init__(self, options: TraceOptions) -> None:
        self.options = options
        self.rows = 0
        self.bad_rows = 0
        self.first_bad = ""
        self.load: LoadCounter | None = None
        self.latency: LatencyCounter | None = None
        self.window_seconds: float | None = None
        self.window_files: set[int] = set()
        self.has_latency = False
        self.has_variant = False
        self.kind: RowKind | None = None

    def add(self, number: int, path: Path, chunk: Chunk) -> None:
        """Count a chunk."""
        where = str(path)
        layout = self._layout(chunk.layout, where)
        rows = canonical(chunk.frame, layout, self._reading(layout), where)
        self.rows += len(chunk.line) + chunk.bad
        self.bad_rows += rows.bad_rows + chunk.bad
        self._name_first(where, chunk, rows)
        if self.kind not in (None, layout.rows):
            raise TraceError(
                f"{where}: its rows are of kind {layout.rows}, those before of kind {self.kind}; "
                "allowed: logs of one kind at a time"
            )
        self.kind = layout.rows
        if chunk.window_seconds is not None:
            self._set_window(chunk.window_seconds, where)
            self.window_files.add(number)
        amounts = self._amounts(number, rows, layout, where)
        if self.load is None:
            step = self._step() if self.window_seconds is None else self.window_seconds
            self.load = LoadCounter(step, whole_steps=self.options.whole_steps)
            self.latency = LatencyCounter(self.load)
        code = self.load.services.of(rows.service, where)
        self.load.add(number, code, rows.seconds, amounts, rows.gap)
        if layout.rows == "request":
            self._add_latency(rows, where)

    def _layout(self, layout: Layout, where: str) -> Layout:
        """Return the layout without columns that an option replaces."""
        columns = dict(layout.columns)
        if self.options.service is not None:
            columns.pop("service", None)
        elif "service" not in columns:
            raise TraceError(
                f"{where}: no column names the service (format {layout.shape}); allowed: "
                "--service NAMESPACE/NAME, or --columns service=COLUMN"
            )
        if self.options.variant is not None:
            columns.pop("variant", None)
        return replace(layout, columns=columns)

    def _reading(self, layout: Layout) -> Reading:
        return Reading(
            start_seconds=self.options.start_seconds or 0.0,
            zone=self.options.zone or layout.zone,
            service=self.options.service,
            variant=self.options.variant,
        )

    def _name_first(self, where: str, chunk: Chunk, rows: Rows) -> None:
        if self.first_bad:
            return
        bad = [] if chunk.first_bad is None else [chunk.first_bad]
        if rows.first_bad is not None:
            line = int(chunk.line[rows.first_bad.row])
            bad.append(replace(rows.first_bad, row=line))
        if bad:
            self.first_bad = _sentence(where, min(bad, key=lambda b: b.row))

    def _amounts(self, number: int, rows: Rows, layout: Layout, where: str) -> FloatArray:
        """Return requests and tokens per row, shape (N, 3)."""
        if layout.rows == "request":
            return np.column_stack((rows.requests, rows.input_tokens, rows.output_tokens))
        self._check_windows(number, rows, where)
        if layout.rows == "totals":
            amounts = np.column_stack((rows.requests, rows.input_tokens, rows.output_tokens))
        else:
            count = rows.requests * (self.window_seconds or np.nan)
            amounts = np.column_stack(
                (count, count * rows.input_tokens, count * rows.output_tokens)
            )
        amounts[rows.requests == 0] = 0.0  # no requests: no tokens, whatever the mean says
        return amounts

    def _check_windows(self, number: int, rows: Rows, where: str) -> None:
        """Learn the length of the windows from a file's first chunk; refuse what does not fit."""
        if not len(rows.seconds):
            return
        if number not in self.window_files:
            self.window_files.add(number)
            self._learn_window(rows, where)
        window, step = self.window_seconds or np.nan, self._step()
        if step % window:
            raise TraceError(
                f"--step: {step:g} s, but a row of {where} is a window of {window:g} s; allowed: "
                f"a multiple of {window:g} s, as what happens inside a window is not known"
            )
        off = rows.seconds % window != 0
        if off.any():
            at = pd.Timestamp(rows.seconds[off][0], unit="s", tz="UTC")
            raise TraceError(
                f"{where}: a window starts at {at.isoformat()}; allowed: multiples of the window, "
                f"{window:g} s, since 1970-01-01T00:00:00Z (see --start)"
            )

    def _learn_window(self, rows: Rows, where: str) -> None:
        apart = np.diff(np.unique(rows.seconds))
        if not len(apart):
            if self.window_seconds is None:
                raise TraceError(f"{where}: one window only, its length is unknown; allowed: two")
            return
        self._set_window(float(apart.min()), where)

    def _set_window(self, window: float, where: str) -> None:
        if window % 1:
            raise TraceError(f"{where}: windows {window:g} s apart; allowed: whole seconds")
        if self.window_seconds not in (None, window):
            raise TraceError(
                f"{where}: windows of {window:g} s, those before of {self.window_seconds:g} s; "
                "allowed: logs of one window at a time"
            )
        self.window_seconds = window

    def _step(self) -> float:
        return self.options.step_seconds or self.window_seconds or DEFAULT_STEP_SECONDS

    def _add_latency(self, rows: Rows, where: str) -> None:
        known = (rows.ttft_seconds, rows.tpot_seconds, rows.e2e_seconds)
        self.has_latency |= any(v is not None for v in known)
        self.has_variant |= rows.variant is not None
        if self.latency is not None and any(v is not None for v in known):
            self.latency.add(rows, where)

    def finish(self, where: str) -> tuple[dict[str, pd.DataFrame], Ingested]:
        """Return the files of the folder by name, checked, and the account of the run."""
        if self.bad_rows > self.options.max_bad_ratio * self.rows:
            raise TraceError(
                f"{self.first_bad}; {self.bad_rows} of {self.rows} rows are bad, allowed by "
                f"--max-bad-ratio: {self.options.max_bad_ratio:g} of them"
            )
        if self.load is None or self.latency is None:
            raise TraceError(f"{where}: no requests; at least one row is needed")
        if self.window_seconds is None:
            load = validate_load(self.load.frame(where), where)
        else:
            load = validate_load(self.load.windows(self._step()), where)
        if load.empty:
            raise TraceError(f"{where}: no interval without a gap; at least one is needed")
        frames = {LOAD_FILE: load}
        if self.has_latency and self.has_variant:
            frames[SERVING_FILE] = validate_serving(self.latency.frame(), where)
        result = Ingested(
            rows=self.rows,
            bad_rows=self.bad_rows,
            services=len(self.load.services.names),
            step_seconds=self._step(),
            load_rows=len(load),
            serving_rows=len(frames.get(SERVING_FILE, ())),
            first=load.ts.min(),
            last=load.ts.max(),
            notes=tuple(self._notes(load)),
        )
        return frames, result

    def _notes(self, load: pd.DataFrame) -> list[str]:
        notes = []
        if self.bad_rows:
            notes.append(f"{self.bad_rows} bad rows were left out, the first: {self.first_bad}")
        if load.ts.min().timestamp() < RELATIVE_BEFORE_SECONDS:
            notes.append(
                "timestamps count from 1970-01-01T00:00:00Z as --start is not given: "
                "hours and weekdays are not the real ones"
            )
        plain = [s for s in load.service.unique() if "/" not in s]
        if plain:
            notes.append(
                f"service {plain[0]} is not NAMESPACE/NAME, so no ScalingPolicy can name it"
            )
        if self.has_latency and not self.has_variant:
            notes.append(f"latencies are not written to {SERVING_FILE}: give --variant NAME")
        return notes


def _sentence(where: str, bad: Bad) -> str:
    return f"{where}: line {bad.row}, field {bad.column}: {bad.value}; allowed: {bad.allowed}"


def _write(frames: Mapping[str, pd.DataFrame], out: Path, *, force: bool) -> None:
    """Write the folder beside its place and move it there when it is whole."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.writing-", dir=out.parent))
    try:
        for name, frame in frames.items():
            frame.to_parquet(staging / name, index=False)
        staging.chmod(0o755)  # mkdtemp's are the owner's alone
        _check_out(out, force=force)  # again: reading may have taken long
        if not out.exists():
            staging.rename(out)
            return
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
        out.rename(old)
        try:
            staging.rename(out)
        except OSError:
            old.rename(out)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)

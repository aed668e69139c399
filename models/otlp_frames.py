"""Blocks of cells -> the telemetry folder's frames, part by part: what `train` reads.

Blocks come in the order of time; each part is summed and turned into rows by models/otlp_numbers.py,
which the online path shares, so that two weeks need no more memory than one part and the rows kept.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from models.frames import (
    LOAD_NUMBERS,
    SERVING_OPTIONAL,
    SERVING_REQUIRED,
    FrameError,
    validate_load,
    validate_serving,
    validate_startups,
)
from models.otlp_block import Block, joined, selected
from models.otlp_identity import Identity
from models.otlp_numbers import FloatArray, IntArray, load_numbers, serving_numbers
from models.otlp_sums import UNNAMED, compact, sums

MAX_STARTUP_SECONDS = 6 * 3600.0  # a pod first seen later after its creation did something else
START_ATTRIBUTE = "k8s.pod.start_time"
COLUMNS = tuple(c for c in (*SERVING_REQUIRED, *SERVING_OPTIONAL) if "within" not in c)


@dataclass(slots=True)
class Places:
    """Where sources belong: groups are services and variants, sorted."""

    names: Mapping[int, tuple[str, str] | None]  # source -> (service, variant)
    keys: list[tuple[str, str]] = field(default_factory=list)  # of each group
    services: list[str] = field(default_factory=list)
    service_of: IntArray = field(
        default_factory=lambda: np.empty(0, dtype=np.int64)
    )  # of each group
    group_of: IntArray = field(
        default_factory=lambda: np.empty(0, dtype=np.int64)
    )  # of each source

    def __post_init__(self) -> None:
        named = {n: name for n, name in self.names.items() if name is not None}
        self.keys = sorted(set(named.values()))
        self.services = sorted({service for service, _ in self.keys})
        place = {name: i for i, name in enumerate(self.services)}
        self.service_of = np.array([place[s] for s, _ in self.keys], dtype=np.int64)
        group = {key: i for i, key in enumerate(self.keys)}
        self.group_of = np.full(max(self.names, default=-1) + 1, UNNAMED, dtype=np.int64)
        for number, key in named.items():
            self.group_of[number] = group[key]


def places(sources: Mapping[int, Mapping[str, str]], identity: Identity) -> Places:
    """Name every source."""
    return Places({number: identity.of(attributes) for number, attributes in sources.items()})


@dataclass(slots=True)
class FrameMaker:
    """Turns blocks, in the order of time, into validated load and serving frames.

    Raises FrameError if the interval is not a multiple of the bins.
    """

    sources: Mapping[int, Mapping[str, str]]
    identity: Identity
    bin_seconds: int
    interval_seconds: int = 60
    first_seen: dict[int, float] = field(default_factory=dict)
    _places: Places = field(init=False)
    _open: Block | None = None  # rows of an interval that the next block may go on with

    def __post_init__(self) -> None:
        if self.interval_seconds < self.bin_seconds or self.interval_seconds % self.bin_seconds:
            raise FrameError(
                f"interval of {self.interval_seconds} s; "
                f"allowed: a multiple of the bins of {self.bin_seconds} s"
            )
        self._places = places(self.sources, self.identity)

    def add(self, block: Block, complete_bin: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return (load, serving) rows of all intervals that end by `complete_bin`; the rest waits.

        Raises FrameError for numbers that cannot be.
        """
        if self._open is not None:
            block = joined([self._open, block])
        each = self.interval_seconds // self.bin_seconds
        done = block.bins < complete_bin // each * each
        self._open = selected(block, ~done)
        return self._rows(selected(block, done), each)

    def finish(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows that waited."""
        block = self._open if self._open is not None else joined([])
        self._open = None
        return self._rows(block, self.interval_seconds // self.bin_seconds)

    def startups(self) -> pd.DataFrame:
        """Return the starts of pods, after everything was added."""
        rows = _startups(self.sources, self._places.names, self.first_seen)
        return validate_startups(rows, "otlp startups")

    def unnamed_sources(self) -> tuple[Mapping[str, str], ...]:
        """Return the attributes of sources without a service or variant."""
        names = sorted(self._places.names.items())
        return tuple(self.sources[n] for n, name in names if name is None)

    def _rows(self, block: Block, each: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        block = selected(block, block.sources < len(self._places.group_of))
        numbers, column = compact(block.bins // each)
        begins = numbers * self.interval_seconds
        p = self._places
        shape = (len(p.keys), len(begins))
        summed = sums(block, column, shape, p.group_of, self.bin_seconds)
        for source, seen in summed.first_seen.items():
            self.first_seen.setdefault(source, seen)
        serving = serving_numbers(summed, self.interval_seconds)
        load = load_numbers(summed, serving, p.service_of, len(p.services), self.interval_seconds)
        where, values = np.nonzero(load.known), load.values[load.known]
        load_frame = pd.DataFrame(
            {
                "ts": _times(begins[where[1]]),
                "service": np.array(p.services, dtype=object)[where[0]],
                **{name: values[:, i] for i, name in enumerate(LOAD_NUMBERS)},
            }
        )
        where = np.nonzero(serving.known)
        serving_frame = pd.DataFrame(
            {
                "ts": _times(begins[where[1]]),
                "service": np.array([s for s, _ in p.keys], dtype=object)[where[0]],
                "variant": np.array([v for _, v in p.keys], dtype=object)[where[0]],
                **{
                    c: serving.columns[c][where] if c in serving.columns else np.nan
                    for c in COLUMNS
                },
            }
        )
        return (
            validate_load(load_frame, "otlp load"),
            validate_serving(serving_frame, "otlp serving"),
        )


def _startups(
    sources: Mapping[int, Mapping[str, str]],
    names: Mapping[int, tuple[str, str] | None],
    first_seen: Mapping[int, float],
) -> pd.DataFrame:
    """Return starts of pods whose creation the sender told (k8s.pod.start_time): ready when first seen.

    A pod that was there before anything was recorded tells nothing and is left out.
    """
    rows = []
    began = min(first_seen.values(), default=math.nan)
    for source, seen in sorted(first_seen.items()):
        name, text = names.get(source), sources[source].get(START_ATTRIBUTE, "")
        created = pd.to_datetime(text, utc=True, errors="coerce") if text else pd.NaT
        if name is None or pd.isna(created) or created.timestamp() < began:
            continue
        if 0 <= seen - created.timestamp() <= MAX_STARTUP_SECONDS:
            rows.append((*name, created.timestamp(), seen))
    empty = pd.Series(pd.NaT, index=range(len(rows)), dtype="datetime64[ns, UTC]")
    return pd.DataFrame(
        {
            "service": pd.Series([r[0] for r in rows], dtype=object),
            "variant": pd.Series([r[1] for r in rows], dtype=object),
            "created_ts": _times(np.array([r[2] for r in rows], dtype=np.float64)),
            "ready_ts": _times(np.array([r[3] for r in rows], dtype=np.float64)),
            "ended_ts": empty,
        }
    )


def _times(seconds: FloatArray | IntArray) -> pd.Series:
    ns = np.round(seconds.astype(np.float64) * 1e9).astype(np.int64)
    return pd.Series(pd.to_datetime(ns, utc=True)).astype("datetime64[ns, UTC]")

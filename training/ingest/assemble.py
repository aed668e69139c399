"""Parts of an ingest -> the load and serving frames of the telemetry folder.

Every column becomes an array (rows, steps): rows are (service, variant), step k covers
[start + k * step, start + (k + 1) * step). What no sample covers stays NaN.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.contract import Labels
from models.contract_api import Row, without_infinity
from models.frames import (
    LATENCY_NUMBERS,
    MAX_LATENCY_SECONDS,
    MAX_TPOT_SECONDS,
    RATIO_SLACK,
    RATIOS,
)
from models.phases import BOTH, offered, phases_of
from training.ingest.fold import COLUMN
from training.ingest.plan import Request

FloatArray = NDArray[np.float64]
Key = tuple[str, str]  # (service, variant)
CARRY_STEPS = 10  # a mean length is carried this far into intervals in which nothing ended


@dataclass(slots=True)
class Doubts:
    """What was seen on the way and is worth telling; counts of samples."""

    infinite: Counter[str] = field(default_factory=Counter)
    implausible: Counter[str] = field(default_factory=Counter)
    unlabelled: Counter[str] = field(default_factory=Counter)
    negative_arrivals: int = 0


class Grid:
    """The intervals of a request and where an evaluation time falls."""

    def __init__(self, request: Request) -> None:
        self.start_seconds = request.start_seconds
        self.step_seconds = request.step_seconds
        self.steps = request.steps

    def slots(self, times: FloatArray) -> NDArray[np.int64]:
        """Return interval numbers of evaluation times (ends of intervals)."""
        return np.rint((times - self.start_seconds) / self.step_seconds).astype(np.int64) - 1

    def starts(self) -> pd.DatetimeIndex:
        """Return the start of every interval."""
        seconds = self.start_seconds + np.arange(self.steps) * self.step_seconds
        return pd.DatetimeIndex(pd.to_datetime(seconds, unit="s", utc=True)).as_unit("ns")


def services_in(rows: Iterable[Row], labels: Labels) -> list[Key]:
    """Return every (service, variant) of an answer, in order."""
    found = {labels.row(r.labels) for r in rows}
    return sorted(key for key in found if key is not None)


def column(
    name: str, rows: Iterable[Row], keys: Sequence[Key], labels: Labels, grid: Grid, doubts: Doubts
) -> FloatArray:
    """Return one query's answer as an array (rows, steps); doubtful samples are NaN and counted."""
    named = (Row({**row.labels, COLUMN: name}, row.times, row.values) for row in rows)
    nothing = np.full((len(keys), grid.steps), np.nan)
    return by_column(named, keys, labels, grid, doubts).get(name, nothing)


def by_column(
    rows: Iterable[Row], keys: Sequence[Key], labels: Labels, grid: Grid, doubts: Doubts
) -> dict[str, FloatArray]:
    """Return folded rows as an array (rows, steps) per column that they name."""
    index = {key: i for i, key in enumerate(keys)}
    out: dict[str, FloatArray] = {}
    for row in rows:
        name, key = row.labels[COLUMN], labels.row(row.labels)
        if key is None:
            doubts.unlabelled[name] += len(row.times)
            continue
        if key not in index:
            continue
        if name not in out:
            out[name] = np.full((len(keys), grid.steps), np.nan)
        values, infinite = without_infinity(row.values)
        doubts.infinite[name] += infinite
        at = grid.slots(row.times)
        inside = (at >= 0) & (at < grid.steps)
        out[name][index[key], at[inside]] = values[inside]
    return {name: _plausible(name, values, doubts) for name, values in out.items()}


def quotient(name: str, above: FloatArray, below: FloatArray, doubts: Doubts) -> FloatArray:
    """Return one rate over another as a column; NaN where the lower did not move."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values, infinite = without_infinity(above / below)
    doubts.infinite[name] += infinite
    return _plausible(name, values, doubts)


def _plausible(name: str, values: FloatArray, doubts: Doubts) -> FloatArray:
    if name.endswith("_change"):
        return values
    limit = np.inf
    if name in LATENCY_NUMBERS:
        limit = MAX_TPOT_SECONDS if name.startswith("tpot") else MAX_LATENCY_SECONDS
    elif name in RATIOS or "_within:" in name:
        limit = 1 + RATIO_SLACK
    bad = (values < 0) | (values > limit)
    doubts.implausible[name] += int(bad.sum())
    return np.where(bad, np.nan, values)


def arrivals_rps(
    columns: Mapping[str, FloatArray], window_seconds: float, doubts: Doubts
) -> FloatArray:
    """Return arrivals per second rebuilt from completions and the change of concurrency.

    arrivals = completions + rejections + change of (running + waiting) over the window / window.
    Rejections count where the series exists. Below zero (requests that were dropped) counts as zero.
    """
    change = columns["running_change"] + columns["waiting_change"]
    rejected = np.nan_to_num(columns["rejection_rate_rps"], nan=0.0)
    rate = columns["completion_rate_rps"] + rejected + change / window_seconds
    doubts.negative_arrivals += int((rate < -1e-9).sum())
    return np.where(rate < 0, 0.0, rate)


@dataclass(frozen=True, slots=True)
class AtGateway:
    """What the gateway tells of services, each (steps,), in requests per second.

    `arrivals`: counted before any queue. `held`: growth of the gateway's queue, below zero where it shrinks.
    """

    arrivals: Mapping[str, FloatArray]
    held: Mapping[str, FloatArray]

    def offered(self, service: str, rebuilt: FloatArray) -> FloatArray:
        """Return the rate that was offered (steps,): as counted, else `rebuilt` with what was held.

        Requests wait in the gateway's queue before any engine knows of them, and leave it into the engines'
        concurrency, which `rebuilt` then counts as arrivals: with the queue's growth each counts once, when
        it came. Without engines (at zero, before a start has ended) only a queue that grows tells something.
        """
        counted = self.arrivals.get(service)
        held = self.held.get(service)
        if held is not None:
            grown = np.where(np.isnan(held), 0.0, held)
            unserved = np.where(grown > 0, grown, np.nan)
            rebuilt = np.where(np.isnan(rebuilt), unserved, np.maximum(rebuilt + grown, 0.0))
        return rebuilt if counted is None else np.where(np.isnan(counted), rebuilt, counted)


def by_service(
    rows: Iterable[Row], models: Iterable[Row], labels: Labels, grid: Grid
) -> tuple[dict[str, FloatArray], list[str]]:
    """Return a number of the gateway's by service, and the services it cannot be told for.

    The gateway knows (namespace, model). Where two services of a namespace serve the same model, its
    count belongs to both together, and neither gets it.
    """
    serving: dict[tuple[str, str], set[str]] = {}
    for row in models:
        key = labels.row(row.labels)
        if key is not None:
            namespace = row.labels.get(labels.namespace, "") if labels.namespace else ""
            place = (namespace, row.labels.get(labels.model_name, ""))
            serving.setdefault(place, set()).add(key[0])
    out: dict[str, FloatArray] = {}
    unclear: set[str] = set()
    for row in rows:
        namespace = row.labels.get(labels.gateway_namespace, "") if labels.gateway_namespace else ""
        names = serving.get((namespace, row.labels.get(labels.gateway_model_name, "")), set())
        if len(names) > 1:
            unclear |= names
        for name in names if len(names) == 1 else ():
            series = out.setdefault(name, np.full(grid.steps, np.nan))
            at = grid.slots(row.times)
            inside = (at >= 0) & (at < grid.steps)
            before = series[at[inside]]
            series[at[inside]] = np.where(np.isnan(before), 0.0, before) + row.values[inside]
    return out, sorted(unclear)


def load_frame(
    keys: Sequence[Key],
    columns: Mapping[str, FloatArray],
    gateway: AtGateway,
    grid: Grid,
    roles: Mapping[Key, str],
) -> pd.DataFrame:
    """Return the load frame: a row per service and interval, NaN where nothing is known.

    Arrivals are the gateway's where it has any, else the sum over the variants of a phase (`roles`; one
    phase where none is given) and what the gateway's queue held. Tokens are arrivals times the mean lengths
    of what ended in the interval, or of the last CARRY_STEPS intervals before.
    """
    services = sorted({service for service, _ in keys})
    times = grid.starts()
    frames = []
    for service in services:
        own = [i for i, key in enumerate(keys) if key[0] == service]
        own_roles = [roles.get(keys[i], BOTH) for i in own]
        phases = [[own[i] for i in phase] for phase in phases_of(own_roles)]
        rebuilt = offered(columns["arrival_rate_rps"][own], own_roles)
        requests = gateway.offered(service, rebuilt) * grid.step_seconds
        frames.append(
            pd.DataFrame(
                {
                    "ts": times,
                    "service": service,
                    "requests": requests,
                    "input_tokens": _tokens(requests, "isl_tokens", columns, phases[0]),
                    "output_tokens": _tokens(requests, "osl_tokens", columns, phases[-1]),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def serving_frame(
    keys: Sequence[Key], columns: Mapping[str, FloatArray], names: Sequence[str], grid: Grid
) -> pd.DataFrame:
    """Return the serving frame of some rows; intervals of which nothing is known are left out."""
    times = grid.starts()
    frames = []
    for i, (service, variant) in enumerate(keys):
        values = {name: columns[name][i] for name in names}
        known = np.zeros(grid.steps, dtype=bool)
        for name, series in values.items():
            if name != "starting_replicas":
                known |= ~np.isnan(series)
        frame = pd.DataFrame(values)
        frame.insert(0, "ts", times)
        frame.insert(1, "service", service)
        frame.insert(2, "variant", variant)
        frames.append(frame[known])
    return pd.concat(frames, ignore_index=True)


def _tokens(
    requests: FloatArray, column: str, columns: Mapping[str, FloatArray], own: Sequence[int]
) -> FloatArray:
    """Return tokens by interval: requests times the mean length of what these variants completed."""
    means, weight = columns[column][list(own)], columns["completion_rate_rps"][list(own)]
    known = ~np.isnan(means) & ~np.isnan(weight)
    w = np.where(known, weight, 0.0)
    below = w.sum(axis=0)
    above = (np.where(known, means, 0.0) * w).sum(axis=0)
    mean = np.divide(above, below, out=np.full(len(requests), np.nan), where=below > 0)
    carried = pd.Series(mean).ffill(limit=CARRY_STEPS).to_numpy()
    return np.where(requests == 0, 0.0, requests * carried)

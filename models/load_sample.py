"""What the load model learns from: origins drawn from the series, their features, and what came after.

Every sampling depends on the data alone (fixed seeds): the same series gives the same sample.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.features import Grid, IntArray, look_back
from models.frames import LOAD_NUMBERS, LoadSeries
from models.holiday_calendar import Holidays
from models.load_model import CHUNK_ROWS, CONTESTANTS, Fitted, Seen
from models.quantiles import QUANTILES, FloatArray
from models.simple_rules import RULES
from models.smoothing import fit_shares
from models.tracking import SMALLEST

# Seven leads would be twice as fast, but cost the demo a thousandth of its attainment.
DEFAULT_LEADS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 45, 60, 90, 120)
MAX_DAYS = 28  # older load says little about tomorrow
HELD_OUT_DAYS = 2
HELD_OUT_RATIO = 0.25
ERROR_DAYS = 5  # the rules' errors before the held-out part
TRAIN_ROWS = 160_000
TRAIN_LEADS = 4  # of each origin, drawn at random
OWN_DAYS = 4.0  # of load, before a service gets trees of its own
OWN_SERVICES = 100  # with the most load get them: each costs a third of a second to fit
OWN_ORIGINS = 1500
YOUNG_RATIO = 0.1  # of the training origins see a shortened history
HELD_OUT_ROWS = 600_000
ERROR_ROWS = 3_000_000
MIN_SIZE, MAX_SIZE = 0.1, 5.0  # of a row's weight beside its service's mean weight
MAX_SCALES = 300.0  # of a target: what an idle service does when it wakes up is no noise
SEED = 20


@dataclass(frozen=True, slots=True)
class Data:
    """One target on one grid, cropped to the steps that are used."""

    services: tuple[str, ...]
    values: FloatArray  # (S, T)
    start_seconds: float
    grid: Grid
    leads_steps: IntArray  # (L,)
    split: int  # first held-out step
    smoothing: FloatArray  # (S + 1,), models.smoothing.fit_shares of the steps before it


@dataclass(frozen=True, slots=True)
class Rows:
    """N training rows: features, what the linear regression reads, the truth in scales, weights."""

    matrix: NDArray[np.float32]  # (N, F)
    columns: FloatArray  # (N, G)
    target: FloatArray  # (N,), the truth less the anchor, in scales
    weight: FloatArray  # (N,)


@dataclass(frozen=True, slots=True)
class Sample:
    """Contestants and truth at common origins of all services, in scales from the level then."""

    centres: FloatArray  # (S, N, L, C), of the rules
    fitted: FloatArray  # (S, N, L, M, Q), of the fitted models
    actual: FloatArray  # (S, N, L)
    scale: FloatArray  # (S, N), in the target's unit
    low: FloatArray  # (S, N), no value lies below (0), in scales
    high: FloatArray  # (S, N), no forecast goes beyond


def prepare(
    series: LoadSeries,
    target: str,
    leads_steps: Sequence[int] | None,
    holidays: Holidays | None = None,
) -> Data:
    """Crop one target of `series`. Raises ValueError on an unknown target, bad leads or no load at all."""
    if target not in LOAD_NUMBERS:
        raise ValueError(f"target '{target}' is unknown; allowed: {', '.join(LOAD_NUMBERS)}")
    leads = np.array(DEFAULT_LEADS if leads_steps is None else leads_steps, dtype=np.int64)
    if leads.ndim != 1 or leads.size == 0 or leads[0] < 1 or (np.diff(leads) <= 0).any():
        raise ValueError(f"leads_steps must increase from 1 on, got {list(leads)}")
    grid = Grid(series.step_seconds, holidays)
    values = series.values[:, :, LOAD_NUMBERS.index(target)]
    skip = max(0, values.shape[1] - MAX_DAYS * grid.day_steps)
    values = values[:, skip:]
    known = np.flatnonzero(np.isfinite(values).any(axis=0))
    if known.size == 0:
        raise ValueError(f"the last {MAX_DAYS} days hold no known value of '{target}'")
    first = int(known[0])
    values = values[:, first:]
    steps = values.shape[1]
    held_out = min(HELD_OUT_DAYS * grid.day_steps, max(1, int(steps * HELD_OUT_RATIO)))
    start = series.start_seconds + (skip + first) * series.step_seconds
    split = steps - held_out
    smoothing = fit_shares(values[:, :split], grid.day_steps)
    return Data(series.services, values, start, grid, leads, split, smoothing)


def training_rows(data: Data, until: int) -> Rows | None:
    """Draw rows whose truth lies before step `until`; None if there are none."""
    active = np.isfinite(data.values[:, :until]).sum(axis=1)
    leads_each = min(TRAIN_LEADS, data.leads_steps.size)
    share = TRAIN_ROWS // (leads_each * max(1, int((active > 0).sum())))
    rows, steps, leads, young = [], [], [], []
    for i, name in enumerate(data.services):
        known = np.flatnonzero(np.isfinite(data.values[i, : until - 1]))
        if known.size == 0:
            continue
        rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
        span = until - 1 - int(known[0])
        at = known[0] + np.sort(rng.choice(span, size=min(share, span), replace=False))
        rows.append(np.full(at.size, i))
        steps.append(at)
        leads.append(_draw_leads(rng, data.leads_steps, at.size, leads_each))
        young.append(_draw_young(rng, at.size, data.grid))
    if not rows:
        return None
    origins = np.concatenate(rows), np.concatenate(steps)
    return _gather(data, origins, np.concatenate(leads), np.concatenate(young), until)


def own_rows(data: Data, row: int, until: int) -> Rows | None:
    """Draw rows of one service whose truth lies before step `until`; None if there are none."""
    known = np.flatnonzero(np.isfinite(data.values[row, : until - 1]))
    if known.size == 0:
        return None
    rng = np.random.default_rng([SEED + 1, zlib.crc32(data.services[row].encode())])
    span = until - 1 - int(known[0])
    at = known[0] + np.sort(rng.choice(span, size=min(OWN_ORIGINS, span), replace=False))
    leads = _draw_leads(rng, data.leads_steps, at.size, min(TRAIN_LEADS, data.leads_steps.size))
    whole = np.full(at.size, data.grid.history_steps)
    return _gather(data, (np.full(at.size, row), at), leads, whole, until)


def rich_services(data: Data, until: int) -> IntArray:
    """Return the services with enough history before `until` for trees of their own; of many, the busiest.

    Days are counted by their load, (sum d)^2 / sum d^2: ten idle days and one burst tell of one day. A fleet
    of one has none: there the global model is its own.
    """
    whole = until - until % data.grid.day_steps
    if len(data.services) == 1 or whole == 0:
        return np.empty(0, np.int64)
    known = np.nan_to_num(data.values[:, until - whole : until])
    daily = known.reshape(known.shape[0], -1, data.grid.day_steps).sum(axis=2)
    days = daily.sum(axis=1) ** 2 / np.maximum((daily**2).sum(axis=1), SMALLEST)
    rich = np.flatnonzero(days >= OWN_DAYS)
    busiest = rich[np.argsort(-daily[rich].sum(axis=1), kind="stable")[:OWN_SERVICES]]
    return np.sort(busiest)


def _draw_leads(rng: np.random.Generator, grid: IntArray, rows: int, each: int) -> IntArray:
    order = np.argsort(rng.random((rows, grid.size)), axis=1)[:, :each]
    return grid[np.sort(order, axis=1)]


def _draw_young(rng: np.random.Generator, rows: int, grid: Grid) -> IntArray:
    """History that each origin may see: all of it, or for a few between 5 steps and a week."""
    short = np.exp(rng.uniform(np.log(5), np.log(grid.week_steps), rows)).astype(np.int64)
    return np.where(rng.random(rows) < YOUNG_RATIO, short, grid.history_steps)


def _gather(
    data: Data, origins: tuple[IntArray, IntArray], leads: IntArray, young: IntArray, until: int
) -> Rows:
    matrices, columns, targets, scales, services = [], [], [], [], []
    for part in parts(origins[0].size):
        here = origins[0][part], origins[1][part]
        known = look_back(
            data.values, data.start_seconds, data.grid, here, leads[part], young_steps=young[part]
        )
        apart = truth(data.values, here, leads[part], until) - known.anchor
        actual = (apart / known.track.scale[:, np.newaxis]).ravel()
        actual = np.clip(actual, -MAX_SCALES, MAX_SCALES)
        keep = np.isfinite(actual)
        seen = Seen.of(known, data.grid, data.smoothing[here[0]])
        matrices.append(seen.matrix[keep])
        columns.append(seen.lines[keep])
        targets.append(actual[keep])
        scales.append(np.repeat(known.track.scale, leads.shape[1])[keep])
        services.append(np.repeat(here[0], leads.shape[1])[keep])
    weight = _alike(np.concatenate(scales), np.concatenate(services), len(data.services))
    matrix, target = np.concatenate(matrices), np.concatenate(targets)
    return Rows(matrix, np.concatenate(columns), target, weight)


def _alike(scale: FloatArray, service: IntArray, services: int) -> FloatArray:
    """Weights (N,) with which each service counts alike, and within it each row by its scale.

    The target is in scales, the loss in requests: a row's error counts in proportion to its scale.
    """
    total = np.bincount(service, scale, services)
    mean = total / np.maximum(np.bincount(service, minlength=services), 1)
    return np.clip(scale / np.maximum(mean[service], 1e-12), MIN_SIZE, MAX_SIZE)


def truth(
    values: FloatArray, origins: tuple[IntArray, IntArray], leads: IntArray, until: int
) -> FloatArray:
    """Return what came `leads` (R, L) steps after each origin, NaN from step `until` on."""
    step = origins[1][:, np.newaxis] + leads
    inside = step < until
    got = values[origins[0][:, np.newaxis], np.where(inside, step, 0)]
    return np.where(inside, got, np.nan)


def error_origins(data: Data) -> IntArray:
    """Return the steps whose rule errors are collected: the days before the held-out part."""
    budget = ERROR_ROWS // (len(data.services) * data.leads_steps.size)
    first = max(0, data.split - ERROR_DAYS * data.grid.day_steps)
    return _even(first, data.split - 1, int(np.clip(budget, 150, 1000)))


def held_out_origins(data: Data) -> IntArray:
    """Return the steps of the held-out part on which contestants are compared."""
    budget = HELD_OUT_ROWS // (len(data.services) * data.leads_steps.size)
    return _even(max(0, data.split - 1), data.values.shape[1] - 1, int(np.clip(budget, 24, 400)))


def _even(first: int, until: int, most: int) -> IntArray:
    """At most `most` steps spread evenly over [first, until), none twice."""
    span = max(0, until - first)
    return first + np.unique(np.linspace(0, max(span - 1, 0), min(most, span)).astype(np.int64))


def sample(data: Data, steps: IntArray, *, until: int, fitted: Fitted | None) -> Sample:
    """Look back from `steps` of every service; the fitted models speak if `fitted` holds them."""
    services, leads = len(data.services), data.leads_steps.size
    row = np.repeat(np.arange(services), steps.size)
    at = np.tile(steps, services)
    models = len(CONTESTANTS) - len(RULES)
    own = np.zeros((row.size, leads, models if fitted is not None else 0, len(QUANTILES)))
    centres = np.empty((row.size, leads, len(RULES)))
    actual, state = np.empty((row.size, leads)), np.empty((3, row.size))
    for part in parts(row.size):
        here = row[part], at[part]
        known = look_back(data.values, data.start_seconds, data.grid, here, data.leads_steps)
        actual[part] = known.u(truth(data.values, here, known.leads_steps, until))
        seen = Seen.of(known, data.grid, data.smoothing[here[0]])
        centres[part] = seen.centres
        if fitted is not None:
            own[part] = fitted.quantiles(seen, here[0])
        state[:, part] = (
            known.track.scale,
            known.u(np.zeros(known.base.size)),
            known.u(known.most),
        )
    every = (centres, own, actual, *state)
    return Sample(*(a.reshape(services, steps.size, *a.shape[1:]) for a in every))


def parts(rows: int) -> Iterator[slice]:
    """Slices of at most CHUNK_ROWS."""
    for first in range(0, rows, CHUNK_ROWS):
        yield slice(first, min(first + CHUNK_ROWS, rows))

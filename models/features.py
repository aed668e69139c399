"""From load values to what is known at an origin, and to the feature matrix.

The ONE implementation for training and serving: an origin is a (service row, step) pair whose step is
the last one known. Nothing later than the origin is ever read.

Everything is scale-free. With base = the current level and offset = a small share of the day's mean,

    z(x) = log((x + offset) / (base + offset)),      x = (base + offset) * exp(z) - offset

so a service with 2 requests a minute and one with 2,000 look alike, and zeros are allowed.
Gaps are NaN: means, spreads and extremes skip them, and LightGBM takes NaN as it is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.quantiles import FloatArray

IntArray = NDArray[np.int64]
DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3_600.0
LEVEL_SECONDS = 900.0  # the span whose mean is "the level now"
MAX_WINDOW_STEPS = 1440  # a day of minutes; shorter steps look back less far
LEVEL_STEPS = (2, 3, 5, 8, 15, 30, 60, 120, 240)
SPREAD_STEPS = (5, 15, 60)
EXTREME_STEPS = (5, 15, 60)
LAGS = 5
OFFSET_RATIO = 0.2  # of the day's mean: errors grow with the load, but not from a standstill
MAX_GROWTH_RATIO = 3.0  # no quantile above so many times the largest load of the window
MAX_LEVEL_RATIO = 5.0  # today may be at most so many times yesterday in "yesterday x level"
SMALLEST = 1e-9
MAX_Z = 20.0  # exp() of more is no forecast
FRIDAY_END_DAYS = 5  # Monday is day 0: days 5 and 6 are the weekend
EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday


@dataclass(frozen=True, slots=True)
class Grid:
    """Spans of the calendar in steps of one series."""

    step_seconds: float

    @property
    def day_steps(self) -> int:
        """Steps of one day."""
        return max(1, round(DAY_SECONDS / self.step_seconds))

    @property
    def week_steps(self) -> int:
        """Steps of seven days."""
        return 7 * self.day_steps

    @property
    def hour_steps(self) -> int:
        """Steps of one hour."""
        return max(1, round(HOUR_SECONDS / self.step_seconds))

    @property
    def level_steps(self) -> int:
        """Steps whose mean is the level now."""
        return max(3, round(LEVEL_SECONDS / self.step_seconds))

    @property
    def smooth_steps(self) -> int:
        """Half width of the neighbourhood of "the same time yesterday"."""
        return max(1, round(LEVEL_SECONDS / 2 / self.step_seconds))

    @property
    def window_steps(self) -> int:
        """Steps before an origin that are looked at one by one."""
        return int(np.clip(self.day_steps, 60, MAX_WINDOW_STEPS))

    @property
    def history_steps(self) -> int:
        """Steps that an origin can make use of."""
        return self.week_steps + self.level_steps + self.smooth_steps


@dataclass(frozen=True, slots=True)
class Known:
    """What is known at R origins about K leads each. Values are in the target's unit per step.

    Shapes: (R,) for what does not depend on the lead, (R, K) for what does, (R, W) for `recent`.
    """

    leads_steps: IntArray  # (R, K)
    target_seconds: FloatArray  # (R, K), start of the step that is forecast
    recent: FloatArray  # (R, W), newest last
    sums: FloatArray  # (R, W), sum of the newest 1..W known values
    counts: FloatArray  # (R, W), how many of the newest 1..W steps are known
    last: FloatArray  # (R,), newest known value of the window
    age_steps: FloatArray  # (R,), steps since that value
    base: FloatArray  # (R,), the level now
    offset: FloatArray  # (R,)
    yesterday: FloatArray  # (R, K), same time a day before
    yesterday_smooth: FloatArray  # (R, K), mean of its neighbourhood
    yesterday_level: FloatArray  # (R,), the level a day before the origin
    week_smooth: FloatArray  # (R, K)
    week_level: FloatArray  # (R,)
    hour_ago: FloatArray  # (R, K), same minute of an earlier hour

    def z(self, x: FloatArray) -> FloatArray:
        """Log ratio of `x` (R, ...) to the level now."""
        shape = (-1,) + (1,) * (x.ndim - 1)
        offset, base = self.offset.reshape(shape), self.base.reshape(shape)
        return np.log((x + offset) / (base + offset))

    def expand(self, z: FloatArray) -> FloatArray:
        """Undo `z`: log ratios (R, ...) back to values, never negative, never beyond all measure."""
        shape = (-1,) + (1,) * (z.ndim - 1)
        offset, base = self.offset.reshape(shape), self.base.reshape(shape)
        x = (base + offset) * np.exp(np.minimum(z, MAX_Z)) - offset
        return np.clip(x, 0.0, self.most().reshape(shape))

    def most(self) -> FloatArray:
        """Largest value that a forecast may take, (R,)."""
        most: FloatArray = MAX_GROWTH_RATIO * _extreme(self.recent, -np.inf)
        return most

    def level(self, steps: int) -> FloatArray:
        """Mean of the newest `steps` steps, (R,); NaN where none of them is known."""
        at = min(steps, self.sums.shape[1]) - 1
        return _mean(self.sums[:, at], self.counts[:, at])


def look_back(
    values: FloatArray,
    start_seconds: float,
    grid: Grid,
    origins: tuple[IntArray, IntArray],
    leads_steps: IntArray,
    *,
    young_steps: IntArray | None = None,
) -> Known:
    """Gather what is known at `origins` = (row, step), each (R,), of `values` (S, T).

    `leads_steps` is (R, K), or (K,) for all. `young_steps` (R,) hides what is older than so many
    steps: it shows the model services with a short history.
    """
    row, at = origins
    leads = np.broadcast_to(leads_steps, (row.size, leads_steps.shape[-1]))
    young = np.full(row.size, grid.history_steps) if young_steps is None else young_steps
    source = _Source(values, row, at, at - young + 1)
    steps = np.arange(-grid.window_steps + 1, 1)
    recent = source.take(at[:, np.newaxis] + steps)
    newest = recent[:, ::-1]
    known = np.isfinite(newest)
    sums = np.cumsum(np.where(known, newest, 0.0), axis=1)
    counts = np.cumsum(known, axis=1, dtype=np.float64)
    age = np.where(known.any(axis=1), known.argmax(axis=1), grid.window_steps).astype(np.float64)
    last = _pick(newest, np.minimum(age, grid.window_steps - 1))
    whole = _mean(sums[:, -1], counts[:, -1])
    near = _mean(sums[:, grid.level_steps - 1], counts[:, grid.level_steps - 1])
    day, week = _season(source, leads, grid, 1), _season(source, leads, grid, 7)
    hours = -(-leads // grid.hour_steps)
    return Known(
        leads_steps=leads,
        target_seconds=np.float64(start_seconds) + (at[:, np.newaxis] + leads) * grid.step_seconds,
        recent=recent,
        sums=sums,
        counts=counts,
        last=last,
        age_steps=age,
        base=np.where(np.isfinite(near), near, whole),
        offset=np.maximum(OFFSET_RATIO * whole, SMALLEST),
        yesterday=day[0],
        yesterday_smooth=day[1],
        yesterday_level=day[2],
        week_smooth=week[1],
        week_level=week[2],
        hour_ago=source.take(at[:, np.newaxis] + leads - hours * grid.hour_steps),
    )


def feature_names(grid: Grid) -> tuple[str, ...]:
    """Names of the columns of `feature_matrix`, in order."""
    one = np.zeros(1, dtype=np.int64)
    known = look_back(np.ones((1, 1)), 0.0, grid, (one, one), one + 1)
    return tuple(_columns(known, grid))


def feature_matrix(known: Known, grid: Grid) -> NDArray[np.float32]:
    """Return the features, shape (R * K, F), float32; row r * K + k is lead k of origin r."""
    shape = known.leads_steps.shape
    columns = list(_columns(known, grid).values())
    out = np.empty((shape[0], shape[1], len(columns)), dtype=np.float32)
    for i, column in enumerate(columns):
        out[:, :, i] = column if column.ndim == 2 else column[:, np.newaxis]
    return out.reshape(-1, len(columns))


def _columns(known: Known, grid: Grid) -> dict[str, FloatArray]:
    return _level_columns(known, grid) | _spread_columns(known, grid) | _lead_columns(known, grid)


def _level_columns(known: Known, grid: Grid) -> dict[str, FloatArray]:
    recent, columns = known.recent, {}
    for lag in range(LAGS):
        columns[f"lag_{lag}"] = known.z(recent[:, -1 - lag])
    for steps in (*(s for s in LEVEL_STEPS if s < grid.window_steps), grid.window_steps):
        columns[f"level_{steps}"] = known.z(known.level(steps))
    for steps in EXTREME_STEPS:
        tail = recent[:, -steps:]
        columns[f"max_{steps}"] = known.z(_extreme(tail, -np.inf))
        columns[f"min_{steps}"] = known.z(-_extreme(-tail, -np.inf))
    columns["max_window"] = known.z(_extreme(recent, -np.inf))
    columns["age_steps"] = known.age_steps
    columns["known_ratio"] = known.counts[:, -1] / grid.window_steps
    return columns


def _spread_columns(known: Known, grid: Grid) -> dict[str, FloatArray]:
    logs = known.z(known.recent)
    jumps = np.abs(np.diff(logs, axis=1))
    columns = {}
    for steps in (*SPREAD_STEPS, grid.window_steps):
        columns[f"spread_{steps}"] = _deviation(logs[:, -steps:])
        columns[f"jump_{steps}"] = _known_mean(jumps[:, -steps:])
    return columns


def _lead_columns(known: Known, grid: Grid) -> dict[str, FloatArray]:
    now_day, now_week = known.z(known.yesterday_level), known.z(known.week_level)
    yesterday, week = known.z(known.yesterday_smooth), known.z(known.week_smooth)
    days = known.target_seconds / DAY_SECONDS
    angle = 2 * np.pi * days
    weekday = np.floor(days + EPOCH_WEEKDAY) % 7
    return {
        "lead": known.leads_steps.astype(np.float64),
        "yesterday": known.z(known.yesterday),
        "yesterday_smooth": yesterday,
        "yesterday_rise": yesterday - now_day[:, np.newaxis],
        "yesterday_level": now_day,
        "week_smooth": week,
        "week_rise": week - now_week[:, np.newaxis],
        "week_level": now_week,
        "hour_ago": known.z(known.hour_ago),
        "hour_sin": np.sin(angle),
        "hour_cos": np.cos(angle),
        "hour_position": (known.target_seconds % HOUR_SECONDS) / HOUR_SECONDS,
        "weekend": (weekday >= FRIDAY_END_DAYS).astype(np.float64),
        "level_seconds": np.full(known.base.shape, grid.level_steps * grid.step_seconds),
    }


@dataclass(frozen=True, slots=True)
class _Source:
    """Values seen from R origins: NaN outside the series, after the origin, and before `oldest`."""

    values: FloatArray
    row: IntArray
    at: IntArray
    oldest: IntArray

    def take(self, step: IntArray) -> FloatArray:
        """Values at steps (R, K)."""
        floor = np.maximum(self.oldest, 0)[:, np.newaxis]
        inside = (step >= floor) & (step <= self.at[:, np.newaxis])
        got = self.values[self.row[:, np.newaxis], np.where(inside, step, 0)].astype(np.float64)
        return np.where(inside, got, np.nan)


def _season(
    source: _Source, leads: IntArray, grid: Grid, days: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Exact and smoothed value `days` earlier (R, K), and the level at that time (R,)."""
    season = days * grid.day_steps
    turns = -(-(leads + grid.smooth_steps) // season)  # 1, or more where the lead spans a season
    centre = source.at[:, np.newaxis] + leads - turns * season
    total, count = np.zeros(leads.shape), np.zeros(leads.shape)
    exact = source.take(centre)
    for shift in range(-grid.smooth_steps, grid.smooth_steps + 1):
        near = source.take(centre + shift)
        total += np.where(np.isfinite(near), near, 0.0)
        count += np.isfinite(near)
    then = source.at[:, np.newaxis] - season + np.arange(-grid.level_steps + 1, 1)
    level = source.take(then)
    return exact, _mean(total, count), _known_mean(level)


def _mean(total: FloatArray, count: FloatArray) -> FloatArray:
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def _known_mean(x: FloatArray) -> FloatArray:
    known = np.isfinite(x)
    return _mean(np.where(known, x, 0.0).sum(axis=1), known.sum(axis=1).astype(np.float64))


def _deviation(x: FloatArray) -> FloatArray:
    return np.sqrt(np.maximum(_known_mean((x - _known_mean(x)[:, np.newaxis]) ** 2), 0.0))


def _extreme(x: FloatArray, empty: float) -> FloatArray:
    """Largest known value of each row; NaN where nothing is known."""
    top = np.where(np.isfinite(x), x, empty).max(axis=1)
    return np.where(np.isfinite(top), top, np.nan)


def _pick(newest: FloatArray, at: FloatArray) -> FloatArray:
    return newest[np.arange(newest.shape[0]), at.astype(np.int64)]

"""From load values to what is known at an origin, and to the feature matrix.

The ONE implementation for training and serving: an origin is a (service row, step) pair whose step is
the last one known. Nothing later than the origin is ever read.

Everything is scale-free. With centre = the level now and scale = how far single steps have lately
fallen from the level before them (models.tracking),

    u(x) = (x - centre) / scale,      x = centre + u * scale

so a service with 2 requests a minute and one with 2,000, a calm one and a wild one look alike: one
global model serves them all, and its errors are in units of each service's own noise.
Gaps are NaN: means, spreads and extremes skip them, and LightGBM takes NaN as it is.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from models.believable import believable
from models.cut_short import without_cut_steps
from models.holiday_calendar import Holidays
from models.quantiles import FloatArray
from models.schedule import Schedule, sampled_steps, schedule
from models.tracking import SMALLEST, Track, follow, known_mean, ratio

IntArray = NDArray[np.int64]
DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3_600.0
LEVEL_SECONDS = 900.0  # the span whose mean is "the level"
MAX_WINDOW_STEPS = 1440  # a day of minutes; shorter steps look back less far
LEVEL_STEPS = (2, 3, 6, 12, 24, 60, 120, 240)
SPREAD_STEPS = (3, 6, 12, 60)
EXTREME_STEPS = (3, 6, 12, 60)
LAGS = 6
JUMP_SCALES = 4.0  # a step so many scales off the level before it is a jump
JUMP_STEPS = 60  # older jumps are forgotten
MAX_GROWTH_RATIO = 3.0  # no quantile above so many times the largest load of the window
MAX_LEVEL_RATIO = 5.0  # today may be at most so many times yesterday in "yesterday x level"
FRIDAY_END_DAYS = 5  # Monday is day 0: days 5 and 6 are the weekend
EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday
MAX_FEATURE = 1e4  # scales; beyond, a larger number tells a tree nothing


@dataclass(frozen=True, slots=True)
class Grid:
    """Spans of the calendar in steps of one series, and the holidays that are known of it."""

    step_seconds: float
    holidays: Holidays | None = None

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
        return min(max(self.day_steps, 60), MAX_WINDOW_STEPS)

    @property
    def history_steps(self) -> int:
        """Steps that an origin can make use of."""
        return self.week_steps + self.level_steps + self.smooth_steps


@dataclass(frozen=True, slots=True)
class Season:
    """The same time some days before. Shapes as in Known; NaN where that is not known."""

    exact: FloatArray  # (R, K)
    smooth: FloatArray  # (R, K), mean of its neighbourhood
    now: FloatArray  # (R,), smooth value at that distance before the origin itself
    level: FloatArray  # (R,), mean of the LEVEL_SECONDS that ended then


@dataclass(frozen=True, slots=True)
class Span:
    """Where scaled values of R origins lie in the target's unit."""

    centre: FloatArray  # (R,)
    scale: FloatArray  # (R,)
    most: FloatArray  # (R,), no forecast goes beyond

    def expand(self, u: FloatArray) -> FloatArray:
        """Return scaled values (R, ...) in the target's unit, from 0 to `most`."""
        shape = (-1,) + (1,) * (u.ndim - 1)
        x = self.centre.reshape(shape) + u * self.scale.reshape(shape)
        return np.minimum(np.maximum(x, 0.0), self.most.reshape(shape))

    def rows(self, part: slice) -> "Span":
        """Return some of the origins."""
        return Span(self.centre[part], self.scale[part], self.most[part])


@dataclass(frozen=True, slots=True)
class Known:
    """What is known at R origins about K leads each. Values are in the target's unit per step.

    Shapes: (R,) for what does not depend on the lead, (R, K) for what does, (R, W) for `recent`.
    """

    leads_steps: IntArray  # (R, K)
    target_seconds: FloatArray  # (R, K), start of the step that is forecast
    holiday: NDArray[np.bool_] | None  # (R, K), of that step; None where no holidays are known
    recent: FloatArray  # (R, W), newest last
    sums: FloatArray  # (R, W), sum of the newest 1..W known values
    counts: FloatArray  # (R, W), how many of the newest 1..W steps are known
    last: FloatArray  # (R,), newest known value of the window
    age_steps: FloatArray  # (R,), steps since that value
    base: FloatArray  # (R,), mean of the last LEVEL_SECONDS
    most: FloatArray  # (R,), no forecast goes beyond
    track: Track
    schedule: Schedule  # of yesterday and last week
    anchor: (
        FloatArray  # (R, K), where the trees start from: the level, or the same time on such a day
    )
    yesterday: Season
    day_before: Season
    last_week: Season
    hour_ago: FloatArray  # (R, K), same minute of an earlier hour

    def u(self, x: FloatArray) -> FloatArray:
        """Distance of `x` (R, ...) from the level now, in scales."""
        shape = (-1,) + (1,) * (x.ndim - 1)
        centred: FloatArray = x - self.track.centre.reshape(shape)
        return centred / self.track.scale.reshape(shape)

    def expand(self, u: FloatArray) -> FloatArray:
        """Undo `u`: back to values (R, ...), never negative, never beyond all measure."""
        return self.span().expand(u)

    def span(self) -> "Span":
        """Return what takes scaled values back to the target's unit."""
        return Span(self.track.centre, self.track.scale, self.most)

    def level(self, steps: int) -> FloatArray:
        """Mean of the newest `steps` steps, (R,); NaN where none of them is known."""
        at = min(steps, self.sums.shape[1]) - 1
        return ratio(self.sums[:, at], self.counts[:, at])


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
    source = _Source(values, row, at, at - young + 1, start_seconds)
    steps = np.arange(-grid.window_steps + 1, 1)
    recent = believable(
        source.take(at[:, np.newaxis] + steps), lambda some: source.before(grid, some)
    )
    recent = without_cut_steps(recent)
    newest = recent[:, ::-1]
    known = np.isfinite(newest)
    sums = np.cumsum(np.where(known, newest, 0.0), axis=1)
    counts = np.cumsum(known, axis=1, dtype=np.float64)
    age = np.where(known.any(axis=1), known.argmax(axis=1), grid.window_steps).astype(np.float64)
    near = ratio(sums[:, grid.level_steps - 1], counts[:, grid.level_steps - 1])
    whole = ratio(sums[:, -1], counts[:, -1])
    hours = -(-leads // grid.hour_steps)
    yesterday, last_week = _season(source, leads, grid, 1), _season(source, leads, grid, 7)
    then = at[:, np.newaxis] + sampled_steps(grid.window_steps)
    days = [source.take(source.same_time(then, grid, back)) for back in (1, 7)]
    clock = schedule(recent, np.stack(days, axis=2), leads, grid.level_steps)
    target = np.float64(start_seconds) + (at[:, np.newaxis] + leads) * grid.step_seconds
    track = follow(recent, _usual(yesterday, last_week))
    track = replace(track, scale=clock.scale(track.scale))
    return Known(
        leads_steps=leads,
        target_seconds=target,
        holiday=None if grid.holidays is None else grid.holidays.holds(target),
        recent=recent,
        sums=sums,
        counts=counts,
        last=_pick(newest, np.minimum(age, grid.window_steps - 1)),
        age_steps=age,
        base=np.where(np.isfinite(near), near, whole),
        most=MAX_GROWTH_RATIO * _extreme(recent, -np.inf),
        track=track,
        schedule=clock,
        anchor=clock.anchor(track.centre, np.stack([yesterday.exact, last_week.exact], axis=2)),
        yesterday=yesterday,
        day_before=_season(source, leads, grid, 2),
        last_week=last_week,
        hour_ago=source.take(at[:, np.newaxis] + leads - hours * grid.hour_steps),
    )


def yesterday_times_level(known: Known, season: Season) -> FloatArray:
    """Return the same time of an earlier day, times the ratio of the levels now and then, (R, K)."""
    grown = known.base / np.maximum(season.level, SMALLEST)
    grown = np.minimum(np.maximum(grown, 1 / MAX_LEVEL_RATIO), MAX_LEVEL_RATIO)
    return season.smooth * grown[:, np.newaxis]


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
    with np.errstate(over="ignore"):  # beyond a float32: infinite, and cut down to MAX_FEATURE
        for i, column in enumerate(columns):
            out[:, :, i] = column if column.ndim == 2 else column[:, np.newaxis]
    np.maximum(out, -MAX_FEATURE, out=out)
    np.minimum(out, MAX_FEATURE, out=out)
    return out.reshape(-1, len(columns))


def _columns(known: Known, grid: Grid) -> dict[str, FloatArray]:
    return _level_columns(known, grid) | _spread_columns(known, grid) | _lead_columns(known)


def _level_columns(known: Known, grid: Grid) -> dict[str, FloatArray]:
    recent, columns = known.recent, {}
    for lag in range(LAGS):
        columns[f"lag_{lag}"] = known.u(recent[:, -1 - lag])
    for steps in (*(s for s in LEVEL_STEPS if s < grid.window_steps), grid.window_steps):
        columns[f"level_{steps}"] = known.u(known.level(steps))
    for steps in EXTREME_STEPS:
        tail = recent[:, -steps:]
        columns[f"max_{steps}"] = known.u(_extreme(tail, -np.inf))
        columns[f"min_{steps}"] = known.u(-_extreme(-tail, -np.inf))
    columns["max_window"] = known.u(_extreme(recent, -np.inf))
    columns["zero"] = known.u(np.zeros_like(known.base))
    columns["age_steps"] = known.age_steps
    columns["known_ratio"] = known.counts[:, -1] / grid.window_steps
    return columns


def _spread_columns(known: Known, grid: Grid) -> dict[str, FloatArray]:
    scale, track = known.track.scale[:, np.newaxis], known.track
    columns = {
        "noise": np.log(track.scale / np.maximum(known.level(grid.window_steps), SMALLEST)),
        "noise_rise": track.short_ratio,
        "noise_window": track.window,
    }
    for steps in SPREAD_STEPS:
        columns[f"spread_{steps}"] = _deviation(known.recent[:, -steps:] / scale)
    misses = track.misses[:, -JUMP_STEPS:][:, ::-1]
    jump = np.abs(misses) > JUMP_SCALES
    at, any_jump = jump.argmax(axis=1), jump.any(axis=1)
    columns["jump_age"] = np.where(any_jump, at, JUMP_STEPS).astype(np.float64)
    columns["jump_size"] = np.where(any_jump, _pick(misses, at), 0.0)
    return columns


def _lead_columns(known: Known) -> dict[str, FloatArray]:
    yesterday, week = known.yesterday, known.last_week
    days = known.target_seconds / DAY_SECONDS
    angle = 2 * np.pi * days
    weekday = np.floor(days + EPOCH_WEEKDAY) % 7
    last = known.last[:, np.newaxis]
    rises = {
        name: known.u(last + season.smooth - season.now[:, np.newaxis])
        for name, season in (("day", yesterday), ("two_days", known.day_before), ("week", week))
    }
    return {
        "lead": known.leads_steps.astype(np.float64),
        "yesterday": known.u(yesterday.exact),
        "yesterday_smooth": known.u(yesterday.smooth),
        "yesterday_ratio": known.u(yesterday_times_level(known, yesterday)),
        "yesterday_level": known.u(yesterday.level),
        "rise_day": rises["day"],
        "rise_two_days": rises["two_days"],
        "week_smooth": known.u(week.smooth),
        "week_ratio": known.u(yesterday_times_level(known, week)),
        "rise_week": rises["week"],
        "hour_ago": known.u(known.hour_ago),
        "anchor": known.u(known.anchor),
        "trust_day": known.schedule.trust[:, :, 0],
        "trust_week": known.schedule.trust[:, :, 1],
        "miss_day": _log(known.schedule.miss[:, 0] / known.track.scale),
        "miss_week": _log(known.schedule.miss[:, 1] / known.track.scale),
        "hour_sin": np.sin(angle),
        "hour_cos": np.cos(angle),
        "hour_position": (known.target_seconds % HOUR_SECONDS) / HOUR_SECONDS,
        "weekday": weekday,
        "weekend": _rests(known, weekday).astype(np.float64),
    }


def _rests(known: Known, weekday: FloatArray) -> NDArray[np.bool_]:
    """Whether the steps that are forecast (R, K) are of a weekend, or of a holiday."""
    weekend = weekday >= FRIDAY_END_DAYS
    return weekend if known.holiday is None else weekend | known.holiday


@dataclass(frozen=True, slots=True)
class _Source:
    """Values seen from R origins: NaN outside the series, after the origin, and before `oldest`."""

    values: FloatArray
    row: IntArray
    at: IntArray
    oldest: IntArray
    start_seconds: float

    def same_time(
        self, step: IntArray, grid: Grid, days: IntArray | int, least: IntArray | int = 1
    ) -> IntArray:
        """Return the steps (R, K) at the same time as steps (R, K), `days` before.

        Of a holiday, and where the day before is one, on a like day, at least `least` days before.
        """
        if grid.holidays is None:
            return step - days * grid.day_steps
        seconds = np.float64(self.start_seconds) + step * grid.step_seconds
        back, nearest = (np.broadcast_to(np.asarray(x), step.shape) for x in (days, least))
        return step - grid.holidays.like_day(seconds, back, nearest) * grid.day_steps

    def take(self, step: IntArray) -> FloatArray:
        """Values at steps (..., R, K)."""
        floor = np.maximum(self.oldest, 0)[:, np.newaxis]
        inside = (step >= floor) & (step <= self.at[:, np.newaxis])
        got = self.values[self.row[:, np.newaxis], np.where(inside, step, 0)].astype(np.float64)
        return np.where(inside, got, np.nan)

    def before(self, grid: Grid, some: IntArray) -> FloatArray:
        """Return the largest value before the window of origins `some` (r,), NaN where none is known."""
        part = _Source(
            self.values, self.row[some], self.at[some], self.oldest[some], self.start_seconds
        )
        steps = np.arange(-grid.history_steps + 1, -grid.window_steps + 1)
        return _extreme(part.take(part.at[:, np.newaxis] + steps), -np.inf)


def _season(source: _Source, leads: IntArray, grid: Grid, days: int) -> Season:
    """Gather the neighbourhood of the same time `days` earlier, of each lead and of the origin."""
    season = days * grid.day_steps
    turns = -(-(leads + grid.smooth_steps) // season)  # 1, or more where the lead spans a season
    least = -(-(leads + grid.smooth_steps) // grid.day_steps)
    now = source.at[:, np.newaxis]
    origin = source.same_time(now, grid, days)  # (R, 1)
    there = source.same_time(now + leads, grid, turns * days, least)
    centre = np.concatenate([there, origin], axis=1)
    shift = np.arange(-grid.smooth_steps, grid.smooth_steps + 1)[:, np.newaxis, np.newaxis]
    near = source.take(centre + shift)  # (shifts, R, K + 1)
    known = np.isfinite(near)
    smooth = ratio(np.where(known, near, 0.0).sum(axis=0), known.sum(axis=0, dtype=np.float64))
    then = origin + np.arange(-grid.level_steps + 1, 1)
    level = known_mean(source.take(then))
    return Season(source.take(centre[:, :-1]), smooth[:, :-1], smooth[:, -1], level)


def _usual(*seasons: Season) -> FloatArray:
    """Return the largest load that was seen at this time of earlier days, (R,); NaN if none."""
    most: FloatArray = np.fmax.reduce(
        [*(s.level for s in seasons), *(x for s in seasons for x in s.smooth.T)]
    )
    return most


def _log(x: FloatArray) -> FloatArray:
    return np.log(np.maximum(x, SMALLEST))


def _deviation(x: FloatArray) -> FloatArray:
    return np.sqrt(np.maximum(known_mean((x - known_mean(x)[:, np.newaxis]) ** 2), 0.0))


def _extreme(x: FloatArray, empty: float) -> FloatArray:
    """Largest known value of each row; NaN where nothing is known."""
    top = np.where(np.isfinite(x), x, empty).max(axis=1)
    return np.where(np.isfinite(top), top, np.nan)


def _pick(newest: FloatArray, at: FloatArray | IntArray) -> FloatArray:
    return newest[np.arange(newest.shape[0]), at.astype(np.int64)]

"""Load as it should never be, and sometimes is: half-hour steps, nine days of a daily cycle, then harm."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from models.frames import LoadSeries
from models.quantiles import FloatArray

STEP_SECONDS = 1800.0
DAY = 48
DAYS = 9
START = pd.Timestamp("2026-03-02", tz="UTC")  # a Monday
HEALTHY = "a/healthy"
JUMP_STEPS = 4  # before the end


def cycle(seed: int, mean: float = 200.0, days: int = DAYS) -> FloatArray:
    """mean * (1 + 0.6 sin), with gamma noise of 10 %."""
    rng = np.random.default_rng(seed)
    day = 1 + 0.6 * np.sin(2 * np.pi * np.arange(days * DAY) / DAY)
    return mean * day * rng.gamma(100.0, 0.01, days * DAY)


def gaps(x: FloatArray) -> FloatArray:
    x = np.where(np.random.default_rng(2).random(x.size) < 0.3, np.nan, x)
    x[100:200] = np.nan  # and two days without telemetry
    return x


def spikes_upwards(x: FloatArray) -> FloatArray:
    x[[60, 150, 290, -30]] *= 1e6
    return x


def spike_now(x: FloatArray) -> FloatArray:
    x[-1] *= 1e6
    return x


def jump_up(x: FloatArray) -> FloatArray:
    x[-JUMP_STEPS:] *= 50.0
    return x


def jump_up_days_ago(x: FloatArray) -> FloatArray:
    x[x.size // 2 :] *= 50.0
    return x


def jump_down(x: FloatArray) -> FloatArray:
    x[-JUMP_STEPS:] /= 50.0
    return x


def zeros(x: FloatArray) -> FloatArray:
    return np.zeros_like(x)


def zeros_until_now(x: FloatArray) -> FloatArray:
    x[:-3] = 0.0
    return x


def nearly_always_zero(x: FloatArray) -> FloatArray:
    out = np.zeros_like(x)
    out[::37] = 1.0
    return out


def constant(x: FloatArray) -> FloatArray:
    return np.full_like(x, 5.0)


def single_value(x: FloatArray) -> FloatArray:
    out = np.full_like(x, np.nan)
    out[-1] = 7.0
    return out


def two_values(x: FloatArray) -> FloatArray:
    out = np.full_like(x, np.nan)
    out[[0, -1]] = 3.0, 900.0
    return out


def tiny(x: FloatArray) -> FloatArray:
    return x * 1e-9


def huge(x: FloatArray) -> FloatArray:
    return x * 1e9


def whole_numbers_below_two(x: FloatArray) -> FloatArray:
    return np.random.default_rng(7).integers(0, 2, x.size).astype(float)


HARM: dict[str, Callable[[FloatArray], FloatArray]] = {
    f"h/{harm.__name__}": harm
    for harm in (
        gaps,
        spikes_upwards,
        spike_now,
        jump_up,
        jump_up_days_ago,
        jump_down,
        zeros,
        zeros_until_now,
        nearly_always_zero,
        constant,
        single_value,
        two_values,
        tiny,
        huge,
        whole_numbers_below_two,
    )
}
NAMES = (HEALTHY, *HARM)


def hostile_values() -> FloatArray:
    """(S, T) of NAMES."""
    harmed = [harm(cycle(k)) for k, harm in enumerate(HARM.values(), start=1)]
    return np.stack([cycle(0), *harmed])


def series_of(names: tuple[str, ...], values: FloatArray) -> LoadSeries:
    """The same load as requests and as tokens."""
    three = values[:, :, np.newaxis] * np.array([1.0, 1000.0, 100.0])
    return LoadSeries(names, START.timestamp(), STEP_SECONDS, three)


def frame_of(
    names: tuple[str, ...], values: FloatArray, start: pd.Timestamp = START
) -> pd.DataFrame:
    """A load.parquet's rows; a gap is a row that is not there."""
    at = start + pd.to_timedelta(np.arange(values.shape[1]) * STEP_SECONDS, unit="s")
    rows = [
        pd.DataFrame({"ts": at, "service": name, "requests": own})
        for name, own in zip(names, values, strict=True)
    ]
    frame = pd.concat(rows, ignore_index=True).dropna()
    return frame.assign(
        input_tokens=frame.requests * 1000.0, output_tokens=frame.requests * 100.0
    ).reset_index(drop=True)

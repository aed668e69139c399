"""Classes of traffic on hostile series: a mix for each, finite, positive, in bounds; and no exception."""

import numpy as np
import pytest
from hostile_series import DAY, NAMES, START, STEP_SECONDS, hostile_values

from models.frames import LoadSeries
from models.mix_bins import binned, trailing
from models.mix_model import MixForecast, MixModel
from models.quantiles import FloatArray

LEADS = (np.arange(4) + 0.5) * STEP_SECONDS
LENGTHS = np.array([1000.0, 100.0])
HOSTILE_LENGTHS = {
    "l/absurd-prompt": lambda isl: np.where(np.arange(isl.size) == isl.size - 1, 1e9, isl),
    "l/prompt-of-nothing": np.zeros_like,
    "l/fifty-times-longer-now": lambda isl: np.where(
        np.arange(isl.size) >= isl.size - 8, 50 * isl, isl
    ),
    "l/prompts-unknown-now": lambda isl: np.where(np.arange(isl.size) >= isl.size - 8, np.nan, isl),
    "l/one-length": lambda isl: np.full_like(isl, 1000.0),
    "l/wild": lambda isl: isl * np.exp(3 * np.sin(np.arange(isl.size) * 1.7)),
}


def fleet() -> LoadSeries:
    """The hostile loads, with two classes that take turns; and healthy loads with hostile lengths."""
    loads = hostile_values()
    night = np.arange(loads.shape[1]) % DAY < DAY // 4
    lengths = LENGTHS * np.where(night[:, np.newaxis], [4.0, 0.5], 1.0)
    values = np.concatenate([loads[..., None], loads[..., None] * lengths], axis=2)
    harmed = []
    for harm in HOSTILE_LENGTHS.values():
        own = values[0].copy()
        own[:, 1] = own[:, 0] * harm(own[:, 1] / own[:, 0])
        harmed.append(own)
    names = (*NAMES, *HOSTILE_LENGTHS)
    return LoadSeries(names, START.timestamp(), STEP_SECONDS, np.concatenate([values, harmed]))


def ask(model: MixModel, series: LoadSeries, steps: int) -> MixForecast:
    end = series.start_seconds + steps * STEP_SECONDS
    sums, first = binned(series.values[:, :steps], series.start_seconds, model.clock)
    recent = trailing(sums, first, model.clock.newest(end), model.clock.kept)
    return model.forecast(series.services, recent, end, LEADS)


@pytest.fixture(scope="module")
def series() -> LoadSeries:
    return fleet()


@pytest.fixture(scope="module")
def model(series: LoadSeries) -> MixModel:
    return MixModel.fit(series)


@pytest.mark.parametrize("hours_ago", [0, 1, 7, 24, 100])
def test_where_anything_came_the_mix_is_finite_and_of_lengths_that_were_seen(
    model: MixModel, series: LoadSeries, hours_ago: int
) -> None:
    steps = series.values.shape[1] - 2 * hours_ago
    got = ask(model, series, steps)
    past = series.values[:, :steps]
    came = np.nan_to_num(np.where(np.isfinite(past).all(axis=2), past[..., 0], 0.0))
    came = came[:, -2 * DAY :].sum(axis=1) > 0  # older lengths are no recent mix
    for s, name in enumerate(series.services):
        lengths = np.stack([got.isl_tokens[s], got.osl_tokens[s]], axis=1)
        assert np.isfinite(lengths).all() == bool(came[s]), name
        if came[s]:
            assert (lengths >= 0).all(), name
            with np.errstate(invalid="ignore", divide="ignore"):
                seen = series.values[s, :, 1:] / series.values[s, :, :1]
            assert (lengths <= 1.2 * np.nanmax(seen, axis=0) + 1.0).all(), name


def test_quantities_of_load_do_not_matter_to_the_mix(model: MixModel, series: LoadSeries) -> None:
    """Spikes, jumps, tiny and huge loads: the classes, and what comes, are those of the healthy service."""
    got = ask(model, series, series.values.shape[1])
    for name in ("h/jump_up", "h/jump_up_days_ago", "h/jump_down", "h/huge", "h/gaps"):
        s = series.services.index(name)
        assert got.isl_tokens[s] == pytest.approx(got.isl_tokens[0], rel=0.05), name
        assert got.osl_tokens[s] == pytest.approx(got.osl_tokens[0], rel=0.05), name


def test_lengths_that_leap_are_told_and_one_absurd_prompt_makes_no_class(
    model: MixModel, series: LoadSeries
) -> None:
    steps = series.values.shape[1]
    before = LoadSeries(
        series.services, series.start_seconds, STEP_SECONDS, series.values[:, : steps - 8]
    )
    got = ask(MixModel.fit(before), series, steps)
    drift = got.drifts[series.services.index("l/fifty-times-longer-now")]
    assert got.drifts[0] is None
    assert drift is not None
    assert drift.what == "length"
    corners = model.lengths("l/absurd-prompt")
    assert corners.max() < 10 * LENGTHS[0]


def test_the_hour_that_comes_twice_or_never_is_no_drift(series: LoadSeries) -> None:
    """Clocks change: in UTC the day's turn to the other class comes an hour early from then on."""
    values: FloatArray = series.values[:1].copy()
    start, step = series.start_seconds, series.step_seconds
    model = MixModel.fit(LoadSeries(series.services[:1], start, step, values))
    shifted = LoadSeries(series.services[:1], start, step, np.roll(values, -2, axis=1)[:, :-2])
    for steps in range(values.shape[1] - DAY, values.shape[1] - 2):
        got = ask(model, shifted, steps)
        assert got.drifts[0] is None, steps
        assert np.isfinite(got.isl_tokens).all()

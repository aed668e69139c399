import json

import numpy as np
import pytest

from models.frames import LoadSeries
from models.load_model import CANDIDATES, LoadModel
from models.quantiles import QUANTILES, FloatArray

STEP = 600.0
DAY = 144
LEADS = (1, 3, 6)
SMALL, BUSY, YOUNG, DEAD = "a/small", "b/busy", "c/young", "d/dead"
NAMES = (SMALL, BUSY, YOUNG, DEAD)


def daily(steps: int, mean: float, seed: int) -> FloatArray:
    """A noisy daily cycle: mean * (1 + 0.6 sin) * gamma noise of 10 %."""
    rng = np.random.default_rng(seed)
    cycle = 1 + 0.6 * np.sin(2 * np.pi * np.arange(steps) / DAY)
    return mean * cycle * rng.gamma(100.0, 0.01, steps)


def make_series(days: int = 9) -> LoadSeries:
    steps = days * DAY
    values = np.full((4, steps, 3), np.nan)
    values[0, :, 0] = daily(steps, 40.0, 1)
    values[1, :, 0] = daily(steps, 9000.0, 2)
    values[1, 300:330, 0] = np.nan  # an outage of the telemetry
    values[2, -6:, 0] = daily(6, 200.0, 3)  # an hour of history
    values[..., 1:] = values[..., :1] * np.array([1000.0, 150.0])
    return LoadSeries(NAMES, 1.7e9 - 1.7e9 % 86_400, STEP, values)


@pytest.fixture(scope="module")
def series() -> LoadSeries:
    return make_series()


@pytest.fixture(scope="module")
def model(series: LoadSeries) -> LoadModel:
    return LoadModel.fit(series, leads_steps=LEADS)


def test_every_service_with_a_value_gets_an_ordered_forecast(
    model: LoadModel, series: LoadSeries
) -> None:
    got = model.forecast(NAMES, series.values[:, :, 0], series.end_seconds)
    assert got.values.shape == (4, len(LEADS), len(QUANTILES))
    assert np.isfinite(got.values[:3]).all()
    assert np.isnan(got.values[3]).all()  # never a number out of nothing
    assert (np.diff(got.values[:3], axis=2) >= 0).all()
    assert (got.values[:3] >= 0).all()
    assert set(got.winner) <= set(CANDIDATES)


def test_follows_the_daily_cycle_better_than_the_last_value(model: LoadModel) -> None:
    future = daily(11 * DAY, 9000.0, 2)
    median = QUANTILES.index(0.5)
    model_error, last_error = 0.0, 0.0
    for at in range(9 * DAY, 10 * DAY, 7):
        end = 1.7e9 - 1.7e9 % 86_400 + at * STEP
        got = model.forecast([BUSY], future[np.newaxis, :at], end).values[0, 2, median]
        truth = future[at + 5]  # lead 6 is the sixth step from here
        model_error += abs(truth - got)
        last_error += abs(truth - future[at - 1])
    assert model_error < 0.7 * last_error
    assert model.scores[BUSY]["trusted"] is True


def test_scores_are_json_and_speak_of_each_service(model: LoadModel) -> None:
    scores = json.loads(json.dumps(model.scores))
    assert set(scores) == set(NAMES)
    assert scores[BUSY]["winner"] in CANDIDATES
    losses = scores[BUSY]["pinball_loss_ratio"]
    assert losses[scores[BUSY]["winner"]] < losses["last-value"]
    assert 0.8 <= scores[BUSY]["coverage_p90_ratio"] <= 0.98
    assert scores[DEAD]["trusted"] is False
    assert scores[DEAD]["history_steps"] == 0
    assert scores[YOUNG]["trusted"] is False
    assert scores[YOUNG]["history_steps"] == 6


def test_a_dead_service_does_not_touch_the_others(model: LoadModel, series: LoadSeries) -> None:
    end = series.end_seconds
    alone = model.forecast([BUSY], series.values[1:2, :, 0], end).values
    beside = model.forecast([DEAD, BUSY], series.values[[3, 1], :, 0], end).values
    np.testing.assert_array_equal(alone[0], beside[1])


def test_unknown_service_borrows_from_the_fleet(model: LoadModel, series: LoadSeries) -> None:
    values = 3.0 * series.values[1:2, -DAY:, 0]
    got = model.forecast(["e/new"], values, series.end_seconds)
    assert np.isfinite(got.values).all()
    assert got.values[0, 0, 1] == pytest.approx(values[0, -1], rel=0.5)


def test_history_may_be_short_long_or_empty(model: LoadModel, series: LoadSeries) -> None:
    end = series.end_seconds
    few = model.forecast([BUSY], np.array([[100.0, 110.0]]), end).values
    assert np.isfinite(few).all()
    assert 50 < few[0, 0, 1] < 200
    assert np.isnan(model.forecast([BUSY], np.empty((1, 0)), end).values).all()
    assert model.forecast([], np.empty((0, 5)), end).values.shape == (0, 3, len(QUANTILES))
    long = np.concatenate([np.full((1, 5000), 7.0), series.values[1:2, :, 0]], axis=1)
    np.testing.assert_array_equal(
        model.forecast([BUSY], long, end).values,
        model.forecast([BUSY], long[:, -model.history_steps :], end).values,
    )


def test_bad_values_are_refused(model: LoadModel) -> None:
    with pytest.raises(ValueError, match="1 services"):
        model.forecast([BUSY], np.ones(5), 0.0)
    with pytest.raises(ValueError, match=">= 0, or NaN"):
        model.forecast([BUSY], np.array([[1.0, -1.0]]), 0.0)


def test_scaling_the_load_scales_the_forecast(model: LoadModel, series: LoadSeries) -> None:
    end = series.end_seconds
    one = model.forecast([BUSY], series.values[1:2, :, 0], end).values
    ten = model.forecast([BUSY], 10.0 * series.values[1:2, :, 0], end).values
    np.testing.assert_allclose(ten, 10.0 * one, rtol=0.02)  # float32 features may fall elsewhere


def test_files_give_the_same_forecasts(model: LoadModel, series: LoadSeries) -> None:
    again = LoadModel.from_files(model.to_files())
    assert (again.target, again.step_seconds, again.scores) == ("requests", STEP, model.scores)
    np.testing.assert_array_equal(
        again.forecast(NAMES, series.values[:, :, 0], series.end_seconds).values,
        model.forecast(NAMES, series.values[:, :, 0], series.end_seconds).values,
    )


def test_same_data_same_bytes(model: LoadModel, series: LoadSeries) -> None:
    assert LoadModel.fit(series, leads_steps=LEADS).to_files() == model.to_files()


def test_damaged_files_are_refused(model: LoadModel) -> None:
    files = model.to_files()
    for name, data in files.items():
        with pytest.raises(ValueError, match=name):
            LoadModel.from_files({k: v for k, v in files.items() if k != name})
        with pytest.raises(ValueError, match=name):
            LoadModel.from_files(files | {name: data[: len(data) // 2]})
    about = json.loads(files["load.json"])
    del about["target"]
    with pytest.raises(ValueError, match="'target' is missing"):
        LoadModel.from_files(files | {"load.json": json.dumps(about).encode()})
    about = json.loads(files["load.json"]) | {"quantiles": [0.5]}
    with pytest.raises(ValueError, match="'quantiles' is of another version"):
        LoadModel.from_files(files | {"load.json": json.dumps(about).encode()})


def test_twenty_minutes_of_history_are_enough_to_say_something() -> None:
    values = np.full((1, 20, 3), 30.0)
    short = LoadSeries(("a/new",), 0.0, 60.0, values)
    model = LoadModel.fit(short, leads_steps=(1, 10))
    got = model.forecast(["a/new"], values[:, :, 0], 1200.0).values[0]
    assert got[:, 1] == pytest.approx(30.0, rel=0.1)
    assert (got[:, 3] > 31.0).all()  # too little is known to be narrow
    assert model.scores["a/new"]["trusted"] is False
    assert LoadModel.from_files(model.to_files()).scores == model.scores


def test_zero_load_forecasts_zero() -> None:
    zeros = LoadSeries(("a/idle",), 0.0, STEP, np.zeros((1, 5 * DAY, 3)))
    model = LoadModel.fit(zeros, leads_steps=(1,))
    got = model.forecast(["a/idle"], zeros.values[:, :, 0], zeros.end_seconds)
    np.testing.assert_allclose(got.values, 0.0, atol=1e-6)


def test_other_targets_and_progress(series: LoadSeries) -> None:
    seen: list[tuple[int, int]] = []
    tokens = LoadModel.fit(
        series,
        target="input_tokens",
        leads_steps=(1,),
        progress=lambda _w, n, of: seen.append((n, of)),
    )
    assert seen == [(n, 6) for n in range(1, 7)] * 2  # a held-out fit, then the final one
    got = tokens.forecast([SMALL], series.values[:1, :, 1], series.end_seconds).values
    assert got[0, 0, 1] == pytest.approx(series.values[0, -1, 1], rel=0.4)


@pytest.mark.parametrize(
    ("target", "leads", "message"),
    [
        ("tokens", (1,), "allowed: requests"),
        ("requests", (0, 1), "from 1"),
        ("requests", (2, 2), "2"),
    ],
)
def test_bad_parameters(
    series: LoadSeries, target: str, leads: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LoadModel.fit(series, target=target, leads_steps=leads)


def test_no_load_at_all_is_refused() -> None:
    nothing = LoadSeries(("a/dead",), 0.0, STEP, np.full((1, 10, 3), np.nan))
    with pytest.raises(ValueError, match="no known value of 'requests'"):
        LoadModel.fit(nothing)


@pytest.mark.parametrize("step_seconds", [60.0, 300.0, 600.0], ids=["1 min", "5 min", "10 min"])
def test_the_same_load_in_steps_of_one_five_or_ten_minutes(step_seconds: float) -> None:
    """A daily cycle around 100 a minute, with an hour unknown: half an hour ahead, in requests a minute."""
    day, minutes = 1440, 3 * 1440
    rng = np.random.default_rng(12)
    cycle = 100.0 * (1 + 0.6 * np.sin(2 * np.pi * np.arange(minutes) / day))
    load = np.stack([rng.poisson(cycle), rng.poisson(10 * cycle)]).astype(float)
    load[:, -400:-340] = np.nan
    each = round(step_seconds / 60)
    values = load.reshape(2, -1, each).sum(axis=2)[..., np.newaxis] * np.array([1.0, 500.0, 80.0])
    series = LoadSeries(("a/one", "b/ten"), 1.7e9 - 1.7e9 % 86_400, step_seconds, values)
    model = LoadModel.fit(series, leads_steps=(1, 1800 // round(step_seconds)))
    got = model.forecast(series.services, values[..., 0], series.end_seconds).values[:, 1] / each
    truth = np.outer([1.0, 10.0], 100.0 * (1 + 0.6 * np.sin(2 * np.pi * np.array([29.0]) / day)))
    assert got[:, QUANTILES.index(0.5)] == pytest.approx(truth[:, 0], rel=0.12)
    assert (got[:, QUANTILES.index(0.99)] > truth[:, 0]).all()
    assert (got[:, QUANTILES.index(0.1)] < truth[:, 0]).all()

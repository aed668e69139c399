"""The coverage is followed step by step; nothing else about a forecast changes."""

import numpy as np
import pytest

from models.features import Span
from models.frames import LoadSeries
from models.load_model import LoadModel
from models.online import CHANCE, RATE, Drift, Online, walk
from models.quantiles import QUANTILES

NINETY = QUANTILES.index(0.9)
SHAPE = np.array([-1.2816, 0.0, 0.8416, 1.2816, 1.6449, 2.3263])
LEADS = np.array([1, 3])
UNIT = Span(np.full(2, 100.0), np.ones(2), np.full(2, 1e9))


def test_one_truth_by_hand() -> None:
    drift = Drift(2, LEADS)
    u = np.broadcast_to(SHAPE, (2, 2, len(QUANTILES)))
    given = drift.correct(u, UNIT)
    np.testing.assert_allclose(given[0, 0], 100 + SHAPE)
    drift.remember(10, given)
    drift.settle(11, np.array([101.5, np.nan]))  # above q90 = 101.28, below q95 = 101.64
    # passed: + RATE * q; not passed: - RATE * (1 - q)
    expected = [0.1, 0.5, 0.8, 0.9, -0.05, -0.01]
    np.testing.assert_allclose(drift.shift[0, 0], RATE * np.array(expected))
    np.testing.assert_array_equal(drift.shift[1], 0.0)  # a gap tells nothing
    np.testing.assert_array_equal(drift.shift[:, 1], 0.0)  # lead 3 has not come
    drift.settle(13, np.array([0.0, 0.0]))
    assert (drift.shift[:, 1] < 0).all()


def test_what_may_be_chance_is_not_acted_on() -> None:
    drift = Drift(2, LEADS)
    u = np.broadcast_to(SHAPE, (2, 2, len(QUANTILES)))
    drift.shift[0], drift.shift[1] = CHANCE, -CHANCE
    np.testing.assert_allclose(drift.correct(u, UNIT), 100 + u)
    drift.shift[0] += 0.1  # a tenth of the width from q10 to q90, 2.5632
    np.testing.assert_allclose(drift.correct(u, UNIT)[0], 100 + u[0] + 0.25632)


@pytest.mark.parametrize("spread", [0.4, 3.0])
def test_too_narrow_and_too_wide_forecasts_drift_towards_their_level(spread: float) -> None:
    rng = np.random.default_rng(1)
    drift, under, before = Drift(2, LEADS[:1]), [], []
    u = np.broadcast_to(spread * SHAPE, (2, 1, len(QUANTILES)))
    truth = 100 + rng.normal(0.0, 1.0, (1500, 2))
    for step in range(1500):
        drift.settle(step, truth[step])
        given = drift.correct(u, UNIT)
        drift.remember(step, given)
        if step > 300:
            under.append(truth[min(step + 1, 1499)] <= given[:, 0, NINETY])
            before.append(truth[min(step + 1, 1499)] <= 100 + spread * SHAPE[NINETY])
    assert abs(np.mean(under) - 0.9) < 0.75 * abs(
        np.mean(before) - 0.9
    )  # it forgets: not all the way


def test_what_waits_is_bounded_and_moves_with_the_services() -> None:
    drift = Drift(2, LEADS)
    given = drift.correct(np.broadcast_to(SHAPE, (2, 2, len(QUANTILES))), UNIT)
    for step in range(50):
        drift.settle(step, np.array([1e6, 100.0]))
        drift.remember(step, given)
    assert len(drift._waiting) == LEADS[-1]
    other = drift.take(np.array([-1, 0]))
    np.testing.assert_array_equal(other.shift[0], 0.0)
    np.testing.assert_array_equal(other.shift[1], drift.shift[0])


@pytest.fixture(scope="module")
def world() -> tuple[LoadModel, LoadSeries]:
    rng = np.random.default_rng(2)
    values = np.repeat(rng.gamma(20.0, 5.0, (2, 260, 1)), 3, axis=2)
    series = LoadSeries(("a", "b"), 0.0, 600.0, values)
    return LoadModel.fit(series, leads_steps=(1, 3)), series


def test_a_walk_is_the_same_as_going_step_by_step(world: tuple[LoadModel, LoadSeries]) -> None:
    model, series = world
    y = series.values[:, :, 0].copy()
    steps = np.arange(200, 230)
    y[:, 200:] *= np.linspace(1.0, 8.0, 60)  # rises faster than was ever seen: quantiles are passed
    walked = walk(model, series.services, y, 0.0, (steps, steps))
    online = Online(model, series.services)
    single = [online.forecast(y[:, : s + 1], 600.0 * (s + 1)).values for s in steps]
    np.testing.assert_allclose(walked, np.stack(single), rtol=1e-12)
    first = model.forecast(series.services, y[:, :201], 600.0 * 201).values
    np.testing.assert_allclose(walked[0], first, rtol=1e-12)  # nothing is known of the coverage yet
    assert not np.allclose(
        walked[-1], model.forecast(series.services, y[:, :230], 600.0 * 230).values
    )


def test_asking_in_between_changes_nothing(world: tuple[LoadModel, LoadSeries]) -> None:
    model, series = world
    y = series.values[:, :, 0]
    followed = np.arange(200, 240, 4)
    few = walk(model, series.services, y, 0.0, (np.array([239]), followed))
    more = walk(model, series.services, y, 0.0, (np.array([201, 222, 239]), followed))
    np.testing.assert_array_equal(few[-1], more[-1])


def test_other_services_keep_their_drift(world: tuple[LoadModel, LoadSeries]) -> None:
    model, series = world
    y = series.values[:, :, 0]
    online = Online(model, series.services)
    for s in range(200, 220):
        online.forecast(y[:, : s + 1], 600.0 * (s + 1))
    alone = online.covering(("b",)).forecast(y[1:, :221], 600.0 * 221).values
    both = online.forecast(y[:, :221], 600.0 * 221).values
    np.testing.assert_allclose(alone[0], both[1], rtol=1e-12)


def test_what_was_learned_is_taken_over_also_by_services_that_come_later() -> None:
    shift = np.full((len(LEADS), len(QUANTILES)), 0.25)

    class Model:
        leads_steps = LEADS

    online = Online(Model(), ["a"])  # type: ignore[arg-type]
    odd = {"wide": np.zeros((9, 9)), "nan": np.full_like(shift, np.nan)}
    online.restore({"a": shift, "b": 8 * shift, **odd})
    np.testing.assert_array_equal(online.shifts()["a"], shift)
    more = online.covering(["b", "a", "c", "wide", "nan"]).shifts()
    np.testing.assert_array_equal(more["a"], shift)
    np.testing.assert_array_equal(more["b"], 1.0)  # within limits
    assert not any(more[name].any() for name in ("c", "wide", "nan"))
    more["a"][:] = 9.0  # a copy
    np.testing.assert_array_equal(online.shifts()["a"], shift)

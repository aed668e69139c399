"""One fitted model, served by each of its candidates in turn, and what its global model looked at."""

import numpy as np
import pytest

from models.frames import LoadSeries
from models.load_model import BLEND, CANDIDATES, LoadModel
from models.simple_rules import RULES

STEP, DAY = 1800.0, 48


def series(days: int) -> LoadSeries:
    rng = np.random.default_rng(3)
    at = np.arange(days * DAY)
    values = np.full((2, at.size, 3), np.nan)
    for s, mean in enumerate((60.0, 4000.0)):
        cycle = 1 + 0.6 * np.sin(2 * np.pi * at / DAY)
        values[s, :, 0] = mean * cycle * rng.gamma(100.0, 0.01, at.size)
    return LoadSeries(("a", "b"), 1.7e9 - 1.7e9 % 86_400, STEP, values)


@pytest.fixture(scope="module")
def world() -> tuple[LoadSeries, LoadModel]:
    known = series(9)
    return known, LoadModel.fit(known, leads_steps=(1, 3))


def test_each_candidate_forecasts_on_its_own(world: tuple[LoadSeries, LoadModel]) -> None:
    known, model = world
    assert model.candidates == CANDIDATES
    past = known.values[:, :, 0]
    got = {
        name: model.served_by(name).forecast(known.services, past, known.end_seconds)
        for name in model.candidates
    }
    assert all(set(f.winner) == {name} for name, f in got.items())
    assert all(np.isfinite(f.values).all() for f in got.values())
    served = model.forecast(known.services, past, known.end_seconds)
    for s, winner in enumerate(served.winner):
        np.testing.assert_array_equal(served.values[s], got[winner].values[s])
    # the last value is flat in the lead: its median is the last value times a median error near one
    assert got["last-value"].values[1, 1, 1] == pytest.approx(past[1, -1], rel=0.15)


def test_gains_are_shares_of_all_features(world: tuple[LoadSeries, LoadModel]) -> None:
    shares = world[1].feature_importances()
    assert sum(shares.values()) == pytest.approx(1.0)
    assert min(shares.values()) >= 0
    assert max(shares.values()) > 0.02
    assert shares["lead"] > 0


def test_without_a_global_model_the_rules_remain() -> None:
    short = series(1)
    values = short.values[:, :6]
    model = LoadModel.fit(
        LoadSeries(short.services, short.start_seconds, STEP, values), leads_steps=(1,)
    )
    assert model.candidates == (*RULES, BLEND)
    assert model.feature_importances() == {}
    with pytest.raises(ValueError, match="is no candidate"):
        model.served_by("lightgbm")

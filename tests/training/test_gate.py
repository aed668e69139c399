"""Only what beats the incumbent replaces it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest

from models.frames import LoadSeries
from models.load_model import LoadModel
from models.quantiles import QUANTILES, FloatArray, LoadForecast
from training.gate import crop, evaluate, judge_load, judged_from

STEPS = 2 * 1440


@dataclass
class Constant:
    """A load model that always says the same, whatever the quantile."""

    value: float
    target: str = "requests"
    step_seconds: float = 60.0
    leads_steps: np.ndarray = field(default_factory=lambda: np.array([1, 5]))

    def forecast(
        self, services: Sequence[str], values: FloatArray, end_seconds: float
    ) -> LoadForecast:
        assert values.shape[0] == len(services)
        shape = (len(services), len(self.leads_steps), len(QUANTILES))
        names = tuple(services)
        yhat = np.full(shape, self.value)
        return LoadForecast(
            names, end_seconds, 60.0, self.leads_steps, yhat, ("constant",) * len(names)
        )


def model(value: float) -> LoadModel:
    return cast(LoadModel, Constant(value))


def series(level: float = 100.0) -> LoadSeries:
    values = np.full((1, STEPS, 3), level)
    return LoadSeries(("n/s",), 0.0, 60.0, values)


DAY = STEPS - 1440  # the judged window is the last day


def test_loss_is_over_the_mean_load() -> None:
    # always 10 below: loss = mean over quantiles of q * 10, over a load of 100
    expected = np.mean(QUANTILES) * 10.0 / 100.0
    assert evaluate(model(90.0), series(), DAY)["n/s"] == pytest.approx(expected)


def test_gaps_are_not_judged_and_silence_has_no_loss() -> None:
    gappy = series()
    gappy.values[0, -200:, 0] = np.nan
    whole = evaluate(model(90.0), series(), DAY)["n/s"]
    assert evaluate(model(90.0), gappy, DAY)["n/s"] == pytest.approx(whole)
    assert evaluate(model(90.0), series(0.0), DAY) == {}


@pytest.mark.parametrize(("challenger", "promoted"), [(95.0, True), (80.0, True), (70.0, False)])
def test_the_better_one_serves(challenger: float, promoted: bool) -> None:
    verdict = judge_load(model(challenger), model(80.0), series(), DAY)
    assert verdict.promoted is promoted
    assert verdict.ratio == pytest.approx((100.0 - challenger) / 20.0)
    assert "24 h that neither has seen" in verdict.why


def test_silence_promotes_the_newer() -> None:
    verdict = judge_load(model(95.0), model(80.0), series(0.0), DAY)
    assert verdict.promoted
    assert verdict.ratio is None


@pytest.mark.parametrize(
    ("seen_until_hours", "first"),
    [
        (10.0, DAY),  # at most the last day
        (30.0, 30 * 60),  # from where the incumbent's training ended
        (46.5, None),  # an hour and a half: too little
        (60.0, None),  # it has seen more than this
    ],
)
def test_the_judged_window(seen_until_hours: float, first: int | None) -> None:
    assert judged_from(seen_until_hours * 3600.0, series()) == first


def test_cropping_keeps_the_grid() -> None:
    short = crop(series(), 100)
    assert short.values.shape == (1, 100, 3)
    assert short.end_seconds == 6000.0

"""The load model on hostile series: a forecast for each, finite, ordered, as wide as it should be."""

import numpy as np
import pytest
from hostile_series import (
    DAY,
    HARM,
    HEALTHY,
    JUMP_STEPS,
    NAMES,
    START,
    STEP_SECONDS,
    cycle,
    hostile_values,
    series_of,
)

from models.frames import LoadSeries
from models.load_model import LoadModel
from models.quantiles import QUANTILES, FloatArray, LoadForecast

LEADS = (1, 2, 4)
P10, P50, P90, P99 = (QUANTILES.index(q) for q in (0.1, 0.5, 0.9, 0.99))


@pytest.fixture(scope="module")
def values() -> FloatArray:
    return hostile_values()


@pytest.fixture(scope="module")
def fleet(values: FloatArray) -> LoadSeries:
    return series_of(NAMES, values)


@pytest.fixture(scope="module")
def model(fleet: LoadSeries) -> LoadModel:
    return LoadModel.fit(fleet, leads_steps=LEADS)


@pytest.fixture(scope="module")
def forecast(model: LoadModel, fleet: LoadSeries, values: FloatArray) -> LoadForecast:
    return model.forecast(NAMES, values, fleet.end_seconds)


def of(forecast: LoadForecast, name: str) -> FloatArray:
    return forecast.values[forecast.services.index(name)]


@pytest.mark.parametrize("name", NAMES)
def test_finite_ordered_and_never_negative(forecast: LoadForecast, name: str) -> None:
    quantiles = of(forecast, name)
    assert np.isfinite(quantiles).all()
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert (quantiles >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_candidate_is_as_well_behaved(
    model: LoadModel, fleet: LoadSeries, values: FloatArray, name: str
) -> None:
    row = [NAMES.index(name)]
    for candidate in model.candidates:
        got = model.served_by(candidate).forecast([name], values[row], fleet.end_seconds).values
        assert np.isfinite(got).all(), candidate
        assert (np.diff(got, axis=2) >= 0).all(), candidate


def test_a_healthy_service_among_them_is_forecast_as_well_as_ever(forecast: LoadForecast) -> None:
    tomorrow = cycle(0, days=10)[9 * DAY :]  # other noise, the same cycle
    truth = tomorrow[np.array(LEADS) - 1]
    np.testing.assert_allclose(of(forecast, HEALTHY)[:, P50], truth, rtol=0.25)
    assert (of(forecast, HEALTHY)[:, P90] < 1.7 * truth).all()
    assert (of(forecast, HEALTHY)[:, P99] < 6 * truth).all()  # its neighbours leave a trace here


def test_a_jump_of_fifty_times_is_followed_at_once(forecast: LoadForecast) -> None:
    now = cycle(1 + list(HARM).index("h/jump_up"))[-JUMP_STEPS:].mean() * 50.0
    jumped = of(forecast, "h/jump_up")
    assert (jumped[:, P50] > 0.5 * now).all()
    assert (jumped[:, P99] > 0.9 * now).all()
    assert (jumped[:, P99] < 20 * now).all()  # wide, not mad


def test_what_is_unknown_is_said_by_wide_quantiles(forecast: LoadForecast) -> None:
    # one value ever, a 7: the fleet's errors around it
    single = of(forecast, "h/single_value")
    assert (single[:, P10] < 0.85 * 7.0).all()
    assert (single[:, P90] > 1.15 * 7.0).all()
    assert (single[:, P99] > 1.35 * 7.0).all()


@pytest.mark.parametrize("times", [1e3, 1e6, 1e12])
@pytest.mark.parametrize("steps_ago", [1, 3, 10])
def test_one_absurd_step_is_not_believed(
    model: LoadModel, fleet: LoadSeries, times: float, steps_ago: int
) -> None:
    """The forecast stays where it was, in every quantile: one bogus scrape must order no replicas."""
    calm = cycle(0)[np.newaxis]
    bogus = calm.copy()
    bogus[0, -steps_ago] *= times
    before, after = (
        model.forecast([HEALTHY], past, fleet.end_seconds).values[0] for past in (calm, bogus)
    )
    np.testing.assert_allclose(after[:, P50], before[:, P50], rtol=0.3)
    assert (after[:, P99] < 2 * before[:, P99]).all()


def test_a_tenfold_step_may_be_the_beginning_of_something(
    model: LoadModel, fleet: LoadSeries
) -> None:
    past = cycle(0)[np.newaxis].copy()
    past[0, -1] *= 10.0
    got = model.forecast([HEALTHY], past, fleet.end_seconds).values[0]
    assert (got[:, P99] > 0.5 * past[0, -1]).all()
    assert (got[:, P10] < 0.9 * past[0, -1]).all()


def test_zeros_are_forecast_as_zeros_and_a_constant_as_itself(forecast: LoadForecast) -> None:
    assert of(forecast, "h/zeros").max() == 0.0
    np.testing.assert_allclose(of(forecast, "h/constant")[:, P50], 5.0, rtol=0.02)


def test_size_does_not_matter(forecast: LoadForecast, values: FloatArray) -> None:
    for name in ("h/tiny", "h/huge"):
        level = values[NAMES.index(name), -DAY - 2 : -DAY + 6].mean()
        assert 0.3 < of(forecast, name)[0, P50] / level < 3


@pytest.mark.parametrize("name", ["h/gaps", "h/spikes_upwards", "h/whole_numbers_below_two"])
def test_promises_are_kept_over_the_next_day(model: LoadModel, name: str) -> None:
    """Cutoffs over a day that the fit has not seen: P90 holds in about nine of ten steps."""
    k = list(HARM).index(name) + 1
    longer = HARM[name](cycle(k, days=10))
    under, judged = np.zeros(len(QUANTILES)), 0
    for at in range(9 * DAY, 10 * DAY - max(LEADS)):
        end = START.timestamp() + (at + 1) * STEP_SECONDS
        got = model.forecast([name], longer[np.newaxis, : at + 1], end).values[0]
        for row, lead in zip(got, LEADS, strict=True):
            if np.isfinite(longer[at + lead]):
                under += longer[at + lead] <= row
                judged += 1
    share = under / judged
    assert share[P90] > 0.78
    assert share[P99] > 0.93


def test_nothing_known_of_the_last_day_is_no_forecast(model: LoadModel, fleet: LoadSeries) -> None:
    old = np.full((1, 3 * DAY), np.nan)
    old[0, 2] = 7.0
    assert np.isnan(model.forecast([HEALTHY], old, fleet.end_seconds).values).all()


@pytest.mark.parametrize("value", [-1.0, np.inf])
def test_impossible_values_are_refused_in_a_sentence(
    model: LoadModel, fleet: LoadSeries, value: float
) -> None:
    past = cycle(0)[np.newaxis].copy()
    past[0, -5] = value
    with pytest.raises(ValueError, match=r"values must be finite and >= 0, or NaN for a gap"):
        model.forecast([HEALTHY], past, fleet.end_seconds)


@pytest.mark.parametrize("name", [n for n in HARM if n != "h/single_value"])
def test_alone_each_can_be_fitted(name: str, values: FloatArray) -> None:
    """No fleet to lean on. Two days are enough to pass through every step of the fit."""
    own = values[[NAMES.index(name)], -2 * DAY :]
    model = LoadModel.fit(series_of((name,), own), leads_steps=LEADS)
    got = model.forecast([name], own, series_of((name,), own).end_seconds).values
    assert np.isfinite(got).all()
    assert (np.diff(got, axis=2) >= 0).all()

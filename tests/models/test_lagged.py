import numpy as np
import pytest

from models.lagged import LaggedAverage
from models.quantiles import QUANTILES, FloatArray, LoadForecast

LEADS = np.array([1, 2, 4])


def forecast(
    cutoff_seconds: float, medians: list[float], services: tuple[str, ...] = ("a",)
) -> LoadForecast:
    values = np.repeat(np.array(medians)[np.newaxis, :, np.newaxis], len(QUANTILES), axis=2)
    values = np.repeat(values, len(services), axis=0) + np.arange(len(QUANTILES))
    return LoadForecast(services, cutoff_seconds, 60.0, LEADS, values, ("x",) * len(services))


def first_quantile(mean: FloatArray) -> list[float]:
    return list(mean[0, :, 0])


def test_the_same_moments_are_averaged() -> None:
    lagged = LaggedAverage(180.0)
    assert first_quantile(lagged.of(forecast(0.0, [10.0, 20.0, 40.0]))) == [10.0, 20.0, 40.0]
    # a step later, leads 1, 2, 4 are what were 2, 3 (between 20 and 40) and 5 (held: 40)
    assert first_quantile(lagged.of(forecast(60.0, [0.0, 0.0, 0.0]))) == [10.0, 15.0, 20.0]


def test_what_is_as_old_as_the_span_no_longer_counts() -> None:
    lagged = LaggedAverage(120.0)
    lagged.of(forecast(0.0, [90.0, 90.0, 90.0]))
    lagged.of(forecast(60.0, [10.0, 10.0, 10.0]))
    assert first_quantile(lagged.of(forecast(120.0, [9.0, 9.0, 9.0]))) == [9.5, 9.5, 9.5]


@pytest.mark.parametrize("span", [0.0, 60.0])
def test_with_steps_as_long_as_the_span_the_newest_alone_speaks(span: float) -> None:
    lagged = LaggedAverage(span)
    lagged.of(forecast(0.0, [90.0, 90.0, 90.0]))
    assert first_quantile(lagged.of(forecast(60.0, [1.0, 2.0, 3.0]))) == [1.0, 2.0, 3.0]


def test_other_services_are_another_matter() -> None:
    lagged = LaggedAverage(600.0)
    lagged.of(forecast(0.0, [90.0, 90.0, 90.0]))
    both = lagged.of(forecast(60.0, [1.0, 2.0, 3.0], services=("a", "b")))
    assert first_quantile(both) == [1.0, 2.0, 3.0]


def test_a_service_that_an_earlier_forecast_did_not_know_is_not_averaged_with_nothing() -> None:
    lagged = LaggedAverage(600.0)
    unknown = forecast(0.0, [1.0, 1.0, 1.0], services=("a", "b"))
    unknown.values[1] = np.nan
    lagged.of(unknown)
    newest = forecast(60.0, [0.0, 0.0, 0.0], services=("a", "b"))
    mean = lagged.of(newest)
    assert list(mean[:, 0, 0]) == [0.5, 0.0]
    newest = forecast(120.0, [0.0, 0.0, 0.0], services=("a", "b"))
    newest.values[0] = np.nan
    assert np.isnan(lagged.of(newest)[0]).all()


def test_quantiles_of_a_mean_never_cross() -> None:
    rng = np.random.default_rng(1)
    lagged = LaggedAverage(300.0)
    for minute in range(8):
        values = np.sort(rng.gamma(2.0, 5.0, (3, LEADS.size, len(QUANTILES))), axis=-1)
        made = LoadForecast(("a", "b", "c"), 60.0 * minute, 60.0, LEADS, values, ("x",) * 3)
        assert (np.diff(lagged.of(made), axis=-1) >= 0).all()


def test_a_clear_rise_is_not_averaged_away() -> None:
    lagged = LaggedAverage(600.0)
    lagged.of(forecast(0.0, [10.0, 10.0, 10.0]))
    # medians are 11 and, with the newest, 11.4 and 11.6 in the mean; to the 0.8 quantile it is one more
    assert first_quantile(lagged.of(forecast(60.0, [10.8, 11.2, 10.0]))) == pytest.approx(
        [10.4, 11.2, 10.0]
    )

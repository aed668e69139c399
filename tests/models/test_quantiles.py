import numpy as np

from models.quantiles import QUANTILES, LoadForecast


def test_between_two_leads_a_forecast_is_interpolated() -> None:
    values = np.zeros((1, 3, len(QUANTILES)))
    values[0, :, 0] = (10.0, 20.0, 50.0)
    forecast = LoadForecast(("a",), 0.0, 60.0, np.array([2, 4, 7]), values, ("blend",))
    every = forecast.every_step()
    assert every.shape == (1, 7, len(QUANTILES))
    np.testing.assert_allclose(every[0, :, 0], [10, 10, 15, 20, 30, 40, 50])

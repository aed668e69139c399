"""An outage is not an absence of demand: what is learned does not know its zeros."""

import numpy as np
import pandas as pd
import pytest

from models.frames import LoadSeries, to_series, validate_load, validate_serving
from models.load_model import LoadModel
from models.quantiles import QUANTILES
from training.demand import without_outages

START = pd.Timestamp("2026-03-02", tz="UTC")
STEP, DAY, DAYS = 600.0, 144, 6
OUTAGE = slice(5 * DAY + 60, 5 * DAY + 72)  # two hours on the sixth day
MEDIAN = QUANTILES.index(0.5)


def demand() -> np.ndarray:
    rng = np.random.default_rng(4)
    day = 1 + 0.5 * np.sin(2 * np.pi * np.arange(DAYS * DAY) / DAY)
    return 400.0 * day * rng.gamma(200.0, 1 / 200.0, DAYS * DAY)


def world(variants: int = 2) -> tuple[LoadSeries, pd.DataFrame]:
    requests = demand()
    requests[OUTAGE] = 0.0
    ts = START + pd.to_timedelta(np.arange(DAYS * DAY) * STEP, unit="s")
    load = pd.DataFrame({"ts": ts, "service": "p/a", "requests": requests})
    load = load.assign(input_tokens=requests * 500, output_tokens=requests * 100)
    ready, starting = np.full(DAYS * DAY, 2.0), np.zeros(DAYS * DAY)
    ready[OUTAGE], starting[OUTAGE] = 0.0, 2.0
    each = []
    for v in range(variants):
        for half in (0, 300):  # two intervals of serving a step
            at = ts + pd.Timedelta(seconds=half)
            row = {"ts": at, "service": "p/a", "variant": f"v{v}", "ready_replicas": ready}
            each.append(pd.DataFrame({**row, "starting_replicas": starting}))
    serving = pd.concat(each).assign(arrival_rate_rps=np.nan, isl_tokens=500.0, osl_tokens=100.0)
    return to_series(validate_load(load, "load"), "load"), validate_serving(serving, "serving")


def test_the_outage_becomes_a_gap_and_nothing_else_changes() -> None:
    series, serving = world()
    got, masked = without_outages(series, serving)
    assert masked == {"p/a": 12}
    assert np.isnan(got.values[0, OUTAGE]).all()
    kept = np.ones(DAYS * DAY, bool)
    kept[OUTAGE] = False
    assert (got.values[0, kept] == series.values[0, kept]).all()
    assert (series.values[0, OUTAGE] == 0).all()  # what was read stays what was read


def test_without_word_of_replicas_the_load_is_as_it_was_read() -> None:
    series, serving = world()
    assert without_outages(series, serving.iloc[:0]) == (series, {})
    other, masked = without_outages(series, serving.assign(service="p/other"))
    assert masked == {}
    assert other is series


def test_a_forecast_after_an_outage_is_that_of_the_demand() -> None:
    series, serving = world()
    healed, _ = without_outages(series, serving)
    truth = demand()
    at = OUTAGE.stop  # the outage has just ended
    errors = []
    for known in (series, healed):
        model = LoadModel.fit(known, leads_steps=(1, 2, 3))
        end = known.start_seconds + at * STEP
        got = model.forecast(known.services, known.values[:, :at, 0], end).values[0, :, MEDIAN]
        errors.append(float(np.abs(got - truth[at : at + 3]).mean() / truth[at : at + 3].mean()))
    assert errors[1] < 0.15
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("edge", ["before", "after"])
def test_serving_outside_of_the_load_is_left_alone(edge: str) -> None:
    series, serving = world()
    shift = pd.Timedelta(days=30 if edge == "after" else -30)
    assert without_outages(series, serving.assign(ts=serving.ts + shift))[1] == {}

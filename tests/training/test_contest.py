"""Every contestant forecasts at every cutoff, and what serves is what the backtest gives."""

import numpy as np
import pandas as pd
import pytest

from models.forecast_account import Contest, account_of, cutoff_losses
from models.frames import FrameError, LoadSeries
from models.load_model import CANDIDATES
from training.backtest import backtest
from training.contest import contest, usual_cutoffs

DAY = 48
START = pd.Timestamp("2025-03-03", tz="UTC")
STEPS = 3


def series(days: int = 4) -> LoadSeries:
    rng = np.random.default_rng(6)
    at = np.arange(days * DAY)
    values = np.full((2, at.size, 3), np.nan)
    for s, mean in enumerate((50.0, 4000.0)):
        cycle = 1 + 0.5 * np.sin(2 * np.pi * at / DAY)
        values[s, :, 0] = mean * cycle * rng.gamma(50.0, 0.02, at.size)
    values[1, -5, 0] = np.nan
    return LoadSeries(("p/a", "p/b"), START.timestamp(), 1800.0, values)


def cutoffs() -> pd.DataFrame:
    at = START + pd.to_timedelta([3 * DAY * 30 + 30 * k for k in range(0, 46, 6)], unit="min")
    return pd.DataFrame([(s, c) for c in at for s in ("p/b", "p/a")], columns=["service", "cutoff"])


@pytest.fixture(scope="module")
def held() -> tuple[pd.DataFrame, Contest, dict[str, float]]:
    return contest(series(), cutoffs(), horizon_steps=STEPS, target="requests")


def test_what_serves_is_the_backtest(
    held: tuple[pd.DataFrame, Contest, dict[str, float]],
) -> None:
    forecasts, found, _ = held
    again = backtest(series(), cutoffs(), horizon_steps=STEPS, target="requests")
    pd.testing.assert_frame_equal(forecasts, again, check_exact=True)
    np.testing.assert_array_equal(found.served.ravel(), again.yhat)


def test_truth_and_losses_belong_to_their_cutoff(
    held: tuple[pd.DataFrame, Contest, dict[str, float]],
) -> None:
    _, found, _ = held
    load = series()
    asked = cutoffs()
    for n, (service, cutoff) in enumerate(zip(asked.service, asked.cutoff, strict=True)):
        step = int((cutoff - START) / pd.Timedelta("30min"))
        row = load.services.index(service)
        assert found.row[n] == row
        assert found.cutoff_seconds[n] == (cutoff + pd.Timedelta("30min")).timestamp()
        truth = load.values[row, step + 1 : step + 1 + STEPS, 0]
        np.testing.assert_array_equal(found.actual[n, : truth.size], truth)
    # what served is the elected contestant, but for what calibration made of it
    served = cutoff_losses(found.actual, found.served)
    own = [found.losses[n, CANDIDATES.index(name)] for n, name in enumerate(found.winner)]
    assert np.corrcoef(np.log(own), np.log(served))[0, 1] > 0.95
    np.testing.assert_allclose(np.mean(own), np.mean(served), rtol=0.3)


def test_every_contestant_is_there_and_the_model_tells_what_it_looked_at(
    held: tuple[pd.DataFrame, Contest, dict[str, float]],
) -> None:
    _, found, importances = held
    assert np.isfinite(found.losses).all()
    account = account_of(found, "p/a")
    assert account is not None
    assert set(account.contestants) == set(CANDIDATES)
    assert sum(importances.values()) == pytest.approx(1.0)


def test_usual_cutoffs_are_those_of_the_last_week() -> None:
    found = usual_cutoffs(series(days=21), 6, "requests")
    of_a = found[found.service == "p/a"].cutoff
    assert len(of_a) == 7 * DAY // 6
    assert of_a.iloc[0] == START + pd.Timedelta(days=14) - pd.Timedelta("30min")
    assert (of_a.diff().dropna() == pd.Timedelta("3h")).all()
    end = START + pd.Timedelta(days=21)
    assert of_a.iloc[-1] + pd.Timedelta("30min") * 7 <= end  # the whole horizon is known


def test_usual_cutoffs_of_a_short_load_are_its_second_half() -> None:
    found = usual_cutoffs(series(days=2), 1, "requests")
    assert found.cutoff.min() == START + pd.Timedelta(days=1) - pd.Timedelta("30min")
    young = series(days=2)
    young.values[0, :80] = np.nan  # its first value comes later
    found = usual_cutoffs(young, 1, "requests")
    assert found[found.service == "p/a"].cutoff.min() == START + pd.Timedelta("40h")
    tiny = LoadSeries(("p/a",), 0.0, 60.0, np.ones((1, 3, 3)))
    assert usual_cutoffs(tiny, 30, "requests").empty


def test_of_a_large_fleet_every_so_many_horizons_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.contest.MOST_CUTOFFS", 30)
    found = usual_cutoffs(series(days=21), 6, "requests")  # 2 * 56 would be too many by 3.7 times
    of_a = found[found.service == "p/a"].cutoff
    assert len(found) <= 30
    assert len(of_a) == 14
    assert (of_a.diff().dropna() == pd.Timedelta("12h")).all()


def test_bad_cutoffs_are_refused_as_in_a_backtest() -> None:
    bad = pd.DataFrame({"service": ["p/none"], "cutoff": [START]})
    with pytest.raises(FrameError, match="'p/none' is not in the load"):
        contest(series(), bad, horizon_steps=1, target="requests")

import numpy as np
import pandas as pd
import pytest

from models.frames import FrameError, LoadSeries, to_series, validate_load
from models.quantiles import QUANTILES
from training.backtest import backtest

STEP = "30min"
DAY = 48
START = pd.Timestamp("2025-03-03", tz="UTC")


def make_load(days: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    parts = []
    for name, mean, skip in (("p/a", 50.0, 0), ("p/b", 4000.0, 0), ("p/late", 300.0, 3 * DAY)):
        at = np.arange(skip, days * DAY)
        cycle = 1 + 0.5 * np.sin(2 * np.pi * at / DAY)
        requests = mean * cycle * rng.gamma(50.0, 0.02, at.size)
        parts.append(
            pd.DataFrame(
                {
                    "ts": START + pd.to_timedelta(at * 30, unit="min"),
                    "service": name,
                    "requests": requests,
                    "input_tokens": requests * 900,
                    "output_tokens": requests * 100,
                }
            )
        )
    frame = pd.concat(parts, ignore_index=True)
    gap = (frame.service == "p/b") & frame.index.isin(range(6 * DAY + 100, 6 * DAY + 110))
    return validate_load(frame[~gap], "test")  # rows that are missing, not NaN


def make_cutoffs() -> pd.DataFrame:
    at = START + pd.to_timedelta([4 * DAY * 30 + 30 * k for k in range(0, 70, 9)], unit="min")
    return pd.DataFrame(
        [(name, c) for c in at for name in ("p/a", "p/late", "p/b")], columns=["service", "cutoff"]
    )


def run(load: pd.DataFrame, cutoffs: pd.DataFrame) -> pd.DataFrame:
    return backtest(to_series(load, "test"), cutoffs, horizon_steps=3, target="requests")


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    return run(make_load(), make_cutoffs())


def test_complete_ordered_and_non_negative(whole: pd.DataFrame) -> None:
    cutoffs = make_cutoffs()
    assert list(whole.columns) == ["service", "cutoff", "h", "quantile", "yhat"]
    assert len(whole) == len(cutoffs) * 3 * len(QUANTILES)
    assert not whole.isna().any().any()
    assert (whole.yhat >= 0).all()
    wide = whole.pivot_table(index=["service", "cutoff", "h"], columns="quantile", values="yhat")
    assert wide.shape == (len(cutoffs) * 3, len(QUANTILES))
    assert (np.diff(wide.to_numpy(), axis=1) >= 0).all()
    assert isinstance(whole.cutoff.dtype, pd.DatetimeTZDtype)


def test_beats_the_last_value(whole: pd.DataFrame) -> None:
    load = make_load().set_index(["service", "ts"]).requests
    median = whole[(whole["quantile"] == 0.5) & (whole.h == 3)]
    truth = load.reindex(
        pd.MultiIndex.from_arrays([median.service, median.cutoff + pd.Timedelta("90min")])
    ).to_numpy()
    last = load.reindex(pd.MultiIndex.from_arrays([median.service, median.cutoff])).to_numpy()
    error = np.nanmean(np.abs(median.yhat.to_numpy() - truth) / truth)
    assert error < 0.9 * np.nanmean(np.abs(last - truth) / truth)


@pytest.mark.parametrize("k", [4, 13, 22])
def test_cutting_the_future_away_changes_nothing(whole: pd.DataFrame, k: int) -> None:
    cutoffs, load = make_cutoffs(), make_load()
    at = cutoffs.cutoff[k]
    early = run(load[load.ts <= at].reset_index(drop=True), cutoffs[cutoffs.cutoff <= at])
    same = whole[whole.cutoff <= at].reset_index(drop=True)
    pd.testing.assert_frame_equal(early, same, check_exact=True)


def test_same_bytes_on_every_run(whole: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(run(make_load(), make_cutoffs()), whole, check_exact=True)


def test_rows_come_in_the_order_of_the_cutoffs(whole: pd.DataFrame) -> None:
    shuffled = make_cutoffs().sample(frac=1.0, random_state=1)
    got = run(make_load(), shuffled)
    assert got.service.tolist()[:: 3 * len(QUANTILES)] == shuffled.service.tolist()
    keys = ["service", "cutoff", "h", "quantile"]
    pd.testing.assert_frame_equal(
        got.sort_values(keys, ignore_index=True), whole.sort_values(keys, ignore_index=True)
    )


def test_first_hours_are_forecast_too() -> None:
    cutoff = pd.DataFrame({"service": ["p/a"], "cutoff": [START + pd.Timedelta("2h")]})
    got = run(make_load(), cutoff)
    assert np.isfinite(got.yhat).all()


def test_a_cutoff_behind_a_long_gap_uses_what_was_known_before() -> None:
    load = make_load()
    load = load[(load.service != "p/late") | (load.ts < START + pd.Timedelta("4D"))]
    cutoff = pd.DataFrame({"service": ["p/late"], "cutoff": [START + pd.Timedelta("143h")]})
    got = run(load.reset_index(drop=True), cutoff)
    assert np.isfinite(got.yhat).all()


@pytest.mark.parametrize(
    ("service", "cutoff", "message"),
    [
        ("p/none", START + pd.Timedelta("2D"), "service 'p/none' is not in the load"),
        ("p/late", START + pd.Timedelta("1D"), "'p/late' has no known value up to"),
        ("p/a", START - pd.Timedelta("1D"), "outside the load"),
        ("p/a", pd.Timestamp("2025-03-04"), "time zone"),
    ],
)
def test_bad_cutoffs_are_refused(service: str, cutoff: pd.Timestamp, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        run(make_load(), pd.DataFrame({"service": [service], "cutoff": [cutoff]}))


def test_bad_parameters_are_refused() -> None:
    series: LoadSeries = to_series(make_load(), "test")
    with pytest.raises(FrameError, match="at least 1"):
        backtest(series, make_cutoffs(), horizon_steps=0, target="requests")
    with pytest.raises(FrameError, match="allowed: requests"):
        backtest(series, make_cutoffs(), horizon_steps=1, target="tokens")


def mixed_load(days: int = 7) -> pd.DataFrame:
    """Chat by day, documents by night; and a service that tells of tokens alone."""
    rng = np.random.default_rng(8)
    at = np.arange(days * DAY)
    night = at % DAY < DAY // 4
    requests = 300.0 * rng.gamma(100.0, 0.01, at.size)
    isl = np.where(night, 8000.0, 500.0) * rng.normal(1.0, 0.02, at.size)
    osl = np.where(night, 100.0, 200.0) * rng.normal(1.0, 0.02, at.size)
    ts = START + pd.to_timedelta(at * 30, unit="min")
    both = pd.DataFrame({"ts": ts, "service": "p/mixed", "requests": requests})
    both = both.assign(input_tokens=requests * isl, output_tokens=requests * osl)
    alone = both.assign(service="p/tokens-only", requests=np.nan, output_tokens=np.nan)
    return validate_load(pd.concat([both, alone], ignore_index=True), "test")


def test_tokens_agree_with_the_requests_and_the_classes_they_are_of() -> None:
    series = to_series(mixed_load(), "test")
    at = START + pd.to_timedelta([5 * DAY * 30 + 30 * k for k in range(0, DAY, 3)], unit="min")
    cutoffs = pd.DataFrame({"service": "p/mixed", "cutoff": at})
    found = {
        target: backtest(series, cutoffs, horizon_steps=3, target=target)
        for target in ("requests", "input_tokens", "output_tokens")
    }
    isl = found["input_tokens"].yhat / found["requests"].yhat
    osl = found["output_tokens"].yhat / found["requests"].yhat
    assert isl.between(300.0, 10_000.0).all()  # no quantile leaves what the classes can make
    assert osl.between(70.0, 250.0).all()
    median = found["requests"]["quantile"] == 0.5
    rows = found["requests"][median]
    end = rows.cutoff + pd.to_timedelta(30 * rows.h, unit="min")
    night = (end.dt.hour < 6).to_numpy()
    assert isl[median][night].median() == pytest.approx(8000.0, rel=0.1)
    assert isl[median][~night].median() == pytest.approx(500.0, rel=0.1)
    for frame in found.values():
        wide = frame.pivot_table(index=["cutoff", "h"], columns="quantile", values="yhat")
        assert (np.diff(wide.to_numpy(), axis=1) >= 0).all()
        assert not wide.isna().any().any()


def test_a_service_that_tells_of_tokens_alone_is_forecast_by_them() -> None:
    load = mixed_load()
    at = START + pd.to_timedelta([5 * DAY * 30, 5 * DAY * 30 + 90], unit="min")
    cutoffs = pd.DataFrame(
        [(name, c) for c in at for name in ("p/mixed", "p/tokens-only")],
        columns=["service", "cutoff"],
    )
    got = backtest(to_series(load, "test"), cutoffs, horizon_steps=2, target="input_tokens")
    assert got.yhat.notna().all()
    short = load[load.ts <= at[0]]
    again = backtest(
        to_series(short, "test"), cutoffs.iloc[:2], horizon_steps=2, target="input_tokens"
    )
    assert again.yhat.tolist() == got.yhat[: len(again)].tolist()  # nothing later was seen

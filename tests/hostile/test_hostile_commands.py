"""Hostile load through the commands: train and backtest end well, and say what they mended."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from foreserve_process import run
from hostile_series import DAY, DAYS, NAMES, START, cycle, frame_of, hostile_values

from models.frames import FrameError, to_series, validate_load
from models.losses import pinball_losses
from models.mend import mend_load
from models.quantiles import QUANTILES
from training.backtest import backtest

MIDNIGHT = START + pd.Timedelta(days=DAYS - 1)
P90 = QUANTILES.index(0.9)
Harm = Callable[[pd.DataFrame], pd.DataFrame]


def harmed_frame() -> pd.DataFrame:
    """Every hostile series; negative spikes, infinities, rows twice and in no order on top."""
    first = (DAYS - 4) * DAY  # the last four days are enough to pass through everything
    start = START + pd.Timedelta(days=DAYS - 4)
    frame = frame_of(NAMES, hostile_values()[:, first:], start)
    frame.loc[[50, 51], "requests"] = [-4.0, np.inf]
    frame.loc[60, "output_tokens"] = -1e9
    torn = frame.iloc[[90]].assign(requests=1e9)  # one step, two stories
    frame = pd.concat([frame, frame.iloc[100:180], torn])
    return frame.sample(frac=1.0, random_state=3)


def cutoffs() -> pd.DataFrame:
    at = MIDNIGHT + pd.to_timedelta([0, 6, 12, 21], unit="h")
    rows = [(name, c) for name in NAMES if "_value" not in name for c in at]
    return pd.DataFrame(rows, columns=["service", "cutoff"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    (root / "telemetry").mkdir()
    harmed_frame().to_parquet(root / "telemetry" / "load.parquet")
    cutoffs().to_parquet(root / "cutoffs.parquet")
    return root


def test_training_goes_through_and_says_what_it_mended(folder: Path) -> None:
    result = run(
        "train",
        "--telemetry",
        folder / "telemetry",
        "--models",
        folder / "models",
        "--json",
        folder / "train.json",
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "RuntimeWarning" not in result.stderr
    summary = json.loads((folder / "train.json").read_text())
    assert set(summary["services"]) == set(NAMES)
    said = " ".join(summary["mended"])
    for words in ("80 rows are there twice", "two rows that differ", "'requests': 2 impossible"):
        assert words in said
        assert words in result.stderr


def test_backtest_is_complete_and_its_report_is_drawn(folder: Path) -> None:
    out, page = folder / "forecasts.parquet", folder / "report.html"
    result = run(
        "backtest",
        "--load",
        folder / "telemetry",
        "--cutoffs",
        folder / "cutoffs.parquet",
        "--horizon-steps",
        2,
        "--out",
        out,
        "--report",
        page,
    )
    assert result.returncode == 0, result.stderr
    assert "RuntimeWarning" not in result.stderr
    got = pd.read_parquet(out)
    assert len(got) == len(cutoffs()) * 2 * len(QUANTILES)
    assert np.isfinite(got.yhat).all()
    assert (got.yhat >= 0).all()
    wide = got.pivot_table(index=["service", "cutoff", "h"], columns="quantile", values="yhat")
    assert (np.diff(wide.to_numpy(), axis=1) >= 0).all()
    text = page.read_text()
    assert "h/zeros" in text  # nothing came: named as not judged
    assert "h/jump_down" in text


def test_rows_twice_and_in_no_order_change_nothing() -> None:
    clean = frame_of(("p/a",), cycle(4)[np.newaxis])
    torn = pd.concat([clean, clean.iloc[30:60]]).sample(frac=1.0, random_state=5)
    mended = mend_load(torn, "here")
    a, b = (to_series(validate_load(f, "here"), "here") for f in (clean, mended.frame))
    assert a.services == b.services
    np.testing.assert_array_equal(a.values, b.values)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: f.assign(requests=-f.requests), ["column 'requests', row 0", ">= 0 or NaN"]),
        (lambda f: pd.concat([f, f.assign(requests=1.0)]), ["432 duplicate rows", "one row per"]),
        (lambda f: f.assign(ts=f.ts.dt.tz_localize(None)), ["column 'ts'", "time zone"]),
        (
            lambda f: f.assign(ts=f.ts + pd.to_timedelta(np.arange(len(f)) % 2 * 7, unit="s")),
            ["column 'ts'", "off the grid"],
        ),
        (lambda f: f.iloc[:1], ["at least two intervals are needed"]),
        (lambda f: f.iloc[:0], ["no rows"]),
    ],
    ids=["negative", "duplicates", "naive", "off-grid", "one-row", "empty"],
)
def test_what_is_refused_is_refused_in_a_sentence(harm: Harm, words: list[str]) -> None:
    frame = harm(frame_of(("p/a",), cycle(4)[np.newaxis]))
    with pytest.raises(FrameError) as refused:
        to_series(
            validate_load(mend_load(frame, "here.parquet").frame, "here.parquet"), "here.parquet"
        )
    sentence = str(refused.value)
    assert "\n" not in sentence
    for expected in ("here.parquet", *words):
        assert expected in sentence


@pytest.mark.parametrize(
    ("change", "hours_earlier"),
    [("2026-03-29 01:00", 1), ("2026-10-25 01:00", -1)],
    ids=["spring", "autumn"],
)
def test_the_day_after_the_clocks_change(change: str, hours_earlier: int) -> None:
    """People keep their local hours: in UTC the whole day moves by an hour.

    Timestamps may be local ones; the hour that comes twice is two hours. The forecast of the first day
    with new hours is no worse than the last value and nearly keeps its promise.
    """
    at = pd.Timestamp(change, tz="UTC")
    start = (at - pd.Timedelta(days=8)).floor("D")
    steps = 10 * DAY
    stamps = start + pd.to_timedelta(np.arange(steps) * 30, unit="min")
    local = pd.DatetimeIndex(stamps).tz_convert("Europe/Berlin")
    assert local[0].utcoffset() != local[-1].utcoffset()
    hour = local.hour + local.minute / 60
    shape = 1 / (1 + np.exp(-(hour - 8) * 3)) - 1 / (
        1 + np.exp(-(hour - 18) * 3)
    )  # 8 to 18 o'clock
    load = (50 + 950 * shape) * np.random.default_rng(9).gamma(200.0, 0.005, steps)
    frame = frame_of(("p/office",), np.asarray(load)[np.newaxis], start).assign(ts=local)
    series = to_series(validate_load(frame, "here"), "here")
    first = int((at.ceil("D") - start) / pd.Timedelta("30min"))
    ends = np.arange(first, first + DAY - 2)
    asked = pd.DataFrame({"service": "p/office", "cutoff": stamps[ends]})
    got = backtest(series, asked, horizon_steps=2, target="requests")
    quantiles = got.yhat.to_numpy().reshape(len(ends), 2, len(QUANTILES))
    truth = series.values[0, ends[:, np.newaxis] + [1, 2], 0]
    assert np.isfinite(quantiles).all()
    last = np.broadcast_to(series.values[0, ends, 0][:, np.newaxis], truth.shape)
    errors = (truth - last)[:, :, np.newaxis]  # the last value with its spread known beforehand
    fair = last[..., np.newaxis] + np.quantile(errors, QUANTILES, axis=0).transpose(1, 2, 0)[0]
    loss, rule = (pinball_losses(truth, q, QUANTILES).mean() for q in (quantiles, fair))
    assert loss < 1.05 * rule
    assert (truth <= quantiles[..., P90]).mean() > 0.7
    assert hours_earlier in {1, -1}

"""The forecasters' benchmark compares what it says it compares. No rival's library is needed."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from models.frames import LoadSeries
from models.quantiles import QUANTILES, FloatArray

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_forecasters as bench
import forecast_rivals as rivals
import forecast_series as sources

DAY = 4  # steps


def rule(name: str) -> rivals.Rival:
    return next(r for r in rivals.rivals(DAY) if r.name == name)


def test_the_last_value_keeps_its_own_errors() -> None:
    # a load that always rises by one: h steps ahead it was always h more than the last value
    got = rule("last value").predict(None, np.arange(20.0), 3)
    np.testing.assert_allclose(got, np.repeat([[20.0], [21.0], [22.0]], len(QUANTILES), axis=1))


def test_the_seasonal_rule_takes_yesterday_and_its_own_errors() -> None:
    # 0 10 20 30 | 1 11 21 31 | ...: every day one more than the day before
    y = (np.arange(6)[:, None] + np.arange(4) * 10.0).ravel()
    got = rule("seasonal naive").predict(None, y, 2)
    np.testing.assert_allclose(got[:, 0], [6.0, 16.0])
    assert (got == got[:, :1]).all()


def test_rivals_never_cross_and_are_never_negative() -> None:
    raw = np.array([[3.0, 2.0, -1.0, 5.0, 4.0, 9.0]])
    np.testing.assert_array_equal(rivals.ordered([raw])[0, 0], [0.0, 2.0, 3.0, 4.0, 5.0, 9.0])
    np.testing.assert_array_equal(
        rivals.filled(np.array([np.nan, 1.0, np.nan, 3.0, np.nan])), [1.0, 2.0, 3.0, 3.0]
    )


def test_minutes_become_steps_and_half_empty_ones_become_gaps() -> None:
    at = pd.date_range("2025-03-03", periods=30, freq="min", tz="UTC")
    load = pd.Series(2.0, at)
    load.iloc[10:14] = np.nan  # six of ten known: their mean times ten
    load.iloc[20:26] = np.nan  # four of ten: a gap
    coarse = pd.Series(1.0, pd.date_range("2025-03-03", periods=2, freq="30min", tz="UTC"))
    got = sources._together({"p/a": load, "p/coarse": coarse}, 10)
    assert got.services == ("p/a",)  # half an hour cannot be told in ten minutes
    np.testing.assert_allclose(got.values[0, :, 0], [20.0, 20.0, np.nan])


def test_the_shipped_trace_is_there() -> None:
    got = sources.shipped(10)
    assert got.values.shape[:2] == (1, 864)  # six days
    assert np.isfinite(got.values[0, :, 0]).all()


@pytest.fixture
def plan() -> bench.Plan:
    values = np.full((2, 4 * 48, 3), np.nan)
    values[:, :, 0] = 100.0 + np.arange(4 * 48) % 48
    series = LoadSeries(("p/a", "p/b"), 86_400.0 * 20_000, 1800.0, values)
    return bench.plan_of(series, 1.0, 5, 2)


def test_cutoffs_lie_in_the_last_days_and_truth_follows_them(plan: bench.Plan) -> None:
    assert plan.row.tolist() == [0] * 10 + [1] * 10
    assert plan.step[:10].tolist() == list(range(143, 190, 5))
    load = plan.values[0]
    np.testing.assert_array_equal(plan.actual[0], load[[144, 145]])
    # 143 is the last step of the third day: the midnight at its end has just come
    assert bench._midnight(plan, 0, 143) == 144
    assert bench._midnight(plan, 0, 150) == 144
    assert bench._midnight(plan, 0, 30) == 31  # the first day has no midnight behind it


class Counting:
    calls = 0

    def predict(self, _fitted: object, y: FloatArray, horizon: int) -> FloatArray:
        self.calls += 1
        return np.full((horizon, len(QUANTILES)), y[-1])


def test_what_was_kept_is_not_forecast_again(plan: bench.Plan, tmp_path: Path) -> None:
    counting = Counting()
    rival = rivals.Rival("counted", lambda _y, _d: None, counting.predict, "a note")
    first = bench.kept(tmp_path, plan, rival)
    assert counting.calls == plan.row.size
    again = bench.kept(tmp_path, plan, rival)
    assert counting.calls == plan.row.size
    np.testing.assert_array_equal(first.quantiles, again.quantiles)
    np.testing.assert_array_equal(first.quantiles[0], plan.values[0, 143])


def test_the_tables_say_where_another_is_better(plan: bench.Plan) -> None:
    perfect = np.repeat(plan.actual[..., None], len(QUANTILES), axis=-1)
    ours = bench.Result(bench.OURS, perfect + 1.0, 1.5, 0.001, "ours")
    better = perfect + np.where(plan.row == 1, 0.5, 3.0)[:, None, None]
    text = bench.tables(plan, [ours, bench.Result("Rival", better, 0.25, 0.002, "theirs")])
    # three times our loss on one series, half of it on the other: the root of 1.5 in the mean
    assert "| Rival | 1.22 | 1.75 | 1 of 2 | 100.0 % | 0.25 | 2.0 |" in text
    assert "Where another is better: p/b (Rival, 2.00 times its loss)." in text
    assert "2 series in steps of 30 min, 20 cutoffs in their last 1 days, 2 steps ahead" in text


def test_only_what_stands_between_the_marks_is_renewed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    begin, end = (mark.format("") for mark in bench.MARKS)
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    bench.put_between_marks(page, "new", "")
    assert page.read_text() == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    with pytest.raises(ValueError, match="not enough values"):
        bench.put_between_marks(page, "new", " leave-out")

"""The backtest's page: its sentence and numbers; in a browser it draws and asks nobody for anything."""

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from browser import needs_chromium, seen_in_browser

from autoscaler.pages.backtest import Backtest, headline, percent, ratio_text, render
from autoscaler.pages.feature_words import contestant_words, meaning
from models.features import Grid, feature_names
from models.forecast_account import Contest, Ratio, ServiceAccount, account_of, cutoff_losses
from models.frames import LoadSeries
from models.load_model import CANDIDATES
from models.quantiles import QUANTILES
from models.simple_rules import NORMAL_QUANTILES

DAY = 48
STEP_SECONDS = 1800.0
START = 1_741_046_400.0  # 2025-03-04 00:00 UTC
H = 3
SERVICES = ("prod/better", "prod/<b>worse</b>", "prod/silent", "prod/unasked")


def backtest(days: int = 4) -> Backtest:
    """Four days; `better` is forecast with half the last value's loss, `worse` with 1.3 times it."""
    rng = np.random.default_rng(4)
    steps = days * DAY
    values = np.zeros((4, steps, 3))
    values[:2, :, 0] = 3600.0 * (2 + np.sin(2 * np.pi * np.arange(steps) / DAY))
    values[0, 60, 0] = np.nan
    values[3, :, 0] = 5.0
    at = np.arange(DAY, steps - H, 2)
    row = np.repeat([0, 1, 2], at.size)
    step = np.tile(at, 3)
    actual = values[row[:, None], step[:, None] + np.arange(1, H + 1), 0]
    noise = 1 + 0.1 * rng.standard_normal((row.size, H, 1)) + 0.1 * np.array(NORMAL_QUANTILES)
    served = np.maximum(np.nan_to_num(actual, nan=3600.0)[..., None] * noise, 0.0)
    own = cutoff_losses(actual, served)
    losses = own[:, None] * np.linspace(2.0, 1.0, len(CANDIDATES))
    losses[row == 1] *= 1 / 1.3 / 2.0  # its last value had 1 / 1.3 of the loss
    contest = Contest(
        services=SERVICES,
        row=row,
        cutoff_seconds=START + (step + 1) * STEP_SECONDS,
        step_seconds=STEP_SECONDS,
        actual=actual,
        served=served,
        winner=tuple("lightgbm" if k % 3 else "level" for k in range(row.size)),
        contestants=CANDIDATES,
        losses=losses,
    )
    series = LoadSeries(SERVICES, START, STEP_SECONDS, values)
    return Backtest(contest, series, "requests", {"lead": 0.25, "lag_0": 0.75})


@pytest.fixture(scope="module")
def page() -> str:
    return render(backtest(), name="telemetry & more")


def account(name: str) -> ServiceAccount:
    found = account_of(backtest().contest, name)
    assert found is not None
    return found


def test_first_the_sentence_then_the_worst_service(page: str) -> None:
    text = unescape(page)
    assert "1 of 2 services are forecast better than by their last value: 0.81 times" in text
    assert text.index("1.30 (") < text.index("0.50 (")  # 1.3 times its last value; half of it
    assert "Requests per 30 min, forecast for the next 90 min at 142 cutoffs" in text
    assert "so not judged: prod/silent" in text
    assert "prod/unasked" not in text


def test_every_contestant_is_listed_with_what_it_says(page: str) -> None:
    for name in CANDIDATES:
        assert unescape(page).count(f'<td class="text">{contestant_words(name)}</td>') == 2
    assert page.count("Foreserve, as it served") == 2


def test_names_from_outside_are_escaped_everywhere(page: str) -> None:
    assert "<b>worse" not in page
    assert "prod/&lt;b&gt;worse&lt;/b&gt;" in page
    assert "telemetry &amp; more" in page


def test_each_part_carries_its_plots(page: str) -> None:
    found = dict(
        re.findall(r'<script type="application/json" id="(\w+)-data">(.*?)</script>', page)
    )
    assert set(found) == {"whole", "s0", "s1"}
    for part, text in found.items():
        for target, item in json.loads(text).items():
            assert f'id="{target}"' in page
            assert item["root_id"]
        names = {target.removeprefix(f"{part}-") for target in json.loads(text)}
        expected = {"fan-worst", "fan-median", "calibration", "leads"}
        assert names == ({"calibration", "importances"} if part == "whole" else expected)


def test_the_fan_holds_the_forecasts_of_its_day_and_none_twice() -> None:
    from autoscaler.pages.backtest_plots import Load, _fans

    asked = backtest()
    load = Load(asked.series.values[0, :, 0], START, "requests")
    day = START + 86_400.0 * 2
    fans = _fans(asked.contest, "prod/better", day, load)
    starts = [t[0] / 1000.0 for t, _ in fans]
    assert all(day - STEP_SECONDS <= s < day + 86_400.0 for s in starts)
    # cutoffs lie two steps apart and fans are three long: every second one is drawn
    assert (np.diff(starts) == 4 * STEP_SECONDS).all()
    times, quantiles = fans[0]
    assert quantiles.shape == (H + 1, len(QUANTILES))
    n = np.flatnonzero(
        (asked.contest.row == 0) & (asked.contest.cutoff_seconds == times[1] / 1000.0)
    )[0]
    np.testing.assert_allclose(quantiles[1:], asked.contest.served[n] / STEP_SECONDS, rtol=1e-6)
    known = load.values[round((starts[0] - START) / STEP_SECONDS)]
    np.testing.assert_allclose(quantiles[0], known / STEP_SECONDS, rtol=1e-6)  # from what was known


def test_one_service_gets_its_own_sentence() -> None:
    one = [account("prod/better")]
    assert headline(one, one[0].coverage).startswith(
        "prod/better is forecast better than by its last value: 0.50 times its loss"
    )
    two = [account(SERVICES[1])]
    assert "is forecast no better than" in headline(two, two[0].coverage)


def test_nothing_to_judge_is_said() -> None:
    asked = backtest()
    asked.contest.actual[:] = np.nan
    with pytest.raises(ValueError, match="no cutoff has known load after it"):
        render(asked, name="x")


def test_without_a_global_model_the_page_says_so() -> None:
    asked = backtest()
    bare = Backtest(asked.contest, asked.series, "requests", {})
    assert "simple rules forecast" in render(bare, name="x")


def test_texts() -> None:
    assert percent(0.9054) == "90.5 %"
    assert ratio_text(Ratio(0.8, 0.7, 0.9)) == "0.80 (0.70–0.90)"
    assert ratio_text(Ratio(0.8, np.nan, np.nan)) == "0.80"


def test_every_feature_and_contestant_has_words() -> None:
    for step in (60.0, 300.0, 600.0):
        unknown = [name for name in feature_names(Grid(step)) if not meaning(name)]
        assert not unknown, f"say in pages/feature_words.py what these are: {unknown}"
    assert not [name for name in CANDIDATES if not contestant_words(name)]
    assert meaning("lag_3") == "the load 3 steps before the newest"


@needs_chromium
def test_it_draws_what_is_open_and_asks_nobody(page: str, tmp_path: Path) -> None:
    seen = seen_in_browser(page, tmp_path / "page")
    assert seen["errors"] == []
    assert seen["asked"] == []
    assert seen["refused"] == []
    # calibration and importances of all; two fans, calibration and leads of the open service
    assert seen["documents"] == 6
    opened = page.replace('<details class="service"', '<details open class="service"')
    assert seen_in_browser(opened, tmp_path / "opened")["documents"] == 10

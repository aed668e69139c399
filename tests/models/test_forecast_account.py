"""The account of a backtest, against figures worked by hand."""

import numpy as np
import pytest

from models.forecast_account import Contest, account_of, cutoff_losses
from models.quantiles import QUANTILES, FloatArray

DAY = 86_400.0
START = 20_000 * DAY
HOUR = 3600.0
CONTESTANTS = ("last-value", "level", "lightgbm")


def contest(
    actual: FloatArray,
    served: FloatArray,
    *,
    losses: FloatArray | None = None,
    every_hours: float = 1.0,
) -> Contest:
    """One service `a`, an hour's step; `served` (N, H) is every quantile alike."""
    n = actual.shape[0]
    quantiles = np.repeat(served[..., np.newaxis], len(QUANTILES), axis=-1)
    own = cutoff_losses(actual, quantiles)[:, np.newaxis]
    return Contest(
        services=("a", "b"),
        row=np.zeros(n, dtype=np.int64),
        cutoff_seconds=START + HOUR * every_hours * np.arange(n),
        step_seconds=HOUR,
        actual=actual,
        served=quantiles,
        winner=("lightgbm",) * n,
        contestants=CONTESTANTS,
        losses=own * np.array([2.0, 1.5, 1.0]) if losses is None else losses,
    )


def test_loss_of_a_cutoff_by_hand() -> None:
    # truth 10, every quantile 8: loss q * 2, mean of q over (.1 .5 .8 .9 .95 .99) = 4.24 / 6
    # truth 10, every quantile 12: loss (1 - q) * 2; 1 - 4.24 / 6
    actual = np.array([[10.0, 10.0], [10.0, np.nan]])
    forecast = np.repeat(np.array([[8.0, 12.0], [8.0, 8.0]])[..., np.newaxis], 6, axis=-1)
    mean_q = 4.24 / 6
    np.testing.assert_allclose(
        cutoff_losses(actual, forecast), [(2 * mean_q + 2 * (1 - mean_q)) / 2, 2 * mean_q]
    )
    assert np.isnan(cutoff_losses(np.full((1, 2), np.nan), forecast[:1])).all()


def test_account_by_hand() -> None:
    # 48 hourly cutoffs, two steps each, truth always 10; forecast 8 on the first day, 11 on the second
    served = np.full((48, 2), 8.0)
    served[24:] = 11.0
    found = account_of(contest(np.full((48, 2), 10.0), served), "a")
    assert found is not None
    mean_q = 4.24 / 6
    first, second = 2 * mean_q / 10, (1 - mean_q) / 10
    assert found.cutoffs == 48
    assert found.mean_load == 10.0
    assert found.loss_ratio == pytest.approx((first + second) / 2)
    assert found.contestants["last-value"] == pytest.approx(first + second)
    assert found.served_by == {"lightgbm": 48}
    assert found.best_rule == "level"
    assert found.to_last_value.value == pytest.approx(1 / 2)
    assert found.to_best_rule.value == pytest.approx(1 / 1.5)
    # every draw of blocks has the same ratio: theirs is always twice ours
    assert (found.to_last_value.low, found.to_last_value.high) == pytest.approx((0.5, 0.5))
    np.testing.assert_allclose(found.coverage, 0.5)  # 10 <= 11 on the second day only
    assert (found.coverage_low < 0.5).all()
    assert (found.coverage_high > 0.5).all()
    np.testing.assert_allclose(found.coverage_by_lead, 0.5)
    assert found.worst_day == pytest.approx((START, first))
    assert found.median_day == pytest.approx((START + DAY, second))  # of two, the better one


def test_uncertainty_shrinks_with_more_days() -> None:
    rng = np.random.default_rng(1)

    def width(days: int) -> float:
        actual = rng.gamma(20.0, 1.0, (24 * days, 1))
        losses = rng.gamma(4.0, 1.0, (24 * days, len(CONTESTANTS)))
        found = account_of(contest(actual, np.full_like(actual, 20.0), losses=losses), "a")
        assert found is not None
        assert found.to_last_value.low < found.to_last_value.value < found.to_last_value.high
        return found.to_last_value.high - found.to_last_value.low

    assert width(64) < 0.5 * width(4)  # four times as many draws of a mean: half as wide, about


def test_too_few_blocks_say_nothing_of_certainty() -> None:
    found = account_of(contest(np.full((24, 1), 10.0), np.full((24, 1), 9.0)), "a")  # four blocks
    assert found is not None
    assert np.isnan(found.to_best_rule.low)
    assert np.isnan(found.coverage_low).all()
    assert found.worst_day == found.median_day


def test_a_contestant_that_could_not_always_forecast_is_not_listed() -> None:
    losses = np.ones((24, 3))
    losses[0, 2] = np.nan
    found = account_of(contest(np.full((24, 1), 10.0), np.full((24, 1), 9.0), losses=losses), "a")
    assert found is not None
    assert set(found.contestants) == {"last-value", "level"}


def test_what_cannot_be_judged_has_no_account() -> None:
    zero = np.zeros((24, 1))
    assert account_of(contest(zero, zero), "a") is None  # nothing ever came
    assert account_of(contest(zero * np.nan, zero), "a") is None  # nothing is known
    assert account_of(contest(zero + 1.0, zero), "b") is None  # never asked for


def test_a_day_of_few_cutoffs_is_no_worst_day() -> None:
    served = np.full((50, 1), 9.0)
    served[48:] = 0.0  # two dreadful hours of a third day
    found = account_of(contest(np.full((50, 1), 10.0), served), "a")
    assert found is not None
    assert found.worst_day[0] < START + 2 * DAY

import numpy as np
import pytest

from models.features import Grid, look_back
from models.frames import LoadSeries
from models.holiday_calendar import Holidays
from models.load_model import LoadModel
from models.quantiles import QUANTILES, FloatArray

DAY = 86_400.0
MONDAY = 20_521  # 2026-03-09 in days since the epoch
HOUR = 3600.0
MEDIAN = QUANTILES.index(0.5)


def like(holidays: Holidays, day: int, back: int, least: int = 1) -> int:
    at = np.array([[day * DAY + 43_200.0]])
    return int(holidays.like_day(at, np.full((1, 1), back), np.full((1, 1), least))[0, 0])


def test_the_day_of_the_fixture_is_a_monday() -> None:
    assert np.datetime64(MONDAY, "D").astype(object).weekday() == 0


@pytest.mark.parametrize(
    ("day", "back", "expected"),
    [
        (MONDAY + 3, 1, 4),  # a holiday on Thursday: like the last Sunday
        (MONDAY + 3, 7, 4),
        (MONDAY + 4, 1, 2),  # the Friday after: like Wednesday
        (MONDAY + 4, 2, 2),  # two days before Friday is Wednesday: no holiday near
        (MONDAY + 5, 1, 1),  # Saturday: Friday, as without holidays
        (MONDAY + 10, 7, 6),  # next Thursday: last week's is a holiday, so the Friday
        (MONDAY + 10, 1, 1),
        (MONDAY + 6, 1, 1),  # Sunday
        (MONDAY, 1, 1),  # a Monday after a Sunday is as it was
    ],
)
def test_like_days_around_a_holiday_on_thursday(day: int, back: int, expected: int) -> None:
    assert like(Holidays((MONDAY + 3,)), day, back) == expected


def test_two_holidays_in_a_row_are_like_each_other_and_the_next_day_is_not() -> None:
    easter = Holidays((MONDAY + 4, MONDAY + 7))  # Good Friday and Easter Monday
    assert like(easter, MONDAY + 7, 1) == 1  # Sunday
    assert like(easter, MONDAY + 8, 1) == 5  # Tuesday: the last working day was Thursday
    christmas = Holidays((MONDAY + 1, MONDAY + 2))
    assert like(christmas, MONDAY + 2, 1) == 1
    assert like(christmas, MONDAY + 3, 1) == 3  # Monday


def test_a_lead_of_days_takes_no_day_that_is_not_known_yet() -> None:
    assert like(Holidays((MONDAY + 3,)), MONDAY + 4, 1, least=3) == 3  # Tuesday
    assert like(Holidays((MONDAY + 3,)), MONDAY + 3, 1, least=5) == 1  # no Sunday: as without


def test_local_midnight_is_where_a_holiday_begins() -> None:
    tokyo = Holidays((MONDAY + 3,), offset_seconds=9 * HOUR)
    at = np.array([(MONDAY + 3) * DAY - 9 * HOUR - 1, (MONDAY + 3) * DAY - 9 * HOUR])
    assert tokyo.holds(at).tolist() == [False, True]


def offices(days: int, free: tuple[int, ...]) -> FloatArray:
    """Requests by the hour of offices: from 8 to 17 on working days, next to nothing else."""
    hour, day = np.arange(days * 24) % 24, MONDAY + np.arange(days * 24) // 24
    weekday = (day + 3) % 7
    busy = (hour >= 8) & (hour < 17) & (weekday < 5) & ~np.isin(day, free)
    noise = np.random.default_rng(5).gamma(400.0, 1 / 400.0, days * 24)
    return np.where(busy, 1000.0, 20.0) * noise


def fitted(load: FloatArray, holidays: Holidays | None) -> LoadModel:
    three = load[np.newaxis, :, np.newaxis] * np.array([1.0, 500.0, 100.0])
    series = LoadSeries(("p/a",), MONDAY * DAY, HOUR, three)
    return LoadModel.fit(series, leads_steps=(1, 2, 3), holidays=holidays)


def error(model: LoadModel, load: FloatArray, day: int) -> float:
    """Mean miss of the median over a day's hours, beside the busy load."""
    misses = []
    for at in range(day * 24, day * 24 + 24):
        end = MONDAY * DAY + at * HOUR
        got = model.forecast(["p/a"], load[np.newaxis, :at], end).values[0, :, MEDIAN]
        misses.append(np.abs(got - load[at : at + 3]).mean() / 1000.0)
    return float(np.mean(misses))


def test_the_same_time_yesterday_is_that_of_the_like_day() -> None:
    free = (MONDAY + 24,)  # the fourth Thursday
    load = offices(28, free)
    grids = Grid(HOUR), Grid(HOUR, Holidays(free))
    for day, hour in ((24, 9), (25, 9), (31 - 7, 12)):
        at = np.array([day * 24 + hour - 1])
        plain, known = (
            look_back(load[np.newaxis], MONDAY * DAY, g, (np.zeros(1, np.int64), at), at * 0 + 1)
            for g in grids
        )
        truth = load[at[0] + 1]
        assert abs(known.yesterday.exact[0, 0] - truth) < 0.2 * max(truth, 100.0)
        assert abs(plain.yesterday.exact[0, 0] - truth) > 500.0


def test_a_service_of_offices_on_a_holiday_and_on_the_day_after() -> None:
    free = (MONDAY + 24,)
    load = offices(28, free)
    seen = load[: 24 * 24]  # trained until the night before
    without, knowing = fitted(seen, None), fitted(seen, Holidays(free))
    for day in (24, 25):
        assert error(knowing, load, day) < 0.8 * error(without, load, day)
    again = LoadModel.from_files(knowing.to_files())
    assert again.holidays == knowing.holidays
    assert error(again, load, 24) == error(knowing, load, 24)


def test_without_a_holiday_near_nothing_changes() -> None:
    load = offices(21, ())
    far = Holidays((MONDAY - 100, MONDAY + 200))
    end = MONDAY * DAY + load.size * HOUR
    one, two = (
        fitted(load, h).forecast(["p/a"], load[np.newaxis], end).values for h in (None, far)
    )
    assert (one == two).all()


def test_holidays_that_cannot_be_read_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="holidays are not readable"):
        Holidays.from_json({"days": ["x"], "offset_seconds": 0})

import numpy as np
import pandas as pd
import pytest

from models.frames import FrameError, LoadSeries
from training.holiday_names import AHEAD_DAYS, Asked

START = pd.Timestamp("2026-03-02", tz="UTC").timestamp()
SERIES = LoadSeries(("p/a",), START, 3600.0, np.ones((1, 24 * 28, 3)))


def day(text: str) -> int:
    return int(np.datetime64(text, "D").astype(np.int64))


def test_german_holidays_of_the_load_and_the_year_after() -> None:
    found = Asked("DE", "Europe/Berlin").over(SERIES)
    assert day("2026-04-03") in found.days  # Good Friday
    assert day("2026-04-06") in found.days
    assert day("2026-12-25") in found.days
    assert day("2026-11-01") not in found.days  # All Saints: not in all of Germany
    assert max(found.days) <= day("2026-03-30") + AHEAD_DAYS
    assert found.offset_seconds == 7200.0  # the load ends in summer time
    assert day("2026-11-01") in Asked("DE-BY", "Europe/Berlin").over(SERIES).days


def test_what_is_no_place_or_no_zone_is_said() -> None:
    with pytest.raises(FrameError, match="--holidays: 'XX' is unknown; allowed"):
        Asked("XX").over(SERIES)
    with pytest.raises(FrameError, match="--holidays: 'DE-ZZ' is unknown"):
        Asked("DE-ZZ").over(SERIES)
    with pytest.raises(FrameError, match="--holidays-zone: 'Mars/Base'"):
        Asked("DE", "Mars/Base").over(SERIES)

"""The holidays of a country, from the library `holidays`, as days that a load model keeps."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from models.frames import FrameError, LoadSeries
from models.holiday_calendar import Holidays

AHEAD_DAYS = 400  # after the load's end: a model that is older than that knows of no more


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose holidays count: a country or one of its parts (ISO 3166: DE, US-CA), and its time zone."""

    place: str
    zone: str = "UTC"

    def over(self, series: LoadSeries) -> Holidays:
        """Return the holidays of the series and of the time after; FrameError, see `holidays_of`."""
        return holidays_of(self.place, self.zone, series.start_seconds, series.end_seconds)


def holidays_of(place: str, zone: str, start_seconds: float, end_seconds: float) -> Holidays:
    """Return the public holidays of a place over the load, and AHEAD_DAYS after it.

    `place` by ISO 3166 (DE, US-CA), `zone` by IANA. Raises FrameError on a place or zone that is not known.
    """
    import holidays  # heavy, and only where somebody asks

    country, _, part = place.partition("-")
    try:
        clock = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise FrameError(
            f"--holidays-zone: {zone!r} is unknown; allowed: an IANA time zone such as Europe/Berlin"
        ) from error
    first = datetime.fromtimestamp(start_seconds, clock).date()
    last = datetime.fromtimestamp(end_seconds, clock).date() + timedelta(days=AHEAD_DAYS)
    try:
        found = holidays.country_holidays(
            country, subdiv=part or None, years=range(first.year, last.year + 1)
        )
    except NotImplementedError as error:
        raise FrameError(
            f"--holidays: {place!r} is unknown; allowed: a country or one of its parts by ISO 3166, "
            "such as DE or US-CA"
        ) from error
    days = sorted(day for day in found if first <= day <= last)
    epoch = date(1970, 1, 1)
    offset = datetime.fromtimestamp(end_seconds, clock).utcoffset() or timedelta(0)
    return Holidays(tuple((d - epoch).days for d in days), offset.total_seconds())

"""Holidays in a load model: on one, and on the day after, a like day takes yesterday's place.

A holiday is like the last holiday or Sunday; a day that follows a holiday is like the last day that was no
holiday, a working day like a working day, a weekend's like a weekend's. Without holidays nothing changes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.quantiles import FloatArray

IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]
DAY_SECONDS = 86_400.0
EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday; Monday is day 0
SATURDAY, SUNDAY = 5, 6
MOST_DAYS = 7  # what a like day may be away: history holds no more
MANY = 1000  # more than any count of days below


@dataclass(frozen=True, slots=True)
class Holidays:
    """Holidays as days since the epoch, increasing, where local time is `offset_seconds` ahead of UTC."""

    days: tuple[int, ...]
    offset_seconds: float = 0.0

    def holds(self, seconds: FloatArray) -> Mask:
        """Return which times (...) lie on a holiday."""
        return np.isin(self._day(seconds), self.days)

    def like_day(self, seconds: FloatArray, back: IntArray, least: IntArray) -> IntArray:
        """Return how many days before times (...) the day lies that stands for that `back` (...) before.

        `back` itself wherever no holiday is near. A like day is at least `least` (...) days away, at most
        MOST_DAYS; where there is none, it is `back`.
        """
        day, out = self._day(seconds), np.array(np.broadcast_to(back, np.shape(seconds)))
        near = np.isin(day, self.days) | np.isin(day - out, self.days)
        if not near.any():
            return out
        asked = np.minimum(out[near], MANY - 1), np.minimum(least[near], MANY - 1)
        keys, place = np.unique(
            (day[near] * MANY + asked[0]) * MANY + asked[1], return_inverse=True
        )
        found = [self._like(int(k) // MANY**2, int(k) // MANY % MANY, int(k) % MANY) for k in keys]
        out[near] = np.array(found, dtype=np.int64)[place]
        return out

    def _day(self, seconds: FloatArray) -> IntArray:
        day: IntArray = np.floor((seconds + self.offset_seconds) / DAY_SECONDS).astype(np.int64)
        return day

    def _like(self, day: int, back: int, least: int) -> int:
        if day in self.days:
            order = [*range(least, MOST_DAYS + 1)]
            alike = [b for b in order if day - b in self.days or _weekday(day - b) == SUNDAY]
        else:
            order = [
                *range(max(back, least), MOST_DAYS + 1),
                *range(min(back, MOST_DAYS), least - 1, -1),
            ]
            works = _weekday(day) < SATURDAY
            own = [b for b in order if day - b not in self.days]
            alike = [b for b in own if (_weekday(day - b) < SATURDAY) == works]
        return alike[0] if alike else back

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"days": list(self.days), "offset_seconds": self.offset_seconds}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises ValueError on anything else."""
        try:
            days = tuple(int(d) for d in content["days"])
            return cls(days, float(content["offset_seconds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"holidays are not readable ({error})") from error


def _weekday(day: int) -> int:
    return (day + EPOCH_WEEKDAY) % 7

"""The best setting of a rival, with hindsight: the cheapest that still meets the attainment.

A run is expensive, so the search interpolates instead of halving: the logarithm of the share of
missed requests is close to a straight line in the logarithm of a setting.
"""

import math
from dataclasses import dataclass, field

LEAST_MISSED = 1e-5  # a share of missed requests below this reads as this
AIM = 0.95  # of the missed share that is allowed: an exact hit misses half the time
EDGE = 0.1  # of the bracket: a guess this close to a known point teaches little
DONE = 0.01  # a bracket this narrow (share of the whole range) is the answer


@dataclass(slots=True)
class Search:
    """Looks between a lean and a safe setting; ask `next_setting`, run it, `tell` the result.

    Inside, a setting is a place u from 0 (safe) to 1 (lean) on a logarithmic scale, and an attainment
    is y = ln(missed / allowed): y <= 0 meets. More lean is assumed to miss more.
    """

    lean: float
    safe: float
    attainment: float  # asked for, below 1
    runs: int  # at most
    whole: bool = False  # settings are counts
    first: float = 0.5  # where to begin, from 0 (safe) to 1 (lean)
    _told: dict[float, float] = field(default_factory=dict)  # u -> y

    def next_setting(self) -> float | None:
        """Return the next setting to run, or None: enough is known."""
        if len(self._told) >= self.runs:
            return None
        meets = max((u for u, y in self._told.items() if y <= 0), default=None)
        misses = min((u for u, y in self._told.items() if y > 0), default=None)
        last = len(self._told) == self.runs - 1
        place = self._guess(meets, misses, last=last)
        if place is None or self._place(self._setting(place)) in self._told:
            return None
        return self._setting(place)

    def tell(self, setting: float, attainment: float) -> None:
        """Note what a run with this setting attained; NaN (nothing was asked) counts as met."""
        missed = max(1.0 - attainment, LEAST_MISSED) if math.isfinite(attainment) else LEAST_MISSED
        self._told[self._place(setting)] = math.log(missed / (1.0 - self.attainment))

    def _guess(self, meets: float | None, misses: float | None, *, last: bool) -> float | None:
        if meets is None and misses is None:
            return self.first
        if meets is None or misses is None:
            return self._outward(meets, misses, last=last)
        if misses <= meets:  # not monotone (noise): the leanest that met stands
            return None
        low, high = self._told[meets], self._told[misses]
        share = (math.log(AIM) - low) / (high - low)
        width = misses - meets
        if width < DONE:
            return None
        return meets + width * min(max(share, EDGE), 1.0 - EDGE)

    def _outward(self, meets: float | None, misses: float | None, *, last: bool) -> float | None:
        """All runs so far were on one side: go half the way to the end, or to the safe end at last."""
        if misses is not None:
            if misses < DONE:
                return None  # even the safe end misses
            return 0.0 if last else misses / 2
        assert meets is not None  # noqa: S101  (one of them is known)
        return (1.0 + meets) / 2 if 1.0 - meets > DONE else None

    def _setting(self, place: float) -> float:
        value = math.exp((1 - place) * math.log(self.safe) + place * math.log(self.lean))
        return float(round(value)) if self.whole else float(f"{value:.3g}")

    def _place(self, setting: float) -> float:
        return math.log(setting / self.safe) / math.log(self.lean / self.safe)

"""What was forecast for a time that has come: a small, pure memory for one service."""

from dataclasses import dataclass

MOST_REMEMBERED = 2048  # two hours of ticks every 15 s are 480


@dataclass(frozen=True, slots=True)
class PastForecast:
    """A forecast of the mean rate around `for_seconds` (epoch)."""

    for_seconds: float
    median_rps: float
    upper_rps: float


class ForecastMemory:
    """Forecasts that have not come due. Bounded; time is what the caller says."""

    def __init__(self) -> None:
        self._waiting: list[PastForecast] = []  # as remembered: horizons may change between two

    def remember(self, forecast: PastForecast) -> None:
        """Keep a forecast until it comes due; the oldest goes when there are too many."""
        self._waiting.append(forecast)
        del self._waiting[:-MOST_REMEMBERED]

    def due(self, now_seconds: float, interval_seconds: float) -> PastForecast | None:
        """Return the forecast for the interval that ends now, and forget all up to now.

        Of several (the horizon became shorter) the one made last counts. None if nothing was forecast
        for this interval: after a gap, an old forecast says nothing of now.
        """
        begin = now_seconds - interval_seconds
        inside = [f for f in self._waiting if begin < f.for_seconds <= now_seconds]
        self._waiting = [f for f in self._waiting if f.for_seconds > now_seconds]
        return inside[-1] if inside else None

"""The only file of the online controller that reads time; everybody else is given a Clock."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger("foreserve")
TOLERANCE_SECONDS = 2.0  # HTTP dates are whole seconds, and answers take a while
CHECK_SECONDS = 60.0
LEAST_STEP_SECONDS = 0.001


def wall_seconds() -> float:
    """Return seconds since the epoch."""
    return time.time_ns() / 1e9


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time for what is written and asked, monotonic time for how long something took."""

    wall: Callable[[], float] = wall_seconds
    monotonic: Callable[[], float] = time.monotonic


class SteadyTime:
    """Wall time that goes on as time does, set by a reference: the telemetry server's clock.

    What is asked of that server must be asked in its time, and a node's clock may be minutes off or be
    set while we run. Without a reference the node's clock counts, as it was at the start.
    """

    def __init__(self, clock: Clock, reference: Callable[[], float] | None = None) -> None:
        """Take `reference`: the server's clock as of its latest answer, NaN if it never answered."""
        self._clock = clock
        self._reference = reference
        self._offset = clock.wall() - clock.monotonic()
        self._compared = -math.inf

    def now(self, after_seconds: float = -math.inf) -> float:
        """Return epoch seconds, later than `after_seconds` even if the reference was set back."""
        return max(self._offset + self._clock.monotonic(), after_seconds + LEAST_STEP_SECONDS)

    def compare(self) -> bool:
        """Compare with the reference, once a minute; to be called right after an answer came.

        Return whether time was set: then that answer was asked for at a wrong time.
        """
        monotonic = self._clock.monotonic()
        if self._reference is None or monotonic - self._compared < CHECK_SECONDS:
            return False
        reference = self._reference()
        if math.isnan(reference):
            return False
        self._compared = monotonic
        wrong = reference - (self._offset + monotonic)
        if abs(wrong) <= TOLERANCE_SECONDS:
            return False
        log.warning("the clock here is %.0f s off the telemetry server's; theirs counts", -wrong)
        self._offset += wrong
        return True

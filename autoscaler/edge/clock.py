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
    set while we run. Without a reference (NaN) the node's clock counts, as it was at the start.
    """

    def __init__(self, clock: Clock, reference: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._reference = reference
        self._offset = math.nan  # wall minus monotonic
        self._checked = -math.inf
        self._last = -math.inf

    def now(self) -> float:
        """Return epoch seconds, always later than before."""
        monotonic = self._clock.monotonic()
        if math.isnan(self._offset):
            self._offset = self._clock.wall() - monotonic
        if monotonic - self._checked >= CHECK_SECONDS:
            self._set(monotonic)
        self._last = max(self._offset + monotonic, self._last + LEAST_STEP_SECONDS)
        return self._last

    def _set(self, monotonic: float) -> None:
        reference = math.nan if self._reference is None else self._reference()
        if math.isnan(reference):
            return  # nobody answered yet: asked again next time
        self._checked = monotonic
        wrong = reference - (self._offset + monotonic)
        if abs(wrong) > TOLERANCE_SECONDS:
            log.warning(
                "the clock here is %.0f s off the telemetry server's; theirs counts", -wrong
            )
            self._offset += wrong

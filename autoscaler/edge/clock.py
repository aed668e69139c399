"""The only file of the online controller that reads time; everybody else is given a Clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass


def wall_seconds() -> float:
    """Return seconds since the epoch."""
    return time.time_ns() / 1e9


@dataclass(frozen=True, slots=True)
class Clock:
    """Wall time for what is written and asked, monotonic time for how long something took."""

    wall: Callable[[], float] = wall_seconds
    monotonic: Callable[[], float] = time.monotonic

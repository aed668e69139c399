"""The open hour of one service: what its ticks knew, a row a minute, and the last of the hour before.

A row is minute, SUMS over the minute's ticks, LASTS as the last tick had them, then for every variant the
replica-seconds that were ready, and the count that was decided. Rows are doubles in one flat array: a
thousand services are 12 MB.
"""

from array import array
from collections.abc import Sequence

import numpy as np

from autoscaler.core.outcome import FloatArray

MINUTE_SECONDS = 60.0
HOUR_MINUTES = 60
BEFORE_MINUTES = 15  # kept of the hour before: orders of then are ready in this one
MOST_ROWS = HOUR_MINUTES + BEFORE_MINUTES
SUMS = (
    *("seconds", "requests", "finished", "missed", "paid_usd"),
    *("told_requests", "input_tokens", "output_tokens"),  # of requests whose lengths are known
)
LASTS = ("needed", "required", "guarded", "decided", "usd_per_hour")
MINUTE = 0
COLUMN = {name: at for at, name in enumerate(("minute", *SUMS, *LASTS))}
WIDTH = len(COLUMN)  # without the variants
SUM, LAST, READY = 1, 1 + len(SUMS), WIDTH  # where each part of a row begins


class OpenHour:
    """Rows of one service, oldest first; of at most MOST_ROWS minutes."""

    __slots__ = ("_row", "_rows", "_width", "variants")

    def __init__(self, variants: tuple[str, ...]) -> None:
        self.variants = variants
        self._width = WIDTH + 2 * len(variants)
        self._rows = array("d")  # closed ones
        self._row: list[float] = []  # of the minute that is open

    def add(
        self,
        minute: int,
        sums: Sequence[float],
        lasts: Sequence[float],
        ready_seconds: Sequence[float],
        decided: Sequence[float],
    ) -> None:
        """Add one tick; `minute` since the epoch, never before the last one."""
        row = self._row
        if not row or row[MINUTE] != minute:
            self._rows.extend(row)
            self._row = [minute, *sums, *lasts, *ready_seconds, *decided]
            return
        row[LAST:READY] = lasts
        row[READY + len(decided) :] = decided
        for i, value in enumerate(sums, start=SUM):
            row[i] += value
        for i, value in enumerate(ready_seconds, start=READY):
            row[i] += value

    def forget_before(self, minute: int) -> None:
        """Drop the rows of earlier minutes."""
        table = self.table()
        kept = int(np.searchsorted(table[:, MINUTE], minute))
        self._rows, self._row = array("d", table[kept:].tobytes()), []

    def table(self) -> FloatArray:
        """Return the rows, shape (rows, WIDTH + two for each variant)."""
        rows = self._rows.tobytes() + array("d", self._row).tobytes()
        return np.frombuffer(rows, dtype=np.float64).reshape(-1, self._width)

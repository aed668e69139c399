"""Cells: what one source did in one bin of time.

A span of time is cut at the borders of bins and each bin gets its share of it. A cell holds, by
signal, an Amount; Amounts add up, over time and over the series of one source (finish reasons, ranks).
"""

import math
from dataclasses import dataclass, field

from models.otlp_histogram import Buckets
from models.otlp_increments import NS, TimeSpan

Cell = dict[str, "Amount"]  # by signal name


@dataclass(slots=True)
class Amount:
    """Sum of shares of spans; `total`, `count` and `change` as in TimeSpan.

    `start`..`end` (seconds since the epoch) is what of the bin was observed, as one stretch from the first
    to the last moment; NaN where only single moments were seen (trace spans).
    """

    start: float = math.nan
    end: float = math.nan
    total: float = 0.0
    count: float = 0.0
    change: float = 0.0
    buckets: Buckets = field(default_factory=dict)

    def add(self, other: "Amount") -> None:
        """Add `other` to this."""
        # what is not NaN holds: a comparison with NaN is false
        if not self.start <= other.start and other.start == other.start:
            self.start = other.start
        if not self.end >= other.end and other.end == other.end:
            self.end = other.end
        self.total += other.total
        self.count += other.count
        self.change += other.change
        for bucket, n in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0.0) + n

    @property
    def covered_seconds(self) -> float:
        """Length of what was observed; 0 for single moments."""
        return 0.0 if math.isnan(self.start) else self.end - self.start


def shares(span: TimeSpan, bin_seconds: int) -> list[tuple[int, Amount]]:
    """Cut a span at the borders of bins: (bin, Amount), bin b covering [b, b + 1) x bin_seconds."""
    width = bin_seconds * NS
    length = span.end_ns - span.start_ns
    if length == 0:  # a moment
        amount = Amount(total=span.total, count=span.count, buckets=dict(span.buckets or {}))
        return [(span.end_ns // width, amount)]
    out = []
    for number in range(span.start_ns // width, -(-span.end_ns // width)):
        start, end = max(span.start_ns, number * width), min(span.end_ns, (number + 1) * width)
        out.append((number, _share(span, start, end, (end - start) / length)))
    return out


def merge(into: Cell, cell: Cell) -> None:
    """Add `cell` to `into`; neither shares an Amount with the other afterwards."""
    for name, amount in cell.items():
        into.setdefault(name, Amount()).add(amount)


def bucket_count(cell: Cell) -> int:
    """Return how many buckets a cell holds: what its memory is proportional to."""
    return sum(len(a.buckets) for a in cell.values())


def _share(span: TimeSpan, start_ns: int, end_ns: int, ratio: float) -> Amount:
    return Amount(
        start_ns / NS,
        end_ns / NS,
        span.total * ratio,
        span.count * ratio,
        span.change * ratio,
        {bucket: n * ratio for bucket, n in (span.buckets or {}).items()},
    )

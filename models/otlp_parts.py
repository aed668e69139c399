"""A store's blocks in the order of time, some periods at a time: what every reader starts from.

Each part is one statement and so one state of the store, however the receiver writes and merges
meanwhile; no snapshot is held between parts, so that a long reading does not make the log grow.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from models import otlp_schema as schema
from models.otlp_block import Block, joined, selected

PART_ROWS = 400_000  # about 150 MB at work
PART_PERIODS = 12

Execute = Callable[[str, Sequence[Any]], Iterable[tuple[Any, ...]]]  # of a database connection


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of some periods, and the first bin after them: nothing of earlier bins follows."""

    block: Block
    end_bin: int


@dataclass(frozen=True, slots=True)
class StoreHead:
    """What a store says of itself; first and last bin are None for an empty one."""

    bin_seconds: int
    sources: dict[int, dict[str, str]]
    first_bin: int | None
    last_bin: int | None

    def bins(self, start_seconds: float, end_seconds: float) -> tuple[int, int]:
        """Return the bins [first, end) that lie in a period of time, which may be infinite."""
        if self.first_bin is None or self.last_bin is None:
            return 0, 0
        first = max(float(self.first_bin), start_seconds / self.bin_seconds)
        end = min(float(self.last_bin + 1), end_seconds / self.bin_seconds)
        return math.floor(first), math.floor(end)


def read_head(execute: Execute, where: str) -> StoreHead:
    """Return the head of a store. Raises StoreError for another version or none."""
    bin_seconds = schema.check_meta(execute(schema.READ_META, ()), where)
    sources = schema.sources_from_rows(execute(schema.READ_SOURCES, ()))
    ((first, last),) = execute(schema.READ_BINS, ())
    return StoreHead(bin_seconds, sources, first, last)


def read_parts(
    execute: Execute, where: str, bins: tuple[int, int], bin_seconds: int
) -> Iterator[Part]:
    """Yield the rows of the bins [first, end). Raises StoreError for a block that is none."""
    first, end = bins
    each = schema.period_bins(bin_seconds)
    for begin, last in _ranges(execute(schema.READ_PERIODS, bins)):
        rows = list(execute(schema.READ_BLOCKS, (begin, last, *bins)))
        block = joined(list(schema.blocks_from_rows(rows, where)))
        inside = selected(block, (block.bins >= first) & (block.bins < end))
        yield Part(inside, min((last + 1) * each, end))


def _ranges(periods: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) period of each part."""
    begin, last, total = None, 0, 0
    for period, rows in list(periods):
        if begin is not None and (total + rows > PART_ROWS or period - begin >= PART_PERIODS):
            yield begin, last
            begin, total = None, 0
        begin = period if begin is None else begin
        last, total = period, total + rows
    if begin is not None:
        yield begin, last

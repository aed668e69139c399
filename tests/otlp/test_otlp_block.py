"""Blocks add up: however rows are split, merged and stored, the sums are the same."""

import math
from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.otlp_block import Block, from_bytes, from_cells, joined, selected, summed, to_bytes
from models.otlp_cells import Amount, Cell, merge

WIDTH = 30
EDGES = [0.0, 0.1, 0.25, 1.0, math.inf]
BUCKETS = st.dictionaries(
    st.integers(0, 3).map(lambda i: (EDGES[i], EDGES[i + 1])), st.integers(1, 9).map(float)
)
CELLS = st.dictionaries(
    st.tuples(st.integers(1000, 1003), st.integers(1, 3)),  # bin, source
    st.dictionaries(
        st.sampled_from(["success", "running", "ttft", "span_ttft"]),
        st.tuples(st.integers(0, 14), st.integers(15, 30), st.integers(0, 99), BUCKETS),
        min_size=1,
    ),
    max_size=8,
)
Drawn = Mapping[
    tuple[int, int], Mapping[str, tuple[int, int, int, Mapping[tuple[float, float], float]]]
]


def cells(drawn: Drawn) -> dict[tuple[int, int], Cell]:
    """Real cells: spans tell of moments, and only histograms have buckets."""
    out: dict[tuple[int, int], Cell] = {}
    for (number, source), signals in drawn.items():
        begin = number * WIDTH
        cell = out.setdefault((number, source), {})
        for name, (start, end, total, buckets) in signals.items():
            seen = (math.nan, math.nan) if "span" in name else (begin + start, begin + end)
            known = dict(buckets) if "ttft" in name else {}
            cell[name] = Amount(*map(float, seen), float(total), 1.0, 0.5, known)
    return out


def together(*many: dict[tuple[int, int], Cell]) -> Block:
    """The block of all, added cell by cell."""
    out: dict[tuple[int, int], Cell] = {}
    for one in many:
        for key, cell in one.items():
            merge(out.setdefault(key, {}), cell)
    return from_cells(out, WIDTH)


def assert_same(one: Block, other: Block) -> None:
    for field in fields(Block):
        if field.name not in ("edges", "bounds", "amounts"):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
    assert entries(one) == entries(other)  # whatever their order inside a row


def entries(block: Block) -> list[tuple[int, float, float, float]]:
    row = np.repeat(np.arange(len(block)), block.sizes)
    low, up = block.bounds[block.edges].T
    return sorted(zip(row.tolist(), low.tolist(), up.tolist(), block.amounts.tolist(), strict=True))


@settings(deadline=None, max_examples=40)
@given(st.lists(CELLS, max_size=4))
def test_blocks_add_up_as_cells_do(drawn: list[Drawn]) -> None:
    parts = [cells(one) for one in drawn]
    merged = summed(joined([from_cells(one, WIDTH) for one in parts]))
    assert_same(merged, together(*parts))


@settings(deadline=None, max_examples=40)
@given(CELLS, st.integers(1, 3))
def test_a_block_in_parts_is_the_block(drawn: Drawn, parts: int) -> None:
    block = from_cells(cells(drawn), WIDTH)
    pieces = [selected(block, block.sources % parts == i) for i in range(parts)]
    assert_same(summed(joined(pieces)), block)


@settings(deadline=None, max_examples=40)
@given(CELLS)
def test_what_is_stored_is_what_is_read(drawn: Drawn) -> None:
    block = from_cells(cells(drawn), WIDTH)
    assert_same(from_bytes(to_bytes(block)), block)


@settings(deadline=None, max_examples=40)
@given(CELLS, st.integers(0, 10_000), st.integers(1, 255), st.integers(0, 2))
def test_damage_is_a_value_error_or_harmless(drawn: Drawn, place: int, flip: int, cut: int) -> None:
    data = bytearray(to_bytes(from_cells(cells(drawn), WIDTH)))
    data[place % len(data)] ^= flip
    try:
        block = from_bytes(bytes(data[: len(data) - cut]))
    except ValueError:
        return  # said so: anything else fails the test
    summed(block)  # whatever it says, it can be worked with


def test_absurd_numbers_are_missing_and_not_infinite() -> None:
    block = from_cells({(1000, 1): {"success": Amount(30_000.0, 30_030.0, 1e300)}}, WIDTH)
    assert np.isnan(block.totals).tolist() == [True]
    assert block.ends.tolist() == [30.0]


def test_the_table_of_bounds_holds_only_what_is_used() -> None:
    many = {(float(i), i + 1.0): 1.0 for i in range(50)}
    block = from_cells(
        {
            (1000, 1): {"ttft": Amount(30_000.0, 30_030.0, 1.0, 50.0, 0.0, many)},
            (1000, 2): {"ttft": Amount(30_000.0, 30_030.0, 1.0, 1.0, 0.0, {(0.0, 1.0): 1.0})},
        },
        WIDTH,
    )
    part = selected(block, block.sources == 2)
    assert part.bounds.tolist() == [[0.0, 1.0]]
    assert part.amounts.tolist() == pytest.approx([1.0])

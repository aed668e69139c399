"""Blocks: many cells as columns, the form in which the store keeps them and readers sum them.

A row is what one source did of one signal in one bin (models/otlp_cells.py). Rows add up: several rows
of the same bin, source and signal mean their sum, so the receiver appends and never rewrites what it
has written. A block is one zstd frame of plain arrays: no code in it, and every length is checked.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.otlp_cells import Cell

Array = NDArray[np.generic]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# stored as their place here: new ones go to the end, and none ever goes away
CODED_SIGNALS = (
    *("running", "waiting", "kv_usage", "success", "rejected", "prompt_tokens"),
    *("generation_tokens", "prefix_queries", "prefix_hits", "ttft", "tpot", "duration"),
    *("input_length", "output_length", "gateway_arrivals", "client_input", "client_output"),
    *("span_arrivals", "span_finished", "span_input", "span_output", "span_ttft", "span_tpot"),
    "gateway_queue",
)
SIGNAL_CODES = {name: code for code, name in enumerate(CODED_SIGNALS)}
MAX_BLOCK_BYTES = 1 << 28  # inflated; more is no block of ours
MAX_NUMBER = 1e30
_HEADER = struct.Struct("<QIII")  # first bin, rows, buckets, bounds
_SIZE = struct.Struct("<Q")  # inflated bytes
# in the order of bytes; totals and the like as float32: seven digits, half the size
_ROW_COLUMNS = (
    ("bins", np.dtype("<u4")),  # after the first bin
    ("sources", np.dtype("<u4")),
    ("signals", np.dtype("<u1")),
    ("starts", np.dtype("<f4")),
    ("ends", np.dtype("<f4")),
    ("totals", np.dtype("<f4")),
    ("counts", np.dtype("<f4")),
    ("changes", np.dtype("<f4")),
    ("sizes", np.dtype("<u4")),
)
_BUCKET_COLUMNS = (("edges", np.dtype("<u4")), ("amounts", np.dtype("<f4")))
_SUMMED = ("totals", "counts", "changes")


@dataclass(frozen=True, slots=True)
class Block:
    """n rows with m buckets of k different bounds.

    starts, ends: what of the bin was observed, in seconds after its begin; NaN for single moments.
    totals, counts, changes as in Amount. The buckets of a row are the next `sizes` of (edges, amounts):
    an index into `bounds` (k, 2), lower and upper in seconds, and how many values.
    """

    bins: IntArray  # (n,)
    sources: IntArray  # (n,)
    signals: NDArray[np.uint8]  # (n,) index into CODED_SIGNALS
    starts: NDArray[np.float32]  # (n,)
    ends: NDArray[np.float32]  # (n,)
    totals: NDArray[np.float32]  # (n,)
    counts: NDArray[np.float32]  # (n,)
    changes: NDArray[np.float32]  # (n,)
    sizes: IntArray  # (n,)
    edges: IntArray  # (m,)
    amounts: NDArray[np.float32]  # (m,)
    bounds: FloatArray  # (k, 2)

    def __len__(self) -> int:
        return len(self.bins)

    @property
    def raw_bytes(self) -> int:
        """Bytes before compression: what working on the block costs is proportional to it."""
        row = sum(d.itemsize for _, d in _ROW_COLUMNS)
        bucket = sum(d.itemsize for _, d in _BUCKET_COLUMNS)
        return len(self) * row + len(self.edges) * bucket + self.bounds.nbytes


def from_cells(cells: Mapping[tuple[int, int], Cell], bin_seconds: int) -> Block:
    """Return the cells of (bin, source) as a block, sorted."""
    rows: list[tuple[float, ...]] = []
    where: dict[tuple[float, float], int] = {}
    edges: list[int] = []
    amounts: list[float] = []
    for (number, source), cell in cells.items():
        begin = number * bin_seconds
        for name, a in cell.items():
            rows.append(
                (
                    *(number, source, SIGNAL_CODES[name], a.start - begin, a.end - begin),
                    *(a.total, a.count, a.change, len(a.buckets)),
                )
            )
            edges += [where.setdefault(bucket, len(where)) for bucket in a.buckets]
            amounts += a.buckets.values()
    columns = np.array(rows, dtype=np.float64).reshape(-1, len(_ROW_COLUMNS)).T.copy()
    columns[np.abs(columns) > MAX_NUMBER] = np.nan  # nothing real, and no float32
    bounds = np.array(list(where), dtype=np.float64).reshape(-1, 2)
    return summed(_block([*columns], edges, amounts, bounds))


def to_bytes(block: Block) -> bytes:
    """Return the stored form of a block."""
    first = int(block.bins.min()) if len(block) else 0
    parts = [_HEADER.pack(first, len(block), len(block.edges), len(block.bounds))]
    for name, dtype in (*_ROW_COLUMNS, *_BUCKET_COLUMNS):
        column = getattr(block, name)
        parts.append((column - first if name == "bins" else column).astype(dtype).tobytes())
    parts.append(block.bounds.astype("<f8").tobytes())
    data = b"".join(parts)
    return _SIZE.pack(len(data)) + bytes(pa.compress(data, codec="zstd", asbytes=True))


def from_bytes(data: bytes) -> Block:
    """Read the stored form. Raises ValueError if it is not one."""
    try:
        (size,) = _SIZE.unpack_from(data)
        plain = pa.decompress(
            data[_SIZE.size :], decompressed_size=min(size, MAX_BLOCK_BYTES), codec="zstd"
        )
        first, *lengths = _HEADER.unpack_from(plain)
        return _parse(memoryview(plain), first, lengths)
    except (struct.error, OSError, pa.ArrowException, ValueError) as error:
        raise ValueError(f"not a stored block ({error})") from error


def joined(blocks: Sequence[Block]) -> Block:
    """Return the rows of all blocks in one; equal bounds become one."""
    if len(blocks) == 1:
        return blocks[0]
    bounds, code = _unique_bounds(np.concatenate([np.empty((0, 2)), *(b.bounds for b in blocks)]))
    shifts = np.cumsum([0, *(len(b.bounds) for b in blocks)])
    edges = [code[b.edges + shift] for b, shift in zip(blocks, shifts, strict=False)]
    columns = [
        np.concatenate([np.empty(0, d), *(getattr(b, name) for b in blocks)])
        for name, d in _ROW_COLUMNS
    ]
    amounts = [np.empty(0, np.float32), *(b.amounts for b in blocks)]
    return _block(
        columns, np.concatenate([np.empty(0, np.int64), *edges]), np.concatenate(amounts), bounds
    )


def selected(block: Block, rows: Array) -> Block:
    """Return some rows: a mask (n,) or indices, in the order of these."""
    if rows.dtype == np.bool_ and rows.all():
        return block
    at = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
    sizes = block.sizes[at]
    first = np.cumsum(block.sizes) - block.sizes
    inside = np.repeat(first[at] - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
    columns = [getattr(block, name)[at] for name, _ in _ROW_COLUMNS]
    edges, bounds = block.edges[inside], block.bounds
    if len(bounds) > len(edges):  # or a small part would be as large as the whole
        kept, edges = np.unique(edges, return_inverse=True)
        bounds = bounds[kept]
    return _block(columns, edges, block.amounts[inside], bounds)


def summed(block: Block) -> Block:
    """Return one row for each (signal, source, bin), in this order, with one entry a bucket."""
    if not len(block):
        return block
    order = np.lexsort((block.bins, block.sources, block.signals))
    block = selected(block, order)
    new = np.zeros(len(block), dtype=bool)
    new[0] = True
    for column in (block.bins, block.sources, block.signals):
        new[1:] |= column[1:] != column[:-1]
    first = np.flatnonzero(new)
    columns = {name: getattr(block, name)[first] for name, _ in _ROW_COLUMNS}
    with np.errstate(invalid="ignore"):  # NaN in, NaN out
        columns["starts"] = np.fmin.reduceat(block.starts, first)
        columns["ends"] = np.fmax.reduceat(block.ends, first)
        for name in _SUMMED:
            columns[name] = np.add.reduceat(getattr(block, name).astype(np.float64), first)
    row = np.repeat(np.cumsum(new) - 1, block.sizes)
    row, edges, amounts = _summed_buckets(row, block.edges, block.amounts, len(block.bounds))
    columns["sizes"] = np.bincount(row, minlength=len(first))
    kept, edges = np.unique(edges, return_inverse=True)
    return _block([columns[n] for n, _ in _ROW_COLUMNS], edges, amounts, block.bounds[kept])


def _summed_buckets(
    row: IntArray, edges: IntArray, amounts: NDArray[np.float32], kinds: int
) -> tuple[IntArray, IntArray, FloatArray]:
    """Sum the amounts of equal (row, edge); sorted."""
    if not len(row):
        return row, edges, amounts.astype(np.float64)
    key = row * np.int64(kinds) + edges
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    total = np.add.reduceat(amounts[order].astype(np.float64), first)
    return key[first] // kinds, key[first] % kinds, total


def _unique_bounds(bounds: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return the different rows of (k, 2), and which of them each row is."""
    pairs = np.ascontiguousarray(bounds).view(np.complex128).ravel()  # sorted as pairs are
    unique, code = np.unique(pairs, return_inverse=True)
    return unique.view(np.float64).reshape(-1, 2), code


def _parse(plain: memoryview, first: int, lengths: Sequence[int]) -> Block:
    rows, buckets, kinds = lengths
    columns: list[Array] = []
    offset = _HEADER.size
    for count, fields in ((rows, _ROW_COLUMNS), (buckets, _BUCKET_COLUMNS)):
        for _, dtype in fields:
            columns.append(np.frombuffer(plain, dtype, count, offset))
            offset += count * dtype.itemsize
    bounds = np.frombuffer(plain, "<f8", 2 * kinds, offset).reshape(-1, 2)
    if offset + bounds.nbytes != len(plain):
        raise ValueError(f"{len(plain)} bytes; allowed: {offset + bounds.nbytes}")
    *row_columns, edges, amounts = columns
    block = _block(row_columns, edges, amounts, bounds)
    if block.sizes.sum() != buckets or (buckets and block.edges.max() >= kinds):
        raise ValueError("buckets that do not belong to its rows")
    if rows and block.signals.max() >= len(CODED_SIGNALS):
        raise ValueError("a signal that does not exist")
    return _block([block.bins + first, *row_columns[1:]], edges, amounts, bounds)


def _block(
    rows: Sequence[Array],
    edges: Sequence[int] | Array,
    amounts: Sequence[float] | Array,
    bounds: Array,
) -> Block:
    """Build a block in its own types from _ROW_COLUMNS in order."""
    bins, sources, signals, starts, ends, totals, counts, changes, sizes = rows
    return Block(
        bins.astype(np.int64, copy=False),
        sources.astype(np.int64, copy=False),
        signals.astype(np.uint8, copy=False),
        starts.astype(np.float32, copy=False),
        ends.astype(np.float32, copy=False),
        totals.astype(np.float32, copy=False),
        counts.astype(np.float32, copy=False),
        changes.astype(np.float32, copy=False),
        sizes.astype(np.int64, copy=False),
        np.asarray(edges, dtype=np.int64),
        np.asarray(amounts, dtype=np.float32),
        np.asarray(bounds, dtype=np.float64),
    )

"""A forest of LightGBM trees, evaluated row by row without LightGBM's overhead.

A tree is a row of tests and a word of bits, one a leaf from left to right. Who fails a test goes right,
so the leaves on its left are struck out; once all tests are made, the lowest bit that is left is the
leaf. No step waits for the one before it, so the processor tests many rows at once. The sums are those
of LightGBM itself, bit by bit: the same leaves, in the same order, in float64.

Source: Lucchese et al., QuickScorer (SIGIR 2015); with SIMD: Exploiting CPU SIMD Extensions to Speed-up
Document Scoring with Tree Ensembles (SIGIR 2016).
"""

from collections.abc import Iterable
from typing import NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.quantiles import FloatArray
from models.tree_text import TreeText, trees_of

BLOCK_ROWS = 64
MOST_LEAVES = 32  # bits of the word
ALL_LEAVES = 0xFFFFFFFF
PLACE_FACTOR = 0x077CB531  # de Bruijn: each lowest bit times this has other upper five bits
PLACE_SHIFT = 27


class Forest(NamedTuple):
    """M models with T trees in all and N tests."""

    model_start: NDArray[np.int32]  # (M + 1,), first tree of each model
    test_start: NDArray[np.int32]  # (T + 1,), first test of each tree
    feature: NDArray[np.int32]  # (N,)
    threshold: NDArray[np.float32]  # (N,), a value up to it passes
    gap_fails: NDArray[np.bool_]  # (N,), whether NaN goes right
    kept: NDArray[np.uint32]  # (N,), the leaves that are left to who fails
    value: FloatArray  # (T, MOST_LEAVES), of a leaf, at the place of its bit

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Lay out LightGBM models with numeric splits, each as its text.

        Raises ValueError on any other split, or on too many leaves.
        """
        layout = _Layout()
        models = [0]
        for text in texts:
            for tree in trees_of(text):
                layout.add_tree(tree)
            models.append(len(layout.values))
        return cls(
            np.array(models, np.int32),
            np.array(layout.starts, np.int32),
            np.array(layout.features, np.int32),
            _rounded_down(np.array(layout.thresholds, np.float64)),
            np.array(layout.gaps, np.bool_),
            np.array(layout.kept, np.uint32),
            np.array(layout.values, np.float64).reshape(-1, MOST_LEAVES),
        )

    def predict(
        self, matrix: NDArray[np.float32], models: tuple[int, int] | None = None
    ) -> FloatArray:
        """Return each model's sum of leaves for rows (R, F), shape (R, M); of some `models` only if given."""
        first, until = (0, self.model_start.size - 1) if models is None else models
        out = np.zeros((matrix.shape[0], until - first))
        _score(np.ascontiguousarray(matrix), self, first, out)
        return out

    def check(self, features: int) -> None:
        """Raise ValueError where a table that was read from a file does not fit the others."""
        tests, trees = self.feature.size, self.test_start.size - 1
        whole = (
            all(x.shape == (tests,) for x in (self.threshold, self.gap_fails, self.kept))
            and self.value.shape == (trees, MOST_LEAVES)
            and _rises(self.test_start, tests)
            and _rises(self.model_start, trees)
            and bool(((self.feature >= 0) & (self.feature < features)).all())
            and bool((self.kept > 0).all())
        )
        if not whole:
            raise ValueError("the tables of a forest do not fit each other")


class _Layout:
    """The tables while they grow."""

    def __init__(self) -> None:
        self.starts: list[int] = [0]
        self.features: list[int] = []
        self.thresholds: list[float] = []
        self.gaps: list[bool] = []
        self.kept: list[int] = []
        self.values: list[list[float]] = []

    def add_tree(self, tree: TreeText) -> None:
        """Append one tree."""
        if len(tree.leaf) > MOST_LEAVES:
            raise ValueError(
                f"a tree has {len(tree.leaf)} leaves; at most {MOST_LEAVES} are possible"
            )
        leaves: list[float] = []
        self._add(tree, tree.root, leaves)
        places = [0.0] * MOST_LEAVES
        for i, value in enumerate(leaves):
            places[((1 << i) * PLACE_FACTOR & ALL_LEAVES) >> PLACE_SHIFT] = value
        self.values.append(places)
        self.starts.append(len(self.features))

    def _add(self, tree: TreeText, child: int, leaves: list[float]) -> None:
        """Append the tests below a child, and its leaves from left to right."""
        if child < 0:
            leaves.append(tree.leaf[~child])
            return
        first = len(leaves)
        self._add(tree, tree.left[child], leaves)
        on_the_left = (1 << len(leaves)) - (1 << first)
        self.features.append(tree.feature[child])
        self.thresholds.append(tree.threshold[child])
        self.gaps.append(not tree.gap_goes_left(child))
        self.kept.append(ALL_LEAVES & ~on_the_left)
        self._add(tree, tree.right[child], leaves)


def _rises(start: NDArray[np.int32], until: int) -> bool:
    """Whether `start` goes from 0 to `until` and never back."""
    return bool(
        start.ndim == 1
        and start.size
        and start[0] == 0
        and start[-1] == until
        and (np.diff(start) >= 0).all()
    )


def _rounded_down(threshold: FloatArray) -> NDArray[np.float32]:
    """Return the largest float32 up to each threshold: the same float32 values pass it."""
    most = float(np.finfo(np.float32).max)  # beyond lies no float32 but infinity
    near = np.clip(threshold, -most, most).astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


@njit(cache=True, nogil=True)  # calls no other kernel: its own file is all it depends on
def _score(matrix: NDArray[np.float32], forest: Forest, first_model: int, out: FloatArray) -> None:
    """Add up the leaves of M models from the first on, for every row, into `out` (R, M)."""
    block = np.zeros((matrix.shape[1], BLOCK_ROWS), np.float32)  # a feature's values side by side
    left = np.empty(BLOCK_ROWS, np.uint32)
    every = np.uint32(ALL_LEAVES)
    for first in range(0, matrix.shape[0], BLOCK_ROWS):
        rows = min(BLOCK_ROWS, matrix.shape[0] - first)
        for k in range(rows):
            for f in range(matrix.shape[1]):
                block[f, k] = matrix[first + k, f]
        for m in range(out.shape[1]):
            model = first_model + m
            for tree in range(forest.model_start[model], forest.model_start[model + 1]):
                left[:] = every
                for n in range(forest.test_start[tree], forest.test_start[tree + 1]):
                    x, threshold = block[forest.feature[n]], forest.threshold[n]
                    kept = forest.kept[n]
                    if forest.gap_fails[n]:
                        for k in range(BLOCK_ROWS):
                            left[k] &= every if x[k] <= threshold else kept
                    else:
                        for k in range(BLOCK_ROWS):
                            left[k] &= kept if x[k] > threshold else every
                for k in range(rows):
                    lowest = left[k] & (~left[k] + np.uint32(1))
                    place = np.uint32(lowest * np.uint32(PLACE_FACTOR)) >> np.uint32(PLACE_SHIFT)
                    out[first + k, m] += forest.value[tree, place]

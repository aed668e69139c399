"""A forest of LightGBM trees, evaluated row by row without LightGBM's overhead.

All trees of all quantiles are laid out in one table; blocks of rows go down each tree in lock-step, so
that the processor works on many rows while it waits for one. The sums are those of LightGBM itself, bit
by bit: the same splits, in the same order, in float64.
"""

from typing import Any, NamedTuple, Self

import lightgbm as lgb
import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.quantiles import FloatArray

BLOCK_ROWS = 64
Node = dict[str, Any]


class Forest(NamedTuple):
    """M models with T trees in all and N nodes; leaves point to themselves."""

    model_start: NDArray[np.int32]  # (M + 1,), first tree of each model
    tree_start: NDArray[np.int32]  # (T,), root of each tree
    depth: NDArray[np.int32]  # (T,)
    feature: NDArray[np.int32]  # (N,)
    threshold: NDArray[np.float32]  # (N,), infinite for a leaf
    child: NDArray[np.int32]  # (N,): taken if the value is at most the threshold, else the next one
    gap_right: NDArray[np.bool_]  # (N,), whether NaN goes to the next one
    value: FloatArray  # (N,), of a leaf

    @classmethod
    def of(cls, boosters: tuple[lgb.Booster, ...]) -> Self:
        """Lay out boosters with numeric splits. Raises ValueError on any other."""
        layout = _Layout()
        models = [0]
        for booster in boosters:
            for tree in booster.dump_model()["tree_info"]:
                layout.add_tree(tree["tree_structure"])
            models.append(len(layout.starts))
        return cls(
            np.array(models, np.int32),
            np.array(layout.starts, np.int32),
            np.array(layout.depths, np.int32),
            np.array(layout.features, np.int32),
            _rounded_down(np.array(layout.thresholds, np.float64)),
            np.array(layout.children, np.int32),
            np.array(layout.gaps, np.bool_),
            np.array(layout.values, np.float64),
        )

    def predict(self, matrix: NDArray[np.float32]) -> FloatArray:
        """Return each model's sum of leaves for rows (R, F), shape (R, M)."""
        out = np.zeros((matrix.shape[0], self.model_start.size - 1))
        _descend(np.ascontiguousarray(matrix), self, out)
        return out


class _Layout:
    """The table while it grows."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.depths: list[int] = []
        self.features: list[int] = []
        self.thresholds: list[float] = []
        self.children: list[int] = []
        self.gaps: list[bool] = []
        self.values: list[float] = []

    def add_tree(self, root: Node) -> None:
        """Append one tree, level by level."""
        first = len(self.features)
        self.starts.append(first)
        level, depth = [root], -1
        place = first
        while level:
            depth += 1
            following: list[Node] = []
            below = place + len(level)
            for node in level:
                here = len(self.features)
                split = "split_index" in node
                if split and node["decision_type"] != "<=":
                    raise ValueError(f"a split by '{node['decision_type']}' is not numeric")
                self.features.append(int(node["split_feature"]) if split else 0)
                self.thresholds.append(float(node["threshold"]) if split else np.inf)
                self.gaps.append(split and not _gap_left(node))
                self.values.append(0.0 if split else float(node["leaf_value"]))
                self.children.append(below + len(following) if split else here)
                following += [node["left_child"], node["right_child"]] if split else []
            place, level = below, following
        self.depths.append(depth)


def _rounded_down(threshold: FloatArray) -> NDArray[np.float32]:
    """Return the largest float32 up to each threshold: the same float32 values pass it."""
    most = float(np.finfo(np.float32).max)  # beyond lies no float32 but infinity, which is a leaf's
    finite = np.where(np.isinf(threshold), threshold, np.clip(threshold, -most, most))
    near = finite.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def _gap_left(node: Node) -> bool:
    """Whether NaN goes left: LightGBM takes it for 0 where no gap was seen in training."""
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    return bool(node["threshold"] >= 0.0)


@njit(nogil=True)
def _descend(matrix: NDArray[np.float32], forest: Forest, out: FloatArray) -> None:
    """Add up the leaves of every model for every row into `out` (R, M)."""
    feature, threshold = forest.feature, forest.threshold
    child, gap_right = forest.child, forest.gap_right
    at = np.empty(BLOCK_ROWS, np.int32)
    for first in range(0, matrix.shape[0], BLOCK_ROWS):
        rows = min(BLOCK_ROWS, matrix.shape[0] - first)
        for model in range(forest.model_start.size - 1):
            for tree in range(forest.model_start[model], forest.model_start[model + 1]):
                for k in range(rows):
                    at[k] = forest.tree_start[tree]
                for _ in range(forest.depth[tree]):
                    for k in range(rows):
                        n = at[k]
                        x = matrix[first + k, feature[n]]
                        right = (x > threshold[n]) | (np.isnan(x) & gap_right[n])
                        at[k] = child[n] + np.int32(right)
                for k in range(rows):
                    out[first + k, model] += forest.value[at[k]]

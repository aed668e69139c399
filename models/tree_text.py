"""The trees of a LightGBM model out of its text: who only forecasts need not load LightGBM, 80 MiB.

The text lists a tree's tests in the order they were made. A child from 0 on is a test, -1 the first leaf.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

CATEGORY, DEFAULT_LEFT, NAN_IS_MISSING = 1, 2, 8  # bits of decision_type
END = "\nend of trees"
FEATURES = "max_feature_idx"
TREE = "\nTree="


class TreeText(NamedTuple):
    """One tree of N tests and N + 1 leaves."""

    feature: list[int]  # (N,)
    threshold: list[float]  # (N,)
    decision: list[int]  # (N,), bits
    left: list[int]  # (N,)
    right: list[int]  # (N,)
    leaf: list[float]  # (N + 1,)

    @property
    def root(self) -> int:
        """Return the first test, or the only leaf."""
        return 0 if self.feature else -1

    def gap_goes_left(self, test: int) -> bool:
        """Whether NaN passes: LightGBM takes it for 0 where no gap was seen in training."""
        if self.decision[test] & NAN_IS_MISSING:
            return bool(self.decision[test] & DEFAULT_LEFT)
        return self.threshold[test] >= 0.0


def feature_count(text: str) -> int:
    """Return how many features a model reads."""
    return int(_fields(text.partition(TREE)[0])[FEATURES]) + 1


def trees_of(text: str) -> Iterator[TreeText]:
    """Yield a model's trees. Raises ValueError if a split is not numeric."""
    for block in text.partition(END)[0].split(TREE)[1:]:
        given = _fields(block)
        decision = _whole(given, "decision_type")
        if any(d & CATEGORY for d in decision):
            raise ValueError("a split by categories is not numeric")
        yield TreeText(
            _whole(given, "split_feature"),
            _numbers(given, "threshold"),
            decision,
            _whole(given, "left_child"),
            _whole(given, "right_child"),
            _numbers(given, "leaf_value"),
        )


def gains_of(text: str, features: int) -> np.ndarray:
    """Return the gain of all splits by each feature, (F,)."""
    gains = np.zeros(features)
    for block in text.partition(END)[0].split(TREE)[1:]:
        given = _fields(block)
        np.add.at(gains, _whole(given, "split_feature"), _numbers(given, "split_gain"))
    return gains


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _whole(given: dict[str, str], name: str) -> list[int]:
    return [int(x) for x in given.get(name, "").split()]


def _numbers(given: dict[str, str], name: str) -> list[float]:
    return [float(x) for x in given.get(name, "").split()]

"""LightGBM quantile regression: one booster a quantile over all services, leads as a feature.

Deterministic: fixed seeds, row-wise histograms, one thread a booster. Crossed quantiles are
sorted (Chernozhukov, Fernández-Val & Galichon, Econometrica 78 (2010): sorting never hurts).
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from models.quantiles import QUANTILES, FloatArray
from models.tree_text import END, feature_count, gains_of
from models.trees import Forest

if TYPE_CHECKING:  # only a fit needs it
    import lightgbm as lgb

FloatMatrix = NDArray[np.float32]
ROUNDS = 100
MIN_ROWS = 400  # fewer rows than this teach a tree nothing
WORKERS = 2  # boosters at a time, one thread each: OpenMP barriers crawl where cores are shared
PARAMETERS: dict[str, Any] = {
    "objective": "quantile",
    "learning_rate": 0.07,
    "num_leaves": 24,
    "max_depth": 7,  # bounds the steps of a forecast
    "feature_fraction": 0.6,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "max_bin": 127,
    "feature_pre_filter": False,
    "seed": 20,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
TEXT_START = "tree\n"
MIN_LEAF_ROWS = 60
MIN_LEAF_TAIL_ROWS = 1.5  # rows beyond the quantile that a leaf should hold


class LgbmQuantile:
    """N rows, F features, Q = len(QUANTILES). The target is in scales (features.Known.u).

    `texts` are the boosters, one a quantile, in LightGBM's text format.
    """

    def __init__(self, texts: tuple[str, ...]) -> None:
        if len(texts) != len(QUANTILES):
            raise ValueError(f"{len(QUANTILES)} boosters are needed, got {len(texts)}")
        self._texts = texts
        self._forest: Forest | None = None

    @classmethod
    def fit(
        cls,
        matrix: FloatMatrix,
        target: FloatArray,
        weight: FloatArray,
        *,
        done: Callable[[int], None] | None = None,
    ) -> Self:
        """Learn from (N, F) features, (N,) targets and weights. Raises ValueError below MIN_ROWS rows."""
        if target.size < MIN_ROWS:
            raise ValueError(f"{target.size} rows are too few to fit on; at least {MIN_ROWS}")
        if not (np.isfinite(target).all() and np.isfinite(weight).all()):
            raise ValueError("targets and weights must be finite: leave rows with gaps out")
        texts: list[str] = []
        with ThreadPoolExecutor(WORKERS) as pool:
            for booster in pool.map(lambda q: boost(matrix, target, weight, q), QUANTILES):
                texts.append(booster.model_to_string())
                if done is not None:
                    done(len(texts))
        return cls(tuple(texts))

    def predict(self, matrix: FloatMatrix) -> FloatArray:
        """Return quantiles in scales, shape (N, Q), never crossing."""
        if matrix.shape[0] == 0:
            return np.empty((0, len(QUANTILES)))
        if self._forest is None:  # laid out when it is first asked: a fit may never be
            self._forest = Forest.of(self._texts)
        return np.sort(self._forest.predict(matrix), axis=1)

    def gain_ratios(self) -> FloatArray:
        """Return each feature's share of the gain of all splits, (F,), every quantile counting alike."""
        gains = np.stack([gains_of(text, feature_count(text)) for text in self._texts])
        return np.asarray(
            (gains / np.maximum(gains.sum(axis=1, keepdims=True), 1e-300)).mean(axis=0)
        )

    def to_files(self) -> dict[str, bytes]:
        """Return LightGBM's text format, a file a quantile."""
        return {file_name(q): text.encode() for q, text in zip(QUANTILES, self._texts, strict=True)}

    @classmethod
    def from_files(cls, files: dict[str, bytes], features: int) -> Self:
        """Read what `to_files` wrote. The caller has checked that its bytes are the ones written.

        Raises ValueError if a file is missing, cut off or has other features.
        """
        texts = []
        for quantile in QUANTILES:
            name = file_name(quantile)
            if name not in files:
                raise ValueError(f"load model: file '{name}' is missing")
            text = files[name].decode(errors="replace")
            if not text.startswith(TEXT_START) or END not in text:
                raise ValueError(f"load model: file '{name}' is not a whole LightGBM model")
            found = feature_count(text)
            if found != features:
                raise ValueError(f"load model: file '{name}' has {found} features, not {features}")
            texts.append(text)
        return cls(tuple(texts))


def file_name(quantile: float) -> str:
    """Name of one quantile's file."""
    return f"lgbm-q{round(quantile * 100):02d}.txt"


def boost(
    matrix: FloatMatrix,
    target: FloatArray,
    weight: FloatArray,
    quantile: float,
    *,
    rounds: int = ROUNDS,
    parameters: Mapping[str, Any] = PARAMETERS,
    leaf_rows: int = MIN_LEAF_ROWS,
) -> "lgb.Booster":
    """Fit one quantile; the data set is not shared, so that boosters may be fitted side by side."""
    import lightgbm as lgb

    data = lgb.Dataset(matrix, target, weight=weight, params=dict(parameters))
    return lgb.train(at_quantile(parameters, quantile, leaf_rows), data, num_boost_round=rounds)


def at_quantile(
    parameters: Mapping[str, Any], quantile: float, leaf_rows: int = MIN_LEAF_ROWS
) -> dict[str, Any]:
    """Return LightGBM's parameters for one quantile: the rarer what lies beyond it, the larger a leaf."""
    tail = leaf_rows / MIN_LEAF_ROWS * MIN_LEAF_TAIL_ROWS / min(quantile, 1 - quantile)
    return {**parameters, "alpha": quantile, "min_data_in_leaf": max(leaf_rows, round(tail))}

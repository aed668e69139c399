"""The load model's two learners as scikit-learn estimators: for pipelines, searches and inspection.

Both learn several quantiles of one target. `predict` returns one of them, the median unless told
otherwise, as regressors do; `predict_quantiles` returns them all, never crossing. `score` is the share
of pinball loss that is saved beside the best constants, D² (scikit-learn's d2_pinball_score), mean over
the quantiles: 0 is no better than knowing nothing, 1 is perfect.

The load model itself (models.load_fit) uses the same `boost` with the defaults below.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import QuantileRegressor
from sklearn.metrics import d2_pinball_score
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from models.lgbm_quantile import MIN_LEAF_ROWS, PARAMETERS, ROUNDS, boost
from models.quantiles import QUANTILES, FloatArray


class _SeveralQuantiles(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """What both share. Subclasses set `quantiles`, `point` and fill `predict_quantiles`."""

    quantiles: Sequence[float]
    point: float

    def predict_quantiles(self, X: ArrayLike) -> FloatArray:
        """Return quantiles (N, Q) of the rows of X (N, F), never crossing."""
        raise NotImplementedError

    def predict(self, X: ArrayLike) -> FloatArray:
        """Return quantile `point` of the rows of X (N, F), shape (N,)."""
        quantiles = self.predict_quantiles(X)
        return quantiles[:, list(self.quantiles).index(self.point)]

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return D²: one minus pinball loss over that of the best constants, mean over the quantiles."""
        found = self.predict_quantiles(X)
        scores = [
            d2_pinball_score(y, found[:, k], sample_weight=sample_weight, alpha=q)
            for k, q in enumerate(self.quantiles)
        ]
        return float(np.mean(scores))

    def _checked(
        self,
        X: ArrayLike,
        y: ArrayLike,
        weight: ArrayLike | None,
        *,
        gaps: bool,
    ) -> tuple[Any, FloatArray, FloatArray]:
        quantiles = np.asarray(self.quantiles, dtype=np.float64)
        if quantiles.size == 0 or not ((quantiles > 0) & (quantiles < 1)).all():
            raise ValueError(f"quantiles must lie inside (0, 1), got {self.quantiles}")
        if (np.diff(quantiles) <= 0).any() or self.point not in list(self.quantiles):
            raise ValueError(
                f"quantiles must increase and hold point={self.point}, got {self.quantiles}"
            )
        finite = "allow-nan" if gaps else True
        rows, target = validate_data(self, X, y, ensure_all_finite=finite, y_numeric=True)
        weight = _check_sample_weight(weight, rows, dtype=np.float64)
        return rows, target.astype(np.float64), np.asarray(weight)

    def _rows(self, X: ArrayLike, *, gaps: bool) -> Any:  # noqa: ANN401
        check_is_fitted(self)
        finite = "allow-nan" if gaps else True
        return validate_data(self, X, reset=False, ensure_all_finite=finite)


class LgbmQuantileRegressor(_SeveralQuantiles):
    """LightGBM, one booster a quantile; NaN in X is a gap and is learned from as one.

    Parameters
    ----------
    quantiles : strictly increasing, each inside (0, 1).
    point : the quantile that `predict` returns.
    rounds, learning_rate, num_leaves : trees a booster, their step, leaves of a tree.
    feature_fraction, bagging_fraction : share of features and of rows that a tree sees.
    lambda_l2, max_bin : penalty on leaves, bins of a feature.
    min_leaf_rows : rows that a leaf must hold; more in the tails.
    random_state : seed of the sampling: the same data and seed give the same trees.

    Attributes
    ----------
    boosters_ : the boosters, one a quantile.
    feature_importances_ : share of all splits' gain by feature, (F,), every quantile counting alike.
    """

    def __init__(
        self,
        *,
        quantiles: Sequence[float] = QUANTILES,
        point: float = 0.5,
        rounds: int = ROUNDS,
        learning_rate: float = PARAMETERS["learning_rate"],
        num_leaves: int = PARAMETERS["num_leaves"],
        feature_fraction: float = PARAMETERS["feature_fraction"],
        bagging_fraction: float = PARAMETERS["bagging_fraction"],
        lambda_l2: float = PARAMETERS["lambda_l2"],
        max_bin: int = PARAMETERS["max_bin"],
        min_leaf_rows: int = MIN_LEAF_ROWS,
        random_state: int = PARAMETERS["seed"],
    ) -> None:
        self.quantiles = quantiles
        self.point = point
        self.rounds = rounds
        self.learning_rate = learning_rate
        self.num_leaves = num_leaves
        self.feature_fraction = feature_fraction
        self.bagging_fraction = bagging_fraction
        self.lambda_l2 = lambda_l2
        self.max_bin = max_bin
        self.min_leaf_rows = min_leaf_rows
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from X (N, F), which may hold NaN, and y (N,). Raises ValueError on anything else."""
        rows, target, weight = self._checked(X, y, sample_weight, gaps=True)
        matrix = rows.astype(np.float32)
        own = {
            name: getattr(self, name)
            for name in ("learning_rate", "num_leaves", "feature_fraction", "bagging_fraction")
        }
        own |= {"lambda_l2": self.lambda_l2, "max_bin": self.max_bin, "seed": self.random_state}
        self.boosters_ = tuple(
            boost(
                matrix,
                target,
                weight,
                quantile,
                rounds=self.rounds,
                parameters=PARAMETERS | own,
                leaf_rows=self.min_leaf_rows,
            )
            for quantile in self.quantiles
        )
        return self

    def predict_quantiles(self, X: ArrayLike) -> FloatArray:
        """Return quantiles (N, Q) of the rows of X (N, F), never crossing."""
        matrix = self._rows(X, gaps=True).astype(np.float32)
        columns = [np.asarray(b.predict(matrix, num_threads=1)) for b in self.boosters_]
        return np.sort(np.stack(columns, axis=1), axis=1)

    @property
    def feature_importances_(self) -> FloatArray:
        """Share of all splits' gain by feature, (F,), every quantile counting alike."""
        check_is_fitted(self)
        gains = np.stack([b.feature_importance("gain") for b in self.boosters_])
        shares = gains / np.maximum(gains.sum(axis=1, keepdims=True), 1e-300)
        return np.asarray(shares.mean(axis=0))

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401
        """Say that NaN is welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class LinearQuantileRegressor(_SeveralQuantiles):
    """A line a quantile (Koenker & Bassett, Econometrica 46 (1978)), solved as a linear programme.

    Parameters
    ----------
    quantiles, point : as in LgbmQuantileRegressor.
    alpha : penalty on the sum of the coefficients' sizes.

    Attributes
    ----------
    coef_ : (Q, F). intercept_ : (Q,).
    """

    def __init__(
        self,
        *,
        quantiles: Sequence[float] = QUANTILES,
        point: float = 0.5,
        alpha: float = 1e-3,
    ) -> None:
        self.quantiles = quantiles
        self.point = point
        self.alpha = alpha

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn from X (N, F) and y (N,), both finite. Raises ValueError on anything else."""
        rows, target, weight = self._checked(X, y, sample_weight, gaps=False)
        lines = [
            QuantileRegressor(quantile=q, alpha=self.alpha, solver="highs").fit(
                rows, target, weight
            )
            for q in self.quantiles
        ]
        self.coef_ = np.stack([line.coef_ for line in lines])
        self.intercept_ = np.array([float(line.intercept_) for line in lines])
        return self

    def predict_quantiles(self, X: ArrayLike) -> FloatArray:
        """Return quantiles (N, Q) of the rows of X (N, F), never crossing."""
        return np.sort(self._rows(X, gaps=False) @ self.coef_.T + self.intercept_, axis=1)

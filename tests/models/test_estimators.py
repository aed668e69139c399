"""The learners are scikit-learn estimators: its own checks, pipelines, searches, inspection."""

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from models.estimators import LgbmQuantileRegressor, LinearQuantileRegressor
from models.lgbm_quantile import MIN_ROWS, LgbmQuantile
from models.quantiles import QUANTILES, FloatArray

SMALL: dict[str, Any] = {"rounds": 20, "min_leaf_rows": 2, "quantiles": (0.1, 0.5, 0.9)}


LGBM = LgbmQuantileRegressor(**SMALL, bagging_fraction=1.0, feature_fraction=1.0, learning_rate=0.3)
LINEAR = LinearQuantileRegressor(quantiles=(0.1, 0.5, 0.9), alpha=0.0)
NOT_APPLICABLE = {
    "check_sample_weight_equivalence_on_dense_data": (
        "LightGBM counts rows, not weights, where it asks whether a leaf has enough of them and where "
        "it draws its bins: a weight of two is not quite the row twice"
    )
}


def expected_failures(estimator: Any) -> dict[str, str]:
    return NOT_APPLICABLE if isinstance(estimator, LgbmQuantileRegressor) else {}


@parametrize_with_checks([LGBM, LINEAR], expected_failed_checks=expected_failures)
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def world(rows: int = 800) -> tuple[FloatArray, FloatArray]:
    """y = 3 x0 + noise that grows with x1; x2 says nothing."""
    rng = np.random.default_rng(8)
    x = rng.uniform(0, 1, (rows, 3))
    return x, 3 * x[:, 0] + (0.1 + x[:, 1]) * rng.standard_normal(rows)


@pytest.mark.parametrize("estimator", [LgbmQuantileRegressor(), LinearQuantileRegressor()])
def test_quantiles_cover_what_they_promise(estimator: Any) -> None:
    x, y = world()
    found = clone(estimator).fit(x, y).predict_quantiles(x)
    assert found.shape == (800, len(QUANTILES))
    assert (np.diff(found, axis=1) >= 0).all()
    np.testing.assert_allclose((y[:, None] <= found).mean(axis=0), QUANTILES, atol=0.04)
    np.testing.assert_array_equal(clone(estimator).fit(x, y).predict(x), found[:, 1])


def test_in_a_pipeline_and_a_search() -> None:
    x, y = world()
    line = make_pipeline(StandardScaler(), LinearQuantileRegressor(quantiles=(0.1, 0.5, 0.9)))
    assert cross_val_score(line, x, y, cv=TimeSeriesSplit(3)).min() > 0.2
    search = GridSearchCV(
        LgbmQuantileRegressor(**SMALL), {"min_leaf_rows": [1, 40]}, cv=TimeSeriesSplit(3)
    ).fit(x, y)
    assert search.best_params_ == {"min_leaf_rows": 40}  # leaves of one row learn noise
    assert search.best_estimator_.predict(x).shape == (800,)


def test_inspection_finds_what_matters() -> None:
    x, y = world()
    model = LgbmQuantileRegressor(rounds=60, quantiles=(0.1, 0.5, 0.9)).fit(x, y)
    shares = model.feature_importances_
    assert shares.sum() == pytest.approx(1.0)
    assert shares.argmax() == 0
    drop = permutation_importance(model, x, y, n_repeats=2, random_state=1).importances_mean
    assert drop[0] > 5 * drop[2]


def test_a_gap_is_learned_from_by_trees_and_refused_by_lines() -> None:
    x, y = world()
    x[::3, 0] = np.nan
    y[::3] = 50.0
    model = LgbmQuantileRegressor(rounds=60).fit(x, y)
    assert model.predict(np.array([[np.nan, 0.5, 0.5]]))[0] == pytest.approx(50.0, rel=0.1)
    with pytest.raises(ValueError, match="NaN"):
        LinearQuantileRegressor().fit(x, y)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"quantiles": (0.5, 1.0)}, r"inside \(0, 1\)"),
        ({"quantiles": ()}, r"inside \(0, 1\)"),
        ({"quantiles": (0.9, 0.5)}, "must increase"),
        ({"quantiles": (0.1, 0.9)}, "hold point=0.5"),
    ],
)
def test_bad_quantiles_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LgbmQuantileRegressor(**given).fit(*world())


def test_it_is_what_the_load_model_fits() -> None:
    """The same data give the same trees, to the byte."""
    x, y = world(MIN_ROWS)
    mine = LgbmQuantileRegressor().fit(x.astype(np.float32), y)
    theirs = LgbmQuantile.fit(x.astype(np.float32), y, np.ones_like(y)).to_files()
    for booster, text in zip(mine.boosters_, theirs.values(), strict=True):
        assert booster.model_to_string().encode() == text

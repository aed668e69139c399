"""The forest says what LightGBM says, bit by bit."""

import lightgbm as lgb
import numpy as np
import pytest
from numpy.typing import NDArray

from models.trees import Forest

PARAMETERS = {"num_leaves": 12, "verbosity": -1, "num_threads": 1, "seed": 3, "objective": "l1"}


def booster(gaps: bool, rounds: int = 9) -> lgb.Booster:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(900, 4)).astype(np.float32)
    y = x[:, 0] + np.where(x[:, 1] > 0.3, x[:, 2], 0.0) + 0.1 * rng.normal(size=900)
    if gaps:
        x[rng.random(x.shape) < 0.2] = np.nan
    return lgb.train(PARAMETERS, lgb.Dataset(x, y), num_boost_round=rounds)


def rows(count: int) -> NDArray[np.float32]:
    x = np.random.default_rng(2).normal(size=(count, 4)).astype(np.float32)
    x[::5, 1] = np.nan
    x[::7, 0] = np.nan
    return x


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 300])
def test_same_bits_as_lightgbm(count: int) -> None:
    boosters = (booster(gaps=True), booster(gaps=False), booster(gaps=True, rounds=2))
    matrix = rows(count)
    got = Forest.of(b.model_to_string() for b in boosters).predict(matrix)
    assert got.shape == (count, 3)
    for m, one in enumerate(boosters if count else ()):
        np.testing.assert_array_equal(got[:, m], one.predict(matrix, num_threads=1))


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    forest = Forest.of([booster(gaps=True).model_to_string()])
    matrix = rows(200)
    np.testing.assert_array_equal(forest.predict(matrix)[77], forest.predict(matrix[77:78])[0])


def test_a_tree_of_one_leaf() -> None:
    x, y = np.zeros((50, 2), dtype=np.float32), np.full(50, 3.0)
    constant = lgb.train(PARAMETERS, lgb.Dataset(x, y), num_boost_round=2)
    np.testing.assert_array_equal(
        Forest.of([constant.model_to_string()]).predict(x)[:, 0], constant.predict(x)
    )


def test_categories_are_refused() -> None:
    rng = np.random.default_rng(4)
    x = rng.integers(0, 5, (600, 1)).astype(np.float32)
    y = np.array([0.0, 5.0, 1.0, 7.0, 2.0])[x[:, 0].astype(int)]
    model = lgb.train(PARAMETERS, lgb.Dataset(x, y, categorical_feature=[0]), num_boost_round=3)
    with pytest.raises(ValueError, match="not numeric"):
        Forest.of([model.model_to_string()])

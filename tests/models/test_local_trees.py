"""Trees of a service's own correct the global ones where its history says more, and nowhere else."""

import io
from collections.abc import Callable

import numpy as np
import pytest

from models.features import IntArray
from models.frames import LoadSeries
from models.lgbm_quantile import LgbmQuantile
from models.load_fit import _earned
from models.load_model import CANDIDATES, CONTESTANTS, LGBM, LOCAL, LoadModel
from models.load_sample import OWN_DAYS, OWN_SERVICES, prepare, rich_services
from models.local_trees import FILE, MIN_ROWS, LocalTrees, OwnRows
from models.quantiles import QUANTILES, FloatArray

FIVE = QUANTILES.index(0.5)
FEATURES = 3


def rows(count: int, slope: float, seed: int) -> OwnRows:
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(count, FEATURES)).astype(np.float32)
    target = slope * matrix[:, 0] + rng.normal(0.0, 0.3, count)
    return OwnRows(matrix, target, np.ones(count))


@pytest.fixture(scope="module")
def whole() -> LgbmQuantile:
    return LgbmQuantile.fit(*rows(4000, 1.0, 1))


@pytest.fixture(scope="module")
def local(whole: LgbmQuantile) -> LocalTrees:
    data = {2: rows(MIN_ROWS, 3.0, 2), 5: rows(MIN_ROWS - 1, 3.0, 3), 7: rows(MIN_ROWS, 1.0, 4)}
    found = LocalTrees.fit(np.array([2, 5, 6, 7]), data.get, whole)
    assert found is not None
    return found


def corrections(local: LocalTrees, row: IntArray, matrix: FloatArray) -> FloatArray:
    out = np.zeros((row.size, 1, len(QUANTILES)))
    local.add(out, row, matrix[:, np.newaxis].astype(np.float32))
    return out


def test_who_has_enough_rows_has_trees(local: LocalTrees, whole: LgbmQuantile) -> None:
    assert local.rows.tolist() == [2, 7]
    assert LocalTrees.fit(np.array([5]), lambda _: rows(MIN_ROWS - 1, 1.0, 3), whole) is None


def test_each_service_gets_its_own_correction(local: LocalTrees) -> None:
    matrix = np.array([[1.5, 0.0, 0.0]] * 4)
    got = corrections(local, np.array([7, 2, 5, 2]), matrix)[:, 0, FIVE]
    assert got[1] == got[3]
    assert 1.5 < got[1] < 3.5  # 3 x 1.5 instead of 1 x 1.5
    assert abs(got[0]) < 0.3  # like the fleet: next to nothing
    assert got[2] == 0.0  # has none


def test_files_and_back(local: LocalTrees) -> None:
    again = LocalTrees.from_files(local.to_files(), FEATURES, 8)
    matrix, row = np.random.default_rng(5).normal(size=(50, FEATURES)), np.tile([2, 7], 25)
    np.testing.assert_array_equal(corrections(again, row, matrix), corrections(local, row, matrix))


def changed(local: LocalTrees, **arrays: np.ndarray) -> dict[str, bytes]:
    with np.load(io.BytesIO(local.to_files()[FILE])) as data:
        whole = {name: data[name] for name in data.files} | arrays
    buffer = io.BytesIO()
    np.savez(buffer, **whole)
    return {FILE: buffer.getvalue()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("feature", lambda x: x + FEATURES),  # beyond the matrix
        ("feature", lambda x: x[:-1]),
        ("test_start", lambda x: x + 1),
        ("model_start", lambda x: x[:-1]),
        ("kept", lambda x: x * 0),  # no leaf is left
        ("value", lambda x: x[:, :-1]),
        ("rows", lambda x: x + 7),  # services that the model does not have
        ("rows", lambda x: x[::-1]),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    local: LocalTrees, name: str, value: Callable[[np.ndarray], np.ndarray]
) -> None:
    with np.load(io.BytesIO(local.to_files()[FILE])) as data:
        files = changed(local, **{name: value(data[name])})
    with pytest.raises(ValueError, match=r"local\.npz"):
        LocalTrees.from_files(files, FEATURES, 8)


def test_a_damaged_file_is_refused(local: LocalTrees) -> None:
    data = local.to_files()[FILE]
    for broken in ({}, {FILE: b""}, {FILE: data[: len(data) // 2]}):
        with pytest.raises(ValueError, match=r"local\.npz"):
            LocalTrees.from_files(broken, FEATURES, 8)


def fleet(services: int, days: float, step: float = 3600.0) -> LoadSeries:
    steps = round(days * 86_400 / step)
    rng = np.random.default_rng(6)
    values = rng.gamma(20.0, 1.0 + np.arange(services)[:, None, None], (services, steps, 3))
    return LoadSeries(tuple(f"p/{i}" for i in range(services)), 0.0, step, values)


def test_history_and_load_decide_who_may_have_trees() -> None:
    series = fleet(4, OWN_DAYS + 2)
    steps = series.values.shape[1]
    series.values[1, : steps // 2] = np.nan  # three days
    series.values[2] *= 0.01
    series.values[2, -24:] *= 1e4  # one day of a burst: six days of which one counts
    data = prepare(series, "requests", (1, 2))
    assert rich_services(data, steps).tolist() == [0, 3]
    assert rich_services(data, round(OWN_DAYS - 1) * 24).size == 0
    assert rich_services(data, 5).size == 0
    alone = prepare(fleet(1, 9), "requests", (1, 2))
    assert rich_services(alone, alone.values.shape[1]).size == 0  # the global model is its own
    many = prepare(fleet(OWN_SERVICES + 5, OWN_DAYS + 1), "requests", (1,))
    chosen = rich_services(many, many.values.shape[1])
    assert chosen.tolist() == list(range(5, OWN_SERVICES + 5))  # those with the most load


def test_small_shares_go_back_to_the_global_model() -> None:
    weights = np.zeros((3, len(CONTESTANTS)))
    local, whole = CONTESTANTS.index(LOCAL), CONTESTANTS.index(LGBM)
    weights[:, local], weights[:, whole] = [0.04, 0.3, 0.0], [0.96, 0.7, 1.0]
    blend = np.full(3, CANDIDATES.index("blend"))
    out, keeps = _earned(weights, blend)
    assert keeps.tolist() == [1]
    np.testing.assert_allclose(out[:, local], [0.0, 0.3, 0.0])
    np.testing.assert_allclose(out.sum(axis=1), 1.0)


def test_a_service_of_its_own_kind_earns_trees_and_keeps_them_in_the_artifact() -> None:
    """Every third hour is busy on one service: the fleet knows of no such thing."""
    series = fleet(4, 16, 1200.0)
    at = np.arange(series.values.shape[1])
    series.values[3, :, 0] *= np.where(at % 3 == 0, 4.0, 1.0)
    model = LoadModel.fit(series, leads_steps=(1, 2))
    again = LoadModel.from_files(model.to_files())
    past = series.values[:, :, 0]
    first = model.forecast(series.services, past, series.end_seconds).values
    second = again.forecast(series.services, past, series.end_seconds).values
    np.testing.assert_array_equal(first, second)
    assert FILE in model.to_files()
    assert "local" in model.scores["p/3"]["pinball_loss_ratio"]

"""Trees of one service's own: corrections of the global model, for services that have told enough.

Each quantile's booster begins where the global model ends, so that a service whose history says nothing
new adds nothing. Fitted for the services with the most load: there a percent is a replica.
"""

import io
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.features import IntArray
from models.lgbm_quantile import PARAMETERS, WORKERS, FloatMatrix, LgbmQuantile, at_quantile
from models.quantiles import QUANTILES, FloatArray
from models.trees import Forest

ROUNDS = 20
MIN_ROWS = 2000
OWN_PARAMETERS = PARAMETERS | {"learning_rate": 0.1, "num_leaves": 8, "max_depth": 4, "max_bin": 63}
FILE = "local.npz"


class OwnRows(NamedTuple):
    """N rows of one service: features, the truth less the anchor in scales, weights."""

    matrix: FloatMatrix  # (N, F)
    target: FloatArray  # (N,)
    weight: FloatArray  # (N,)


class LocalTrees:
    """`rows` (n,): the services that have trees, increasing; one forest of n * Q models."""

    def __init__(self, rows: IntArray, forest: Forest) -> None:
        self.rows = rows
        self.forest = forest

    @classmethod
    def fit(
        cls, rows: IntArray, own: Callable[[int], OwnRows | None], whole: LgbmQuantile
    ) -> Self | None:
        """Fit the services `rows`, whose data `own` returns; None if none of them has enough."""

        def one(row: int) -> tuple[int, list[str]] | None:
            data = own(row)
            if data is None or data.target.size < MIN_ROWS:
                return None
            return row, _corrections(data, whole.predict(data.matrix))

        with ThreadPoolExecutor(WORKERS) as pool:
            found = [x for x in pool.map(one, (int(r) for r in rows)) if x is not None]
        if not found:
            return None
        forest = Forest.of(text for _, of_one in found for text in of_one)
        return cls(np.array([row for row, _ in found], np.int64), forest)

    def add(self, out: FloatArray, row: IntArray, matrix: FloatMatrix) -> None:
        """Add the corrections of services `row` (R,) to quantiles `out` (R, L, Q); `matrix` (R, L, F)."""
        place = np.searchsorted(self.rows, row)
        has = self.rows[np.minimum(place, self.rows.size - 1)] == row
        for at in np.unique(place[has]):
            mine = np.flatnonzero(has & (place == at))
            models = int(at) * len(QUANTILES), (int(at) + 1) * len(QUANTILES)
            found = self.forest.predict(matrix[mine].reshape(-1, matrix.shape[-1]), models)
            out[mine] += found.reshape(mine.size, *out.shape[1:])

    def to_files(self) -> dict[str, bytes]:
        """Return the tables as npz."""
        buffer = io.BytesIO()
        arrays: dict[str, NDArray[Any]] = {"rows": self.rows, **self.forest._asdict()}
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        return {FILE: buffer.getvalue()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], features: int, services: int) -> Self:
        """Read what `to_files` wrote. Raises ValueError on damage, or where it does not fit the model."""
        try:
            with np.load(io.BytesIO(files[FILE]), allow_pickle=False) as data:
                rows = data["rows"].astype(np.int64)
                forest = Forest(*(data[name] for name in Forest._fields))
            forest.check(features)
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"load model: file '{FILE}' is damaged ({error})") from error
        inside = rows.size and rows[0] >= 0 and rows[-1] < services and (np.diff(rows) > 0).all()
        if not inside or forest.model_start.size - 1 != rows.size * len(QUANTILES):
            raise ValueError(f"load model: file '{FILE}' does not fit the services of the model")
        return cls(rows, forest)


def _corrections(rows: OwnRows, before: FloatArray) -> list[str]:
    """Fit a booster a quantile, each from its column of `before` (N, Q) on; return their texts."""
    import lightgbm as lgb

    data = lgb.Dataset(rows.matrix, rows.target, weight=rows.weight, params=dict(OWN_PARAMETERS))
    data.construct()
    texts = []
    for quantile, start in zip(QUANTILES, np.ascontiguousarray(before.T), strict=True):
        data.set_init_score(start)
        own = at_quantile(OWN_PARAMETERS, quantile)
        texts.append(lgb.train(own, data, num_boost_round=ROUNDS).model_to_string())
    return texts

"""The load model: quantile forecasts of a target for many services at once.

Contestants are the simple rules, a linear quantile regression and a LightGBM model, both global, and
trees of a service's own that correct the global ones. Each service is served by a weighted blend of their
quantiles, or by the one contestant that is better beyond doubt (models.load_judge), calibrated per lead.
Forecasting is a pure function of the values passed in; models.online follows the coverage from step to step.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.conformal import Conformal
from models.features import Grid, IntArray, Known, feature_matrix, feature_names, look_back
from models.frames import LOAD_NUMBERS, LoadSeries
from models.holiday_calendar import Holidays
from models.lgbm_quantile import LgbmQuantile
from models.linear_quantile import LINE_EXTRAS, LinearQuantile, line_columns
from models.local_trees import LocalTrees
from models.mixture import mixed_quantiles
from models.progress import Progress
from models.quantiles import QUANTILES, FloatArray, LoadForecast
from models.simple_rules import RULES, rule_centres

LINEAR, LGBM, LOCAL, BLEND = "linear", "lightgbm", "local", "blend"
CONTESTANTS = (*RULES, LINEAR, LGBM, LOCAL)
CANDIDATES = (*CONTESTANTS, BLEND)
LEVEL = RULES.index("level")
FORMAT = 4
CHUNK_ROWS = 1024  # origins gathered at a time: bounds memory


@dataclass(frozen=True, slots=True)
class Fitted:
    """The fitted models; None where there was too little to learn from."""

    linear: LinearQuantile | None = None
    lgbm: LgbmQuantile | None = None
    local: LocalTrees | None = None

    def quantiles(
        self, seen: "Seen", row: IntArray, *, trees: NDArray[np.bool_] | None = None
    ) -> FloatArray:
        """Quantiles in scales, (R, L, M, Q), of the linear, the global and the local model.

        `row` (R,) is the service of each origin. The anchor speaks for a model that is not fitted, or whose
        `trees` (R,) are not asked; the global model for the local one of a service that has none.
        """
        origins, leads = seen.known.leads_steps.shape
        out = np.zeros((origins, leads, len(CONTESTANTS) - len(RULES), len(QUANTILES)))
        asked = np.isfinite(seen.known.track.centre)
        at = np.flatnonzero(asked if trees is None else asked & trees)
        if self.linear is not None:
            out[:, :, 0] = self.linear.predict(seen.lines).reshape(origins, leads, -1)
        if self.lgbm is not None and at.size:
            matrix = seen.matrix.reshape(origins, leads, -1)
            matrix = matrix if at.size == origins else matrix[at]
            found = self.lgbm.predict(matrix.reshape(-1, matrix.shape[-1]))
            out[at, :, 1] = found.reshape(at.size, leads, -1)
            out[at, :, 2] = self._own(out[at, :, 1], row[at], matrix)
        out += seen.known.u(seen.known.anchor)[:, :, np.newaxis, np.newaxis]
        return out

    def _own(self, whole: FloatArray, row: IntArray, matrix: NDArray[np.float32]) -> FloatArray:
        if self.local is None:
            return whole
        own = whole.copy()
        self.local.add(own, row, matrix)
        return np.sort(own, axis=-1)


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the contestants read at R origins and L leads."""

    known: Known
    centres: FloatArray  # (R, L, C), of the rules
    lines: FloatArray  # (R * L, G), for the linear regression
    matrix: NDArray[np.float32]  # (R * L, F), for the trees

    @classmethod
    def of(cls, known: Known, grid: Grid, share: FloatArray) -> "Seen":
        """Compute rules and features from what is known; `share` (R,) as for `rule_centres`."""
        centres = rule_centres(known, grid, share)
        return cls(known, centres, line_columns(known, centres), feature_matrix(known, grid))


@dataclass(frozen=True, slots=True)
class Learned:
    """What a fit leaves behind. S services; row S of each array speaks for services never seen."""

    services: tuple[str, ...]
    rule_errors: FloatArray  # (S + 1, L, C, Q), scales around each rule's centre
    weights: FloatArray  # (S + 1, K) of CONTESTANTS in the blend
    winner: IntArray  # (S + 1,), index into CANDIDATES
    fitted: Fitted
    shift: Conformal
    smoothing: FloatArray  # (S + 1,), share of each step by which exponential smoothing follows


class LoadModel:
    """S services, T steps, L leads, Q = len(QUANTILES)."""

    def __init__(
        self,
        *,
        target: str,
        step_seconds: float,
        leads_steps: IntArray,
        learned: Learned,
        scores: dict[str, dict[str, Any]],
        holidays: Holidays | None = None,
    ) -> None:
        self.target = target
        self.holidays = holidays
        self.step_seconds = step_seconds
        self.leads_steps = leads_steps
        self.scores = scores
        self._grid = Grid(step_seconds, holidays)
        self._learned = learned
        self._serving = serving_weights(learned.weights, learned.winner)
        self._row = {name: i for i, name in enumerate(learned.services)}

    @property
    def history_steps(self) -> int:
        """How many past steps `forecast` can make use of."""
        return self._grid.history_steps

    @classmethod
    def fit(
        cls,
        series: LoadSeries,
        *,
        target: str = "requests",
        leads_steps: Sequence[int] | None = None,
        progress: Progress | None = None,
        holidays: Holidays | None = None,
    ) -> "LoadModel":
        """Learn from every service of `series`, see models.load_fit.fit_load."""
        from models.load_fit import fit_load

        return fit_load(
            series, target=target, leads_steps=leads_steps, progress=progress, holidays=holidays
        )

    @property
    def candidates(self) -> tuple[str, ...]:
        """Return the names of the candidates that this model can forecast with."""
        return CANDIDATES if self._learned.fitted.lgbm is not None else (*RULES, BLEND)

    def served_by(self, candidate: str) -> "LoadModel":
        """Return the same model with every service served by one of `candidates`, for comparison.

        The calibration belongs to what serves: a contestant that does not is shown as it is.
        """
        if candidate not in self.candidates:
            raise ValueError(
                f"'{candidate}' is no candidate; allowed: {', '.join(self.candidates)}"
            )
        learned = self._learned
        winner = np.full_like(learned.winner, CANDIDATES.index(candidate))
        shift = np.where((learned.winner == winner)[:, None, None], learned.shift.shift, 0.0)
        return LoadModel(
            target=self.target,
            step_seconds=self.step_seconds,
            leads_steps=self.leads_steps,
            learned=replace(learned, winner=winner, shift=Conformal(shift)),
            scores=self.scores,
            holidays=self.holidays,
        )

    def trees(self) -> LgbmQuantile:
        """Return the global model. Raises ValueError where there was too little to fit one on."""
        if self._learned.fitted.lgbm is None:
            raise ValueError("this load model holds no trees: it was fitted on too little")
        return self._learned.fitted.lgbm

    def feature_importances(self) -> dict[str, float]:
        """Share of the global model's gain by feature, summing to 1; empty without a global model."""
        if self._learned.fitted.lgbm is None:
            return {}
        shares = self._learned.fitted.lgbm.gain_ratios()
        names = feature_names(self._grid)
        return {name: float(share) for name, share in zip(names, shares, strict=True)}

    def forecast(
        self, services: Sequence[str], values: FloatArray, end_seconds: float
    ) -> LoadForecast:
        """Forecast `services` from their history `values` (S, T), newest last, that ends at `end_seconds`.

        NaN is a gap. A service never seen in the fit is served by the fleet's choice; one without any
        known value gets NaN. Raises ValueError if the shapes do not fit or a value is negative.
        """
        values = _checked(values, len(services))[:, -self.history_steps :]
        if values.shape[1] == 0:
            values = np.full((len(services), 1), np.nan)
        start = end_seconds - values.shape[1] * self.step_seconds
        at = np.full(len(services), values.shape[1] - 1)
        quantiles = np.full((len(services), self.leads_steps.size, len(QUANTILES)), np.nan)
        for first in range(0, len(services), CHUNK_ROWS):
            part = np.arange(first, min(first + CHUNK_ROWS, len(services)))
            known, u = self.scaled(
                services[first : first + part.size], values, start, (part, at[part])
            )
            quantiles[part] = known.expand(u)
        return self.wrap(services, end_seconds, quantiles)

    def wrap(
        self, services: Sequence[str], end_seconds: float, quantiles: FloatArray
    ) -> LoadForecast:
        """Return quantiles (S, L, Q) as the forecast that was made at `end_seconds`."""
        winner = tuple(CANDIDATES[w] for w in self._learned.winner[self._rows(services)])
        return LoadForecast(
            services=tuple(services),
            cutoff_seconds=end_seconds,
            step_seconds=self.step_seconds,
            leads_steps=self.leads_steps,
            values=quantiles,
            winner=winner,
        )

    def scaled(
        self,
        services: Sequence[str],
        values: FloatArray,
        start_seconds: float,
        origins: tuple[IntArray, IntArray],
    ) -> tuple[Known, FloatArray]:
        """Return what is known at `origins` and the calibrated quantiles there, in scales (R, L, Q).

        `services` names the service of each origin; `values` (S, T) begins at `start_seconds`.
        """
        known = look_back(values, start_seconds, self._grid, origins, self.leads_steps)
        return known, self.quantiles(services, self.seen(services, known))

    def seen(self, services: Sequence[str], known: Known) -> Seen:
        """Return all that the contestants read, of the service of each origin."""
        return Seen.of(known, self._grid, self._learned.smoothing[self._rows(services)])

    def quantiles(self, services: Sequence[str], seen: Seen) -> FloatArray:
        """Return the calibrated quantiles in scales (R, L, Q) of the service of each origin."""
        row = self._rows(services)
        weights = self._serving[row]
        learned, known = self._learned, seen.known
        trees = weights[:, CONTESTANTS.index(LGBM)] + weights[:, CONTESTANTS.index(LOCAL)] > 0
        fitted = learned.fitted.quantiles(seen, row, trees=trees)
        rules = seen.centres, learned.rule_errors, LEVEL
        low = known.u(np.zeros_like(known.base))
        u = mixed_quantiles(rules, row, fitted, weights, (low, known.u(known.most)))
        return self._learned.shift.apply(u, row)

    def _rows(self, services: Sequence[str]) -> IntArray:
        unseen = len(self._row)
        return np.array([self._row.get(name, unseen) for name in services], dtype=np.int64)

    def to_files(self) -> dict[str, bytes]:
        """Return the model as LightGBM text, JSON and npz."""
        learned = self._learned
        arrays: dict[str, NDArray[Any]] = {
            "leads_steps": self.leads_steps,
            "rule_errors": learned.rule_errors,
            "weights": learned.weights,
            "winner": learned.winner,
            "shift": learned.shift.shift,
            "smoothing": learned.smoothing,
        }
        if learned.fitted.linear is not None:
            arrays |= {"slope": learned.fitted.linear.slope, "offset": learned.fitted.linear.offset}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        files = learned.fitted.lgbm.to_files() if learned.fitted.lgbm is not None else {}
        files |= learned.fitted.local.to_files() if learned.fitted.local is not None else {}
        files["load.npz"] = buffer.getvalue()
        about = {
            "format": FORMAT,
            "target": self.target,
            "step_seconds": self.step_seconds,
            "services": list(learned.services),
            "candidates": list(CANDIDATES),
            "quantiles": list(QUANTILES),
            "features": list(feature_names(self._grid)),
            "lightgbm": learned.fitted.lgbm is not None,
            "linear": learned.fitted.linear is not None,
            "local": learned.fitted.local is not None,
            "scores": self.scores,
            "holidays": None if self.holidays is None else self.holidays.to_json(),
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        }
        return {"load.json": json.dumps(about).encode()} | files

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "LoadModel":
        """Read what `to_files` wrote. Raises ValueError, naming file and fault, on damage."""
        about = _read_json(files)
        _check_bytes(files, about["sha256"])
        step_seconds = float(about["step_seconds"])
        arrays = _read_arrays(files, len(about["services"]), bool(about["linear"]))
        lgbm, linear, local = None, None, None
        features = len(feature_names(Grid(step_seconds)))
        if about["linear"]:
            linear = LinearQuantile(arrays["slope"], arrays["offset"])
        if about["lightgbm"]:
            lgbm = LgbmQuantile.from_files(dict(files), features)
        if about["local"]:
            local = LocalTrees.from_files(files, features, len(about["services"]))
        learned = Learned(
            services=tuple(about["services"]),
            rule_errors=arrays["rule_errors"],
            weights=arrays["weights"],
            winner=arrays["winner"],
            fitted=Fitted(linear, lgbm, local),
            shift=Conformal(arrays["shift"]),
            smoothing=arrays["smoothing"],
        )
        return cls(
            target=about["target"],
            step_seconds=step_seconds,
            leads_steps=arrays["leads_steps"],
            learned=learned,
            scores=about["scores"],
            holidays=_read_holidays(about),
        )


def serving_weights(weights: FloatArray, winner: IntArray) -> FloatArray:
    """Return the weights (S + 1, K) that serve: the blend's, or all on the one winner."""
    alone = np.eye(len(CANDIDATES), len(CONTESTANTS))[winner]
    return np.where((winner == CANDIDATES.index(BLEND))[:, None], weights, alone)


def rule_quantiles(centres: FloatArray, errors: FloatArray) -> FloatArray:
    """Quantiles in scales (R, L, C, Q): each rule's centre plus the quantiles of its errors.

    `centres` (R, L, C), `errors` (R, L, C, Q). Where a rule knows nothing, the level speaks.
    """
    u = centres[..., np.newaxis] + errors
    level = u[:, :, LEVEL : LEVEL + 1]
    return np.where(np.isfinite(u), u, level)


def _checked(values: FloatArray, services: int) -> FloatArray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != services:
        raise ValueError(f"values must be ({services} services, steps), got {values.shape}")
    if (values < 0).any() or np.isposinf(values).any():
        raise ValueError("values must be finite and >= 0, or NaN for a gap")
    return values


def _read_json(files: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        about = json.loads(files["load.json"])
    except KeyError:
        raise ValueError("load model: file 'load.json' is missing") from None
    except ValueError as error:
        raise ValueError(f"load model: file 'load.json' is not JSON ({error})") from error
    needed = ("format", "target", "step_seconds", "services", "candidates", "quantiles")
    missing = [
        k
        for k in (*needed, "features", "lightgbm", "linear", "local", "scores", "sha256")
        if k not in about
    ]
    if missing:
        raise ValueError(f"load model: load.json: field '{missing[0]}' is missing")
    if about["target"] not in LOAD_NUMBERS or not about["step_seconds"] > 0:
        raise ValueError("load model: load.json: 'target' or 'step_seconds' is not usable")
    same = {
        "format": FORMAT,
        "candidates": list(CANDIDATES),
        "quantiles": list(QUANTILES),
        "features": list(feature_names(Grid(float(about["step_seconds"])))),
    }
    for field, expected in same.items():
        if about[field] != expected:
            raise ValueError(
                f"load model: load.json: '{field}' is of another version of the model; train again"
            )
    return dict(about)


def _read_holidays(about: Mapping[str, Any]) -> Holidays | None:
    """Return the holidays that a model was trained with; models from before there were any have none."""
    content = about.get("holidays")
    if content is None:
        return None
    try:
        return Holidays.from_json(content)
    except ValueError as error:
        raise ValueError(f"load model: load.json: {error}") from error


def _check_bytes(files: Mapping[str, bytes], expected: Mapping[str, str]) -> None:
    """Refuse damaged files before anything parses them (LightGBM aborts the process on some)."""
    for name, digest in expected.items():
        if name not in files:
            raise ValueError(f"load model: file '{name}' is missing")
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise ValueError(f"load model: file '{name}' is damaged (its SHA-256 differs)")


def _read_arrays(
    files: Mapping[str, bytes], services: int, linear: bool
) -> dict[str, NDArray[Any]]:
    names = ["leads_steps", "rule_errors", "weights", "winner", "shift", "smoothing"]
    names += ["slope", "offset"] if linear else []
    if "load.npz" not in files:
        raise ValueError("load model: file 'load.npz' is missing")
    try:
        with np.load(io.BytesIO(files["load.npz"]), allow_pickle=False) as data:
            arrays = {name: data[name] for name in names}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"load model: file 'load.npz' is damaged ({error})") from error
    leads, rows, levels = arrays["leads_steps"].size, services + 1, len(QUANTILES)
    shapes: dict[str, tuple[int, ...]] = {
        "leads_steps": (leads,),
        "rule_errors": (rows, leads, len(RULES), levels),
        "weights": (rows, len(CONTESTANTS)),
        "winner": (rows,),
        "shift": (rows, leads, levels),
        "smoothing": (rows,),
    }
    if linear:
        shapes |= {"slope": (levels, len(RULES) + LINE_EXTRAS), "offset": (levels,)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"load model: load.npz: '{name}' has shape {arrays[name].shape}, not {shape}"
            )
    return arrays

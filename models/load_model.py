"""The load model: quantile forecasts of a target for many services at once.

Candidates are the simple rules, one global LightGBM model and the blend of the two; each service is
served by the candidate that won on its own held-out data (models.load_fit). Forecasting is a pure
function of the values passed in.
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
from models.lgbm_quantile import LgbmQuantile
from models.progress import Progress
from models.quantiles import QUANTILES, FloatArray, LoadForecast
from models.simple_rules import RULES, rule_centres

LGBM, BLEND = "lightgbm", "blend"
CANDIDATES = (*RULES, LGBM, BLEND)
LEVEL = RULES.index("level")
FORMAT = 1
CHUNK_ROWS = 2048  # origins gathered at a time: bounds memory


@dataclass(frozen=True, slots=True)
class Learned:
    """What a fit leaves behind. S services; row S of each array speaks for services never seen."""

    services: tuple[str, ...]
    rule_errors: FloatArray  # (S + 1, L, C, Q), log ratios around each rule's centre
    choice: IntArray  # (S + 1,), index into CANDIDATES
    best_rule: IntArray  # (S + 1,), index into RULES: the blend's partner
    lgbm: LgbmQuantile | None
    lgbm_shift: Conformal
    blend_shift: Conformal


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
    ) -> None:
        self.target = target
        self.step_seconds = step_seconds
        self.leads_steps = leads_steps
        self.scores = scores
        self._grid = Grid(step_seconds)
        self._learned = learned
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
    ) -> "LoadModel":
        """Learn from every service of `series`, see models.load_fit.fit_load."""
        from models.load_fit import fit_load

        return fit_load(series, target=target, leads_steps=leads_steps, progress=progress)

    @property
    def candidates(self) -> tuple[str, ...]:
        """Return the names of the candidates that this model can forecast with."""
        return CANDIDATES if self._learned.lgbm is not None else RULES

    def served_by(self, candidate: str) -> "LoadModel":
        """Return the same model with every service served by one of `candidates`, for comparison."""
        choice = np.full_like(self._learned.choice, self.candidates.index(candidate))
        return LoadModel(
            target=self.target,
            step_seconds=self.step_seconds,
            leads_steps=self.leads_steps,
            learned=replace(self._learned, choice=choice),
            scores=self.scores,
        )

    def feature_importances(self) -> dict[str, float]:
        """Share of the global model's gain by feature, summing to 1; empty without a global model."""
        if self._learned.lgbm is None:
            return {}
        shares = self._learned.lgbm.gain_ratios()
        names = feature_names(self._grid)
        return {name: float(share) for name, share in zip(names, shares, strict=True)}

    def forecast(
        self, services: Sequence[str], values: FloatArray, end_seconds: float
    ) -> LoadForecast:
        """Forecast `services` from their history `values` (S, T), newest last, that ends at `end_seconds`.

        NaN is a gap. A service never seen in the fit is served by the fleet's choice; one without any
        known value gets NaN. Raises ValueError if the shapes do not fit or a value is negative.
        """
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape[0] != len(services):
            raise ValueError(
                f"values must be ({len(services)} services, steps), got {values.shape}"
            )
        if (values < 0).any() or np.isposinf(values).any():
            raise ValueError("values must be finite and >= 0, or NaN for a gap")
        values = values[:, -self.history_steps :]
        if values.shape[1] == 0:
            values = np.full((len(services), 1), np.nan)
        row = np.array([self._row.get(name, len(self._row)) for name in services], dtype=np.int64)
        quantiles = np.full((len(services), self.leads_steps.size, len(QUANTILES)), np.nan)
        start = end_seconds - values.shape[1] * self.step_seconds
        for first in range(0, len(services), CHUNK_ROWS):
            part = np.arange(first, min(first + CHUNK_ROWS, len(services)))
            origins = (part, np.full(part.size, values.shape[1] - 1))
            known = look_back(values, start, self._grid, origins, self.leads_steps)
            quantiles[part] = self._combine(known, row[part])
        winner = tuple(CANDIDATES[self._learned.choice[r]] for r in row)
        return LoadForecast(
            services=tuple(services),
            cutoff_seconds=end_seconds,
            step_seconds=self.step_seconds,
            leads_steps=self.leads_steps,
            values=quantiles,
            winner=winner,
        )

    def _combine(self, known: Known, row: IntArray) -> FloatArray:
        """Quantiles (R, L, Q) of the candidate that serves each row, in the target's unit."""
        learned = self._learned
        choice = learned.choice[row]
        centres = rule_centres(known, self._grid)
        rule = np.where(choice < len(RULES), choice, learned.best_rule[row])
        z = rule_quantiles(centres, learned.rule_errors[row], rule)
        at = np.flatnonzero((choice >= len(RULES)) & np.isfinite(known.base))
        if at.size and learned.lgbm is not None:
            matrix = feature_matrix(known, self._grid).reshape(row.size, self.leads_steps.size, -1)
            raw = learned.lgbm.predict(matrix[at].reshape(-1, matrix.shape[-1]))
            raw = raw.reshape(at.size, self.leads_steps.size, len(QUANTILES))
            alone = learned.lgbm_shift.apply(raw, row[at])
            mixed = learned.blend_shift.apply(0.5 * (raw + z[at]), row[at])
            z[at] = np.where((choice[at] == CANDIDATES.index(BLEND))[:, None, None], mixed, alone)
        return np.sort(known.expand(z), axis=-1)

    def to_files(self) -> dict[str, bytes]:
        """Return the model as LightGBM text, JSON and npz."""
        learned = self._learned
        arrays = {
            "leads_steps": self.leads_steps,
            "rule_errors": learned.rule_errors,
            "choice": learned.choice,
            "best_rule": learned.best_rule,
            "lgbm_shift": learned.lgbm_shift.shift,
            "blend_shift": learned.blend_shift.shift,
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        files = learned.lgbm.to_files() if learned.lgbm is not None else {}
        files["load.npz"] = buffer.getvalue()
        about = {
            "format": FORMAT,
            "target": self.target,
            "step_seconds": self.step_seconds,
            "services": list(learned.services),
            "candidates": list(CANDIDATES),
            "quantiles": list(QUANTILES),
            "features": list(feature_names(self._grid)),
            "lightgbm": learned.lgbm is not None,
            "scores": self.scores,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        }
        return {"load.json": json.dumps(about).encode()} | files

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "LoadModel":
        """Read what `to_files` wrote. Raises ValueError, naming file and fault, on damage."""
        about = _read_json(files)
        _check_bytes(files, about["sha256"])
        step_seconds = float(about["step_seconds"])
        arrays = _read_arrays(files, len(about["services"]))
        lgbm = None
        if about["lightgbm"]:
            lgbm = LgbmQuantile.from_files(dict(files), len(feature_names(Grid(step_seconds))))
        learned = Learned(
            services=tuple(about["services"]),
            rule_errors=arrays["rule_errors"],
            choice=arrays["choice"],
            best_rule=arrays["best_rule"],
            lgbm=lgbm,
            lgbm_shift=Conformal(arrays["lgbm_shift"]),
            blend_shift=Conformal(arrays["blend_shift"]),
        )
        return cls(
            target=about["target"],
            step_seconds=step_seconds,
            leads_steps=arrays["leads_steps"],
            learned=learned,
            scores=about["scores"],
        )


def rule_quantiles(centres: FloatArray, errors: FloatArray, rule: IntArray) -> FloatArray:
    """Log-ratio quantiles (R, L, Q) of rule `rule` (R,): its centre plus the quantiles of its errors.

    `centres` (R, L, C), `errors` (R, L, C, Q). Where the rule knows nothing, the level speaks.
    """
    at = np.arange(rule.size)
    z = centres[at, :, rule][..., np.newaxis] + errors[at, :, rule]
    level = centres[:, :, LEVEL, np.newaxis] + errors[:, :, LEVEL]
    return np.where(np.isfinite(z), z, level)


def _read_json(files: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        about = json.loads(files["load.json"])
    except KeyError:
        raise ValueError("load model: file 'load.json' is missing") from None
    except ValueError as error:
        raise ValueError(f"load model: file 'load.json' is not JSON ({error})") from error
    needed = ("format", "target", "step_seconds", "services", "candidates", "quantiles")
    missing = [k for k in (*needed, "features", "lightgbm", "scores", "sha256") if k not in about]
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


def _check_bytes(files: Mapping[str, bytes], expected: Mapping[str, str]) -> None:
    """Refuse damaged files before anything parses them (LightGBM aborts the process on some)."""
    for name, digest in expected.items():
        if name not in files:
            raise ValueError(f"load model: file '{name}' is missing")
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise ValueError(f"load model: file '{name}' is damaged (its SHA-256 differs)")


def _read_arrays(files: Mapping[str, bytes], services: int) -> dict[str, NDArray[Any]]:
    names = ("leads_steps", "rule_errors", "choice", "best_rule", "lgbm_shift", "blend_shift")
    if "load.npz" not in files:
        raise ValueError("load model: file 'load.npz' is missing")
    try:
        with np.load(io.BytesIO(files["load.npz"]), allow_pickle=False) as data:
            arrays = {name: data[name] for name in names}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"load model: file 'load.npz' is damaged ({error})") from error
    leads, rows = arrays["leads_steps"].size, services + 1
    shapes: dict[str, tuple[int, ...]] = {
        "leads_steps": (leads,),
        "rule_errors": (rows, leads, len(RULES), len(QUANTILES)),
        "choice": (rows,),
        "best_rule": (rows,),
        "lgbm_shift": (rows, leads, len(QUANTILES)),
        "blend_shift": (rows, leads, len(QUANTILES)),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"load model: load.npz: '{name}' has shape {arrays[name].shape}, not {shape}"
            )
    return arrays

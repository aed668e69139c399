"""The latency model of a fleet: TTFT and TPOT percentiles as a function of load, mix and replicas.

One set of physical coefficients per (service, variant), fitted to its own serving windows
(models.latency_fit), from a shipped profile on where one is named (models.profiles); `models.capacity`
turns them into attainment and replicas. docs/latency.md says what is done with which telemetry.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.capacity import QUANTILE_NAMES, predicted_latency
from models.latency_correction import Correction, Table, Tables
from models.latency_fit import fit_windows
from models.latency_leap import judged
from models.latency_parameters import default_columns
from models.latency_windows import sample_level, usable_windows
from models.phases import BOTH
from models.profiles import profile, profile_names
from models.progress import Progress
from models.step_time import N_COEFFICIENTS, Coefficients

FloatArray = NDArray[np.float64]
FILE = "latency.json"
FORMAT = 2
WINDOW_SECONDS = 60.0  # of a pair that was never seen
FEWEST_REQUESTS = 20.0  # of a window: a percentile of fewer says nothing
TYPICAL = {
    "ready_replicas": 1.0,
    "arrival_rate_rps": 0.0,
    "isl_tokens": 1000.0,
    "osl_tokens": 200.0,
}


class LatencyModelError(ValueError):
    """A latency model that cannot be read; the message says what and what is allowed."""


class LatencyModel:
    """Coefficients of every (service, variant) that had serving telemetry.

    Attributes
    ----------
    keys : the (service, variant) pairs, sorted.
    scores : per "service/variant": windows used and median absolute errors (ratios) in and out of
        sample per percentile.
    """

    def __init__(
        self,
        keys: Sequence[tuple[str, str]],
        columns: FloatArray,
        scores: Mapping[str, dict[str, Any]],
        tables: Mapping[tuple[str, str], Table] | None = None,
    ) -> None:
        """`columns` has shape (F, N): a row per field of Coefficients, a column per key.

        `tables`: corrections of the keys that have proved one (models.latency_learned).
        """
        self.keys: tuple[tuple[str, str], ...] = tuple((s, v) for s, v in keys)
        self.scores: dict[str, dict[str, Any]] = dict(scores)
        self._columns = np.asarray(columns, dtype=np.float64).reshape(N_COEFFICIENTS, -1)
        self._tables = Tables(tables or {})
        self._at = {key: n for n, key in enumerate(self.keys)}

    @classmethod
    def fit(
        cls,
        serving: pd.DataFrame,
        *,
        profiles: Mapping[tuple[str, str], str] | None = None,
        roles: Mapping[tuple[str, str], str] | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Fit every pair in a validated serving frame (models.frames.validate_serving).

        `profiles` names what a pair's engine is like (models.profiles), `roles` the phase that it serves
        where it is not both (models.phases). A pair without a single usable
        window (load, replicas and a latency) is left out. ProfileError on a name that does not exist.
        """
        begin_with = {pair: profile(name) for pair, name in (profiles or {}).items()}
        groups = serving.groupby(["service", "variant"], sort=True)
        keys, columns = [], []
        scores: dict[str, dict[str, Any]] = {}
        tables = {}
        for n, ((service, variant), frame) in enumerate(groups):
            windows, pair = usable_windows(frame), (str(service), str(variant))
            name = "/".join(pair)
            if len(windows) == 0:
                scores[name] = {"windows": 0, "notes": "no window shows load, replicas and latency"}
            else:
                role = (roles or {}).get(pair, BOTH)
                fitted = fit_windows(windows, begin_with.get(pair), role)
                keys.append(pair)
                columns.append(fitted.columns)
                scores[name] = fitted.scores
                if fitted.correction is not None:
                    tables[pair] = fitted.correction
            if progress is not None:
                progress("latency models", n + 1, len(groups))
        stacked = np.stack(columns, axis=1) if columns else np.empty((N_COEFFICIENTS, 0))
        return cls(keys, stacked, scores, tables)

    def knows(self, service: str, variant: str) -> bool:
        """Return whether the pair was fitted."""
        return (service, variant) in self._at

    def coefficients(
        self, keys: Sequence[tuple[str, str]], profiles: Sequence[str | None] = ()
    ) -> Coefficients:
        """Return coefficients of shape (N,), NaN for a pair that is not known.

        `profiles`: for each key the shipped profile that serves while the pair is not known, or None.
        """
        padded = np.concatenate([self._columns, np.full((N_COEFFICIENTS, 1), np.nan)], axis=1)
        at = np.array([self._at.get((s, v), -1) for s, v in keys], dtype=np.int64)
        columns = padded[:, at]
        for n in np.flatnonzero(at < 0).tolist() if profiles else ():
            name = profiles[n]
            if name is not None and name in profile_names():
                columns[:, n] = profile(name).safe_columns()
        return Coefficients.from_columns(columns)

    def correction(
        self, keys: Sequence[tuple[str, str]], isl_tokens: FloatArray, osl_tokens: FloatArray
    ) -> Correction | None:
        """Return what was learned beyond the physics, for N keys at mean lengths (N,); None: nothing."""
        return self._tables.of(keys, isl_tokens, osl_tokens)

    def predict(self, windows: pd.DataFrame) -> pd.DataFrame:
        """Return `windows` with ttft_p50/p95/p99_seconds and tpot_p50/p95/p99_seconds, without NaN.

        `windows` needs service, variant, ready_replicas, arrival_rate_rps, isl_tokens and osl_tokens.
        What is predicted is what a window as long as those of the telemetry shows: an overload lasts
        that long, and the p95 of few requests is less than that of many (models.latency_windows).
        A pair that was not fitted gets the median of its variant's services, then of all, then the
        prior; a missing number gets one replica, no load, or the median length of the table.
        """
        pairs = list(zip(windows.service.astype(str), windows.variant.astype(str), strict=True))
        c = self._with_fallback(pairs)
        numbers = {name: _filled(windows[name], value) for name, value in TYPICAL.items()}
        rate, seconds = numbers["arrival_rate_rps"], self._window_seconds(pairs)
        isl, osl = (np.maximum(numbers[k], 1.0) for k in ("isl_tokens", "osl_tokens"))
        got = predicted_latency(
            c,
            rate,
            np.maximum(numbers["ready_replicas"], 1.0),
            isl,
            osl,
            horizon_seconds=seconds,
            levels=sample_level(np.maximum(rate * seconds, FEWEST_REQUESTS)),
            correction=self.correction(pairs, isl, osl),
        )
        return windows.assign(**{f"{name}_seconds": got[name] for name in QUANTILE_NAMES})

    def _window_seconds(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        scores = [self.scores.get("/".join(pair), {}) for pair in pairs]
        return np.array([s.get("window_seconds", WINDOW_SECONDS) for s in scores], dtype=np.float64)

    def _with_fallback(self, pairs: Sequence[tuple[str, str]]) -> Coefficients:
        columns = self.coefficients(pairs).columns()
        for n in np.flatnonzero(np.isnan(columns[0])).tolist():
            same = [k for k, (_, variant) in enumerate(self.keys) if variant == pairs[n][1]]
            pool = self._columns[:, same] if same else self._columns
            columns[:, n] = np.median(pool, axis=1) if pool.shape[1] else default_columns()
        return Coefficients.from_columns(columns)

    def after(self, before: "LatencyModel") -> Self:
        """Return this model where it is plausible after `before`, which keeps the other pairs.

        The scores of a pair that was kept say so under "leap" (models.latency_leap).
        """
        columns, scores = self._columns.copy(), dict(self.scores)
        tables = dict(self._tables.tables)
        for n, pair in enumerate(self.keys):
            if not before.knows(*pair):
                continue
            name, old = "/".join(pair), before.coefficients([pair]).columns()[:, 0]
            note = before.scores.get(name, {}).get("leap", {})
            taken, leap = judged(columns[:, n], old, note)
            if not taken:
                columns[:, n], scores[name] = old, {**scores.get(name, {}), "leap": leap}
                tables.pop(pair, None)
                if pair in before._tables.tables:
                    tables[pair] = before._tables.tables[pair]
        return type(self)(self.keys, columns, scores, tables)

    def to_files(self) -> dict[str, bytes]:
        """Return the model as file names and bytes; the same model gives the same bytes."""
        document = {
            "format": FORMAT,
            "fields": list(Coefficients.__dataclass_fields__),
            "keys": [list(key) for key in self.keys],
            "columns": self._columns.tolist(),
            "corrections": [
                {"service": s, "variant": v, **table.to_document()}
                for (s, v), table in self._tables.tables.items()
            ],
            "scores": self.scores,
        }
        return {FILE: json.dumps(document, sort_keys=True, allow_nan=False).encode()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> Self:
        """Return the model of `to_files`; raise LatencyModelError if they are not such files."""
        if FILE not in files:
            raise LatencyModelError(f"latency model: file '{FILE}' is missing")
        document = json.loads(files[FILE])
        if not isinstance(document, dict):
            raise LatencyModelError(f"latency model: '{FILE}' holds no object. Fit again.")
        fields = list(Coefficients.__dataclass_fields__)
        if document.get("format") != FORMAT or document.get("fields") != fields:
            raise LatencyModelError(
                f"latency model: '{FILE}' has format {document.get('format')!r} and fields "
                f"{document.get('fields')!r}; allowed: format {FORMAT} with {fields}. Train again."
            )
        columns = np.array(document["columns"], dtype=np.float64).reshape(N_COEFFICIENTS, -1)
        tables = {}
        for one in document.get("corrections", []):  # files from before there were any have none
            where = f"latency model: '{FILE}', {one['service']}/{one['variant']}"
            try:
                tables[one["service"], one["variant"]] = Table.from_document(one)
            except (ValueError, KeyError, TypeError) as error:
                raise LatencyModelError(f"{where}: {error}. Train again.") from error
        return cls([(s, v) for s, v in document["keys"]], columns, document["scores"], tables)


def _filled(column: pd.Series, otherwise: float) -> FloatArray:
    """Return the column with NaN, infinity and negatives replaced by its median or `otherwise`."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    good = np.isfinite(values) & (values >= 0)
    if column.name in ("isl_tokens", "osl_tokens"):
        good &= values > 0
        if good.any():
            otherwise = float(np.median(values[good]))
    return np.where(good, values, otherwise)

"""The mix of requests to come: shares of the classes of traffic, together, so that ISL and OSL agree.

Where the mix is going is a mean of what simple rules say: the mix of the last minutes, hours, half a day, and
of the same time yesterday and last week, each weighted by how near it came in the past,

    weight[rule] ~ (least error / error[rule]) ** SHARPNESS          per service and lead

and moved to the nearest mix of the classes (models.traffic_classes). So the mean lengths never leave the
hull of what a service's requests are. A class that drifts (models.mix_drift) is told, and the service falls
back to its recent mix until the class is as it was, or the model is trained again.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.features import IntArray
from models.frames import LoadSeries
from models.mix_bins import BinClock, mean_lengths
from models.mix_drift import DRIFT_BINS, Allowed, Drift, drifts_of
from models.quantiles import FloatArray
from models.traffic_classes import MOST, Hull

FORMAT = 1
HALF_LIVES_BINS = (0.5, 2.0, 8.0, 24.0)
LEVEL_BINS = 192  # older ones weigh nothing
RECENT = 1  # of HALF_LIVES_BINS: half an hour, the recent mix that a service falls back to
SEASONS_DAYS = (1, 7)
RULES = (*(f"level-{h:g}" for h in HALF_LIVES_BINS), "yesterday", "last-week")
LEADS_BINS = (
    1,
    2,
    3,
    4,
    6,
    8,
    12,
    24,
    48,
    96,
)  # leads whose weights are learned; others take the next
HOURS = 24
FULL_SLACK = 1e-6  # of a bin


@dataclass(frozen=True, slots=True)
class MixForecast:
    """Mean lengths to come, for S services and L leads; NaN where nothing is known.

    `drifts` says what is not as it was, per service; such a service's lengths are its recent ones.
    """

    isl_tokens: FloatArray  # (S, L)
    osl_tokens: FloatArray  # (S, L)
    shares: FloatArray  # (S, L, MOST); NaN for a service that is not forecast by its classes
    drifts: tuple[Drift | None, ...]

    @classmethod
    def joined(cls, parts: Sequence["MixForecast"]) -> "MixForecast":
        """Return the forecast of all services of `parts`, at least one, of the same leads."""
        return cls(
            np.concatenate([p.isl_tokens for p in parts]),
            np.concatenate([p.osl_tokens for p in parts]),
            np.concatenate([p.shares for p in parts]),
            tuple(drift for p in parts for drift in p.drifts),
        )


@dataclass(frozen=True, slots=True)
class MixLearned:
    """What a fit leaves behind. S services."""

    mean: FloatArray  # (S, 2), tokens a request; NaN: never told
    hull: Hull  # in means
    weights: FloatArray  # (S, len(LEADS_BINS), R)
    allowed: FloatArray  # (S, HOURS, MOST, 2), least and most share by hour of the day
    allowed_excess: FloatArray  # (S,), distance from the hull, in means


class MixModel:
    """S services that were seen; others have no classes and keep their recent mix."""

    def __init__(
        self,
        *,
        step_seconds: float,
        services: Sequence[str],
        learned: MixLearned,
        scores: dict[str, dict[str, Any]],
    ) -> None:
        self.clock = BinClock(step_seconds)
        self.services = tuple(services)
        self.scores = scores
        self._learned = learned
        self._row = {name: i for i, name in enumerate(self.services)}

    @classmethod
    def fit(cls, series: LoadSeries) -> "MixModel":
        """Learn from every service of `series`, see models.mix_fit."""
        from models.mix_fit import fit_mix

        return fit_mix(series)

    def lengths(self, service: str) -> FloatArray:
        """Return the lengths (K, 2) of a service's classes in tokens; none for one never seen."""
        row = self._row.get(service)
        if row is None:
            return np.zeros((0, 2))
        hull = self._learned.hull
        corners: FloatArray = hull.corners[row, : hull.count[row]] * self._learned.mean[row]
        return corners

    def bounds(self, services: Sequence[str]) -> FloatArray:
        """Return the least and the most mean length (S, 2 kinds, 2) that the classes allow, as they breathe.

        NaN for a service of one class, or one never seen: its lengths are bounded by nothing that is known.
        """
        row = self._rows(services)
        corners = self._learned.hull.corners[row] * self._learned.mean[row][:, np.newaxis]
        most = 1.0 + self._learned.allowed_excess[row][:, np.newaxis]
        edges = np.stack([corners.min(axis=1) / most, corners.max(axis=1) * most], axis=-1)
        alone = (row < 0) | (self._learned.hull.count[row] < 2)
        bounds: FloatArray = np.where(alone[:, np.newaxis, np.newaxis], np.nan, edges)
        return bounds

    def forecast(
        self,
        services: Sequence[str],
        sums: FloatArray,
        end_seconds: float,
        leads_seconds: FloatArray,
    ) -> MixForecast:
        """Forecast the mix from the bins `sums` (S, clock.kept, 3) up to the one that holds the end.

        `leads_seconds` (L,): the middles of the steps, after `end_seconds`. One class, a service never seen
        or one that drifts: the recent mix at every lead.
        """
        row = self._rows(services)
        learned, clock = self._learned, self.clock
        newest = clock.newest(end_seconds)
        levels = level_means(sums, end_seconds / clock.seconds - newest)  # (S, H, 2)
        recent = levels[:, RECENT]
        every = _rules_at(levels, sums, newest, clock, end_seconds, leads_seconds)  # (S, L, R, 2)
        ahead = np.ceil(leads_seconds / clock.seconds - 1e-9)
        lead = np.minimum(np.searchsorted(LEADS_BINS, ahead), len(LEADS_BINS) - 1)
        points = _weighted(every, learned.weights[row][:, lead])  # (S, L, 2), tokens
        mean = _filled(learned.mean[row])[:, np.newaxis]
        hull = Hull(learned.hull.corners[row], learned.hull.count[row])
        shares = hull.shares(points / mean)
        mix = hull.points(shares) * mean * self._pace(row, hull, recent)[:, np.newaxis]
        drifts = self._drifts(row, hull, sums, newest, end_seconds)
        alone = (hull.count < 2) | (row < 0) | np.array([d is not None for d in drifts], bool)
        plain = alone[:, np.newaxis, np.newaxis] | ~np.isfinite(mix)
        mix = np.where(plain, recent[:, np.newaxis], mix)
        mix = np.where(
            np.isfinite(learned.mean[row])[:, np.newaxis] | (row < 0)[:, None, None], mix, np.nan
        )
        shares = np.where(alone[:, np.newaxis, np.newaxis], np.nan, shares)
        return MixForecast(mix[..., 0], mix[..., 1], shares, drifts)

    def _pace(self, row: IntArray, hull: Hull, recent: FloatArray) -> FloatArray:
        """Return by how much the lengths of the classes are just now off, (S, 2): the classes breathe."""
        points = (recent / _filled(self._learned.mean[row]))[:, np.newaxis]
        found = hull.points(hull.shares(points))
        most = 1.0 + self._learned.allowed_excess[row][:, np.newaxis]
        off = np.where(np.isfinite(found), points / np.maximum(found, 1e-9), 1.0)[:, 0]
        pace: FloatArray = np.clip(off, 1.0 / most, most)
        return pace

    def _drifts(
        self, row: IntArray, hull: Hull, sums: FloatArray, newest: int, end_seconds: float
    ) -> tuple[Drift | None, ...]:
        """Judge the newest full bins of each service that was seen."""
        full = end_seconds / self.clock.seconds - newest >= 1.0 - FULL_SLACK
        end = sums.shape[1] - (0 if full else 1)
        begin = max(0, end - DRIFT_BINS)
        hours = hour_of(newest + 1 - sums.shape[1] + np.arange(begin, end), self.clock)
        learned = self._learned
        allowed = Allowed(learned.allowed[row][:, hours], learned.allowed_excess[row])
        found = drifts_of(sums[:, begin:end], _filled(learned.mean[row]), hull, allowed)
        return tuple(d if r >= 0 else None for d, r in zip(found, row, strict=True))

    def _rows(self, services: Sequence[str]) -> IntArray:
        return np.array([self._row.get(name, -1) for name in services], dtype=np.int64)

    def to_files(self) -> dict[str, bytes]:
        """Return the model as JSON and npz."""
        learned, buffer = self._learned, io.BytesIO()
        np.savez_compressed(buffer, **_arrays_of(learned))  # type: ignore[arg-type]
        about = {
            "format": FORMAT,
            "step_seconds": self.clock.step_seconds,
            "services": list(self.services),
            "rules": list(RULES),
            "scores": self.scores,
        }
        return {"mix.json": json.dumps(about).encode(), "mix.npz": buffer.getvalue()}

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> "MixModel":
        """Read what `to_files` wrote. Raises ValueError, naming file and fault, on damage."""
        about = _read_json(files)
        services = tuple(about["services"])
        return cls(
            step_seconds=float(about["step_seconds"]),
            services=services,
            learned=_read_arrays(files, len(services)),
            scores=about["scores"],
        )


def level_means(sums: FloatArray, open_bins: float) -> FloatArray:
    """Return the mean lengths (S, H, 2) of the bins `sums` (S, B, 3), older ones weighing less.

    `open_bins` is the share of the newest bin that has passed, in (0, 1].
    """
    sums = sums[:, -LEVEL_BINS:]
    age = np.maximum(np.arange(sums.shape[1] - 1, -1, -1) - 1 + open_bins, 0.0)
    weight = 0.5 ** (age[np.newaxis] / np.array(HALF_LIVES_BINS)[:, np.newaxis])
    # not BLAS: the same bits whatever services are beside
    return mean_lengths(np.einsum("sbd,hb->shd", sums, weight))


def hour_of(bins: IntArray, clock: BinClock) -> IntArray:
    """Return the hour of the day (UTC) in which each bin begins."""
    hours: IntArray = (bins * clock.seconds // 3600.0).astype(np.int64) % HOURS
    return hours


def _rules_at(
    levels: FloatArray,
    sums: FloatArray,
    newest: int,
    clock: BinClock,
    end_seconds: float,
    leads_seconds: FloatArray,
) -> FloatArray:
    """Return what each rule says in tokens, (S, L, R, 2); NaN where it knows nothing."""
    services, leads = sums.shape[0], leads_seconds.size
    flat = np.broadcast_to(levels[:, np.newaxis], (services, leads, *levels.shape[1:]))
    there = np.array([clock.holding(end_seconds + lead) for lead in leads_seconds], np.int64)
    seasons = []
    for days in SEASONS_DAYS:
        season = days * clock.day_bins
        turns = np.maximum(1, -(-(there - newest) // season))
        at = there - turns * season - newest - 1 + sums.shape[1]
        seasons.append(mean_lengths(_then(sums, at)))
    return np.concatenate([flat, np.stack(seasons, axis=2)], axis=2)


def _then(sums: FloatArray, at: IntArray) -> FloatArray:
    """Return bins `at` (L,) of sums (S, B, 3); of an empty one its neighbours, outside nothing."""
    bins = sums.shape[1]
    near = [
        np.where(((x >= 0) & (x < bins))[:, np.newaxis], sums.take(x, axis=1, mode="clip"), 0.0)
        for x in (at, at - 1, at + 1)
    ]
    then: FloatArray = np.where(near[0][..., :1] > 0, near[0], near[1] + near[2])
    return then


def _weighted(every: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean (S, L, 2) of rules (S, L, R, 2) by weights (S, L, R); the recent level where no rule has any."""
    known = np.isfinite(every[..., 0] + every[..., 1])
    w = np.where(known, weights, 0.0)
    total = w.sum(axis=-1, keepdims=True)
    mixed = np.einsum("slr,slrd->sld", w, np.where(known[..., np.newaxis], every, 0.0))
    mean: FloatArray = np.where(
        total > 0, mixed / np.where(total > 0, total, 1.0), every[:, :, RECENT]
    )
    return mean


def _filled(mean: FloatArray) -> FloatArray:
    return np.where(np.isfinite(mean), mean, 1.0)


def _arrays_of(learned: MixLearned) -> dict[str, FloatArray | IntArray]:
    return {
        "mean": learned.mean,
        "corners": learned.hull.corners,
        "count": learned.hull.count,
        "weights": learned.weights,
        "allowed": learned.allowed,
        "allowed_excess": learned.allowed_excess,
    }


def _read_json(files: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        about = json.loads(files["mix.json"])
    except KeyError:
        raise ValueError("mix model: file 'mix.json' is missing") from None
    except ValueError as error:
        raise ValueError(f"mix model: file 'mix.json' is not JSON ({error})") from error
    for field in ("format", "step_seconds", "services", "rules", "scores"):
        if not isinstance(about, dict) or field not in about:
            raise ValueError(f"mix model: mix.json: field '{field}' is missing")
    if about["format"] != FORMAT or about["rules"] != list(RULES):
        raise ValueError("mix model: mix.json is of another version of the model; train again")
    if not about["step_seconds"] > 0:
        raise ValueError("mix model: mix.json: 'step_seconds' is not usable")
    return dict(about)


def _read_arrays(files: Mapping[str, bytes], services: int) -> MixLearned:
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (services, 2),
        "corners": (services, MOST, 2),
        "count": (services,),
        "weights": (services, len(LEADS_BINS), len(RULES)),
        "allowed": (services, HOURS, MOST, 2),
        "allowed_excess": (services,),
    }
    if "mix.npz" not in files:
        raise ValueError("mix model: file 'mix.npz' is missing")
    try:
        with np.load(io.BytesIO(files["mix.npz"]), allow_pickle=False) as data:
            arrays = {name: data[name] for name in shapes}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"mix model: file 'mix.npz' is damaged ({error})") from error
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"mix model: mix.npz: '{name}' has shape {arrays[name].shape}, not {shape}"
            )
    hull = Hull(arrays["corners"], arrays["count"])
    return MixLearned(
        arrays["mean"], hull, arrays["weights"], arrays["allowed"], arrays["allowed_excess"]
    )

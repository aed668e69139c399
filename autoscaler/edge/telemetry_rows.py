"""One tick's answers as numbers by column and (service, variant); shared latency work done at once."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.contract import Labels
from models.contract_api import Row
from models.contract_queries import LEVELS
from models.histograms import BucketError, bucket_of, quantiles, share_within
from models.slo import SloTargets

FloatArray = NDArray[np.float64]
Key = tuple[str, str]  # (service, variant)
Target = tuple[str, str, str]  # (namespace, kind, name)
MIN_COVERAGE_RATIO = 0.65  # as in history: fewer scrapes than this make no rate
MAX_DOUBT_RATIO = 0.001  # the share that meets all targets is told where it is known this well
RATES = ("completion_rate_rps", "rejection_rate_rps", "running_change", "waiting_change")


@dataclass(frozen=True, slots=True)
class Replicas:
    """Counts of one workload."""

    desired: int
    ready: int
    starting: int


class Answers:
    """Numbers of one tick. A number that is not there is NaN."""

    def __init__(
        self,
        rows: Mapping[str, Sequence[Row]],
        labels: Labels,
        interval_seconds: float,
        window_seconds: float,
        scrape_seconds: float,
        targets: Mapping[str, SloTargets],
    ) -> None:
        self.interval_seconds = interval_seconds
        self.window_seconds = window_seconds
        self.replicas = _replicas(rows)
        self._values: dict[str, dict[Key, float]] = {}
        for what in ("ttft", "tpot"):
            aliases = sorted(n for n in rows if n.startswith(f"{what}_buckets:"))
            own_targets = {s: getattr(t, f"{what}_seconds") for s, t in targets.items()}
            self._values |= _latency(what, [rows[n] for n in aliases], labels, own_targets)
        for name, own in rows.items():
            if "_buckets:" not in name and not name.startswith(("gateway", "replicas_")):
                self._values[name] = _by_row(own, labels)
        expected = MIN_COVERAGE_RATIO * window_seconds / scrape_seconds
        thin = {k for k, n in self._values.get("samples", {}).items() if n < expected}
        for name in RATES:
            own_rates = self._values.get(name, {})
            self._values[name] = {k: v for k, v in own_rates.items() if k not in thin}

    def get(self, column: str, key: Key) -> float:
        """Return one number; NaN where there is none."""
        return self._values.get(column, {}).get(key, math.nan)

    def has(self, key: Key) -> bool:
        """Whether any engine of this row is scraped."""
        return key in self._values.get("ready_replicas", {})

    def draining(self, key: Key) -> int:
        """Return the pods that are being deleted; 0 also where kube-state-metrics is silent.

        No series means that no pod is being deleted, or that none is known. No decision rests on the
        difference: what drains is shown, and taken off scraped pods, but never counted as capacity.
        """
        known = self.get("draining", key)
        return 0 if math.isnan(known) else round(known)

    def arrival_rps(self, key: Key) -> float:
        """Return arrivals per second rebuilt as in history: completions, rejections, concurrency."""
        change = self.get("running_change", key) + self.get("waiting_change", key)
        rejected = self.get("rejection_rate_rps", key)
        rate = self.get("completion_rate_rps", key) + change / self.window_seconds
        rate += 0.0 if math.isnan(rejected) else rejected
        return rate if math.isnan(rate) else max(0.0, rate)

    def attained(self, key: Key, targets: SloTargets) -> float:
        """Return the share of requests that meet all targets, where the histograms can tell it."""
        what = ("ttft", "tpot")
        return attained_of(
            targets,
            {w: self.get(f"{w}_within_least", key) for w in what},
            {w: self.get(f"{w}_within_most", key) for w in what},
        )

    def mean(self, column: str, keys: Sequence[Key]) -> float:
        """Return the mean over rows, weighted by completions; NaN where nothing was completed."""
        pairs = [(self.get("completion_rate_rps", k), self.get(column, k)) for k in keys]
        known = [(w, x) for w, x in pairs if w > 0 and not math.isnan(x)]
        weight = sum(w for w, _ in known)
        return sum(w * x for w, x in known) / weight if weight > 0 else math.nan


def attained_of(
    targets: SloTargets, least: Mapping[str, float], most: Mapping[str, float]
) -> float:
    """Return the share of requests that meet all targets, where histograms can tell it.

    `least` and `most`: the share within ttft and within tpot; NaN unknown. Of those a_i, at least
    1 - sum(1 - a_i) and at most min(a_i) of the requests meet all (Frechet); a target inside a bucket
    widens this by what is in it. The middle counts if it is at most MAX_DOUBT_RATIO / 2 from the
    truth; else NaN.
    """
    if math.isfinite(targets.e2e_seconds):  # no histogram of it is read
        return math.nan
    asked = [w for w in ("ttft", "tpot") if math.isfinite(getattr(targets, f"{w}_seconds"))]
    if not asked or any(math.isnan(least[w]) for w in asked):
        return math.nan
    low = max(0.0, 1.0 - sum(1.0 - least[w] for w in asked))
    high = min(most[w] for w in asked)
    return (low + high) / 2 if high - low <= MAX_DOUBT_RATIO else math.nan


def _by_row(rows: Iterable[Row], labels: Labels) -> dict[Key, float]:
    out = {}
    for row in rows:
        key = labels.row(row.labels)
        value = float(row.values[-1])
        if key is not None and math.isfinite(value):
            out[key] = value
    return out


def _latency(
    what: str,
    aliases: Sequence[Sequence[Row]],
    labels: Labels,
    targets: Mapping[str, float],
) -> dict[str, dict[Key, float]]:
    """Return quantiles, and the share within each service's target: equal bounds at once."""
    out: dict[str, dict[Key, float]] = {f"{what}_{s}_seconds": {} for s, _ in LEVELS}
    for bounds, members in _histograms(aliases, labels).items():
        keys = list(members)
        counts = np.array(list(members.values()))
        try:
            for suffix, level in LEVELS:
                estimates = quantiles(bounds, counts, level).tolist()
                out[f"{what}_{suffix}_seconds"] |= dict(zip(keys, estimates, strict=True))
            for name, shares in _shares(bounds, keys, counts, targets).items():
                out.setdefault(f"{what}_{name}", {}).update(shares)
        except BucketError:
            continue  # buckets without +Inf (a broken exporter): nothing can be said
    return out


def _shares(
    bounds: tuple[float, ...], keys: Sequence[Key], counts: FloatArray, targets: Mapping[str, float]
) -> dict[str, dict[Key, float]]:
    """Return the share of each row within its service's target: least, most, and estimated.

    counts (N, K). Inside the target's bucket the estimate is linear, as Prometheus' histogram_fraction;
    in the last bucket, which has no width, it is the least. The truth is between least and most.
    """
    out: dict[str, dict[Key, float]] = {"within": {}, "within_least": {}, "within_most": {}}
    by_target: dict[float, list[int]] = {}
    for n, (service, _) in enumerate(keys):
        by_target.setdefault(targets.get(service, math.inf), []).append(n)
    for target, members in by_target.items():
        if math.isinf(target):
            continue
        least, most = share_within(bounds, counts[members], target)
        lower, upper = (float(b) for b in bucket_of(bounds, target))
        inside = (target - lower) / (upper - lower) if math.isfinite(upper) else 0.0
        own = [keys[n] for n in members]
        for name, values in (
            ("within", least + (most - least) * inside),
            ("within_least", least),
            ("within_most", most),
        ):
            out[name].update(zip(own, values.tolist(), strict=True))
    return out


def _histograms(
    aliases: Sequence[Sequence[Row]], labels: Labels
) -> dict[tuple[float, ...], dict[Key, list[float]]]:
    """Return bounds -> row -> rates of buckets; of several aliases the first that a row has."""
    out: dict[tuple[float, ...], dict[Key, list[float]]] = {}
    taken: set[Key] = set()
    keys: dict[tuple[str | None, ...], Key | None] = {}  # a row has a label set for each bucket
    edges: dict[str, float] = {}
    for rows in aliases:
        cells: dict[Key, dict[float, float]] = {}
        for row in rows:
            own = row.labels
            place = tuple(own.get(label) for label in labels.group)
            if place not in keys:
                keys[place] = labels.row(own)
            key, edge = keys[place], own.get("le")
            if key is None or edge is None or key in taken:
                continue
            if edge not in edges:
                edges[edge] = float(edge)
            cells.setdefault(key, {})[edges[edge]] = float(row.values[-1])
        taken |= cells.keys()
        for key, of in cells.items():
            bounds = tuple(sorted(of))
            out.setdefault(bounds, {})[key] = [of[b] for b in bounds]
    return out


def _replicas(rows: Mapping[str, Sequence[Row]]) -> dict[Target, Replicas]:
    """Return counts of workloads for which kube-state-metrics tells all three."""
    found: dict[str, dict[Target, int]] = {}
    for what in ("desired", "ready", "present"):
        found[what] = {}
        for row in rows.get(f"replicas_{what}", []):
            kind = "Deployment" if "deployment" in row.labels else "StatefulSet"
            name = row.labels.get(kind.lower(), "")
            value = float(row.values[-1])
            if math.isfinite(value):
                found[what][row.labels.get("namespace", ""), kind, name] = round(value)
    out = {}
    for target, desired in found["desired"].items():
        present, ready = found["present"].get(target), found["ready"].get(target)
        if present is not None and ready is not None:
            out[target] = Replicas(desired, ready, max(0, present - ready))
    return out

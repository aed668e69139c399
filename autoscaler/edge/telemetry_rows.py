"""One tick's answers as numbers by column and (service, variant); shared latency work done at once."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from models.contract import Labels
from models.contract_api import Row
from models.contract_queries import LEVELS
from models.histograms import BucketError, quantiles, share_within

Key = tuple[str, str]  # (service, variant)
Target = tuple[str, str, str]  # (namespace, kind, name)
MIN_COVERAGE_RATIO = 0.65  # as in history: fewer scrapes than this make no rate
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
    ) -> None:
        self.interval_seconds = interval_seconds
        self.window_seconds = window_seconds
        self.replicas = _replicas(rows)
        self._values: dict[str, dict[Key, float]] = {}
        for what in ("ttft", "tpot"):
            aliases = sorted(n for n in rows if n.startswith(f"{what}_buckets:"))
            self._values |= _latency(what, [rows[n] for n in aliases], labels)
        for name, own in rows.items():
            if "_buckets:" not in name and name != "gateway" and not name.startswith("replicas_"):
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

    def arrival_rps(self, key: Key) -> float:
        """Return arrivals per second rebuilt as in history: completions, rejections, concurrency."""
        change = self.get("running_change", key) + self.get("waiting_change", key)
        rejected = self.get("rejection_rate_rps", key)
        rate = self.get("completion_rate_rps", key) + change / self.window_seconds
        rate += 0.0 if math.isnan(rejected) else rejected
        return rate if math.isnan(rate) else max(0.0, rate)

    def mean(self, column: str, keys: Sequence[Key]) -> float:
        """Return the mean over rows, weighted by completions; NaN where nothing was completed."""
        pairs = [(self.get("completion_rate_rps", k), self.get(column, k)) for k in keys]
        known = [(w, x) for w, x in pairs if w > 0 and not math.isnan(x)]
        weight = sum(w for w, _ in known)
        return sum(w * x for w, x in known) / weight if weight > 0 else math.nan


def _by_row(rows: Iterable[Row], labels: Labels) -> dict[Key, float]:
    out = {}
    for row in rows:
        key = labels.row(row.labels)
        value = float(row.values[-1])
        if key is not None and math.isfinite(value):
            out[key] = value
    return out


def _latency(
    what: str, aliases: Sequence[Sequence[Row]], labels: Labels
) -> dict[str, dict[Key, float]]:
    """Return quantiles, and the share within each bound: histograms of equal bounds at once."""
    out: dict[str, dict[Key, float]] = {f"{what}_{s}_seconds": {} for s, _ in LEVELS}
    for bounds, members in _histograms(aliases, labels).items():
        keys = list(members)
        counts = np.array(list(members.values()))
        try:
            for suffix, level in LEVELS:
                estimates = quantiles(bounds, counts, level).tolist()
                out[f"{what}_{suffix}_seconds"] |= dict(zip(keys, estimates, strict=True))
            for bound in bounds[:-1]:
                shares = share_within(bounds, counts, bound)[0].tolist()
                name = f"{what}_within:{bound:g}"
                out.setdefault(name, {}).update(zip(keys, shares, strict=True))
        except BucketError:
            continue  # buckets without +Inf (a broken exporter): nothing can be said
    return out


def _histograms(
    aliases: Sequence[Sequence[Row]], labels: Labels
) -> dict[tuple[float, ...], dict[Key, list[float]]]:
    """Return bounds -> row -> rates of buckets; of several aliases the first that a row has."""
    out: dict[tuple[float, ...], dict[Key, list[float]]] = {}
    taken: set[Key] = set()
    for rows in aliases:
        cells: dict[Key, dict[float, float]] = {}
        for row in rows:
            key = labels.row(row.labels)
            if key is not None and key not in taken and "le" in row.labels:
                cells.setdefault(key, {})[float(row.labels["le"])] = float(row.values[-1])
        taken |= cells.keys()
        for key, own in cells.items():
            bounds = tuple(sorted(own))
            out.setdefault(bounds, {})[key] = [own[b] for b in bounds]
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

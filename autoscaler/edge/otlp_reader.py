"""The online reader of an OTLP store: one tick's observation of all services, without a Prometheus.

The same interface and the same kind of reading as `autoscaler.edge.prometheus.PrometheusReader`. The
definitions are models/otlp_numbers.py, those that `train` learns from.
"""

import math
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from autoscaler.core.types import (
    Observation,
    Policies,
    Policy,
    ServiceObservation,
    VariantObservation,
)
from autoscaler.edge.reading import Reading, keys_of, missing_of, with_held
from autoscaler.edge.telemetry_rows import Key, attained_of
from models import otlp_schema as schema
from models.frames import LoadSeries, to_series, validate_load
from models.otlp_block import SIGNAL_CODES, joined, selected
from models.otlp_frames import FrameMaker, Places, places
from models.otlp_identity import Identity
from models.otlp_live import FloatArray, Live, live_numbers
from models.otlp_names import QUANTILE_SIGNALS
from models.otlp_parts import read_head, read_parts

FAILED = "store"  # the one query that there is
SETTLE_SECONDS = (
    65.0  # then exporters that speak once a minute have told of it: a gap, not half a load
)
CHECK_INSTRUCTIONS = 100_000  # of SQLite, between two looks at the clock
_LATENCIES = tuple(f"{what}_p{q}_seconds" for what in ("ttft", "tpot") for q in (50, 95, 99))
_NO_TARGETS = {"ttft": math.inf, "tpot": math.inf}


@dataclass(frozen=True, slots=True)
class OtlpReaderSettings:
    """How one tick reads.

    interval_seconds: what an observation covers, the step that models learned with. deadline_seconds:
    for the whole reading. stale_after_seconds: older newest samples mean that telemetry failed; more
    than the exporters' interval (the SDKs' default is 60 s) and the receiver's flush.
    """

    interval_seconds: float = 60.0
    deadline_seconds: float = 10.0
    stale_after_seconds: float = 90.0


class OtlpReader:
    """Reads observations for the services of `policies` from the store in `folder`."""

    def __init__(
        self, folder: Path, identity: Identity, settings: OtlpReaderSettings | None = None
    ) -> None:
        self._where = folder / schema.FILE_NAME
        self._identity = identity
        self._settings = settings if settings is not None else OtlpReaderSettings()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held between readings: the file is opened for each."""

    def read(self, policies: Policies, now_seconds: float) -> Reading:
        """Return what the store knows of the newest whole interval. Does not raise StoreError."""
        seconds = self._settings.interval_seconds
        try:
            found = self._live(policies, now_seconds)
        except (schema.StoreError, _LateError) as error:
            observation = Observation(now_seconds, seconds, {}, {})
            return Reading(observation, {FAILED: str(error)}, tuple(policies.services), {}, {}, ())
        rows = _Rows(*found)
        services: dict[str, ServiceObservation] = {}
        stale: dict[str, float] = {}
        partial: dict[str, tuple[str, ...]] = {}
        scraped: dict[Key, float] = {}
        for name, policy in policies.services.items():
            age = rows.age_seconds(name)
            if age > self._settings.stale_after_seconds:
                stale[name] = age
                continue
            seen = rows.service(policy)
            if seen is None:
                continue
            services[name] = seen
            scraped |= rows.speaking(policy)
            missing = missing_of(seen, {}) + rows.lengths_missing(seen) + rows.strangers(policy)
            if missing:
                partial[name] = missing
        silent = tuple(n for n in policies.services if n not in services)
        observation = Observation(now_seconds, seconds, services, {})
        rebuilt = frozenset(n for n in services if rows.rebuilt(policies.services[n]))
        return Reading(observation, {}, silent, stale, partial, tuple(services), scraped, rebuilt)

    def _live(self, policies: Policies, now_seconds: float) -> tuple[Places, Live]:
        settings = self._settings
        back = settings.stale_after_seconds + 2.0 * settings.interval_seconds
        with closing(opened(self._where)) as db:
            _limit(db, settings.deadline_seconds)
            try:
                width = schema.check_meta(db.execute(schema.READ_META), str(self._where))
                bins = (math.floor((now_seconds - back) / width), math.ceil(now_seconds / width))
                sources = schema.sources_from_rows(
                    db.execute(schema.READ_RECENT_SOURCES, (bins[0],))
                )
                parts = list(read_parts(db.execute, str(self._where), bins, width))
            except sqlite3.DatabaseError as error:
                raise _store_error(self._where, error, settings.deadline_seconds) from error
        known = places(sources, self._identity)
        block = joined([part.block for part in parts])
        block = selected(block, block.sources < len(known.group_of))
        live = live_numbers(
            block,
            known,
            now_seconds,
            bin_seconds=width,
            interval_seconds=settings.interval_seconds,
            targets=_targets(known, policies),
        )
        return known, live


class _LateError(Exception):
    """The reading did not end in time."""


class _Rows:
    """The numbers of one reading by service and by (service, variant)."""

    def __init__(self, known: Places, live: Live) -> None:
        self._live = live
        self._service = {name: i for i, name in enumerate(known.services)}
        self._group = {key: i for i, key in enumerate(known.keys)}

    def age_seconds(self, service: str) -> float:
        place = self._service.get(service)
        return math.nan if place is None else float(self._live.age_seconds[place])

    def service(self, policy: Policy) -> ServiceObservation | None:
        """Return the observation; None for a service of which nothing is known."""
        place = self._service.get(policy.service)
        if place is None:
            return None
        rate = float(self._live.arrival_rate_rps[place])
        keys = keys_of(policy, self.has)
        variants = {v.name: self._variant(policy, key) for v, key in keys if self.has(key)}
        if not variants and math.isnan(rate):
            return None
        isl, osl = (
            self._mean(column, [key for _, key in keys]) for column in ("isl_tokens", "osl_tokens")
        )
        held = float(self._live.held[place])
        waiting = with_held(variants, 0.0 if math.isnan(held) else held)
        return ServiceObservation(rate, isl, osl, waiting)

    def has(self, key: Key) -> bool:
        """Whether anything is known of the engines of this row."""
        place = self._group.get(key)
        return place is not None and bool(self._live.numbers.known[place, 0])

    def speaking(self, policy: Policy) -> dict[Key, float]:
        """Return how many replicas of each variant speak, without variants of which none does."""
        counts = {
            (policy.service, variant.name): float(self._live.live[self._group[key]])
            for variant, key in keys_of(policy, self.has)
            if self.has(key)
        }
        return {key: n for key, n in counts.items() if n > 0}

    def rebuilt(self, policy: Policy) -> bool:
        """Whether the service's rate is the sum of what its replicas tell, and not a gateway's."""
        keys = [key for _, key in keys_of(policy, self.has) if self.has(key)]
        told = math.fsum(self._get("arrival_rate_rps", key) for key in keys)
        rate = float(self._live.arrival_rate_rps[self._service[policy.service]])
        return bool(keys) and math.isclose(told, rate, rel_tol=1e-6)

    def lengths_missing(self, seen: ServiceObservation) -> tuple[str, ...]:
        """Return which lengths nobody tells though requests end."""
        if not any(v.finished_requests > 0 for v in seen.variants.values()):
            return ()
        names = ("isl_tokens", "osl_tokens")
        return tuple(n for n in names if math.isnan(getattr(seen, n)))

    def strangers(self, policy: Policy) -> tuple[str, ...]:
        """Return a sentence for each variant that speaks but that the policy does not name."""
        known = {key for _, key in keys_of(policy, self.has)}
        speaking = (
            k for k in self._group if k[0] == policy.service and self._live.live[self._group[k]]
        )
        return tuple(f"variant {k[1]!r} is not in the policy" for k in speaking if k not in known)

    def _get(self, column: str, key: Key) -> float:
        place = self._group.get(key)
        return math.nan if place is None else float(self._live.numbers.columns[column][place, 0])

    def _mean(self, column: str, keys: list[Key]) -> float:
        """Return the mean over variants, weighted by completions; NaN where nothing was completed."""
        pairs = [(self._get("finished_requests", k), self._get(column, k)) for k in keys]
        told = [(w, x) for w, x in pairs if w > 0 and not math.isnan(x)]
        weight = sum(w for w, _ in told)
        return sum(w * x for w, x in told) / weight if weight > 0 else math.nan

    def _variant(self, policy: Policy, key: Key) -> VariantObservation:
        place = self._group[key]
        ready = int(self._live.live[place])
        within = {what: self._live.within[what][place].tolist() for what in _NO_TARGETS}
        least, most = ({w: x[i] for w, x in within.items()} for i in (0, 1))
        return VariantObservation(
            ready=ready,
            starting=0,
            draining=0,
            desired=ready,
            running=self._get("running", key),
            waiting=self._get("waiting", key),
            kv_cache_usage_ratio=self._get("kv_cache_usage_ratio", key),
            finished_requests=self._get("finished_requests", key),
            ttft_within_slo_ratio=within["ttft"][2],
            tpot_within_slo_ratio=within["tpot"][2],
            slo_attainment_ratio=attained_of(policy.targets, least, most),
            **{name: self._get(name, key) for name in _LATENCIES},
        )


def read_load_history(
    folder: Path,
    identity: Identity,
    policies: Policies,
    *,
    step_seconds: float,
    keep_steps: int,
    now_seconds: float,
) -> LoadSeries | None:
    """Return the last `keep_steps` steps of which all is told, for `Controller(history=...)`.

    None if the store holds none of the services. Raises StoreError if it cannot be read or its bins
    do not fit the step that the load model was trained on.
    """
    where = folder / schema.FILE_NAME
    end = math.floor((now_seconds - SETTLE_SECONDS) / step_seconds) * step_seconds
    frames = []
    with closing(opened(where)) as db:
        try:
            head = read_head(db.execute, str(where))
            bins = head.bins(end - keep_steps * step_seconds, end)
            maker = FrameMaker(head.sources, identity, head.bin_seconds, round(step_seconds))
            latencies = [SIGNAL_CODES[s.name] for s in QUANTILE_SIGNALS]
            for part in read_parts(db.execute, str(where), bins, head.bin_seconds):
                block = selected(part.block, ~np.isin(part.block.signals, latencies))
                frames.append(_of_services(maker.add(block, part.end_bin)[0], policies))
            frames.append(_of_services(maker.finish()[0], policies))
        except sqlite3.DatabaseError as error:
            raise schema.StoreError(f"{where}: {error}; allowed: a store") from error
    load = validate_load(pd.concat(frames, ignore_index=True), str(where))
    return None if load.empty else to_series(load, str(where), step_seconds=step_seconds)


def _of_services(load: pd.DataFrame, policies: Policies) -> pd.DataFrame:
    return load[load.service.isin(list(policies.services))]


def _targets(known: Places, policies: Policies) -> Mapping[str, FloatArray]:
    """Return the targets of each group in seconds; infinite for what no policy names."""
    out = {what: np.full(len(known.keys), np.inf) for what in _NO_TARGETS}
    for place, (service, _) in enumerate(known.keys):
        policy = policies.services.get(service)
        if policy is not None:
            out["ttft"][place] = policy.targets.ttft_seconds
            out["tpot"][place] = policy.targets.tpot_seconds
    return out


def opened(where: Path) -> sqlite3.Connection:
    """Open a store's file to read. Raises StoreError if there is none."""
    if not where.is_file():
        raise schema.StoreError(f"{where}: no such file; allowed: what `foreserve otlp` writes")
    return sqlite3.connect(f"{where.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _limit(db: sqlite3.Connection, deadline_seconds: float) -> None:
    """Let SQLite end a statement that runs into the deadline."""
    end = time.monotonic() + deadline_seconds
    db.set_progress_handler(lambda: time.monotonic() > end, CHECK_INSTRUCTIONS)


def _store_error(
    where: Path, error: sqlite3.DatabaseError, deadline_seconds: float
) -> schema.StoreError | _LateError:
    if "interrupted" in str(error):
        return _LateError(f"{where}: not read within the tick's {deadline_seconds:g} s")
    return schema.StoreError(f"{where}: {error}; allowed: a store")

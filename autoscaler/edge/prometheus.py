"""The online reader: one tick's observation of all services by a fixed number of queries.

The definitions are those of history (`models.contract_queries`). Queries run side by side under one
deadline; what does not answer in time is missing for this tick, named, and never taken for zero.
"""

import math
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Self

from autoscaler.core.types import (
    Observation,
    Policies,
    Policy,
    ServiceObservation,
    VariantObservation,
)
from autoscaler.edge.reading import GatewayQueue, Reading, keys_of, missing_of, with_held
from autoscaler.edge.telemetry_rows import Answers, Key, Replicas
from models.contract import Labels
from models.contract_api import ApiError, QueryApi, Row, native_means, no_cycle_search
from models.contract_queries import LEVELS, live_queries
from models.phases import phases_of
from models.slo import SloTargets


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """How one tick reads.

    interval_seconds: what an observation covers, the step that models learned with. scrape_seconds: the
    server's scrape interval (lint measures it). deadline_seconds: for all queries together.
    stale_after_seconds: older newest samples mean that telemetry failed.
    """

    interval_seconds: float = 60.0
    scrape_seconds: float = 15.0
    deadline_seconds: float = 10.0
    stale_after_seconds: float = 60.0
    parallel: int = 8

    @property
    def window_seconds(self) -> float:
        """Window of rates: an interval and one scrape, at least 2.5 scrapes (as in history)."""
        return math.ceil(
            max(self.interval_seconds + self.scrape_seconds, 2.5 * self.scrape_seconds)
        )


class PrometheusReader:
    """Reads observations for the services of `policies`; close it to end its threads."""

    def __init__(self, api: QueryApi, labels: Labels, settings: ReaderSettings) -> None:
        self._api = api
        self._labels = labels
        self._settings = settings
        self._queries = live_queries(labels, settings.window_seconds, settings.scrape_seconds)
        self._pool = ThreadPoolExecutor(settings.parallel, thread_name_prefix="telemetry")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; queries in flight run into their own time-out."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self, policies: Policies, now_seconds: float) -> Reading:
        """Return what the server knows of the interval that ends now. Does not raise ApiError."""
        with no_cycle_search():
            return self._read(policies, now_seconds)

    def _read(self, policies: Policies, now_seconds: float) -> Reading:
        rows, failed = self._ask(now_seconds)
        for column in ("isl_tokens", "osl_tokens"):  # a classic histogram of the same service wins
            native = native_means(rows.pop(f"{column}:native", []))
            rows[column] = native + rows.get(column, [])
        settings = self._settings
        answers = Answers(
            rows,
            self._labels,
            settings.interval_seconds,
            settings.window_seconds,
            settings.scrape_seconds,
            {name: policy.targets for name, policy in policies.services.items()},
        )
        gateway = _gateway(rows.get("gateway", []), policies, self._labels)
        held = _gateway(rows.get("gateway_queue", []), policies, self._labels)
        grown = _gateway(rows.get("gateway_held", []), policies, self._labels)
        services: dict[str, ServiceObservation] = {}
        stale: dict[str, float] = {}
        partial: dict[str, tuple[str, ...]] = {}
        by_scrapes: list[str] = []
        scraped: dict[Key, float] = {}
        for name, policy in policies.services.items():
            ages = [answers.get("age_seconds", key) for _, key in keys_of(policy, answers.has)]
            age = min((a for a in ages if not math.isnan(a)), default=math.nan)
            if age > settings.stale_after_seconds:
                stale[name] = age
                continue
            queue = GatewayQueue(held.get(name, 0.0), grown.get(name, 0.0))
            seen, counted = _service(policy, answers, gateway.get(name, math.nan), queue)
            if seen is None:
                continue
            services[name] = seen
            scraped |= _scraped(policy, answers)
            missing = missing_of(seen, failed)
            if missing:
                partial[name] = missing
            if counted:
                by_scrapes.append(name)
        silent = tuple(n for n in policies.services if n not in services)
        observation = Observation(now_seconds, settings.interval_seconds, services, {})
        rebuilt = frozenset(n for n in services if math.isnan(gateway.get(n, math.nan)))
        return Reading(
            observation, failed, silent, stale, partial, tuple(by_scrapes), scraped, rebuilt
        )

    def _ask(self, now_seconds: float) -> tuple[dict[str, list[Row]], dict[str, str]]:
        asked: dict[Future[list[Row]], str] = {
            self._pool.submit(self._api.instant, query, now_seconds): name
            for name, query in self._queries.items()
        }
        done, late = wait(asked, timeout=self._settings.deadline_seconds)
        failed = {
            asked[f]: f"no answer within the tick's {self._settings.deadline_seconds:g} s"
            for f in late
        }
        for future in late:
            future.cancel()
        answers: dict[str, list[Row]] = {}
        for future in done:
            try:
                answers[asked[future]] = future.result()
            except ApiError as error:
                failed[asked[future]] = str(error)
        return answers, failed


def _service(
    policy: Policy, answers: Answers, gateway_rps: float, queue: GatewayQueue
) -> tuple[ServiceObservation | None, bool]:
    """Return the observation (None: silent), and whether only scrapes count its replicas.

    Where no engine and no counter of the gateway speaks, requests that the gateway holds are demand all
    the same: of a service at zero, nothing else is seen.
    """
    variants: dict[str, VariantObservation] = {}
    scraped: list[tuple[str, Key]] = []  # role and row of what is scraped
    by_scrapes = False
    for variant, key in keys_of(policy, answers.has):
        scrapes = answers.get("ready_replicas", key)
        target = variant.target_ref
        known = answers.replicas.get((policy.namespace, target.kind, target.name))
        if not math.isnan(scrapes):
            scraped.append((variant.role, key))
        if known is None and math.isnan(scrapes):
            continue
        if known is None:
            by_scrapes = True
            serving = max(0, round(scrapes) - answers.draining(key))
            known = Replicas(desired=serving, ready=serving, starting=0)
        variants[variant.name] = _variant(key, known, answers, policy.targets)
    if not scraped and math.isnan(gateway_rps) and not queue.requests > 0:
        return None, False
    phases = [[scraped[i][1] for i in phase] for phase in phases_of([role for role, _ in scraped])]
    rate = gateway_rps
    if math.isnan(rate):
        counted = [sum(map(answers.arrival_rps, keys)) for keys in phases if keys]
        rebuilt = max((r for r in counted if not math.isnan(r)), default=math.nan)
        rate = queue.offered_rps(rebuilt, answers.window_seconds)
    isl = answers.mean(
        "isl_tokens", phases[0]
    )  # lengths as the phase sees them that reads, or writes
    osl = answers.mean("osl_tokens", phases[-1])
    return ServiceObservation(rate, isl, osl, with_held(variants, queue.requests)), by_scrapes


def _scraped(policy: Policy, answers: Answers) -> dict[Key, float]:
    """Return how many replicas of each variant are scraped, without variants of which none is."""
    counts = {
        (policy.service, variant.name): answers.get("ready_replicas", key)
        for variant, key in keys_of(policy, answers.has)
    }
    return {key: n for key, n in counts.items() if not math.isnan(n)}


def _variant(
    key: Key, replicas: Replicas, answers: Answers, targets: SloTargets
) -> VariantObservation:
    latency = {
        name: answers.get(name, key)
        for name in (f"{what}_{level}_seconds" for what in ("ttft", "tpot") for level, _ in LEVELS)
    }
    return VariantObservation(
        ready=replicas.ready,
        starting=replicas.starting,
        draining=answers.draining(key),
        desired=replicas.desired,
        running=answers.get("running", key),
        waiting=answers.get("waiting", key),
        kv_cache_usage_ratio=answers.get("kv_cache_usage_ratio", key),
        finished_requests=answers.get("completion_rate_rps", key) * answers.interval_seconds,
        ttft_within_slo_ratio=answers.get("ttft_within", key),
        tpot_within_slo_ratio=answers.get("tpot_within", key),
        slo_attainment_ratio=answers.attained(key, targets),
        **latency,
    )


def _gateway(rows: Iterable[Row], policies: Policies, labels: Labels) -> dict[str, float]:
    """Return the gateway's numbers by service; not where two services share a model."""
    place_of = {n: (p.namespace, p.model) for n, p in policies.services.items()}
    shared = Counter(place_of.values())
    rates: dict[tuple[str, str], float] = {}
    for row in rows:
        namespace = row.labels.get(labels.gateway_namespace, "") if labels.gateway_namespace else ""
        place = (namespace, row.labels.get(labels.gateway_model_name, ""))
        rates[place] = rates.get(place, 0.0) + float(row.values[-1])
    return {
        name: rates[place]
        for name, place in place_of.items()
        if place in rates and shared[place] == 1 and math.isfinite(rates[place])
    }

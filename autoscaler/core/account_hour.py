"""Closing an hour: for all services at once, what each plan would have cost and missed, and why ours differs.

Arrays: S services, N lanes (service, variant) in the services' order, T minutes, Q fleets. A fleet is a count
of ready replicas in every minute, of the mix of variants that was decided in it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.core import account_orders as orders
from autoscaler.core.account_fleets import Fleets
from autoscaler.core.account_minutes import (
    BEFORE_MINUTES,
    COLUMN,
    HOUR_MINUTES,
    MINUTE_SECONDS,
    MOST_ROWS,
    WIDTH,
    OpenHour,
)
from autoscaler.core.accounts import Account, Amount, Cause, PlanName, nothing_known
from autoscaler.core.assess import UNKNOWN_START
from autoscaler.core.outcome import FloatArray, Forecasts, State
from autoscaler.core.types import Policies

SECONDS_PER_HOUR = 3600.0
HALF_REQUEST = (
    0.5  # added to what missed and what did not: an hour without misses is not a certainty
)
STEPS = (Cause.LEAD_TIME, Cause.FORECAST, Cause.GUARD, Cause.QUOTA, Cause.REST)
CHAIN = ("clairvoyant", "last_value", "forecast", "guarded", "decided", "came")  # STEPS lie between
FLEETS = (*CHAIN, "hpa")


@dataclass(frozen=True, slots=True)
class Closing:
    """What is known when an hour closes. `hour` since the epoch."""

    policies: Policies
    forecasts: Forecasts
    state: State
    hour: int


@dataclass(frozen=True, slots=True)
class _Hour:
    """The rows of S services on one grid of T = MOST_ROWS minutes, NaN where there is no row."""

    services: tuple[str, ...]
    rows: FloatArray  # (S, T, WIDTH)
    ready_seconds: FloatArray  # (N, T)
    decided: FloatArray  # (N, T)

    def column(self, name: str) -> FloatArray:
        """Return one column (S, T)."""
        own: FloatArray = self.rows[:, :, COLUMN[name]]
        return own

    def total(self, name: str) -> FloatArray:
        """Return the sum (S,) over the hour's minutes that were measured."""
        own = self.column(name)[:, BEFORE_MINUTES:]
        seen = self.column("seconds")[:, BEFORE_MINUTES:] > 0
        total: FloatArray = np.where(seen, own, 0.0).sum(axis=1)
        return total


def close_hours(closing: Closing, hours: Mapping[str, OpenHour]) -> dict[str, Account]:
    """Return the account of every service that has an open hour."""
    start = closing.hour * HOUR_MINUTES * MINUTE_SECONDS
    accounts = {name: nothing_known(start) for name in hours}
    first = closing.hour * HOUR_MINUTES - BEFORE_MINUTES
    tables = {name: o.table() for name, o in hours.items()}
    known = [n for n, t in tables.items() if (t[:, 0] >= first + BEFORE_MINUTES).any()]
    if not known:
        return accounts
    hour = _on_a_grid(known, [tables[n] for n in known], first)
    fleets = Fleets.of(known, closing.policies, closing.forecasts, closing.state, _lengths(hour))
    mix = fleets.mix(hour.decided)
    ordered = _orders(hour, closing, fleets.replica_rps(mix, hour.decided))
    missed = _missed(hour, fleets, mix, ordered, _leads(closing, known))
    spent = _spent(hour, ordered)
    totals = np.stack([hour.total(n) for n in ("seconds", "requests", "finished", "missed")])
    for s, name in enumerate(known):
        accounts[name] = _account(
            start,
            {f: float(v[s]) for f, v in spent.items()},
            {f: float(v[s]) for f, v in missed.items()},
            totals[:, s].tolist(),
        )
    return accounts


def _on_a_grid(services: Sequence[str], tables: Sequence[FloatArray], first: int) -> _Hour:
    rows = np.full((len(services), MOST_ROWS, WIDTH), np.nan)
    ready, decided = [], []
    for s, table in enumerate(tables):
        at = table[:, 0].astype(np.int64) - first
        inside = (at >= 0) & (at < MOST_ROWS)
        at, kept = at[inside], table[inside]
        rows[s, at] = kept[:, :WIDTH]
        lanes = np.full((table.shape[1] - WIDTH, MOST_ROWS), np.nan)
        lanes[:, at] = kept[:, WIDTH:].T
        own = len(lanes) // 2
        ready.append(lanes[:own])
        decided.append(lanes[own:])
    return _Hour(tuple(services), rows, np.concatenate(ready), np.concatenate(decided))


def _lengths(hour: _Hour) -> FloatArray:
    """Return the mean tokens in and out (S, 2) of the hour's requests; NaN where there were none."""
    requests = hour.total("told_requests")
    tokens = np.stack([hour.total("input_tokens"), hour.total("output_tokens")], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(requests[:, np.newaxis] > 0, tokens / requests[:, np.newaxis], np.nan)


def _leads(closing: Closing, services: Sequence[str]) -> orders.IntArray:
    """Return the minutes (S,) from an order to a ready replica: a typical start of the fastest variant."""
    starts = closing.forecasts.starts
    leads = []
    for name in services:
        variants = closing.policies.services[name].variants
        each = [starts.get((name, v.name), UNKNOWN_START).typical_seconds for v in variants]
        leads.append(min(max(1, math.floor(min(each) / MINUTE_SECONDS + 0.5)), BEFORE_MINUTES))
    return np.array(leads, dtype=np.int64)


def _orders(hour: _Hour, closing: Closing, replica_rps: FloatArray) -> dict[str, FloatArray]:
    """Return what each of FLEETS but the one that came has ordered, (S, T).

    A replica of the HPA is to hold as many requests as at `replica_rps` (S,), the most within the SLO.
    """
    policies = [closing.policies.services[n] for n in hour.services]
    least = np.array([sum(v.min_replicas for v in p.variants) for p in policies], dtype=np.float64)
    most = np.array([sum(v.max_replicas for v in p.variants) for p in policies], dtype=np.float64)
    lead = _leads(closing, hour.services)
    needed, required, guarded, decided = (
        orders.held(hour.column(name)) for name in ("needed", "required", "guarded", "decided")
    )
    load = orders.held(hour.column("requests") / hour.column("seconds"))
    wanted = np.where(load == 0, 0.0, load / replica_rps[:, np.newaxis])
    needed = np.maximum(needed, least[:, np.newaxis])
    return {
        "clairvoyant": orders.clairvoyant(needed, lead),
        "last_value": needed,
        "forecast": orders.forecast(needed, required, lead),
        "guarded": guarded,
        "decided": decided,
        "hpa": orders.hpa(wanted, decided[:, 0], least, most),
    }


def _missed(
    hour: _Hour,
    fleets: Fleets,
    mix: FloatArray,
    ordered: Mapping[str, FloatArray],
    lead: orders.IntArray,
) -> dict[str, FloatArray]:
    """Return the share of the hour's requests (S,) that the latency model expects each of FLEETS to miss."""
    seconds = hour.column("seconds")[:, BEFORE_MINUTES:]
    measured = seconds > 0
    requests = np.where(measured, hour.column("requests")[:, BEFORE_MINUTES:], 0.0)
    ready = {name: orders.ready_of(n, lead)[:, BEFORE_MINUTES:] for name, n in ordered.items()}
    shares = mix[:, BEFORE_MINUTES:]
    with np.errstate(invalid="ignore", divide="ignore"):
        came = hour.ready_seconds[:, BEFORE_MINUTES:] / fleets.by_lane(seconds)
        rates = np.where(measured, requests / seconds, 0.0)
        counts = [came if f == "came" else shares * fleets.by_lane(ready[f]) for f in FLEETS]
        attained = fleets.attained(rates, np.stack(counts))  # (Q, S, T)
        lost = np.where(requests > 0, requests * (1.0 - attained), 0.0).sum(axis=2)
        all_of_them = requests.sum(axis=1)
        share = np.where(all_of_them > 0, lost / all_of_them, 0.0)
    return dict(zip(FLEETS, share, strict=True))


def _spent(hour: _Hour, ordered: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the dollars (S,) of each of FLEETS in the minutes that were measured."""
    price = orders.held(hour.column("usd_per_hour"))
    seconds = hour.column("seconds")
    spent = {"came": hour.total("paid_usd")}
    for name, counts in ordered.items():
        usd = np.where(seconds > 0, counts * price * seconds / SECONDS_PER_HOUR, 0.0)
        spent[name] = usd[:, BEFORE_MINUTES:].sum(axis=1)
    return spent


def _account(
    start_seconds: float,
    usd: Mapping[str, float],
    missed_share: Mapping[str, float],
    totals: Sequence[float],
) -> Account:
    seconds, requests, finished, measured = totals
    if requests > 0 and finished == 0:
        finished = measured = math.nan  # no latency could be judged
    expected = {fleet: share * finished for fleet, share in missed_share.items()}
    told = {f: as_measured(n, expected["came"], measured, finished) for f, n in expected.items()}
    steps = zip(STEPS, CHAIN[1:], CHAIN[:-1], strict=True)
    causes = {
        cause: Amount(usd[after] - usd[before], expected[after] - expected[before])
        for cause, after, before in steps
    }
    scaled = measured - told["clairvoyant"]
    by_model = expected["came"] - expected["clairvoyant"]
    causes[Cause.LATENCY_MODEL] = Amount(0.0, scaled - by_model)
    plans = {
        PlanName.FORESERVE: Amount(usd["came"], measured),
        PlanName.CLAIRVOYANT: Amount(usd["clairvoyant"], told["clairvoyant"]),
        PlanName.HPA: Amount(usd["hpa"], told["hpa"]),
        PlanName.LAST_VALUE: Amount(usd["last_value"], told["last_value"]),
    }
    return Account(start_seconds, seconds, finished, expected["came"], plans, causes)


def as_measured(missed: float, expected: float, measured: float, finished: float) -> float:
    """Return how many of `finished` requests miss in truth where the model expects `missed`.

    Of ours it expected `expected`, and `measured` came. Where that is fewer, there are fewer in proportion.
    Where it is more, what the model believes in time misses with the same chance as ours did: odds or ratios
    would make much of nearly nothing where a model expects no misses. Equal numbers give equal ones, more
    give more, and none exceeds `finished`.
    """
    if math.isnan(missed + expected + measured):
        return math.nan
    if measured <= expected:
        return missed * measured / expected if expected > 0 else missed
    return missed + (finished - missed) * (measured - expected) / (finished - expected)

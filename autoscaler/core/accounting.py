"""Accounts of closed hours, kept beside the ticks: the first tick of an hour closes the one before.

A tick is added where everything that a comparison needs was known in it: load, all replicas, and what the
load needs. One of which something is unknown counts in no plan, neither ours nor another's.
"""

import math
from collections.abc import Sequence

from autoscaler.core import budget
from autoscaler.core.account_hour import Closing, close_hours
from autoscaler.core.account_minutes import (
    BEFORE_MINUTES,
    HOUR_MINUTES,
    MINUTE_SECONDS,
    OpenHour,
)
from autoscaler.core.accounts import Account
from autoscaler.core.outcome import Decisions, Forecasts, ServiceDecision, State
from autoscaler.core.prices import Prices
from autoscaler.core.types import Observation, Policies, Policy, ServiceObservation

SECONDS_PER_HOUR = 3600.0
Row = tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]  # OpenHour.add's


class Ledger:
    """The open hours of all services; mutable. A new one begins anew, and its first hour is partial."""

    def __init__(self) -> None:
        self._hours: dict[str, OpenHour] = {}
        self._minute = -HOUR_MINUTES  # since the epoch

    def take_in(
        self,
        policies: Policies,
        forecasts: Forecasts,
        state: State,
        observation: Observation,
        decisions: Decisions,
    ) -> dict[str, Account]:
        """Add one tick; return the accounts of the hour before it, empty if that is not over.

        An interval belongs to the minute of its middle.
        """
        interval = observation.interval_seconds
        middle = observation.now_seconds - interval / 2
        minute = max(int(middle // MINUTE_SECONDS), self._minute)  # a longer interval begins before
        hour, before = minute // HOUR_MINUTES, self._minute // HOUR_MINUTES
        self._minute = minute
        closed: dict[str, Account] = {}
        if hour != before:
            closed = self._close(Closing(policies, forecasts, state, before))
            for open_hour in self._hours.values():
                open_hour.forget_before(hour * HOUR_MINUTES - BEFORE_MINUTES)
        prices = Prices(policies.pools)
        for name, decision in decisions.services.items():
            policy = policies.services.get(name)
            if policy is None:
                continue
            variants = tuple([v.name for v in policy.variants])
            known = self._hours.get(name)
            if known is None or known.variants != variants:
                known = self._hours[name] = OpenHour(variants)
            seen = observation.services.get(name)
            row = None if seen is None else _row(policy, prices, seen, decision, interval)
            if row is not None:
                known.add(minute, *row)
        return closed

    def _close(self, closing: Closing) -> dict[str, Account]:
        services = closing.policies.services
        self._hours = {
            name: open_hour
            for name, open_hour in self._hours.items()
            if name in services
            and open_hour.variants == tuple(v.name for v in services[name].variants)
        }
        return close_hours(closing, self._hours)


def _row(
    policy: Policy,
    prices: Prices,
    seen: ServiceObservation,
    decision: ServiceDecision,
    interval: float,
) -> Row | None:
    """Return what one tick adds; None where something is unknown that a comparison needs."""
    rate, variants = seen.arrival_rate_rps, seen.variants
    needed = 0.0 if rate == 0 else decision.needed_replicas
    each = [variants.get(v.name) for v in policy.variants]
    if None in each or not math.isfinite(rate + needed):
        return None
    there = [v for v in each if v is not None]
    paid = {n: v.ready + v.starting + v.draining for n, v in variants.items()}
    usd = prices.cost_usd_per_hour(policy.variants, paid) * interval / SECONDS_PER_HOUR
    finished, attained = budget.observed_attainment(seen, policy.targets)
    if not math.isfinite(finished + attained):
        finished, attained = 0.0, 1.0  # nothing could be judged: it adds nothing
    requests = rate * interval
    told = requests if math.isfinite(seen.isl_tokens + seen.osl_tokens) else 0.0
    tokens = (told * seen.isl_tokens, told * seen.osl_tokens) if told else (0.0, 0.0)
    decided = [decision.variants.get(v.name, 0) for v in policy.variants]
    total = sum(decided)
    price = _usd_per_hour(policy, prices, decision, total)
    return (
        (interval, requests, finished, finished * (1.0 - attained), usd, told, *tokens),
        (needed, decision.required_replicas, decision.guarded_replicas, total, price),
        [v.ready * interval for v in there],
        decided,
    )


def _usd_per_hour(policy: Policy, prices: Prices, decision: ServiceDecision, decided: int) -> float:
    """Return the price of one replica of the mix that was decided; of the first variant where none was."""
    if decided:
        return decision.cost_usd_per_hour / decided
    return prices.cost_usd_per_hour(policy.variants, {policy.variants[0].name: 1})

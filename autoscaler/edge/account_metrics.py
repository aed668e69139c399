"""The last closed hour of each service as gauges: what each plan would have cost and missed, and why.

A gauge holds for an hour: avg_over_time(foreserve_hour_usd[7d]) is the mean of a week's hours, across
restarts. What is unknown has no series.
"""

import math
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from autoscaler.core.accounts import Account, Amount

SECONDS_PER_HOUR = 3600.0
PER_HOUR: dict[str, tuple[str, str, str, str]] = {
    "hour_usd": ("plans", "plan", "usd", "Dollars of the last closed hour, by plan."),
    "hour_missed_requests": (
        *("plans", "plan", "missed_requests"),
        "Requests of it that missed an objective, by plan.",
    ),
    "hour_difference_usd": (
        *("causes", "cause", "usd"),
        "Parts of what foreserve paid beyond the clairvoyant plan in it.",
    ),
    "hour_difference_missed_requests": (
        *("causes", "cause", "missed_requests"),
        "Parts of what foreserve missed beyond the clairvoyant plan in it.",
    ),
}  # metric -> field of Account, its label, field of Amount, and what it is


def account_families(accounts: Mapping[str, Account]) -> Iterator[Metric]:
    """Return all families, of the accounts by service."""
    for metric, (side, label, amount, text) in PER_HOUR.items():
        family = GaugeMetricFamily(f"foreserve_{metric}", text, labels=["service", label])
        for service, account in accounts.items():
            amounts: Mapping[str, Amount] = getattr(account, side)
            for name, value in amounts.items():
                _add(family, [service, str(name)], getattr(value, amount))
        yield family
    finished = GaugeMetricFamily(
        "foreserve_hour_finished_requests",
        "Requests of the last closed hour that could be judged.",
        labels=["service"],
    )
    measured = GaugeMetricFamily(
        "foreserve_hour_measured_ratio",
        "Share of the last closed hour in which everything was known that is compared.",
        labels=["service"],
    )
    for service, account in accounts.items():
        _add(finished, [service], account.finished_requests)
        _add(measured, [service], account.measured_seconds / SECONDS_PER_HOUR)
    yield finished
    yield measured


def _add(family: GaugeMetricFamily, labels: list[str], value: float) -> None:
    if not math.isnan(value):
        family.add_metric(labels, value)

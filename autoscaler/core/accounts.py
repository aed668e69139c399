"""What an hour came to, beside other plans for the same load: the values. docs/design/023-accounting.md."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

HALF_AN_HOUR_SECONDS = 1800.0


class PlanName(StrEnum):
    """Who would have set the replicas."""

    FORESERVE = "foreserve"  # what came, as it was
    CLAIRVOYANT = "clairvoyant"  # knows the loads; its replicas take as long to start
    HPA = "hpa"  # on requests per replica
    LAST_VALUE = "last_value"  # the same sizing, of the load measured now


class Cause(StrEnum):
    """Why what came differs from the clairvoyant plan: the steps from the one to the other."""

    LEAD_TIME = "lead_time"  # replicas are ordered when the load is measured, not one lead before
    FORECAST = "forecast"  # they are ordered for what is forecast instead
    GUARD = "guard"  # windows, rate limits, minimum and maximum, schedule, reactive floor
    QUOTA = "quota"  # accelerators and budgets
    REST = "rest"  # what came of the decision: slow or failed starts, drains, another writer
    LATENCY_MODEL = "latency_model"  # misses that the model did not expect on what was ready


@dataclass(frozen=True, slots=True)
class Amount:
    """Dollars, and requests that missed an objective; of a part either may be negative. NaN: unknown."""

    usd: float = math.nan
    missed_requests: float = math.nan


@dataclass(frozen=True, slots=True)
class Account:
    """One service's closed hour. All numbers are of the `measured_seconds` in which everything was known.

    plans: what each would have paid and missed; causes: the parts of foreserve less clairvoyant, which
    add up to it. expected_missed_requests: what the latency model expects on the replicas that were ready.
    """

    start_seconds: float
    measured_seconds: float
    finished_requests: float
    expected_missed_requests: float
    plans: Mapping[PlanName, Amount]
    causes: Mapping[Cause, Amount]

    @property
    def partial(self) -> bool:
        """Whether less than half of the hour was measured: little is known of it."""
        return self.measured_seconds < HALF_AN_HOUR_SECONDS

    def attainment(self, plan: PlanName) -> float:
        """Return the share of the hour's requests within the SLO; NaN if unknown or there were none."""
        if not self.finished_requests > 0:
            return math.nan
        return 1.0 - self.plans[plan].missed_requests / self.finished_requests


def nothing_known(start_seconds: float) -> Account:
    """Return the account of an hour of which nothing was measured, or nothing could be sized."""
    return Account(
        start_seconds,
        0.0,
        math.nan,
        math.nan,
        {plan: Amount() for plan in PlanName},
        {cause: Amount() for cause in Cause},
    )

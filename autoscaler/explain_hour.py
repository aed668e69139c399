"""A closed hour in two lines, for people: what it cost beside other plans, and why."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime

from autoscaler.core.accounts import Account, Amount, Cause, PlanName

HOUR_SECONDS = 3600.0
LEAST_USD = 0.005  # of a part: what rounds to nothing is not told
LEAST_REQUESTS = 0.5
WORDS = {
    PlanName.CLAIRVOYANT: "clairvoyant",
    PlanName.HPA: "HPA",
    PlanName.LAST_VALUE: "last value",
    Cause.LEAD_TIME: "lead time",
    Cause.FORECAST: "forecast",
    Cause.GUARD: "guard",
    Cause.QUOTA: "quota",
    Cause.REST: "starts and drains",
    Cause.LATENCY_MODEL: "latency model",
}


def hour_in_words(account: Account) -> list[str]:
    """Return the hour beside other plans, and the parts of its difference to the clairvoyant's.

    One line where nothing could be compared.
    """
    begin, end = (
        f"{datetime.fromtimestamp(account.start_seconds + s, UTC):%H:%M}" for s in (0, HOUR_SECONDS)
    )
    head = f"hour    {begin} to {end}"
    if account.measured_seconds <= 0:
        return [f"{head}: nothing to compare: load, replicas or latency model were not known"]
    measured = ""
    if account.measured_seconds < HOUR_SECONDS:
        only = "only " if account.partial else ""
        measured = f" ({only}{account.measured_seconds / 60:.0f} of 60 min measured)"
    others = "; ".join(
        f"{WORDS[plan]} {_plan(account, plan)}" for plan in PlanName if plan in WORDS
    )
    parts = "; ".join(_parts(account)) or "no difference to the clairvoyant"
    return [
        f"{head}{measured}: {_plan(account, PlanName.FORESERVE)}; {others}",
        f"because {parts}",
    ]


def _plan(account: Account, plan: PlanName) -> str:
    usd, ratio = account.plans[plan].usd, account.attainment(plan)
    money = "no price known" if math.isnan(usd) else f"${usd:,.2f}"
    if account.finished_requests == 0:
        return f"{money}, no requests"
    share = "attainment unknown" if math.isnan(ratio) else f"{ratio:.1%} within the SLO"
    return f"{money}, {share}"


def _parts(account: Account) -> Iterator[str]:
    for cause, amount in account.causes.items():
        said = [*_dollars(amount), *_missed(amount)]
        if said:
            yield f"{WORDS[cause]} {', '.join(said)}"


def _dollars(amount: Amount) -> Iterator[str]:
    if abs(amount.usd) >= LEAST_USD:
        yield f"{'-' if amount.usd < 0 else '+'}${abs(amount.usd):,.2f}"


def _missed(amount: Amount) -> Iterator[str]:
    if abs(amount.missed_requests) >= LEAST_REQUESTS:
        yield f"{amount.missed_requests:+,.0f} missed"

"""Accounts of a closed hour as JSON: in the decision log, and what `foreserve explain --json` prints.

{"start_seconds", "measured_seconds", "finished_requests", "expected_missed_requests",
 "plans": {plan: {"usd", "missed_requests"}}, "causes": {cause: the same}}      null: unknown
"""

import math
from collections.abc import Mapping
from typing import Any

from autoscaler.core.accounts import Account, Amount, Cause, PlanName

DECIMALS = 4  # of dollars and requests
NUMBERS = ("start_seconds", "measured_seconds", "finished_requests", "expected_missed_requests")


def account_to_dict(account: Account) -> dict[str, Any]:
    """Return an account as JSON has it."""
    numbers = {name: _null(getattr(account, name)) for name in NUMBERS}
    plans = {plan.value: _amount(account.plans[plan]) for plan in PlanName}
    causes = {cause.value: _amount(account.causes[cause]) for cause in Cause}
    return {**numbers, "plans": plans, "causes": causes}


def account_from_dict(content: Mapping[str, Any]) -> Account:
    """Return the account; KeyError, TypeError, ValueError or AttributeError if it is none."""
    numbers = {name: _nan(content[name]) for name in NUMBERS}
    return Account(
        **numbers,
        plans={plan: _amount_of(content["plans"][plan.value]) for plan in PlanName},
        causes={cause: _amount_of(content["causes"][cause.value]) for cause in Cause},
    )


def _amount(amount: Amount) -> dict[str, float | None]:
    return {"usd": _null(amount.usd), "missed_requests": _null(amount.missed_requests)}


def _amount_of(content: Mapping[str, Any]) -> Amount:
    return Amount(_nan(content["usd"]), _nan(content["missed_requests"]))


def _null(value: float) -> float | None:
    return round(value, DECIMALS) if math.isfinite(value) else None


def _nan(value: float | None) -> float:
    return math.nan if value is None else float(value)

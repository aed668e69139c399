import math
from dataclasses import replace

from builders import NOW, SERVICE, policies, policy
from test_metrics import FakeStep, fed, samples, step, value

from autoscaler.core.accounts import Account, Amount, Cause, PlanName, nothing_known


def account() -> Account:
    known = nothing_known(NOW)
    return replace(
        known,
        measured_seconds=2700.0,
        finished_requests=9000.0,
        plans={**known.plans, PlanName.FORESERVE: Amount(12.0, 90.0)},
        causes={**known.causes, Cause.LEAD_TIME: Amount(-1.5, math.nan)},
    )


def closing(tick: int, of: Account) -> FakeStep:
    return replace(step(tick), accounts={SERVICE: of})


def test_the_last_closed_hour_stays_until_the_next_closes() -> None:
    metrics = fed(step(0), closing(1, account()), step(2))
    assert value(metrics, "hour_usd", service=SERVICE, plan="foreserve") == 12.0
    assert value(metrics, "hour_missed_requests", service=SERVICE, plan="foreserve") == 90.0
    assert value(metrics, "hour_finished_requests", service=SERVICE) == 9000.0
    assert value(metrics, "hour_measured_ratio", service=SERVICE) == 0.75
    assert value(metrics, "hour_difference_usd", service=SERVICE, cause="lead_time") == -1.5
    again = fed(closing(0, account()), closing(1, nothing_known(NOW)))
    assert math.isnan(value(again, "hour_usd", service=SERVICE, plan="foreserve"))
    assert value(again, "hour_measured_ratio", service=SERVICE) == 0.0


def test_what_is_unknown_has_no_series() -> None:
    names = {(name, labels) for name, labels in samples(fed(closing(0, account())))}
    shown = [dict(labels) for name, labels in names if name == "foreserve_hour_usd"]
    assert shown == [{"service": SERVICE, "plan": "foreserve"}]
    before = samples(fed(step(0)))
    assert not [name for name, _ in before if name.startswith("foreserve_hour_")]


def test_a_policy_that_goes_takes_its_hour_along() -> None:
    metrics = fed(closing(0, account()))
    metrics.observe_step(step(1), policies(policy(service="prod/other")))
    assert not [name for name, _ in samples(metrics) if name.startswith("foreserve_hour_")]

import math
from dataclasses import replace

from builders import NOW

from autoscaler.core.accounts import Account, Amount, Cause, PlanName, nothing_known
from autoscaler.explain_hour import hour_in_words

HOUR = Account(
    start_seconds=NOW,
    measured_seconds=3600.0,
    finished_requests=100_000.0,
    expected_missed_requests=700.0,
    plans={
        PlanName.FORESERVE: Amount(48.0, 800.0),
        PlanName.CLAIRVOYANT: Amount(40.0, 300.0),
        PlanName.HPA: Amount(61.5, 2500.0),
        PlanName.LAST_VALUE: Amount(38.0, 3600.0),
    },
    causes={
        Cause.LEAD_TIME: Amount(-2.0, 3300.0),
        Cause.FORECAST: Amount(8.0, -2900.0),
        Cause.GUARD: Amount(2.0, 0.2),
        Cause.QUOTA: Amount(0.0, 0.0),
        Cause.REST: Amount(0.001, 0.0),
        Cause.LATENCY_MODEL: Amount(0.0, 100.0),
    },
)


def test_two_lines() -> None:
    assert hour_in_words(HOUR) == [
        "hour    00:00 to 01:00: $48.00, 99.2% within the SLO; clairvoyant $40.00, 99.7% within the SLO; "
        "HPA $61.50, 97.5% within the SLO; last value $38.00, 96.4% within the SLO",
        "because lead time -$2.00, +3,300 missed; forecast +$8.00, -2,900 missed; guard +$2.00; "
        "latency model +100 missed",
    ]


def test_what_is_unknown_is_said() -> None:
    plans = {**HOUR.plans, PlanName.HPA: Amount(math.nan, math.nan)}
    first, _ = hour_in_words(replace(HOUR, plans=plans, measured_seconds=1200.0))
    assert "(only 20 of 60 min measured)" in first
    assert "HPA no price known, attainment unknown" in first
    most, _ = hour_in_words(replace(HOUR, measured_seconds=3000.0))
    assert "(50 of 60 min measured)" in most


def test_an_hour_of_nothing_is_one_line() -> None:
    assert hour_in_words(nothing_known(NOW)) == [
        "hour    00:00 to 01:00: nothing to compare: load, replicas or latency model were not known"
    ]


def test_no_requests_and_no_difference() -> None:
    same = dict.fromkeys(PlanName, Amount(4.0, 0.0))
    calm = replace(
        HOUR, finished_requests=0.0, plans=same, causes=dict.fromkeys(Cause, Amount(0.0, 0.0))
    )
    first, second = hour_in_words(calm)
    assert first.startswith("hour    00:00 to 01:00: $4.00, no requests; clairvoyant $4.00")
    assert second == "because no difference to the clairvoyant"

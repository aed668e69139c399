import numpy as np
import pytest
from conftest import TICK_SECONDS, measures, run_result, series

from autoscaler.core.types import Reason
from autoscaler.whatif.accounting import CAUSE_OF, CAUSES, hourly, over_plan


def test_hourly_keeps_counts_and_reasons() -> None:
    frame = series(1.0, hours=2.0, forecast=True)
    frame["finished_requests"] = 2.0
    frame["slo_attainment_ratio"] = [1.0] * 240 + [0.5] * 240
    hours = hourly(run_result("foreserve", measures(), frame))
    assert hours.requests.to_list() == [480.0, 480.0]  # 240 ticks of 15 s, 2 requests each
    assert hours.slo_attainment_ratio.to_list() == [1.0, 0.5]
    assert hours.cost_usd.sum() == pytest.approx(frame.cost_usd.sum())
    assert hours.reasons.iloc[0] == "forecast 80 %, stabilizing 20 %"  # every fifth tick
    assert frame.ts_seconds.iloc[239] % 3600 == 0  # the tick that ends at the full hour is its last
    assert TICK_SECONDS == 15.0


def test_every_reason_has_a_cause() -> None:
    assert set(CAUSE_OF) == {reason.value for reason in Reason}
    assert set(CAUSE_OF.values()) < set(CAUSES)  # lead time is not a reason


def test_the_difference_is_split_by_reason_and_lead_time() -> None:
    ours, plan = series(1.0, hours=1.0, forecast=True), series(1.0, hours=1.0)
    for frame, ready, starting in ((ours, 3.0, 1.0), (plan, 2.0, 0.0)):
        frame["ready_replicas"], frame["starting_replicas"] = ready, starting
        frame["cost_usd"] = ready + starting  # a dollar a replica and tick
    ours["reason"] = ["forecast"] * 120 + ["reactive"] * 90 + ["quota"] * 30
    got = over_plan(
        run_result("foreserve", measures(), ours), run_result("clairvoyant", measures(), plan)
    ).iloc[0]
    assert got.over_usd == pytest.approx(240 * 2.0)  # 4 - 2 dollars in each of 240 ticks
    assert got.lead_time_usd == pytest.approx(240 * 1.0)  # one starting replica more
    assert got.forecast_usd == pytest.approx(120.0)  # one ready replica more, half of the ticks
    assert got.guard_usd == pytest.approx(90.0)
    assert got.limits_usd == pytest.approx(30.0)


def test_the_parts_add_up_in_every_hour() -> None:
    ours, plan = series(0.9, hours=5.0, forecast=True), series(0.6, hours=5.0)
    got = over_plan(
        run_result("foreserve", measures(), ours), run_result("clairvoyant", measures(), plan)
    )
    assert len(got) == 5
    assert np.allclose(got[list(CAUSES)].sum(axis=1), got.over_usd)

"""AIBrix, WVA and Dynamo against their own documented examples, and walks worked out by hand."""

import numpy as np
import pytest
from rival_walks import ask, seen

from autoscaler.whatif.baselines import BaselineError
from autoscaler.whatif.baselines_llm import (
    AibrixApa,
    DynamoPlanner,
    EngineLimits,
    LocalLinearTrend,
    WvaSaturation,
)


@pytest.mark.parametrize(
    ("pods", "per_pod", "expected"),
    [
        # the cases of AIBrix's apa_test.go, target 30, rates 2 and tolerances 0.1
        pytest.param(2, 45.0, 3, id="basic scale up"),
        pytest.param(2, 35.0, 3, id="up to the ceiling"),
        pytest.param(2, 90.0, 4, id="up to the rate"),
        pytest.param(6, 20.0, 4, id="basic scale down"),
        pytest.param(6, 18.0, 4, id="down to the ceiling"),
        pytest.param(6, 10.0, 3, id="down to the rate"),
        pytest.param(2, 33.0, 2, id="within the upper tolerance"),
        pytest.param(2, 27.0, 2, id="within the lower tolerance"),
    ],
)
def test_apa_recommends_as_in_its_own_tests(pods: int, per_pod: float, expected: int) -> None:
    rival = AibrixApa(target=30.0, max_replicas=50)
    assert rival.recommend(pods, per_pod) == expected
    assert ask(rival, seen(0.0, pods * per_pod, ready=pods)) == expected


def test_apa_averages_three_minutes_and_follows_a_dip_at_once() -> None:
    rival = AibrixApa(target=10.0, max_replicas=50)
    assert ask(rival, seen(0.0, 80.0, ready=8)) == 8
    # the means of 10 and 4, then of 10, 4 and 4: 7, then 6 a pod: ceil(5.6), ceil(4.8)
    assert ask(rival, seen(15.0, 32.0, ready=8)) == 6
    assert ask(rival, seen(30.0, 24.0, ready=6)) == 4  # 6 a pod, of 6: ceil(3.6)
    # the window holds 4 and 3 a pod: 0.35 x 6 pods is 2.1, so 3, as fast as by half
    assert ask(rival, seen(195.0, 18.0, ready=6)) == 3


# B = 2048 tokens a step and S = 256: with 300 in and 100 out B O / (I + O) = 512 > S, so a steady batch
# is 256 and k2 = 256 x (300 + 50) = 89,600 tokens; k1 = 0.8 x 100,000 = 80,000 is the smaller
LIMITS = EngineLimits(100_000.0, 256.0, 2048.0)


def wva(**changes: float) -> WvaSaturation:
    return WvaSaturation(LIMITS, **({"max_replicas": 50} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kv", "waiting", "ready", "starting", "expected"),
    [
        # 4 x 65,000 in use / 0.85 = 305,882 < 320,000: nothing required, and nothing to spare
        pytest.param(0.65, 0.0, 4, 0, 4, id="between the thresholds"),
        # 4 x 78,000 / 0.85 = 367,059: 47,059 more than 4 x 80,000 hold: one replica
        pytest.param(0.78, 0.0, 4, 0, 5, id="above 0.85: one more"),
        # with 16 waiting of 400 tokens: (312,000 + 6,400) / 0.85 = 374,588: one
        pytest.param(0.78, 16.0, 4, 0, 5, id="a queue below 5 a replica counts its tokens"),
        # what starts is anticipated: 5 x 80,000 hold 374,588
        pytest.param(0.78, 16.0, 4, 1, 5, id="what starts counts"),
        # 4 x 20,000 / 0.7 = 114,286: 205,714 to spare: two whole replicas, after 120 s
        pytest.param(0.20, 0.0, 4, 0, 2, id="below 0.70: two fewer"),
    ],
)
def test_wva_adds_what_is_required_and_removes_what_is_spare(
    kv: float, waiting: float, ready: int, starting: int, expected: int
) -> None:
    rival = wva()
    shape = {"kv": kv, "waiting": waiting, "ready": ready, "starting": starting}
    assert ask(rival, seen(0.0, 9.0, isl=300.0, osl=100.0, **shape)) == expected  # type: ignore[arg-type]


def test_wva_waits_two_minutes_before_it_removes() -> None:
    rival = wva()
    ask(rival, seen(0.0, 9.0, kv=0.65, ready=4, isl=300.0))
    assert ask(rival, seen(15.0, 9.0, kv=0.2, ready=4, isl=300.0)) == 4
    assert ask(rival, seen(130.0, 9.0, kv=0.2, ready=4, isl=300.0)) == 2


def test_wva_learns_its_compute_bound_from_queues() -> None:
    rival = wva()
    full = seen(0.0, 9.0, kv=0.3, waiting=20.0, ready=4, isl=300.0)
    ask(rival, full)  # 5 wait on each replica while 30,000 tokens are in use: that is all it can do
    later = seen(15.0, 9.0, kv=0.3, waiting=0.0, ready=4, isl=300.0)
    # 4 x 30,000 / 0.85 = 141,176 of 120,000: one more, though caches are at 30 %
    assert ask(rival, later) == 5


def test_wva_goes_through_an_hpa_that_ignores_a_tenth() -> None:
    # 20 x 70,000 / 0.85 = 1,647,059 of 1,600,000: one of 20 is within 10 %
    assert ask(wva(), seen(0.0, 9.0, kv=0.70, ready=20, isl=300.0)) == 20


def test_dynamo_decides_every_three_minutes_from_the_interval_that_ended() -> None:
    rival = DynamoPlanner(engine_rps=2.0, max_replicas=50)
    for step in range(1, 12):
        assert ask(rival, seen(15.0 * step, 9.0, ready=3, rate=9.0)) == 3
    # with few values the predictor is the constant one: 9 requests/s / 2
    assert ask(rival, seen(180.0, 9.0, ready=3, rate=9.0)) == 5


def test_dynamo_moves_by_eight_at_most_and_waits_for_what_starts() -> None:
    rival = DynamoPlanner(engine_rps=1.0, max_replicas=50)
    for step in range(1, 13):
        answer = ask(rival, seen(15.0 * step, 9.0, ready=3, rate=40.0))
    assert answer == 11
    for step in range(13, 25):
        answer = ask(rival, seen(15.0 * step, 9.0, ready=3, starting=8, rate=40.0))
    assert answer == 11
    for step in range(25, 37):
        answer = ask(rival, seen(15.0 * step, 9.0, ready=11, rate=40.0))
    assert answer == 19


def test_dynamo_skips_the_idle_beginning() -> None:
    rival = DynamoPlanner(engine_rps=1.0, max_replicas=50)
    for step in range(1, 40):
        assert ask(rival, seen(15.0 * step, 0.0, ready=4, rate=0.0)) == 4


def test_dynamos_predictor_follows_a_level_and_a_trend() -> None:
    level, trend = LocalLinearTrend(), LocalLinearTrend()
    for n in range(60):
        level.observe(100.0)
        trend.observe(100.0 + 5.0 * n)
    assert level.predict() == pytest.approx(100.0, abs=0.5)
    assert trend.predict() == pytest.approx(400.0, rel=0.01)  # the next of the line
    young = LocalLinearTrend()
    for value in (3.0, 7.0):
        young.observe(value)
    assert young.predict() == 7.0


def test_dynamos_predictor_is_the_kalman_filter_of_its_model() -> None:
    """The filter against the least-squares solution of the whole model, for eight values."""
    values = np.array([12.0, 9.0, 15.0, 22.0, 18.0, 25.0, 31.0, 28.0])
    mine = LocalLinearTrend()
    for value in values:
        mine.observe(value)
    # unknowns: state before the first move, and each step's two moves; weights 1 / sqrt(variance)
    n = len(values)
    rows, right = [], []
    for k in range(2 + 2 * n):  # priors: everything 0 with its variance
        row = np.zeros(2 + 2 * n)
        row[k] = 1 / np.sqrt(1000.0 if k < 2 else (1.0 if k % 2 == 0 else 0.1))
        rows.append(row)
        right.append(0.0)
    states = np.zeros((n + 1, 2, 2 + 2 * n))
    states[0, 0, 0] = states[0, 1, 1] = 1.0
    for t in range(1, n + 1):
        states[t] = LocalLinearTrend.MOVE @ states[t - 1]
        states[t, 0, 2 * t] += 1.0
        states[t, 1, 2 * t + 1] += 1.0
        rows.append(states[t, 0] / np.sqrt(LocalLinearTrend.MEASUREMENT))
        right.append(values[t - 1] / np.sqrt(LocalLinearTrend.MEASUREMENT))
    found = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    assert mine.predict() == pytest.approx(float((LocalLinearTrend.MOVE @ states[n] @ found)[0]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: AibrixApa(target=0.0, max_replicas=5),
        lambda: wva(scale_up_threshold=0.0),
        lambda: DynamoPlanner(engine_rps=-1.0, max_replicas=5),
    ],
)
def test_settings_that_make_no_sense_are_refused(make) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    with pytest.raises(BaselineError, match="more than 0 is allowed"):
        make()

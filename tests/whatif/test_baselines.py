"""The rivals against walks of time worked out by hand."""

import math

import numpy as np
import pytest
from rival_walks import ask, seen

from autoscaler.core.types import Observation
from autoscaler.whatif.baselines import BaselineError, Clairvoyant, RecordedFleet, StaticFleet
from autoscaler.whatif.baselines_kubernetes import Hpa, KedaSaturation, KnativeKpa
from autoscaler.whatif.baselines_llm import AibrixApa, DynamoPlanner, EngineLimits, WvaSaturation


def hpa(**changes: float) -> Hpa:
    fields: dict[str, float] = {"target": 10.0, "max_replicas": 50}
    return Hpa(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("concurrency", "ready", "starting", "expected"),
    [
        pytest.param(110.0, 10, 0, 10, id="ratio 1.1 is within the tolerance"),
        pytest.param(111.0, 10, 0, 12, id="ratio 1.11: ceil(11.1)"),
        pytest.param(160.0, 10, 0, 16, id="ratio 1.6"),
        # 20 pods, those that start at 0: 160 / 200 = 0.8 < 1 turns the direction: no change
        pytest.param(160.0, 10, 10, 20, id="what starts is enough"),
        # 12 pods: 160 / 120 = 1.33: ceil(1.33 x 12) = 16
        pytest.param(160.0, 10, 2, 16, id="what starts is not enough"),
        # 15 pods: 160 / 150 = 1.067: within the tolerance
        pytest.param(160.0, 10, 5, 15, id="what starts leaves it within the tolerance"),
        # a jump of 10 times: at most max(10 + 4, 2 x 10) in 15 s
        pytest.param(1000.0, 10, 0, 20, id="up by 100 % a period"),
        pytest.param(100.0, 1, 0, 5, id="up by 4 pods a period"),
    ],
)
def test_hpa_follows_the_ratio(
    concurrency: float, ready: int, starting: int, expected: int
) -> None:
    assert ask(hpa(), seen(0.0, concurrency, ready=ready, starting=starting)) == expected


def test_hpa_scales_down_to_the_highest_recommendation_of_five_minutes() -> None:
    rival = hpa()
    assert ask(rival, seen(0.0, 100.0, ready=10)) == 10
    assert ask(rival, seen(15.0, 40.0, ready=10)) == 10  # 4 wanted, 10 was 15 s ago
    assert ask(rival, seen(30.0, 70.0, ready=10)) == 10  # 7 wanted
    for now in range(45, 300, 15):
        assert ask(rival, seen(float(now), 40.0, ready=10)) == 10
    assert ask(rival, seen(300.0, 40.0, ready=10)) == 7  # the 10 is out, the 7 is not
    assert ask(rival, seen(315.0, 40.0, ready=7)) == 7
    assert ask(rival, seen(330.0, 40.0, ready=7)) == 4  # all of the window asked for 4


def test_hpa_counts_pods_that_start_as_on_target_when_it_asks_for_less() -> None:
    rival = hpa(stabilization_seconds=0.0)
    # 8 ready at 5 each, 2 starting at 10 each: (40 + 20) / 100 = 0.6: ceil(6.0)
    assert ask(rival, seen(0.0, 40.0, ready=8, starting=2)) == 6


def test_hpa_counts_what_the_period_added() -> None:
    rival = hpa()
    assert ask(rival, seen(0.0, 1000.0, ready=10)) == 20
    # 10 s later: the period began with 10, so 20 is still the limit
    assert ask(rival, seen(10.0, 1000.0, ready=10, starting=10)) == 20
    assert ask(rival, seen(20.0, 1000.0, ready=10, starting=10)) == 40


def test_hpa_averages_its_metric_over_a_window() -> None:
    rival = hpa(metric_window_seconds=60.0)
    for now in (0.0, 15.0, 30.0):
        assert ask(rival, seen(now, 100.0, ready=10)) == 10
    assert (
        ask(rival, seen(45.0, 200.0, ready=10)) == 13
    )  # mean of 100 100 100 200 = 125: ceil(12.5)


def test_hpa_without_a_ready_pod_changes_nothing() -> None:
    assert ask(hpa(), seen(0.0, 500.0, ready=0, starting=3)) == 3


def kpa(**changes: float) -> KnativeKpa:
    fields: dict[str, float] = {"target_concurrency": 10.0, "max_replicas": 50}
    return KnativeKpa(**(fields | changes))  # type: ignore[arg-type]


def test_kpa_follows_the_stable_window_at_seventy_percent() -> None:
    rival = kpa()
    assert ask(rival, seen(0.0, 7.0, ready=1)) == 1  # 7 / 7
    assert ask(rival, seen(15.0, 13.0, ready=1)) == 2  # mean 10: ceil(10 / 7); panic needs 14.1
    assert ask(rival, seen(30.0, 10.0, ready=2)) == 2


def test_kpa_panics_at_twice_the_ready_pods_and_gives_nothing_back_meanwhile() -> None:
    rival = kpa()
    assert ask(rival, seen(0.0, 7.0, ready=1)) == 1
    assert ask(rival, seen(15.0, 35.0, ready=1)) == 5  # 35 / 7 = 5 >= 2 x 1
    for now in (30.0, 45.0, 60.0, 75.0):
        assert ask(rival, seen(now, 7.0, ready=5)) == 5
    # 75 s after the panic: over. The window holds 7s: one pod, but no faster than by half: floor(5 / 2)
    assert ask(rival, seen(90.0, 7.0, ready=5)) == 2


def test_kpa_panics_on_if_the_surge_goes_on() -> None:
    rival = kpa()
    ask(rival, seen(0.0, 7.0, ready=1))
    for now in (15.0, 30.0, 45.0, 60.0, 75.0):
        assert ask(rival, seen(now, 35.0, ready=1, starting=4)) == 5
    assert ask(rival, seen(90.0, 7.0, ready=5)) == 5  # the last surge was 15 s ago


def test_kpa_starts_in_panic_where_several_pods_run() -> None:
    rival = kpa()
    assert ask(rival, seen(0.0, 7.0, ready=8)) == 8
    assert ask(rival, seen(45.0, 7.0, ready=8)) == 8
    assert ask(rival, seen(75.0, 7.0, ready=8)) == 4


def clairvoyant(arrive: np.ndarray, **changes: float) -> Clairvoyant:
    fields: dict[str, float] = {
        "replica_capacity_rps": 2.0,
        "lead_time_seconds": 100.0,
        "window_seconds": 60.0,
        "max_replicas": 50,
    }
    return Clairvoyant(arrive, **(fields | changes))  # type: ignore[arg-type]


def test_clairvoyant_orders_a_lead_time_ahead_and_keeps_what_is_still_needed() -> None:
    # 2 a second until 1000 s, then 10 a second until 2000 s, then 2 again
    arrive = np.concatenate(
        [
            np.arange(0, 1000, 0.5),
            np.arange(1000, 2000, 0.1),
            np.arange(2000, 3000, 0.5),
        ]
    )
    plan = clairvoyant(arrive)
    assert ask(plan, seen(700.0, 0.0, ready=1)) == 1
    # a lead time and an interval ahead of the step, less half a window: 1000 - 115 - 30 = 855 s
    assert ask(plan, seen(854.0, 0.0, ready=1)) == 1
    assert ask(plan, seen(915.0, 0.0, ready=1)) == 5  # 10 / 2, all of the window inside
    assert ask(plan, seen(1990.0, 0.0, ready=5)) >= 4  # the fall is ahead: not given up before it
    assert ask(plan, seen(2031.0, 0.0, ready=5)) == 1
    assert ask(clairvoyant(arrive, margin=1.3), seen(1500.0, 0.0, ready=5)) == 7  # ceil(6.5)


def test_static_never_moves() -> None:
    rival = StaticFleet(7)
    assert ask(rival, seen(0.0, 0.0, ready=1)) == 7
    assert ask(rival, seen(15.0, 900.0, ready=7)) == 7


def keda(**changes: float) -> KedaSaturation:
    return KedaSaturation(**({"max_replicas": 50} | changes))  # type: ignore[arg-type]


RIVALS = [
    hpa,
    kpa,
    keda,
    lambda: AibrixApa(target=10.0, max_replicas=50),
    lambda: WvaSaturation(EngineLimits(1e5, 256, 2048), max_replicas=50),
    lambda: DynamoPlanner(engine_rps=2.0, max_replicas=50),
    lambda: clairvoyant(np.zeros(0)),
    lambda: StaticFleet(4),
]


@pytest.mark.parametrize("make", RIVALS)
def test_missing_telemetry_holds_and_never_means_zero(make) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    rival = make()
    lost = seen(0.0, math.nan, ready=4, rate=math.nan)
    assert ask(rival, lost) == 4
    empty = Observation(15.0, 15.0, {}, {})
    assert rival.decide(empty) == {"prod/chat": {"gpu": 4}}
    assert make().decide(empty) == {}  # nothing known at all: nothing is said


@pytest.mark.parametrize("make", RIVALS[:-3])
def test_a_lost_concurrency_holds(make) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    assert ask(make(), seen(0.0, math.nan, ready=6)) == 6


@pytest.mark.parametrize("make", RIVALS[:-1])
def test_limits_hold(make) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    rival = make()
    rival.min_replicas, rival.max_replicas = 3, 6
    for step in range(60):
        count = ask(rival, seen(15.0 * step, 0.0 if step < 40 else 1e4, ready=5))
        assert 3 <= count <= 6


def test_mistakes_are_refused() -> None:
    with pytest.raises(BaselineError, match="target is 0"):
        hpa(target=0.0)
    with pytest.raises(BaselineError, match="1 <= min_replicas <= max_replicas"):
        kpa(min_replicas=5, max_replicas=4)
    two = seen(0.0, 1.0, ready=1)
    two = Observation(0.0, 15.0, {**two.services, "prod/code": two.services["prod/chat"]}, {})
    with pytest.raises(BaselineError, match="one service with one variant"):
        hpa().decide(two)


def test_recorded_wants_what_ran_at_that_time() -> None:
    ran = {"prod/chat": {"gpu": (np.array([100.0, 160.0, 400.0]), np.array([3, 5, 2]))}}
    rival = RecordedFleet(ran)
    for now, expected in ((50.0, 3), (100.0, 3), (159.0, 3), (160.0, 5), (399.0, 5), (900.0, 2)):
        assert rival.decide(seen(now, 1.0, ready=1)) == {"prod/chat": {"gpu": expected}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # the worked example of Kubernetes' page: the metric at twice its target doubles the pods
        pytest.param(200.0, 2 * 4, id="200m at a target of 100m: x 2"),
        pytest.param(50.0, 4 // 2, id="50m at a target of 100m: halved"),
    ],
)
def test_hpa_follows_the_example_of_its_documentation(value: float, expected: int) -> None:
    rival = hpa(target=100.0, stabilization_seconds=0.0)
    assert ask(rival, seen(0.0, 4 * value, ready=4)) == expected


def test_hpa_on_queue_sees_the_queue_alone() -> None:
    rival = Hpa(target=5.0, metric="queue", max_replicas=50, stabilization_seconds=0.0)
    assert ask(rival, seen(0.0, 400.0, waiting=20.0, ready=2)) == 4  # 20 / 5
    assert ask(rival, seen(15.0, 400.0, waiting=0.0, ready=4)) == 1  # an empty queue: the minimum


def test_kpa_aims_at_seventy_percent_of_the_target_as_its_documentation_says() -> None:
    # its page on concurrency: at a target of 10 and the default of 70 % a pod is full with 7
    assert ask(kpa(), seen(0.0, 7.0, ready=1)) == 1
    assert ask(kpa(), seen(0.0, 7.1, ready=1)) == 2


@pytest.mark.parametrize(
    ("kv", "waiting", "ready", "starting", "expected"),
    [
        # llm-d's guide: threshold 0.7; KV at 0.56 / 0.8 is just that
        pytest.param(0.56, 0.0, 4, 0, 4, id="at the threshold"),
        pytest.param(0.61, 0.0, 4, 0, 4, id="within HPA's 10 %"),
        pytest.param(0.8, 0.0, 4, 0, 6, id="full caches: 1 / 0.7 x 4 = 5.7"),
        pytest.param(0.1, 28.0, 4, 0, 8, id="7 waiting on each: 1.4 / 0.7 x 4"),
        pytest.param(0.8, 0.0, 4, 2, 6, id="what starts is no endpoint: 5.7 again"),
    ],
)
def test_keda_follows_the_pool_saturation(
    kv: float, waiting: float, ready: int, starting: int, expected: int
) -> None:
    shown = seen(0.0, 9.0, waiting=waiting, kv=kv, ready=ready, starting=starting)
    assert ask(keda(), shown) == expected


def test_keda_scales_down_as_hpa_does() -> None:
    rival = keda()
    assert ask(rival, seen(0.0, 9.0, kv=0.56, ready=8)) == 8
    assert ask(rival, seen(15.0, 9.0, kv=0.14, ready=8)) == 8  # 2 wanted; 8 was 15 s ago
    assert ask(rival, seen(310.0, 9.0, kv=0.14, ready=8)) == 2

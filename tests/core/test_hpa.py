"""What the HPA does with the served metric, judged by an emulator written apart from the arithmetic."""

import math
from dataclasses import replace

import pytest
from hpa_emulator import Hpa, Rules, keda_cuts, keda_rounds
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.hpa import (
    Delivery,
    DeliveryReason,
    HpaPolicy,
    HpaRules,
    HpaView,
    SelectPolicy,
    TargetType,
    landing,
    metric_for,
    recommendation,
)

FREE = Rules([("Pods", 100_000, 15.0)], 0.0)  # one step may go anywhere, at once


def hpa(current: int, *, free: bool = True, **fields: object) -> Hpa:
    rules = {"scale_up": FREE, "scale_down": FREE} if free else {}
    return Hpa(spec=current, **{"target": 1.0, **rules, **fields})  # type: ignore[arg-type]


def rules_of(rules: Rules) -> HpaRules:
    policies = tuple(HpaPolicy(kind == "Percent", v, p) for kind, v, p in rules.policies)
    return HpaRules(policies, rules.window, SelectPolicy(rules.select))


def view_of(h: Hpa, *, history: bool = True) -> HpaView:
    """What a perfect observer knows of the emulated HPA; without history, only what its API shows."""
    past = tuple((h.clock - t, n) for t, n in h.recommended) or ((0.0, h.spec),)
    behavior = None
    if h.scale_up is not None and h.scale_down is not None:
        behavior = (rules_of(h.scale_up), rules_of(h.scale_down))
    return HpaView(
        spec_replicas=h.spec,
        status_replicas=h.status,
        ready_pods=h.ready,
        min_replicas=h.minimum,
        max_replicas=h.maximum,
        target_type=TargetType.AVERAGE_VALUE if h.average else TargetType.VALUE,
        target=h.target,
        tolerance_up=h.up_tolerance,
        tolerance_down=h.down_tolerance,
        behavior=behavior,
        recommendations=past if history else None,
        events=tuple((h.clock - t, n) for t, n in h.scaled) if history else (),
    )


def served(h: Hpa, planned: int) -> tuple[Delivery, int]:
    """Deliver and look once; both of KEDA's transports must say the same, and the forecast be right."""
    delivery = metric_for(view_of(h), planned)
    milli = keda_rounds(delivery.value)
    assert milli == keda_cuts(delivery.value)
    if h.minimum <= h.spec <= h.maximum and h.spec:
        assert h.proposal(milli) == delivery.recommends
    landed = h.look(milli)
    assert landed == delivery.lands_on
    assert delivery.exact == (landed == planned)
    assert delivery.exact == (delivery.reason is DeliveryReason.EXACT) == (delivery.advice == "")
    return delivery, landed


def reachable(h: Hpa, counts: range) -> set[int]:
    """Every count that any metric in thousandths reaches in one step, by trying them all."""
    found = set()
    for milli in counts:
        found.add(Hpa(**{**vars(h), "recommended": [], "scaled": []}).look(milli))
    return found


# -- worked by hand: target 1, tolerance 0.1, so the band at S replicas is [0.9 S, 1.1 S]


@pytest.mark.parametrize(
    ("current", "planned", "value", "lands_on"),
    [
        (5, 5, 5.0, 5),
        (5, 9, 9.0, 9),  # 1.8 is far outside
        (9, 10, 10.0, 10),  # 10 / 9 = 1.11 > 1.1
        (10, 9, 8.5, 9),  # 9 / 10 is inside; anything in (8, 9) rounds up to 9: the middle
        (10, 11, 12.0, 12),  # 11 / 10 = 1.1 is inside; 12 is the smallest that is not
        (12, 11, 10.4, 11),  # band from 10.8: (10, 10.8) is left; middle of 10.001 and 10.799
        (19, 18, 17.05, 18),  # band from 17.1: the middle of 17.001 and 17.099
        (20, 19, 19.0, 20),  # (18, 19] lies in the band from 18: hold
        (100, 91, 91.0, 100),  # (90, 91] lies in the band from 90: hold
        (100, 90, 89.5, 90),  # (89, 90) does not
        (100, 101, 111.0, 111),
        (100, 3, 3.0, 3),
    ],
)
def test_average_value_by_hand(current: int, planned: int, value: float, lands_on: int) -> None:
    delivery, landed = served(hpa(current), planned)
    assert (delivery.value, landed) == (pytest.approx(value, abs=1e-9), lands_on)
    limited = lands_on != planned
    assert (delivery.reason is DeliveryReason.TOLERANCE_LIMITED) == limited
    side = "scaleUp" if planned > current else "scaleDown"
    assert (f"behavior.{side}.tolerance" in delivery.advice) == limited


def test_value_counts_ready_pods() -> None:
    delivery, landed = served(hpa(20, average=False, ready=10), 15)
    assert (delivery.value, landed) == (1.5, 15)  # 1.5 x 10 ready pods
    delivery, landed = served(hpa(20, average=False, ready=10), 11)
    assert (landed, delivery.reason) == (12, DeliveryReason.TOLERANCE_LIMITED)  # 1.1 is inside
    delivery, landed = served(hpa(20, average=False, ready=10), 20)
    assert (delivery.value, landed) == (1.0, 20)  # not 2.0: ratio 1 holds however many get ready
    delivery, landed = served(hpa(25, average=False, target=10.0), 28)
    assert (delivery.value, landed) == (
        11.199,
        28,
    )  # 11.2 / 10 x 25 is 28.000000000000004 as a double
    delivery, landed = served(hpa(20, average=False, ready=0), 30)
    assert (landed, delivery.reason) == (
        20,
        DeliveryReason.NO_READY_PODS,
    )  # else it would fall to min
    delivery, landed = served(hpa(100, average=False, target=0.004, up_tolerance=0.0), 101)
    # a thousandth is a quarter of the target: 1.25 x 100
    assert (landed, delivery.reason) == (125, DeliveryReason.PRECISION_LIMITED)


@pytest.mark.parametrize("average", [True, False], ids=["AverageValue", "Value"])
@pytest.mark.parametrize("target", [1.0, 10.0, 0.37, 1234.567])
def test_every_pair_lands_exactly_where_one_step_can(*, average: bool, target: float) -> None:
    limited = 0
    for current in range(1, 101):
        tolerance = hpa(current, average=average, target=target)
        can = {current}  # counts with a metric of their own outside the band, found in closed form
        t = round(target * 1000)
        for n in range(1, 101):
            last = n * t if average else n * t // current
            first = (n - 1) * t + 1 if average else (n - 1) * t // current + 1
            # the ends are enough, but for doubles: 11.2 / 10 x 25 is a little more than 28
            if any(tolerance.proposal(m) == n for m in (first, last, last - 1)):
                can.add(n)
        for planned in range(1, 101):
            delivery, landed = served(hpa(current, average=average, target=target), planned)
            if planned in can:
                assert landed == planned, (current, planned, delivery)
                continue
            limited += 1
            assert delivery.reason is DeliveryReason.TOLERANCE_LIMITED
            assert landed >= planned
            assert landed == current or not any(planned <= n < landed for n in can)
    assert 0 < limited < 1000


@pytest.mark.parametrize("average", [True, False], ids=["AverageValue", "Value"])
@pytest.mark.parametrize("target", [1.0, 7.0, 0.37, 1234.567])
def test_without_tolerance_all_pairs_are_exact(*, average: bool, target: float) -> None:
    for current in range(1, 101):
        for planned in range(1, 101):
            h = hpa(current, average=average, target=target, up_tolerance=0.0, down_tolerance=0.0)
            assert served(h, planned)[1] == planned


@settings(max_examples=150, deadline=None)
@given(
    current=st.integers(1, 40),
    planned=st.integers(1, 40),
    bounds=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    tolerances=st.tuples(
        st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0]), st.sampled_from([0.0, 0.1, 0.3])
    ),
    average=st.booleans(),
    data=st.data(),
)
def test_no_metric_at_all_does_better(
    *,
    current: int,
    planned: int,
    bounds: tuple[int, int],
    tolerances: tuple[float, float],
    average: bool,
    data: st.DataObject,
) -> None:
    """Brute force over all thousandths: the smallest landing >= what min and max let through."""
    status = data.draw(st.integers(0, current + 2))
    h = hpa(
        current,
        average=average,
        target=0.05,
        minimum=min(bounds),
        maximum=max(bounds),
        up_tolerance=tolerances[0],
        down_tolerance=tolerances[1],
        status=status,
        ready=data.draw(st.integers(0, status)),
    )
    goal = min(max(planned, h.minimum), h.maximum)
    found = reachable(h, range(6000))
    above = [n for n in found if n >= goal]
    assert served(h, planned)[1] == (min(above) if above else max(found))


# -- bounds, behaviour, history


def test_bounds_are_named() -> None:
    delivery, landed = served(hpa(5, maximum=8), 12)
    assert (landed, delivery.reason) == (8, DeliveryReason.BOUNDED_BY_MIN_MAX)
    delivery, landed = served(hpa(5, minimum=3), 1)
    assert (landed, delivery.reason) == (3, DeliveryReason.BOUNDED_BY_MIN_MAX)
    delivery, landed = served(hpa(5), 0)
    assert (delivery.value, landed, delivery.reason) == (0.0, 1, DeliveryReason.BOUNDED_BY_MIN_MAX)
    assert "KEDA" in delivery.advice
    delivery, landed = served(hpa(0), 4)
    assert (delivery.value, landed, delivery.reason) == (4.0, 0, DeliveryReason.SCALED_TO_ZERO)
    delivery, landed = served(hpa(9, maximum=8), 9)  # moved before any metric is read
    assert (landed, delivery.reason) == (8, DeliveryReason.BOUNDED_BY_MIN_MAX)


def test_min_and_max_help_against_the_band() -> None:
    delivery, landed = served(hpa(20, minimum=19), 19)  # asks for 18, min makes it 19
    assert (landed, delivery.exact) == (19, True)
    delivery, landed = served(hpa(100, maximum=101), 101)  # asks for 111, max makes it 101
    assert (landed, delivery.exact) == (101, True)


def test_a_fall_never_leans_on_rate_limits() -> None:
    slow = Rules([("Pods", 1, 60.0)], 0.0)
    delivery, landed = served(hpa(20, scale_down=slow), 19)
    # 17 would be cut to 19 if nothing was scaled lately; what the HPA remembers cannot be read
    assert (landed, delivery.reason) == (20, DeliveryReason.TOLERANCE_LIMITED)
    delivery, landed = served(hpa(100, scale_up=slow), 101)  # upwards a wrong guess only costs
    assert (landed, delivery.exact) == (101, True)


def test_behavior_limits_are_named() -> None:
    delivery, landed = served(hpa(1, free=False), 100)  # no behavior: doubling, or 4
    assert (landed, delivery.reason) == (4, DeliveryReason.BEHAVIOR_LIMITED)
    assert "behavior.scaleUp.policies" in delivery.advice
    one = Rules([("Pods", 1, 60.0)], 0.0)
    delivery, landed = served(
        hpa(100, scale_up=one), 103
    )  # 111 is asked for: the band is no hindrance
    assert (delivery.recommends, landed, delivery.reason) == (
        111,
        101,
        DeliveryReason.BEHAVIOR_LIMITED,
    )
    half = Rules([("Percent", 50, 60.0), ("Pods", 1, 60.0)], 0.0, "Min")
    delivery, landed = served(hpa(10, scale_down=half), 2)
    assert (landed, delivery.reason) == (9, DeliveryReason.BEHAVIOR_LIMITED)
    assert "behavior.scaleDown.policies" in delivery.advice
    delivery, landed = served(hpa(10, scale_down=Rules([("Pods", 9, 60.0)], 0.0, "Disabled")), 2)
    assert (landed, delivery.reason) == (10, DeliveryReason.BEHAVIOR_LIMITED)


def test_a_spent_allowance_moves_nothing() -> None:
    h = hpa(10, scale_down=Rules([("Pods", 1, 60.0)], 0.0))
    h.clock, h.recommended, h.scaled = 100.0, [(0.0, 15)], [(70.0, -5)]
    delivery, landed = served(
        h, 3
    )  # from 15 a minute ago it may go to 14: nothing more, and not up
    assert (landed, delivery.reason) == (10, DeliveryReason.BEHAVIOR_LIMITED)


def test_stabilization_is_named_and_ends() -> None:
    h = hpa(10, free=False)
    for clock in (0.0, 150.0, 300.0):
        h.clock = clock
        delivery, landed = served(h, 5)
        assert (landed, delivery.reason) == (10, DeliveryReason.STABILIZATION_PENDING)
        assert "scaleDown.stabilizationWindowSeconds" in delivery.advice
    h.clock = 300.5
    assert served(h, 5)[1] == 5  # the 10 of the beginning is older than 300 s


def test_unknown_history_is_taken_for_a_fresh_one() -> None:
    h = hpa(10, free=False)
    h.recommended = [(-1000.0, 10)]
    assert metric_for(view_of(h, history=False), 5).lands_on == 10
    assert metric_for(view_of(h), 5).lands_on == 5


def test_a_status_behind_its_spec_takes_nothing_away() -> None:
    # 20 wanted, 19 pods created: inside the band the HPA recommends what the status says, 19
    delivery, landed = served(hpa(20, status=19), 20)
    assert (delivery.value, landed) == (21.0, 21)


@settings(max_examples=300, deadline=None)
@given(
    current=st.integers(1, 100),
    planned=st.integers(1, 100),
    really=st.integers(1, 100),
    tolerance=st.sampled_from([0.0, 0.05, 0.1, 0.25]),
)
def test_a_stale_view_never_asks_for_less(
    current: int, planned: int, really: int, tolerance: float
) -> None:
    """AverageValue: whatever runs by now, the HPA keeps it or goes to the plan or above."""
    tolerances = {"up_tolerance": tolerance, "down_tolerance": tolerance}
    delivery = metric_for(view_of(hpa(current, **tolerances)), planned)
    if planned > 1:  # minReplicas stops a plan of 1
        assert hpa(really, **tolerances).look(keda_rounds(delivery.value)) >= min(really, planned)


# -- walks

POLICY = st.tuples(
    st.sampled_from(["Pods", "Percent"]), st.integers(1, 120), st.sampled_from([15.0, 60.0])
)
RULES = st.builds(
    Rules,
    policies=st.lists(POLICY, min_size=1, max_size=3),
    window=st.sampled_from([0.0, 0.0, 30.0, 120.0]),
    select=st.sampled_from(["Max", "Min"]),
)


@settings(max_examples=300, deadline=None)
@given(
    start=st.integers(1, 100),
    planned=st.integers(1, 100),
    up=RULES,
    down=RULES,
    tolerance=st.sampled_from([0.0, 0.0, 0.1]),
    average=st.booleans(),
    known=st.booleans(),
    behaved=st.booleans(),
)
def test_walks_converge_and_never_fall_below(
    *,
    start: int,
    planned: int,
    up: Rules,
    down: Rules,
    tolerance: float,
    average: bool,
    known: bool,
    behaved: bool,
) -> None:
    h = Hpa(
        spec=start,
        target=1.0,
        average=average,
        up_tolerance=tolerance,
        down_tolerance=tolerance,
        scale_up=up if behaved else None,
        scale_down=down if behaved else None,
    )
    path = [start]
    for _ in range(500):
        delivery = metric_for(view_of(h, history=known), planned)
        path.append(h.look(keda_rounds(delivery.value)))
        assert path[-1] == delivery.lands_on or not known
        h.status = h.ready = h.spec
        h.clock += 15.0
        h.recommended = [(t, n) for t, n in h.recommended if t >= h.clock - 315]
        h.scaled = [(t, n) for t, n in h.scaled if t >= h.clock - 75]
        if len(path) > 30 and len(set(path[-30:])) == 1:  # longer than any window
            break
    assert min(path) >= min(start, planned), path
    assert len(set(path[-30:])) == 1, path
    if tolerance == 0.0:
        assert path[-1] == planned, path
        assert max(path) <= max(start, planned)
    else:
        assert planned <= path[-1] <= max(start, math.floor(planned * 1.1) + 1), path
        delivery = metric_for(view_of(h, history=known), planned)
        assert delivery.reason in {DeliveryReason.EXACT, DeliveryReason.TOLERANCE_LIMITED}


# -- the parts and their errors


@settings(max_examples=200, deadline=None)
@given(
    spec=st.integers(0, 60),
    status=st.integers(0, 60),
    average=st.booleans(),
    milli=st.integers(0, 90_000),
    up=RULES,
    down=RULES,
    past=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=5),
    events=st.lists(st.tuples(st.integers(1, 70), st.integers(-9, 9).filter(bool)), max_size=4),
)
def test_the_arithmetic_is_the_emulators(
    *,
    spec: int,
    status: int,
    average: bool,
    milli: int,
    up: Rules,
    down: Rules,
    past: list[tuple[int, int]],
    events: list[tuple[int, int]],
) -> None:
    h = Hpa(
        spec,
        1.0,
        average=average,
        minimum=2,
        maximum=50,
        scale_up=up,
        scale_down=down,
        status=status,
    )
    h.recommended = [(-float(age), n) for age, n in past] or [(0.0, spec)]
    h.scaled = [(-float(age), n) for age, n in events]
    view = view_of(h)
    if spec or average:
        assert recommendation(view, milli) == h.proposal(milli)
    assert landing(view, recommendation(view, milli)) == h.look(milli)


@settings(max_examples=300, deadline=None)
@given(count=st.integers(1, 300), target=st.integers(1, 10_000_000), status=st.integers(0, 300))
def test_any_target_in_thousandths_is_met_without_tolerance(
    count: int, target: int, status: int
) -> None:
    h = hpa(
        max(status, 1), target=target / 1000, up_tolerance=0.0, down_tolerance=0.0, status=status
    )
    assert served(h, count)[1] == count


def test_values_survive_both_transports() -> None:
    # 1.001 x 1000 = 1000.9999999999999 is cut to 1000 by KEDA 2.19: a replica less
    view = replace(view_of(hpa(900)), target=0.001, status_replicas=1)
    delivery = metric_for(view, 1001)
    assert delivery.value != 1.001
    assert keda_cuts(delivery.value) == keda_rounds(delivery.value) == 1001


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spec_replicas": -1}, "counts must be >= 0"),
        ({"min_replicas": 9, "max_replicas": 8}, "min <= max"),
        ({"tolerance_up": math.nan}, "tolerances must be in"),
        ({"tolerance_down": -0.1}, "tolerances must be in"),
        ({"target": 0.0}, "target must be in"),
        ({"target": math.nan}, "target must be in"),
        ({"target": 1e9, "max_replicas": 10}, "target must be in"),
    ],
)
def test_nonsense_is_refused_with_a_sentence(change: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(view_of(hpa(5)), **change)  # type: ignore[arg-type]


def test_a_plan_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"planned must be in \[0, 100000\] at target 1, got -1"):
        metric_for(view_of(hpa(5)), -1)

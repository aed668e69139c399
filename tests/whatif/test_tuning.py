"""The search against rivals whose attainment is a known, falling function of the setting."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.whatif.tuning import Search


def search_best(search: Search, attained: Callable[[float], float]) -> tuple[list[float], float]:
    """Return the settings that were tried, and the leanest that met."""
    tried: list[float] = []
    while (setting := search.next_setting()) is not None:
        tried.append(setting)
        search.tell(setting, attained(setting))
    met = [s for s in tried if attained(s) >= search.attainment]
    return tried, max(met, default=math.nan)  # lean > safe in these tests


def missing(knee: float, steepness: float) -> Callable[[float], float]:
    """1 % is missed at the knee, and (setting / knee) ^ steepness times that elsewhere."""
    return lambda s: 1.0 - min(1.0, 0.01 * (s / knee) ** steepness)


def test_a_straight_line_is_found_in_four_runs() -> None:
    tried, best = search_best(Search(lean=8.0, safe=0.5, attainment=0.99, runs=5), missing(3.0, 4))
    assert tried[0] == 2.0  # the middle of 0.5 and 8 in logarithms
    assert 2.9 < best <= 3.0
    assert len(tried) <= 5


@given(
    knee=st.floats(0.11, 9.0),
    steepness=st.floats(1.0, 12.0),
    runs=st.integers(3, 8),
)
def test_it_never_runs_too_often_and_meets_where_the_safe_end_does(
    knee: float, steepness: float, runs: int
) -> None:
    search = Search(lean=10.0, safe=0.1, attainment=0.99, runs=runs)
    tried, best = search_best(search, missing(knee, steepness))
    assert 1 <= len(tried) <= runs
    assert len(set(tried)) == len(tried)
    assert all(0.0999 <= s <= 10.01 for s in tried)
    assert best <= knee * 1.001  # also says: not NaN, one of them met


def test_when_nothing_meets_it_ends_at_the_safe_end() -> None:
    search = Search(lean=10.0, safe=0.1, attainment=0.99, runs=4)
    tried, best = search_best(search, lambda _: 0.5)
    assert tried[-1] == 0.1
    assert math.isnan(best)


def test_when_all_meet_it_goes_towards_the_lean_end() -> None:
    tried, best = search_best(Search(10.0, 0.1, 0.99, runs=6), lambda _: 1.0)
    assert tried == sorted(tried)
    assert best > 8.0


def test_counts_are_whole_and_not_repeated() -> None:
    # 15 replicas are needed; fewer miss. Lean is 5, safe 40: more replicas are safer.
    def attained(replicas: float) -> float:
        return 1.0 - min(1.0, 0.01 * (15.0 / replicas) ** 6)

    search = Search(lean=5.0, safe=40.0, attainment=0.99, runs=8, whole=True)
    tried: list[float] = []
    while (setting := search.next_setting()) is not None:
        tried.append(setting)
        search.tell(setting, attained(setting))
    assert all(s == round(s) for s in tried)
    assert len(set(tried)) == len(tried)
    assert 15.0 in tried


def test_no_requests_count_as_met() -> None:
    search = Search(10.0, 0.1, 0.99, runs=3)
    first = search.next_setting()
    assert first == pytest.approx(1.0)
    search.tell(1.0, math.nan)
    following = search.next_setting()
    assert following is not None
    assert following > 1.0  # leaner


def test_a_fleet_that_misses_while_leaner_ones_met_ends_the_search() -> None:
    search = Search(10.0, 0.1, 0.99, runs=9)
    search.tell(1.0, 0.999)
    search.tell(0.5, 0.98)
    assert search.next_setting() is None

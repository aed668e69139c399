import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.closed_loop import ClosedLoop, StepTimes, fit_closed_loop

ENGINE = StepTimes(0.01, 1e-4, 2e-7, 4e-5)


def grid() -> ClosedLoop:
    n, isl, osl = np.meshgrid([4.0, 8.0, 32.0, 64.0], [256.0, 1024.0, 8192.0], [128.0, 1024.0])
    return ClosedLoop(n.ravel(), isl.ravel(), osl.ravel())


def test_one_point_by_hand() -> None:
    # 0.01 + 10 * (1e-4 + 2e-7 * (1000 + 50) + 4e-5 * 1000 / 100) = 0.01 + 10 * 7.1e-4
    one = ClosedLoop(np.array([10.0]), np.array([1000.0]), np.array([100.0]))
    assert ENGINE.tpot_seconds(one)[0] == pytest.approx(0.0171)


def test_coefficients_are_recovered_in_spite_of_outliers() -> None:
    points = grid()
    seen = ENGINE.tpot_seconds(points)
    seen[::9] *= 3.0
    found = fit_closed_loop(points, seen)
    assert found.tpot_seconds(points) == pytest.approx(ENGINE.tpot_seconds(points), rel=0.02)


def test_nothing_measured_is_said() -> None:
    with pytest.raises(ValueError, match="no TPOT above zero; allowed: seconds"):
        fit_closed_loop(grid(), np.full(24, np.nan))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.001, 1.0), min_size=24, max_size=24), st.floats(1.0, 4.0))
def test_more_clients_are_never_faster_whatever_was_measured(
    seen: list[float], more: float
) -> None:
    points = grid()
    found = fit_closed_loop(points, np.array(seen))
    busier = ClosedLoop(points.concurrency * more, points.isl_tokens, points.osl_tokens)
    assert (found.tpot_seconds(busier) >= found.tpot_seconds(points) - 1e-12).all()

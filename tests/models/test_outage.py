import numpy as np
import pytest

from models.outage import unreachable

MINUTE = 60.0
NAN = float("nan")


def steps(*parts: tuple[int, float]) -> np.ndarray:
    return np.concatenate([np.full(n, x) for n, x in parts])


def test_zeros_while_replicas_start_and_none_is_ready_are_unknown() -> None:
    requests = steps((60, 100.0), (5, 0.0), (10, 100.0))
    ready = steps((60, 3.0), (5, 0.0), (10, 3.0))
    starting = steps((60, 0.0), (5, 3.0), (10, 0.0))
    got = unreachable(requests, ready, starting, MINUTE)
    assert np.flatnonzero(got).tolist() == [60, 61, 62, 63, 64]


def test_the_whole_run_is_unknown_where_starts_begin_late() -> None:
    requests, ready = steps((60, 100.0), (6, 0.0)), steps((60, 3.0), (6, 0.0))
    starting = steps((63, 0.0), (3, 1.0))
    assert unreachable(requests, ready, starting, MINUTE)[60:].all()


def test_a_service_at_zero_because_nobody_asks_is_at_zero() -> None:
    requests = steps((40, 100.0), (20, 0.0), (30, 0.0))
    ready = steps((60, 1.0), (30, 0.0))
    assert not unreachable(requests, ready, steps((90, 0.0)), MINUTE).any()
    assert not unreachable(requests, ready, steps((90, NAN)), MINUTE).any()  # starts not told


@pytest.mark.parametrize(
    ("before", "outage"), [(100.0, True), (30.0, True), (3.0, False)], ids=["full", "part", "lull"]
)
def test_where_starts_are_not_told_load_that_stops_at_once_is_an_outage(
    before: float, outage: bool
) -> None:
    requests = steps((59, 100.0), (1, before), (10, 0.0))
    ready, starting = steps((60, 2.0), (10, 0.0)), steps((70, NAN))
    assert unreachable(requests, ready, starting, MINUTE)[60:].all() == outage


def test_what_somebody_counted_stays() -> None:
    requests = steps((60, 100.0), (5, 40.0))  # the gateway counts, though no replica is ready
    ready, starting = steps((60, 3.0), (5, 0.0)), steps((60, 0.0), (5, 3.0))
    assert not unreachable(requests, ready, starting, MINUTE).any()
    silent = steps((60, 0.0), (5, 0.0))
    assert not unreachable(silent, steps((65, NAN)), steps((65, NAN)), MINUTE).any()
    assert not unreachable(silent, steps((65, 1.0)), steps((65, 4.0)), MINUTE).any()

"""Tasks wait in order of rank, whenever they were asked for; what fails, fails alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from autoscaler.whatif.turns import Turns


def test_the_lowest_rank_that_waits_is_next_whoever_came_first() -> None:
    turns, begin, order = Turns(ThreadPoolExecutor(1), 1), threading.Event(), []
    turns.submit(9, begin.wait)
    futures = [turns.submit(rank, order.append, rank) for rank in (2, 2, 0, 1)]
    begin.set()
    for future in futures:
        future.result(10.0)
    turns.close()
    assert order == [0, 1, 2, 2]


def test_as_many_run_at_a_time_as_there_are_workers() -> None:
    turns, met = Turns(ThreadPoolExecutor(3), 2), threading.Barrier(2)
    both = [turns.submit(0, met.wait, 10.0) for _ in range(2)]
    assert sorted(f.result(10.0) for f in both) == [0, 1]
    alone = threading.Barrier(3)
    three = [turns.submit(0, alone.wait, 0.2) for _ in range(3)]
    for future in three:  # the third one never meets the others
        with pytest.raises(threading.BrokenBarrierError):
            future.result(10.0)
    turns.close()


def test_a_task_that_fails_leaves_its_place_to_the_next() -> None:
    turns = Turns(ThreadPoolExecutor(1), 1)
    bad, good = turns.submit(0, int, "x"), turns.submit(1, int, "7")
    with pytest.raises(ValueError, match="invalid literal"):
        bad.result(10.0)
    assert good.result(10.0) == 7
    turns.close()


def test_what_has_not_begun_when_it_closes_is_cancelled() -> None:
    executor, begin = ThreadPoolExecutor(1), threading.Event()
    turns = Turns(executor, 1)
    running, waiting = turns.submit(0, begin.wait), turns.submit(0, int, "7")
    threading.Timer(0.05, begin.set).start()
    turns.close()
    assert running.result(10.0)
    assert waiting.cancelled()
    late = turns.submit(0, int, "7")
    with pytest.raises(RuntimeError, match="shutdown"):
        late.result(10.0)

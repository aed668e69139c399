"""Tasks for worker processes, the longest first: what starts last must not be what takes longest."""

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
_Task = tuple[int, int, "Future[Any]", Callable[[], "Future[Any]"]]


class Turns:
    """Hands an executor as many tasks as it has workers; the others wait here, in order of rank."""

    def __init__(self, executor: Executor, workers: int) -> None:
        self._executor, self._free = executor, workers
        self._waiting: list[_Task] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # tasks end in a thread of the executor

    def submit(self, rank: int, run: Callable[..., T], *args: object) -> "Future[T]":
        """Run a function of a module; the lowest rank first, equals in the order in which they came."""
        future: Future[T] = Future()
        ask = partial(self._executor.submit, run, *args)
        task: _Task = (rank, next(self._numbers), future, ask)
        with self._lock:
            heapq.heappush(self._waiting, task)
        self._fill()
        return future

    def close(self) -> None:
        """Forget what has not begun, and wait for what has."""
        with self._lock:
            forgotten, self._waiting = self._waiting, []
        for _, _, future, _ in forgotten:
            future.cancel()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _fill(self) -> None:
        while True:
            with self._lock:
                if not self._free or not self._waiting:
                    return
                _, _, future, ask = heapq.heappop(self._waiting)
                if not future.set_running_or_notify_cancel():
                    continue
                self._free -= 1
            try:
                asked = ask()
            except RuntimeError as error:  # a worker died, or this was closed meanwhile
                asked = Future()
                asked.set_exception(error)
            asked.add_done_callback(partial(self._done, future))

    def _done(self, future: "Future[Any]", asked: "Future[Any]") -> None:
        with self._lock:
            self._free += 1
        if asked.cancelled():
            future.set_exception(RuntimeError("the run was given up"))
        elif (error := asked.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(asked.result())
        self._fill()

"""Threads on a clock that jumps: one runs at a time, time moves when all of them wait."""

import heapq
import itertools
import threading
from collections.abc import Callable


class VirtualTime:
    """Runs workers one at a time in the order of the moments they wait for: deterministic."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._heap: list[tuple[float, int, threading.Semaphore]] = []
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []
        self.over = False

    def sleep(self, seconds: float) -> None:
        """Called by a worker: let others run until that long has passed."""
        turn = threading.Semaphore(0)
        heapq.heappush(self._heap, (self.now + max(seconds, 0.0), next(self._order), turn))
        self._idle.release()
        turn.acquire()

    def spawn(self, work: Callable[[], None], at_seconds: float = 0.0) -> None:
        """Start a worker at that moment; to be called before `run` or by a worker."""
        turn = threading.Semaphore(0)

        def worker() -> None:
            turn.acquire()
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - told to the test by `run`
                self.errors.append(error)
            finally:
                self._idle.release()

        thread = threading.Thread(target=worker, daemon=True)
        self._threads.append(thread)
        heapq.heappush(self._heap, (max(at_seconds, self.now), next(self._order), turn))
        thread.start()

    def run(self, until_seconds: float, check: Callable[[], None]) -> None:
        """Let time pass; `check` is called after every step. Workers must end once `over` is set."""
        while self._heap:
            at, _, turn = heapq.heappop(self._heap)
            self.over = at > until_seconds
            self.now = max(self.now, at)
            turn.release()
            self._idle.acquire()
            if not self.over:
                check()
        for thread in self._threads:
            thread.join(timeout=5)
        if self.errors:
            raise self.errors[0]

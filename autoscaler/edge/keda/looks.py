"""Looks again and again at a Prometheus-compatible server, from a thread of its own."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from autoscaler.edge.clock import TOLERANCE_SECONDS, Clock, SteadyTime
from models.contract_api import ApiError, Row

log = logging.getLogger("foreserve")


class QueryApi(Protocol):
    """A Prometheus-compatible server."""

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        """Return one sample a series at a time; ApiError."""

    def server_seconds(self) -> float:
        """Return the server's clock as of its latest answer; NaN: it never answered."""


class Looks:
    """Calls `look` every so often until closed; `look` may `ask` the queries, all or none of them."""

    name = ""  # of the thread
    what = ""  # is looked at
    until = ""  # it answers

    def __init__(
        self,
        api: QueryApi,
        queries: Mapping[str, str],
        clock: Clock,
        told: Callable[[bool], None],
        every_seconds: float,
    ) -> None:
        """`told`: whether a look succeeded."""
        self._api = api
        self._queries = queries
        self._told = told
        self._every_seconds = every_seconds
        self._time = SteadyTime(clock, api.server_seconds)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._problem = ""

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def look(self) -> None:
        """Look once."""
        raise NotImplementedError

    def ask(self) -> dict[str, list[Row]] | None:
        """Return the answers to all queries, or None where one is missing: that is logged and told."""
        try:
            # a little ahead: a clock that is late must not hide the newest sample
            at = self._time.now() + TOLERANCE_SECONDS
            answers = {name: self._api.instant(q, at) for name, q in self._queries.items()}
        except ApiError as error:
            if not self._problem:
                log.warning("%s: %s; until it answers %s", self.what, error, self.until)
            self._problem = str(error)
            self._told(False)
            return None
        self._time.compare()
        self._problem = ""
        self._told(True)
        return answers

    def _run(self) -> None:
        while not self._stop.wait(self._every_seconds):
            try:
                self.look()
            except Exception:  # looking must go on, whatever the server says
                log.exception("looking at the %s failed", self.what)

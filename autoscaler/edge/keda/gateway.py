"""Looks whether requests wait at the gateway for a service at zero, so that KEDA wakes it at once.

The operator decides every 15 s or so. While nothing serves, that is too long: every half second the one
query that counts is asked, for services that are planned at zero, and not at all while there are none.
What cannot be asked changes nothing: who was waited for stays awake.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from autoscaler.edge.clock import TOLERANCE_SECONDS, SteadyTime
from autoscaler.edge.keda.plans import Plan, Plans
from models.contract import Labels
from models.contract_api import ApiError, Row
from models.contract_queries import gateway_queue_query

log = logging.getLogger("foreserve")
LOOK_SECONDS = 0.5
WINDOW_SECONDS = 60.0  # a queue of the last minute: it empties when the first replica serves


class QueryApi(Protocol):
    """A Prometheus-compatible server."""

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        """Return one sample a series at a time; ApiError."""

    def server_seconds(self) -> float:
        """Return the server's clock as of its latest answer; NaN: it never answered."""


class GatewayLook:
    """Tells `plans` for whom requests wait, from a thread of its own until closed."""

    def __init__(
        self, api: QueryApi, labels: Labels, plans: Plans, told: Callable[[bool], None]
    ) -> None:
        """`told`: whether a look succeeded."""
        self._api = api
        self._labels = labels
        self._plans = plans
        self._told = told
        self._time = SteadyTime(plans.clock, api.server_seconds)
        self._query = gateway_queue_query(labels, WINDOW_SECONDS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
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

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:  # looking must go on, whatever the server says
                log.exception("looking at the gateway's queue failed")

    def look(self) -> None:
        """Look once."""
        plans = [dated.plan for dated in self._plans.all()]
        if not any(p.at_zero for p in plans):
            self._plans.call(())
            return
        try:
            # a little ahead: a clock that is late must not hide the newest sample
            rows = self._api.instant(self._query, self._time.now() + TOLERANCE_SECONDS)
        except ApiError as error:
            if not self._problem:
                log.warning("gateway's queue: %s; until it answers nobody is woken by it", error)
            self._problem = str(error)
            self._told(False)
            return
        self._time.compare()
        self._problem = ""
        self._told(True)
        self._plans.call(called_by(rows, plans, self._labels))


def called_by(rows: Iterable[Row], plans: Collection[Plan], labels: Labels) -> frozenset[str]:
    """Return the services at zero for which requests wait; not where two services share a model.

    A gateway names models: (namespace, model) is a service where no other one of the namespace serves it.
    """
    shared = Counter((p.namespace, p.model) for p in plans)
    waiting = set()
    for row in rows:
        if float(row.values[-1]) > 0:  # NaN is not
            named = labels.gateway_namespace
            namespace = row.labels.get(named, "") if named else ""
            waiting.add((namespace, row.labels.get(labels.gateway_model_name, "")))
    return frozenset(
        p.service
        for p in plans
        if p.at_zero and (p.namespace, p.model) in waiting and shared[p.namespace, p.model] == 1
    )

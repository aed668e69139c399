"""Looks whether requests wait at the gateway for a service at zero, so that KEDA wakes it at once.

The operator decides every 15 s or so. While nothing serves, that is too long: every half second the one
query that counts is asked, for services that are planned at zero, and not at all while there are none.
What cannot be asked changes nothing: who was waited for stays awake.
"""

from collections.abc import Callable, Collection, Iterable

from autoscaler.edge.keda.looks import Looks, QueryApi
from autoscaler.edge.keda.plan import Plan
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.keda.reactive import queues_of, sole
from models.contract import Labels
from models.contract_api import Row
from models.contract_queries import gateway_queue_query

LOOK_SECONDS = 0.5
WINDOW_SECONDS = 60.0  # a queue of the last minute: it empties when the first replica serves


class GatewayLook(Looks):
    """Tells `plans` for whom requests wait."""

    name = "gateway"
    what = "gateway's queue"
    until = "nobody is woken by it"

    def __init__(
        self, api: QueryApi, labels: Labels, plans: Plans, told: Callable[[bool], None]
    ) -> None:
        """`told`: whether a look succeeded."""
        query = gateway_queue_query(labels, WINDOW_SECONDS)
        super().__init__(api, {"queue": query}, plans.clock, told, LOOK_SECONDS)
        self._labels = labels
        self._plans = plans

    def look(self) -> None:
        """Look once."""
        plans = [dated.plan for dated in self._plans.all()]
        if not any(p.at_zero for p in plans):
            self._plans.call(())
            return
        answers = self.ask()
        if answers is not None:
            self._plans.call(called_by(answers["queue"], plans, self._labels))


def called_by(rows: Iterable[Row], plans: Collection[Plan], labels: Labels) -> frozenset[str]:
    """Return the services at zero for which requests wait; not where two services share a model.

    A gateway names models: (namespace, model) is a service where no other one of the namespace serves it.
    """
    waiting = queues_of(rows, labels).keys() & sole(plans)
    return frozenset(p.service for p in plans if p.at_zero and (p.namespace, p.model) in waiting)

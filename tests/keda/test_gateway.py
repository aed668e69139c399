"""From zero: requests that wait at the gateway are told to KEDA within a second of being seen."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scaler_rig import Served, policy, ref, until

from autoscaler.edge.keda.gateway import LOOK_SECONDS, GatewayLook, called_by
from autoscaler.edge.keda.plan import plan_of
from models.contract import Labels
from models.contract_api import Row, UnavailableError

PUSHED_SECONDS = 1.0
LABELS = Labels()


def row(queue: float, namespace: str = "prod", model: str = "llama") -> Row:
    labels = {LABELS.gateway_namespace: namespace, LABELS.gateway_model_name: model}
    return Row(labels, np.asarray([0.0]), np.asarray([queue]))


def at_zero(name: str = "chat", model: str = "llama", **fields: Any) -> dict[str, Any]:
    document = policy(name, **({"desired": 0, "current": 0} | fields))
    document["spec"]["model"] = model
    return document


@dataclass
class Gateway:
    """A Prometheus that knows one queue."""

    rows: list[Row] = field(default_factory=list)
    down: bool = False
    asked: int = 0
    query: str = ""

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        del at_seconds
        self.asked += 1
        self.query = query
        if self.down:
            raise UnavailableError("no answer")
        return self.rows

    def server_seconds(self) -> float:
        return float("nan")


def look(served: Served, gateway: Gateway) -> GatewayLook:
    return GatewayLook(gateway, LABELS, served.plans, served.metrics.looked)


def test_a_queue_is_pushed_within_a_second_and_its_end_too(served: Served) -> None:
    served.plans.replace([at_zero()])
    keda, gateway = served.keda(), Gateway([row(0.0)])
    looking = look(served, gateway)
    looking.start()
    stream = keda.stream()
    assert next(stream).result is False
    until(lambda: gateway.asked > 1)
    worst = 0.0
    for queue, active in ((3.0, True), (0.0, False)) * 4:
        time.sleep(0.13)  # not in step with the looks
        begun = time.monotonic()
        gateway.rows = [row(queue)]
        assert next(stream).result is active
        worst = max(worst, time.monotonic() - begun)
        assert keda.is_active() is active
        assert keda.count() == (1.0 if active else 0.0)
    looking.close()
    assert worst < PUSHED_SECONDS
    assert not looking.alive
    assert served.exported('foreserve_scaler_answers_total{source="gateway"}') == 4.0
    assert "llm_d_epp_flow_control_queue_size" in gateway.query


def test_nobody_is_asked_while_nothing_is_at_zero(served: Served) -> None:
    gateway = Gateway([row(5.0)])
    looking = look(served, gateway)
    served.plans.replace(
        [at_zero(desired=1), at_zero("code", "b", mode="Scale"), at_zero("a", "c", paused=True)]
    )
    looking.look()
    assert gateway.asked == 0
    served.plans.apply("MODIFIED", at_zero())
    looking.look()
    assert gateway.asked == 1
    assert served.plans.is_called("prod/chat")
    served.plans.apply("MODIFIED", at_zero(desired=2))  # the operator has seen it, too
    assert served.keda().count() == 2.0
    looking.look()
    assert not served.plans.is_called("prod/chat")


def test_while_the_server_does_not_answer_who_was_waited_for_stays_awake(served: Served) -> None:
    served.plans.replace([at_zero()])
    gateway = Gateway([row(1.0)])
    looking = look(served, gateway)
    looking.look()
    gateway.down = True
    looking.look()
    assert served.keda().is_active() is True
    assert served.exported('foreserve_scaler_gateway_looks_total{result="failed"}') == 1.0
    gateway.down, gateway.rows = False, []
    looking.look()
    assert served.keda().is_active() is False


def test_looking_goes_on_whatever_the_server_says(served: Served) -> None:
    served.plans.replace([at_zero()])
    gateway = Gateway()
    gateway.rows = [None]  # type: ignore[list-item] # breaks in the middle of a look
    looking = look(served, gateway)
    looking.start()
    until(lambda: gateway.asked > 1)
    gateway.rows = [row(1.0)]
    until(lambda: served.plans.is_called("prod/chat"), 4 * LOOK_SECONDS)
    looking.close()


@pytest.mark.parametrize(
    ("rows", "called"),
    [
        ([row(2.0)], {"prod/chat"}),
        ([row(0.0)], set()),
        ([row(float("nan"))], set()),
        ([row(2.0, "dev")], set()),
        ([row(2.0, model="qwen")], set()),  # two services serve it: nobody knows whose it is
        ([], set()),
    ],
)
def test_whose_queue_it_is(rows: list[Row], called: set[str]) -> None:
    plans = [plan_of(at_zero()), plan_of(at_zero("a", "qwen")), plan_of(at_zero("b", "qwen"))]
    assert called_by(rows, plans, LABELS) == called


def test_the_first_variant_of_each_phase_is_woken(served: Served) -> None:
    document = at_zero()
    roles = {"p1": "Prefill", "d1": "Decode", "d2": "Decode"}
    document["spec"]["variants"] = [
        {"name": n, "role": r, "minReplicas": 0, "maxReplicas": 4} for n, r in roles.items()
    ]
    document["status"]["variants"] = [{"name": n, "desired": 0, "current": 0} for n in roles]
    served.plans.replace([document])
    served.plans.call({"prod/chat"})
    keda = served.keda()
    assert {n: keda.is_active(ref(variant=n)) for n in roles} == {
        "p1": True,
        "d1": True,
        "d2": False,
    }


def test_it_wakes_without_the_operator(served: Served) -> None:
    served.plans.replace([at_zero()])
    served.hands.elapsed = 100_000.0  # nobody has decided for a day
    assert served.keda().is_active() is False
    served.plans.call({"prod/chat"})
    assert served.keda().is_active() is True

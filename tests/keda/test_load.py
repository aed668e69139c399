"""A decision that is too old gives way to what the load needs: a real client asks, a Prometheus tells."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hpa_world import Hpa, hpa_object, scaled_object
from scaler_rig import Served, policy, ref, until

from autoscaler.core.outcome import State
from autoscaler.core.tick import tick
from autoscaler.core.types import Behavior, Mode, ScalingRules, TargetRef
from autoscaler.edge.keda.load import LOOK_SECONDS, WINDOW_SECONDS, LoadLook
from autoscaler.edge.kube.deliveries import Planned, asks_of, deliveries
from autoscaler.edge.kube.status import StatusInputs, policy_status
from autoscaler.edge.prometheus_api import Access, PrometheusApi
from models.contract import Labels
from models.contract_api import Row, UnavailableError
from models.contract_queries import load_queries

sys.path.insert(0, str(Path(__file__).parent.parent / "ingest"))

import builders
import servers

LABELS = Labels()
AGED = 181.0
FALLEN_BACK = 781.0
STAGE = 'foreserve_scaler_decision_stage{service="prod/chat",stage="%s",variant="h100"}'
LOOKS = 'foreserve_scaler_load_looks_total{result="%s"}'
NEEDS = 'foreserve_scaler_reactive_replicas{service="prod/chat",variant="h100"}'


@dataclass
class Telemetry:
    """A Prometheus that knows requests and pods by service, and a queue by model."""

    running: dict[str, float] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    pods: dict[str, float] = field(default_factory=dict)
    queue: dict[str, float] = field(default_factory=dict)
    down: bool = False
    asked: int = 0

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        del at_seconds
        self.asked += 1
        if self.down:
            raise UnavailableError("no answer")
        (name,) = [n for n, q in load_queries(LABELS, WINDOW_SECONDS).items() if q == query]
        if name == "gateway_queue":
            return [
                row(n, namespace="prod", target_model_name=model) for model, n in self.queue.items()
            ]
        numbers = {"running": self.running, "waiting": self.waiting, "ready_replicas": self.pods}
        return [
            row(n, namespace="prod", service=service, variant="h100")
            for service, n in numbers[name].items()
        ]

    def server_seconds(self) -> float:
        return float("nan")


def row(value: float, **labels: str) -> Row:
    return Row(labels, np.asarray([0.0]), np.asarray([value]))


def look(served: Served, telemetry: Any) -> LoadLook:
    return LoadLook(telemetry, LABELS, served.plans, served.metrics.load_looked)


def known(name: str = "chat", **fields: Any) -> dict[str, Any]:
    return policy(name, **({"desired": 4, "current": 6, "concurrency": 10.0} | fields))


def test_the_decay_of_a_decision(served: Served) -> None:
    """Fresh, then what the load needs, then the fallback; and back when somebody decides again."""
    served.plans.replace([known(fallback={"replicas": 9})])
    telemetry = Telemetry({"chat": 70.0}, {"chat": 5.0})
    looking, keda = look(served, telemetry), served.keda()

    def told() -> tuple[float, str]:
        looking.look()
        (stage,) = [
            s for s in ("plan", "running", "reactive", "fallback") if served.exported(STAGE % s)
        ]
        return keda.count(), stage

    assert told() == (4.0, "plan")
    assert telemetry.asked == 0  # while it is fresh
    served.hands.elapsed = AGED
    assert told() == (8.0, "reactive")
    assert telemetry.asked == 4
    assert served.exported(NEEDS) == 8.0
    served.hands.elapsed = FALLEN_BACK
    telemetry.running = {"chat": 20.0}
    assert told() == (9.0, "fallback")
    telemetry.running = {"chat": 117.0}
    served.hands.elapsed += LOOK_SECONDS
    assert told() == (13.0, "fallback")  # the more of the two
    served.plans.apply("MODIFIED", known(desired=5, decided=served.hands.elapsed))
    asked = telemetry.asked
    assert told() == (5.0, "plan")
    assert telemetry.asked == asked
    assert served.exported(NEEDS) is None
    assert served.exported('foreserve_scaler_answers_total{source="reactive"}') == 1.0


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (known(), 13.0),
        (known(desired=20), 20.0),  # what runs, or was decided, is more
        (known(concurrency=1.0), 100.0),  # the maximum
        (known(concurrency=None), 6.0),  # an older operator, or a service of which nothing is learned
        (known(concurrency=0.0), 6.0),
        (known(paused=True), 6.0),
        (known("quiet"), 6.0),  # not measured
    ],
)  # fmt: skip
def test_what_is_told_of_128_requests(served: Served, document: Any, told: float) -> None:
    served.plans.replace([document])
    served.hands.elapsed = AGED
    look(served, Telemetry({"chat": 120.0}, {"chat": 8.0})).look()
    assert served.keda().count(ref(document["metadata"]["name"])) == told


def test_a_trigger_that_bears_less_age_has_the_load_read_sooner(served: Served) -> None:
    served.plans.replace([known()])
    telemetry, keda = Telemetry({"chat": 120.0}), served.keda()
    looking, impatient = look(served, telemetry), ref(maxAgeSeconds="30")
    served.hands.elapsed = 31.0
    looking.look()
    assert telemetry.asked == 0
    assert keda.count(impatient) == 6.0
    looking.look()
    assert keda.count(impatient) == 12.0
    assert keda.count() == 4.0  # for whom it is fresh


def test_four_queries_in_ten_seconds_however_many_policies(served: Served) -> None:
    names = [f"chat-{n}" for n in range(500)]
    served.plans.replace([known(name) for name in names])
    telemetry = Telemetry(dict.fromkeys(names, 95.0))
    looking, keda = look(served, telemetry), served.keda()
    served.hands.elapsed = AGED
    for _ in range(20):
        looking.look()
        served.hands.elapsed += LOOK_SECONDS / 10
    assert telemetry.asked == 8
    assert all(keda.count(ref(name)) == 10.0 for name in names[::50])


def test_while_prometheus_does_not_answer_the_last_floor_holds(served: Served) -> None:
    served.plans.replace([known()])
    telemetry, keda = Telemetry({"chat": 120.0}), served.keda()
    looking = look(served, telemetry)
    served.hands.elapsed = AGED
    telemetry.down = True
    looking.look()
    assert keda.count() == 6.0  # never looked: what runs
    telemetry.down = False
    served.hands.elapsed += LOOK_SECONDS
    looking.look()
    assert keda.count() == 12.0
    telemetry.down = True
    for _ in range(100):
        served.hands.elapsed += LOOK_SECONDS
        looking.look()
        assert keda.count() == 12.0
    telemetry.down, telemetry.running = False, {}  # answers, and knows nothing of it
    served.hands.elapsed += LOOK_SECONDS
    looking.look()
    assert keda.count() == 12.0
    assert served.exported(LOOKS % "failed") == 101.0
    assert served.exported(LOOKS % "ok") == 2.0


def test_a_floor_of_an_earlier_outage_is_forgotten(served: Served) -> None:
    served.plans.replace([known()])
    telemetry, keda = Telemetry({"chat": 120.0}), served.keda()
    looking = look(served, telemetry)
    served.hands.elapsed = AGED
    looking.look()
    assert keda.count() == 12.0
    served.plans.apply("MODIFIED", known(decided=AGED))
    looking.look()
    telemetry.down = True
    served.hands.elapsed = 3 * AGED
    looking.look()
    assert keda.count() == 6.0


def test_what_the_load_needs_is_pushed_to_streams(served: Served) -> None:
    """At zero, with nobody who decides: as many as the queue needs, and active at once."""
    document = known(desired=0, current=0)
    document["spec"]["model"] = "llama"
    served.plans.replace([document])
    telemetry, keda = Telemetry(queue={"llama": 0.0}), served.keda()
    looking, stream = look(served, telemetry), keda.stream()
    assert next(stream).result is False
    served.hands.elapsed = AGED
    looking.look()
    telemetry.queue = {"llama": 35.0}
    served.hands.elapsed += LOOK_SECONDS
    looking.look()
    assert next(stream).result is True
    assert keda.count() == 4.0


@pytest.mark.parametrize("concurrency", [None, 10.0])
def test_what_was_woken_is_not_put_to_sleep_while_it_serves_and_nobody_decides(
    served: Served, concurrency: float | None
) -> None:
    """The decision says zero, the gateway's queue is empty again, and the engine is busy."""
    served.plans.replace([known(desired=0, current=0, concurrency=concurrency)])
    telemetry, keda = Telemetry({"chat": 0.2}, pods={"chat": 1.0}), served.keda()
    looking = look(served, telemetry)
    served.hands.elapsed = AGED
    looking.look()
    assert (keda.is_active(), keda.count()) == (True, 1.0)
    telemetry.running = {"chat": 0.0}
    for _ in range(30):
        assert keda.is_active() is True
        served.hands.elapsed += LOOK_SECONDS
        looking.look()
    assert (keda.is_active(), keda.count()) == (False, 0.0)  # idle for five minutes


def test_two_replicas_of_the_scaler_say_the_same_soon(served: Served) -> None:
    """One has just started in the middle of an outage: the pods that serve are its memory."""
    other = Served()
    telemetry = Telemetry({"chat": 120.0})
    first, second = look(served, telemetry), look(other, telemetry)
    for it in (served, other):
        it.plans.replace([known()])
        it.hands.elapsed = AGED
    first.look()
    telemetry.running, telemetry.pods = {"chat": 75.0}, {"chat": 12.0}  # the HPA followed
    for it, looking in ((served, first), (other, second)):
        it.hands.elapsed += LOOK_SECONDS
        looking.look()
        assert it.keda().count() == 12.0
    other.close()


def test_the_hpa_follows_the_load_while_the_operator_is_dead(served: Served) -> None:
    """Without tolerance: up exactly, down once five minutes agree, never below what was decided."""
    h = Hpa(spec=6, target=1.0, up_tolerance=0.0, down_tolerance=0.0)
    asks = asks_of([scaled_object({"tolerance": "0"})], [hpa_object(h)])
    target = TargetRef("apps/v1", "Deployment", "chat")
    told, _ = deliveries(
        "prod/chat", Mode.KEDA, {"h100": Planned(target, 4, 6, 6, 6)}, asks, single=True
    )
    document = known()
    document["status"]["variants"][0]["delivery"] = told["h100"].manifest()
    served.plans.replace([document])
    telemetry, keda = Telemetry(), served.keda()
    looking, counts = look(served, telemetry), []
    served.hands.elapsed = AGED
    for turn in range(80):
        telemetry.running = {"chat": 10.0 * min(6 + turn, 14) if turn < 20 else 41.0}
        looking.look()
        h.status = h.ready = h.look(round(keda.count() * 1000))
        h.clock += 15.0
        served.hands.elapsed += 15.0
        counts.append(h.status)
    assert counts[:9] == [6, 7, 8, 9, 10, 11, 12, 13, 14]
    assert max(counts) == 14
    assert counts[-1] == 6
    assert counts[20 + 18] == 14  # five minutes of less are not over


def test_what_the_core_knows_of_a_replica_reaches_the_scaler(served: Served) -> None:
    """From the latency model by way of a decision and a status to the count for a load."""
    behavior = Behavior(Mode.KEDA, ScalingRules(0.0), ScalingRules(300.0))
    world = builders.policies(builders.policy(behavior=behavior))
    shown = builders.observation(rate=10.0, h100=builders.seen(3))
    models = builders.forecasts({builders.SERVICE: builders.outlook(10.0)})
    _, made = tick(world, models, State(), shown)
    decision = made.services[builders.SERVICE]
    inputs = StatusInputs(Mode.KEDA, decision, shown.services[builders.SERVICE])
    document = policy(decided=None)
    document["status"] = policy_status({}, 1, inputs, shown.now_seconds)
    served.plans.replace([document])
    held = decision.replica_concurrency["h100"]
    look(served, Telemetry({"chat": 20.5 * held})).look()
    assert served.keda().count() == 21.0


class Engine(BaseHTTPRequestHandler):
    """A vLLM's metrics page."""

    def do_GET(self) -> None:
        body = (
            b'vllm:num_requests_running{engine="0"} 40\nvllm:num_requests_waiting{engine="0"} 7\n'
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def engines() -> Iterator[list[int]]:
    pages = [ThreadingHTTPServer(("127.0.0.1", 0), Engine) for _ in range(2)]
    for page in pages:
        Thread(target=page.serve_forever, daemon=True).start()
    yield [page.server_port for page in pages]
    for page in pages:
        page.shutdown()
        page.server_close()


def test_with_a_real_prometheus(engines: list[int], tmp_path: Path) -> None:
    """Two engines with 47 requests each, scraped every second, by a thread that looks by itself."""
    targets = "".join(
        f"""
      - targets: ["127.0.0.1:{port}"]
        labels: {{namespace: prod, service: chat, variant: h100, pod: chat-{n}}}"""
        for n, port in enumerate(engines)
    )
    config = f"""
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: vllm
    static_configs:{targets}
"""
    served = Served()
    served.plans.replace([known()])
    served.hands.elapsed = AGED
    with servers.prometheus(tmp_path / "server", None, config) as url:
        api = PrometheusApi(Access(url, timeout_seconds=2.0))
        looking = look(served, WallTime(api))
        looking.start()
        keda = served.keda()
        until(lambda: looking.tried)
        until(lambda: count_after_a_look(served, keda) == 10.0, 20.0)  # 94 / 10
        assert served.exported(NEEDS) == 10.0
        looking.close()
        api.close()
    served.close()


def count_after_a_look(served: Served, keda: Any) -> float:
    served.hands.elapsed += LOOK_SECONDS  # the test's clock stands still otherwise
    return float(keda.count())


@dataclass
class WallTime:
    """Asks of now, whatever the test's clock says."""

    api: PrometheusApi

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        del at_seconds
        from autoscaler.edge.clock import wall_seconds

        return self.api.instant(query, wall_seconds())

    def server_seconds(self) -> float:
        return float("nan")

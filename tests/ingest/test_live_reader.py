"""The online reader against real servers (numbers: samples.fleet), and with servers that fail."""

import math
import threading
import time
from dataclasses import replace

import pytest
import samples
from fleet_policies import fleet_policies

from autoscaler.core.types import Policies, Role
from autoscaler.edge.prometheus import PrometheusReader, ReaderSettings
from autoscaler.edge.prometheus_api import Access, PrometheusApi
from autoscaler.edge.reading import Reading
from models.contract import Labels
from models.contract_api import QueryApi, Row, UnavailableError
from models.contract_queries import draining_query

SETTINGS = ReaderSettings(interval_seconds=60.0, scrape_seconds=15.0, deadline_seconds=10.0)


def read(api: QueryApi, at_minute: float, settings: ReaderSettings = SETTINGS) -> Reading:
    with PrometheusReader(api, Labels(), settings) as reader:
        return reader.read(fleet_policies(), samples.START + 60.0 * at_minute)


@pytest.fixture
def api(fleet_url: str) -> PrometheusApi:
    return PrometheusApi(Access(fleet_url))


def test_an_observation_of_all_services(api: PrometheusApi) -> None:
    reading = read(api, 46)
    assert reading.failed == {}
    assert reading.silent == ("prod/absent",)
    chat = reading.observation.services["prod/chat"]
    assert chat.arrival_rate_rps == pytest.approx(5)  # 4/s and 1/s, scraped by two jobs
    assert chat.isl_tokens == pytest.approx(100)
    assert chat.osl_tokens == pytest.approx(50)
    seen = chat.variants["h100"]
    assert seen.ready == 2
    assert seen.running == pytest.approx(16)
    assert seen.waiting == pytest.approx(4)
    assert seen.finished_requests == pytest.approx(300)
    assert seen.ttft_p95_seconds == pytest.approx(0.25 + 0.95 * 0.25)  # as history says it
    assert seen.ttft_within_slo_ratio == pytest.approx(1.0)
    assert seen.slo_attainment_ratio == pytest.approx(1.0)  # neither target is ever missed
    assert seen.draining == 0
    assert reading.partial == {}


def test_variants_and_the_gateway(api: PrometheusApi) -> None:
    mail = read(api, 46).observation.services["prod/mail"]
    assert mail.arrival_rate_rps == pytest.approx(3)  # the gateway's, not the 1.5/s that finished
    assert set(mail.variants) == {"h100", "l4"}
    assert mail.variants["l4"].ttft_within_slo_ratio == pytest.approx(
        0.0
    )  # all take 0.7 s of 0.5 s
    assert mail.variants["l4"].slo_attainment_ratio == pytest.approx(0.0)
    # 2 wait in each engine; of the gateway's 4 + 2 each of two replicas gets 3
    assert mail.variants["h100"].waiting == pytest.approx(5)
    assert mail.variants["l4"].waiting == pytest.approx(5)


def test_a_pod_that_is_being_deleted_drains_and_is_not_ready(api: PrometheusApi) -> None:
    reading = read(
        api, 47.5
    )  # chat-1 is still scraped, but its deletion was asked for at minute 47
    chat = reading.observation.services["prod/chat"].variants["h100"]
    assert chat.draining == 1
    assert chat.ready == 1
    assert reading.counted_by_scrapes == ("prod/chat", "prod/mail", "prod/idle")


def test_draining_pods_are_joined_by_whatever_labels_name_them(api: PrometheusApi) -> None:
    def count(labels: Labels) -> list[float]:
        return [float(r.values[-1]) for r in api.instant(draining_query(labels, 75.0), at)]

    at = samples.START + 60.0 * 47.5
    assert count(Labels()) == [1.0]
    assert count(Labels(namespace=None)) == [1.0]
    assert count(Labels(pod="instance")) == []  # chat-1:8000 is no pod's name
    assert count(Labels(namespace="service")) == []  # nor is chat a namespace


def test_no_traffic_is_zero_and_latency_unknown(api: PrometheusApi) -> None:
    idle = read(api, 46).observation.services["prod/idle"]
    assert idle.arrival_rate_rps == 0.0
    assert math.isnan(idle.isl_tokens)
    assert math.isnan(idle.variants["h100"].ttft_p50_seconds)


def test_a_gap_makes_a_service_silent_never_zero(api: PrometheusApi) -> None:
    reading = read(api, 36)  # chat is not scraped from minute 30 to 40
    assert "prod/chat" not in reading.observation.services
    assert set(reading.observation.services) == {"prod/mail", "prod/idle"}


class Double:
    """Answers like the server behind it, except for what a test breaks."""

    def __init__(self, behind: QueryApi, broken: str) -> None:
        self.behind, self.broken = behind, broken
        self.release = threading.Event()
        self.asked = 0

    def instant(self, query: str, at_seconds: float) -> list[Row]:
        self.asked += 1
        if self.broken == "all" or (self.broken == "hang" and "request_success_total" in query):
            if self.broken == "all":
                raise UnavailableError("server: answered 503 (overloaded)")
            self.release.wait(20)
        return self.behind.instant(query, at_seconds)

    def range(
        self, query: str, start_seconds: float, end_seconds: float, step_seconds: float
    ) -> list[Row]:
        raise NotImplementedError


def test_one_query_that_hangs_costs_the_deadline_and_marks_every_service(
    api: PrometheusApi,
) -> None:
    double = Double(api, "hang")
    begin = time.monotonic()
    reading = read(double, 46, ReaderSettings(deadline_seconds=0.7))
    assert time.monotonic() - begin < 2.0
    double.release.set()
    assert list(reading.failed) == ["completion_rate_rps"]
    assert "0.7 s" in reading.failed["completion_rate_rps"]
    chat = reading.observation.services["prod/chat"]
    assert math.isnan(chat.arrival_rate_rps)  # unknown, not zero
    assert chat.variants["h100"].running == pytest.approx(16)  # the rest is there
    assert reading.observation.services["prod/mail"].arrival_rate_rps == pytest.approx(3)  # gateway
    assert "completion_rate_rps" in reading.partial["prod/chat"]


def test_a_server_that_refuses_everything_leaves_all_services_absent(api: PrometheusApi) -> None:
    reading = read(Double(api, "all"), 46)
    assert reading.observation.services == {}
    assert len(reading.silent) == 4
    assert all("503" in sentence for sentence in reading.failed.values())


def test_the_number_of_queries_is_fixed(api: PrometheusApi) -> None:
    double = Double(api, "")
    read(double, 46)
    assert double.asked == 29


def test_old_samples_are_stale_not_current(api: PrometheusApi) -> None:
    loose = ReaderSettings(stale_after_seconds=90.0)
    reading = read(api, 61.2, loose)  # the last scrape was at minute 60
    tight = ReaderSettings(stale_after_seconds=30.0)
    stale = read(api, 61.2, tight)
    assert reading.stale == {}
    assert stale.stale["prod/mail"] == pytest.approx(72, abs=1)
    assert stale.observation.services == {}


def test_prefill_and_decode_both_count_a_request_once(api: PrometheusApi) -> None:
    own = fleet_policies()
    mail = own.services["prod/mail"]
    split = tuple(
        replace(v, role=role)
        for v, role in zip(mail.variants, (Role.PREFILL, Role.DECODE), strict=True)
    )
    apart = Policies({**own.services, "prod/mail": replace(mail, variants=split)}, own.pools)
    without_gateway = Labels(gateway_model_name="no_such_label")
    at = samples.START + 60.0 * 46
    with PrometheusReader(api, without_gateway, SETTINGS) as reader:
        together = reader.read(own, at).observation.services["prod/mail"]
        counted_once = reader.read(apart, at).observation.services["prod/mail"]
    assert together.arrival_rate_rps == pytest.approx(1.5)  # 1/s and 0.5/s finish
    assert counted_once.arrival_rate_rps == pytest.approx(1.0)  # the phase that counts more

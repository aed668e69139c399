"""Pods that are scraped at times of their own, in windows that are no whole number of scrapes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import samples
import servers
from fleet_policies import fleet_policies
from samples import START, Sample
from test_real_servers import CHAT, ingest, request_of

from autoscaler.edge.prometheus import PrometheusReader, ReaderSettings
from autoscaler.edge.prometheus_api import Access, PrometheusApi
from models.contract import Labels
from models.contract_queries import live_queries, load_queries
from training.telemetry import read_telemetry

SETTINGS = ReaderSettings(interval_seconds=15.0, scrape_seconds=15.0)
INSTANTS = START + 120.0 + np.arange(0.0, 15.0, 0.5)  # what comes later is the same again
APPEARS = 200.0  # seconds after START


def scraped(name: str, mark: str, first: float) -> Iterator[Sample]:
    """A gauge that is scraped every 15 s for five minutes."""
    for second in np.arange(first, 300.0, 15.0).tolist():
        yield name, mark, START + second, 1.0


def fleet() -> Iterator[Sample]:
    """Service chat: three pods, one of them by two jobs. grow: a second pod appears.

    sg: three pods of SGLang, with two ranks each. moved: a pod that gets another address.
    """
    for n, offset in enumerate((0.0, 5.0, 10.0)):
        for job in ("engines", "engines-again") if n == 1 else ("engines",):
            mark = samples.labels("chat", f"chat-{n}", job=job)
            yield from scraped("vllm:num_requests_running", mark, offset)
        for rank in "01":
            mark = f'{samples.labels("sg", f"sg-{n}")},tp_rank="{rank}"'
            yield from scraped("sglang:num_running_reqs", mark, offset)
    for n, first in enumerate((2.0, APPEARS)):
        mark = samples.labels("grow", f"grow-{n}")
        yield from scraped("vllm:num_requests_running", mark, first)
    for address, since, until in (("a:1", 0.0, APPEARS), ("b:1", APPEARS, 300.0)):
        mark = samples.labels("moved", "moved-0").replace("moved-0:8000", address)
        for name, _, at, value in scraped("vllm:num_requests_running", mark, 5.0):
            if since <= at - START < until:
                yield name, mark, at, value


@pytest.fixture(scope="module", params=["prometheus", "victoria-metrics"])
def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusApi]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "prometheus":
        servers.needs("prometheus", "promtool")
        file = samples.openmetrics(fleet(), folder / "fleet.om")
        server = servers.prometheus(folder / "server", file)
    else:
        server = servers.victoria_metrics(folder / "server", samples.text_format(fleet()))
    with server as url, PrometheusApi(Access(url)) as api:
        yield api


def counts(api: PrometheusApi, query: str, service: str, times: np.ndarray) -> list[float]:
    out = []
    for at in times.tolist():
        (row,) = [r for r in api.instant(query, at) if r.labels["service"] == service]
        out.append(float(row.values[-1]))
    return out


PODS = live_queries(Labels(), SETTINGS.window_seconds, SETTINGS.scrape_seconds)["ready_replicas"]


@pytest.mark.parametrize("service", ["chat", "sg"])
def test_pods_that_are_scraped_at_other_times_are_whole_ones(
    api: PrometheusApi, service: str
) -> None:
    assert SETTINGS.window_seconds == 38.0  # two or three scrapes
    assert counts(api, PODS, service, INSTANTS) == [3.0] * len(INSTANTS)


def test_the_reader_sees_every_pod(api: PrometheusApi) -> None:
    with PrometheusReader(api, Labels(), SETTINGS) as reader:
        for at in INSTANTS[::5].tolist():
            assert reader.read(fleet_policies(), at).scraped[CHAT, "h100"] == 3.0


def test_without_a_series_of_namespace_or_variant(api: PrometheusApi) -> None:
    labels = Labels(namespace=None, variant=None, pod="instance")
    query = live_queries(labels, SETTINGS.window_seconds, SETTINGS.scrape_seconds)["ready_replicas"]
    assert counts(api, query, "chat", INSTANTS) == [3.0] * len(INSTANTS)


def test_a_scaler_that_does_not_know_the_interval_sees_every_pod(api: PrometheusApi) -> None:
    query = load_queries(Labels(), SETTINGS.window_seconds)["ready_replicas"]
    assert counts(api, query, "chat", INSTANTS) == [3.0] * len(INSTANTS)


def test_a_pod_that_appears_counts_as_a_part_first(api: PrometheusApi) -> None:
    after = np.array([-1.0, 1.0, 14.0, 16.0])  # one scrape of it, of the two in every window; two
    assert counts(api, PODS, "grow", START + APPEARS + after) == [1.0, 1.5, 1.5, 2.0]


def test_a_pod_with_another_address_is_one_and_a_part_for_a_window_at_most(
    api: PrometheusApi,
) -> None:
    after = np.arange(-15.0, 60.0)
    found = np.array(counts(api, PODS, "moved", START + APPEARS + after))
    assert found.min() == 1.0
    assert found.max() <= 2.0
    assert (found[after > SETTINGS.window_seconds] == 1.0).all()


def test_history_of_a_scrape_a_minute_counts_every_pod(tmp_path: Path) -> None:
    """A window of 150 s holds two scrapes of 60 s or three."""

    def pods() -> Iterator[Sample]:
        for n, offset in enumerate((5.0, 25.0, 45.0)):
            for second in np.arange(offset, 3660.0, 60.0).tolist():
                mark = samples.labels("chat", f"chat-{n}")
                yield from samples.engine(mark, START + second, second)

    file = samples.openmetrics(pods(), tmp_path / "fleet.om")
    with servers.prometheus(tmp_path / "server", file) as url:
        summary = ingest(url, tmp_path / "out", request_of())
    assert (summary["scrape_seconds"], summary["window_seconds"]) == (60.0, 150.0)
    ready = read_telemetry(tmp_path / "out").serving.ready_replicas.to_numpy()
    assert ready[2:] == pytest.approx(np.full(58, 3.0))

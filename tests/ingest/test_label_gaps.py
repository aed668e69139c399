"""Labels that only some engines have: a sentence each, and the others' numbers stay what they are."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import samples
import servers
from foreserve_process import run
from test_real_servers import foreserve, ingest

from models.contract import Labels
from models.contract_api import Row
from training.ingest.labels import label_gaps
from training.ingest.plan import Request
from training.telemetry import read_telemetry


def without(mark: str, name: str) -> str:
    return ",".join(x for x in mark.split(",") if not x.startswith(f"{name}="))


def fleet() -> Iterator[samples.Sample]:
    """Ten minutes: chat of three pods at 1/s each, mail of two; some lack a label.

    chat-1 has no model_name, chat-2 no service; mail-1 no variant. The gateway counts 5/s for chat.
    """
    for k in range(600 // samples.SCRAPE + 1):
        at, done = float(samples.START + k * samples.SCRAPE), float(k * samples.SCRAPE)
        marks = (
            samples.labels("chat", "chat-0"),
            without(samples.labels("chat", "chat-1"), "model_name"),
            without(samples.labels("chat", "chat-2"), "service"),
            samples.labels("mail", "mail-0"),
            without(samples.labels("mail", "mail-1"), "variant"),
        )
        for mark in marks:
            yield from samples.engine(mark, at, done)
        epp = 'namespace="prod",pod="epp-0",instance="epp:9090",target_model_name="chat-model"'
        yield "llm_d_epp_request_total", epp, at, 5.0 * done


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("gaps")
    with servers.prometheus(folder, samples.openmetrics(fleet(), folder / "fleet.om")) as address:
        yield address


def request(labels: Labels) -> Request:
    return Request("fleet", float(samples.START), samples.START + 600.0, 60.0, labels)


LOST = (
    "1 of 5 pods (such as prod/chat-2) has no label 'service', belonging to no service (add it to the "
    "pods and to podTargetLabels)"
)
PARTLY = [
    "prod/chat: 1 of 2 pods (such as prod/chat-1) has no label 'model_name', counted in full, and the "
    "gateway's arrivals by the others' model",
    "prod/mail: 1 of 2 pods (such as prod/mail-1) has no label 'variant', counted as its variant "
    "'default'",
]


def test_all_that_can_be_told_is_told(url: str, tmp_path: Path) -> None:
    summary = ingest(url, tmp_path, request(Labels()))
    assert summary["unlabelled"] == {LOST: 10}  # ten intervals of one row
    assert summary["label_gaps"] == PARTLY
    assert summary["services"] == 2
    telemetry = read_telemetry(tmp_path)
    load, serving = telemetry.load, telemetry.serving
    assert load.requests[load.service == "prod/chat"].iloc[5] == pytest.approx(300)  # the gateway's
    assert load.requests[load.service == "prod/mail"].iloc[5] == pytest.approx(120)  # both variants
    last = serving[serving.ts == serving.ts.max()].set_index(["service", "variant"])
    assert last.finished_requests["prod/chat", "h100"] == pytest.approx(120)  # with chat-1
    assert last.ready_replicas["prod/chat", "h100"] == pytest.approx(2)
    assert last.finished_requests["prod/mail", "h100"] == pytest.approx(60)
    assert last.finished_requests["prod/mail", "default"] == pytest.approx(60)


def test_the_command_says_it_once(url: str, tmp_path: Path) -> None:
    done = run(*foreserve(url, tmp_path), "--to", samples.START + 600)
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    for sentence in (LOST, *PARTLY):
        assert said.count(sentence) == 1


def test_a_service_label_that_is_the_model(url: str, tmp_path: Path) -> None:
    summary = ingest(url, tmp_path, request(Labels(service="model_name", variant=None)))
    (sentence,) = summary["unlabelled"]  # type: ignore[misc, attr-defined]
    assert sentence.startswith("1 of 5 pods (such as prod/chat-1) has no label 'model_name', bel")
    load = read_telemetry(tmp_path).load
    assert load.requests[load.service == "prod/mail-model"].iloc[5] == pytest.approx(120)


def test_no_label_on_any_pod_of_a_service_is_its_way_to_be() -> None:
    def engine(**labels: str) -> Row:
        return Row({"namespace": "a", "service": "s", **labels}, np.ones(1), np.ones(1))

    assert label_gaps([engine(pod="p"), engine(pod="q")], Labels()) == ([], [])
    # a pod that serves two models has one
    both = [
        engine(pod="p", model_name="m", variant="v"),
        engine(pod="p", model_name="n", variant="v"),
    ]
    assert label_gaps(both, Labels()) == ([], [])

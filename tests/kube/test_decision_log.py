"""The log line of a decision as docs/operations.md ("Logs") describes it."""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from apidouble import ApiDouble
from crd_setup import install
from operating import OWN_NAMESPACE, Rig, Script, Time, Workloads, deployment, policy

from autoscaler.cli.common import log_as

NAMESPACE = "llm"
DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What `--log-format json` writes."""
    out = io.StringIO()
    loggers = [logging.getLogger(name) for name in ("", "foreserve", "kopf")]
    before = [logger.level for logger in loggers]
    monkeypatch.setattr(loggers[0], "handlers", [logging.StreamHandler(out)])
    log_as("json", "info")
    yield out
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture
def world(double: ApiDouble) -> Workloads:
    install(double)
    for name in (OWN_NAMESPACE, NAMESPACE):
        double.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return Workloads(double, NAMESPACE)


def documented() -> set[str]:
    """The fields in the first column of the table of the section "Logs"."""
    section = DOCUMENT.read_text().split("\n## Logs\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_the_line_of_a_decision_has_the_documented_fields(
    double: ApiDouble, world: Workloads, lines: io.StringIO
) -> None:
    world.put(deployment(NAMESPACE, "chat", 2), policy(NAMESPACE, "chat"))
    world.run_pods("chat")
    rig = Rig(double, Script({f"{NAMESPACE}/chat": 48.0}), Time())
    rig.turn(2)
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    decisions = [line for line in told if line["logger"] == "foreserve.decision"]
    assert decisions, told
    line = decisions[-1]
    assert set(line) == {"time", "level", "logger", "message", "decision"}
    assert set(line["decision"]) == documented()
    assert line["decision"]["from"] == {"default": 2}
    assert line["decision"]["to"] == {"default": 6}  # 48 in flight, 8 a replica
    assert line["decision"]["written"] is True
    assert line["decision"]["forecast_upper_rps"] is None  # no model: unknown is null
    assert f"{NAMESPACE}/chat" in line["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", line["time"])


def test_the_same_decision_is_logged_once(
    double: ApiDouble, world: Workloads, lines: io.StringIO
) -> None:
    world.put(deployment(NAMESPACE, "chat", 2), policy(NAMESPACE, "chat"))
    world.run_pods("chat")
    rig = Rig(double, Script({f"{NAMESPACE}/chat": 16.0}), Time())
    rig.turn(5)
    assert lines.getvalue().count('"foreserve.decision"') == 1

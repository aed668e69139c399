"""What cannot be read is told when it begins and when it is over, not every turn."""

import logging

import pytest

from autoscaler.operate.troubles import AGAIN_SECONDS, Troubles

DEAD = {"running": "no connection", "waiting": "no connection"}


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    out = [(r.levelname, r.getMessage()) for r in caplog.records]
    caplog.clear()
    return out


def test_one_line_when_it_begins_and_one_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    troubles = Troubles("telemetry")
    troubles.follow({}, 0.0)
    assert told(caplog) == []
    troubles.follow(DEAD, 15.0)
    assert told(caplog) == [("WARNING", "telemetry: running: no connection (and 1 more)")]
    troubles.follow(DEAD, 30.0)
    assert told(caplog) == []
    troubles.follow({"waiting": "no connection"}, 45.0)
    assert told(caplog) == []
    troubles.follow({}, 60.0)
    assert told(caplog) == [("INFO", "telemetry: everything is answered again")]


def test_what_lasts_is_told_again_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    troubles = Troubles("cluster")
    seconds = [15.0 * i for i in range(int(2 * AGAIN_SECONDS / 15) + 1)]
    for now in seconds:
        troubles.follow(DEAD, now)
    assert len(told(caplog)) == 3  # at 0, 600 and 1,200 s


def test_what_comes_and_goes_is_no_storm(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    troubles = Troubles("telemetry")
    for i in range(20):
        troubles.follow({} if i % 2 else DEAD, 15.0 * i)
    assert [level for level, _ in told(caplog)] == ["WARNING", "INFO"]


def test_another_problem_is_news(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    troubles = Troubles("cluster")
    troubles.follow({"nodes": "403"}, 0.0)
    troubles.follow({"nodes": "403", "pods": "500"}, 15.0)
    assert told(caplog) == [("WARNING", "cluster: nodes: 403"), ("WARNING", "cluster: pods: 500")]

"""Probes and metrics over HTTP: what they say, and that nobody can hold them up."""

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from autoscaler.edge.status_http import StatusServer


@dataclass
class Truth:
    sick: str = ""
    unready: str = ""
    accepted: str = ""

    def metrics(self, accept: str) -> tuple[bytes, str]:
        self.accepted = accept
        return b"a 1\n", "text/plain; version=0.0.4"


TRUTH = Truth()


@pytest.fixture
def truth() -> Truth:
    TRUTH.sick = TRUTH.unready = TRUTH.accepted = ""
    return TRUTH


@pytest.fixture(scope="module")
def server() -> Iterator[StatusServer]:
    """One for all tests: to close it takes half a second."""
    made = StatusServer("127.0.0.1", 0, lambda: TRUTH.sick, lambda: TRUTH.unready, TRUTH.metrics)
    made.start()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _well(truth: Truth) -> None:
    """Every test begins with nothing wrong."""


def ask(server: StatusServer, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5.0)
    connection.request(method, path, headers={"Accept": "text/plain"})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_probes_say_what_is_wrong(server: StatusServer, truth: Truth) -> None:
    assert ask(server, "/healthz") == (200, "ok\n")
    assert ask(server, "/readyz") == (200, "ok\n")
    truth.unready = "pods were not listed yet"
    assert ask(server, "/readyz") == (503, "pods were not listed yet\n")
    assert ask(server, "/healthz")[0] == 200  # not ready is no reason to be restarted
    truth.sick = "the loop has stood still for 200 s"
    assert ask(server, "/healthz") == (503, "the loop has stood still for 200 s\n")


def test_metrics_are_rendered_for_who_asks(server: StatusServer, truth: Truth) -> None:
    assert ask(server, "/metrics") == (200, "a 1\n")
    assert truth.accepted == "text/plain"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404), ("GET", "/healthz/", 404), ("PUT", "/metrics", 405),
        ("POST", "/healthz", 405), ("DELETE", "/metrics", 405), ("GET", "/healthz?verbose=1", 200),
    ],
)  # fmt: skip
def test_everything_else_is_refused(
    server: StatusServer, method: str, path: str, status: int
) -> None:
    assert ask(server, path, method)[0] == status


def test_a_head_has_no_body(server: StatusServer) -> None:
    assert ask(server, "/healthz", "HEAD") == (200, "")


def test_clients_that_say_nothing_hold_nobody_up(server: StatusServer) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
    begun = time.monotonic()
    assert ask(server, "/healthz")[0] == 200
    assert time.monotonic() - begun < 2.0
    for s in silent:
        s.close()


def test_many_at_once_are_all_answered(server: StatusServer) -> None:
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(server, "/readyz")[0]))
        for _ in range(30)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join(10.0)
    assert answers == [200] * 30


def test_a_taken_port_is_an_error_at_once(server: StatusServer, truth: Truth) -> None:
    with pytest.raises(OSError, match="in use"):
        StatusServer("127.0.0.1", server.port, str, str, truth.metrics)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("address", ["::1", "127.0.0.1"])
def test_every_address_is_of_both_families(address: str) -> None:
    made = StatusServer("", 0, str, str, TRUTH.metrics)
    made.start()
    try:
        connection = http.client.HTTPConnection(address, made.port, timeout=5)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        made.close()

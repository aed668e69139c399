"""/healthz, /readyz and /metrics of the operator: three answers, nothing else, no state."""

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

Start = Callable[..., Any]
log = logging.getLogger("foreserve")
REQUEST_SECONDS = 5.0  # a client that sends nothing is left
TEXT = "text/plain; charset=utf-8"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class _Server6(_Server):
    """Of an IPv6 address; `::` answers on IPv4, too."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def every_address() -> str:
    """Return the address that stands for all: probes of a cluster of IPv6 come over IPv6."""
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - asked for


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS

    def log_message(self, *_: object) -> None:
        """Probes come every few seconds: no line for each."""


class StatusServer:
    """Serves in a thread of its own until closed."""

    def __init__(
        self,
        host: str,
        port: int,
        health: Callable[[], str],
        readiness: Callable[[], str],
        metrics: Callable[[str], tuple[bytes, str]],
    ) -> None:
        """`host` empty: every address. `health` and `readiness` return what is wrong, "" for nothing.

        OSError: no such address.
        """
        self._routes = {"/healthz": health, "/readyz": readiness}
        self._metrics = metrics
        host = host or every_address()
        kind = _Server6 if ":" in host else _Server
        self._server = make_server(host, port, self._answer, kind, _Handler)
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="status", daemon=True
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in {"GET", "HEAD"}:
            return _text(start, "405 Method Not Allowed", "allowed: GET")
        if path == "/metrics":
            body, kind = self._metrics(environ.get("HTTP_ACCEPT", ""))
            start("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
            return [body]
        check = self._routes.get(path)
        if check is None:
            return _text(start, "404 Not Found", "allowed: /healthz /readyz /metrics")
        wrong = check()
        return _text(start, "503 Service Unavailable" if wrong else "200 OK", wrong or "ok")


def _text(start: Start, status: str, message: str) -> list[bytes]:
    body = f"{message}\n".encode()
    start(status, [("Content-Type", TEXT), ("Content-Length", str(len(body)))])
    return [body]

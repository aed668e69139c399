"""A server that misbehaves on purpose: the real API's shape, failures by plan."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, dict[str, str], bytes]
Plan = Callable[[str, dict[str, str], dict[str, str]], Answer]


def vector(rows: list[tuple[dict[str, str], float, str]]) -> Answer:
    result = [{"metric": labels, "value": [at, value]} for labels, at, value in rows]
    return ok({"resultType": "vector", "result": result})


def ok(data: object) -> Answer:
    return 200, {}, json.dumps({"status": "success", "data": data}).encode()


def refusal(status: int, words: str) -> Answer:
    body = {"status": "error", "errorType": "execution", "error": words}
    return status, {}, json.dumps(body).encode()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    plan: Plan
    release: threading.Event
    asked: int


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self.server.asked += 1
        status, headers, body = self.server.plan(parts.path, query, dict(self.headers))
        if "X-Hang" in headers:
            self.server.release.wait(20)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if "X-Drip" in headers:
            self._drip(body)
            return
        self.wfile.write(body[: len(body) // 2] if "X-Half" in headers else body)
        if "X-Half" in headers:
            self.close_connection = True

    def _drip(self, body: bytes) -> None:
        for byte in body:
            if self.server.release.wait(0.1):
                return
            try:
                self.wfile.write(bytes([byte]))
            except OSError:  # the client has given up, as it should
                self.close_connection = True
                return

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(plan: Plan) -> Iterator[tuple[str, Server]]:
    server = Server(("127.0.0.1", 0), Handler)
    server.plan, server.release, server.asked = plan, threading.Event(), 0
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join(5)

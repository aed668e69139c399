"""A server that sends the bytes it was given: for answers that no API server should send."""

import re
import socket
import threading
import time
from collections.abc import Callable

Act = bytes | Callable[[socket.socket, bytes], None]


def answer(
    body: bytes, status: str = "200 OK", length: int | None = None, extra: str = ""
) -> bytes:
    """Return an HTTP answer; `length` may promise more than is sent."""
    size = len(body) if length is None else length
    head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {size}\r\n{extra}\r\n"
    return head.encode() + body


def hang(connection: socket.socket, _: bytes) -> None:
    """Never answer, until the client gives up."""
    connection.settimeout(30)
    while connection.recv(4096):
        pass


def trickle(connection: socket.socket, _: bytes) -> None:
    """Send a long body one byte at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        time.sleep(0.1)
        connection.sendall(b" ")


class ScriptedServer:
    """Answers request n with the n-th act, the last one for ever; each on its own connection."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(timeout=5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            request = connection.recv(65536)
            promised = re.search(rb"Content-Length: (\d+)", request)
            while promised and len(request.partition(b"\r\n\r\n")[2]) < int(promised[1]):
                request += connection.recv(65536)
            self.requests.append(request)
            act = self.acts[min(len(self.requests), len(self.acts)) - 1]
            try:
                if isinstance(act, bytes):
                    connection.sendall(act)
                else:
                    act(connection, request)
            except OSError:
                return  # the client has given up, which is what the test is about

"""OTLP over HTTP: POST /v1/metrics and /v1/traces, protobuf or JSON, gzip or not; GET /healthz.

Bodies are read piece by piece up to the limit and not inflated by the server library, connections are
counted, and one that has not delivered a request in time is closed.
"""

import asyncio
import json
import ssl

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from google.protobuf import json_format

from autoscaler.edge.otlp_receiver import (
    BusyError,
    Receiver,
    Rejected,
    RejectedKind,
    Signals,
    TlsFiles,
)

MAX_CONNECTIONS = 256
KEEPALIVE_SECONDS = 75.0
SWEEP_SECONDS = 1.0
RETRY_AFTER_SECONDS = 5
PROTOBUF = "application/x-protobuf"
JSON = "application/json"
STATUS: dict[RejectedKind, int] = {"bad": 400, "large": 413, "busy": 429}
PATHS: dict[str, Signals] = {"/v1/metrics": "metrics", "/v1/traces": "traces"}


class OtlpHttp:
    """The HTTP side: routes, and a bounded set of connections."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._silent_since: dict[web.RequestHandler, float] = {}
        self._spoke: set[object] = set()  # connections that have delivered a request
        self._sweeping: asyncio.Task[None] | None = None
        app = web.Application()
        for path in PATHS:
            app.router.add_post(path, self._post)
        app.router.add_get("/healthz", self._health)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,  # ours has a limit
            keepalive_timeout=KEEPALIVE_SECONDS,
            handler_cancellation=True,
        )
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, tls: TlsFiles | None) -> int:
        """Listen; return the port. Raises OSError (ssl.SSLError is one) if that cannot be."""
        await self._runner.setup()
        context = None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
        loop = asyncio.get_running_loop()
        timeout = self._receiver.limits.receive_seconds if context else None
        self._server = await loop.create_server(
            self._connection, host, port, ssl=context, ssl_handshake_timeout=timeout
        )
        self._sweeping = asyncio.create_task(self._sweep_forever())
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self, drain_seconds: float) -> None:
        """Take no more connections, let requests in flight end, then close."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._server is not None:
            self._server.close()
        if self._runner.server is not None:
            await self._runner.server.shutdown(drain_seconds)
        await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= MAX_CONNECTIONS:
            self._receiver.refusals["connections"] += 1
            return _Closed()
        return server()

    async def _sweep_forever(self) -> None:
        """Close, every second, connections that have been open too long without one request."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            server = self._runner.server
            if server is None:
                continue
            now = asyncio.get_running_loop().time()
            before, live = self._silent_since, set(server.connections)
            self._spoke &= live
            self._silent_since = {c: before.get(c, now) for c in live if c not in self._spoke}
            for connection, since in self._silent_since.items():
                if now - since > self._receiver.limits.receive_seconds and connection.transport:
                    self._receiver.refusals["slow"] += 1
                    connection.transport.abort()

    async def _health(self, request: web.Request) -> web.Response:
        self._spoke.add(request.protocol)
        counts = {**self._receiver.fold.counts, **self._receiver.refusals}
        return web.json_response({"status": "ok", **dict(sorted(counts.items()))})

    async def _post(self, request: web.Request) -> web.Response:
        self._spoke.add(request.protocol)
        if not self._receiver.admits(request.headers.get("Authorization")):
            return _error(
                401, "no valid token; allowed: Authorization: Bearer and the receiver's own"
            )
        as_json = request.content_type == JSON
        if not as_json and request.content_type != PROTOBUF:
            return _error(415, f"{request.content_type}; allowed: {PROTOBUF} or {JSON}")
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("identity", "gzip"):
            return _error(415, f"Content-Encoding {encoding[:32]}; allowed: gzip or none")
        try:
            self._receiver.enter()
        except BusyError as error:
            return _error(503, str(error))
        try:
            body = await self._read(request)
            if isinstance(body, Rejected):
                return _error(STATUS[body.kind], body.reason)
            answer = await self._receiver.export(
                PATHS[request.path], body, compressed=encoding == "gzip", as_json=as_json
            )
        except TimeoutError:
            self._receiver.refusals["slow"] += 1
            return _error(408, f"no body within {self._receiver.limits.receive_seconds:g} s")
        finally:
            self._receiver.leave()
        if isinstance(answer, Rejected):
            return _error(STATUS[answer.kind], answer.reason)
        if as_json:
            text = json.dumps(json_format.MessageToDict(answer))
            return web.Response(text=text, content_type=JSON)
        return web.Response(body=answer.SerializeToString(), content_type=PROTOBUF)

    async def _read(self, request: web.Request) -> bytes | Rejected:
        """Return the body, or why not. Raises TimeoutError."""
        limit = self._receiver.limits.message_bytes
        if (request.content_length or 0) > limit:
            return Rejected("large", f"{request.content_length} bytes; allowed: {limit}")
        body = bytearray()
        try:
            async with asyncio.timeout(self._receiver.limits.receive_seconds):
                async for piece in request.content.iter_any():
                    body += piece
                    if len(body) > limit:
                        return Rejected("large", f"more than {limit} bytes; allowed: that many")
        except (HttpProcessingError, web.RequestPayloadError) as error:
            return Rejected("bad", f"a broken body ({error})")
        return bytes(body)


class _Closed(asyncio.Protocol):
    """A connection beyond the limit: closed as soon as it is made."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _error(status: int, message: str) -> web.Response:
    response = web.Response(status=status, text=message)
    if status in (429, 503):
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status in (401, 408, 413, 503):
        response.force_close()  # the rest of the body would still be on its way
    return response

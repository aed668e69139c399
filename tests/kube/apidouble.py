"""A small API server in a thread, for where the real one is missing, and for faults on demand.

Faithful in what an operator depends on; `test_double.py` holds it to the real one. It has no CEL,
no server-side apply, no admission (quotas, LimitRanges), no aggregated ClusterRoles, no kubectl
tables, no OpenAPI; a strategic merge patch with lists is refused, and built-in kinds keep fields
that a real server does not know.
"""

import asyncio
import re
import threading
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from apiserver import ApiServer, free_ports
from double_http import MAX_BODY_BYTES, Api, json_response
from double_kinds import ApiError

T = TypeVar("T")
ADMIN_TOKEN = "test-administrator"  # noqa: S105 (of a loopback server that lives for one test run)
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass
class Fault:
    """One planned failure; `status` 0 closes the connection, "storm" lets somebody else write first."""

    methods: re.Pattern[str]
    path: re.Pattern[str]
    status: int
    times: int  # still to come
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False  # the request is carried out, its answer is lost
    is_storm: bool = False
    of_watches: bool = False  # only of these


@dataclass(frozen=True)
class Call:
    """One request as it arrived, and what it was told (0: nothing)."""

    method: str
    path: str
    query: dict[str, str]
    user: str
    status: int

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


class ApiDouble(ApiServer):
    """The double: starts on construction, on a free port."""

    kind = "double"

    def __init__(self) -> None:
        super().__init__()
        self.token = ADMIN_TOKEN
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self.calls: list[Call] = []  # watches when they end, all else when answered
        self._faults: list[Fault] = []
        self._slow_seconds, self._slow_path = 0.0, re.compile("")
        self._paused_until = 0.0  # on the loop's clock
        self._api = Api(self.token)
        self._runner: web.AppRunner | None = None
        self._open: dict[int, web.Request] = {}
        self._bugs: list[str] = []  # of the double itself
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()

    # -- faults --------------------------------------------------------------

    def fail(
        self,
        method: str,
        path_regex: str,
        status: int,
        *,
        times: int = 1,
        headers: dict[str, str] | None = None,
        after: bool = False,
        of_watches: bool = False,
    ) -> None:
        """Answer the next `times` requests of that method and path with a failure.

        `method` is a regular expression too ("PUT|PATCH"), `path_regex` is searched for in the path.
        `status` 0 closes the connection without an answer. `after` carries the request out first.
        `of_watches` lets lists and single objects pass.
        """
        fault = Fault(
            re.compile(method),
            re.compile(path_regex),
            status,
            times,
            headers or {},
            after,
            of_watches=of_watches,
        )
        self._do(lambda: self._faults.append(fault))

    def conflict_storm(self, path_regex: str, times: int) -> None:
        """Let somebody else write the object just before each of the next `times` PUT or PATCH."""
        fault = Fault(re.compile("PUT|PATCH"), re.compile(path_regex), 409, times, is_storm=True)
        self._do(lambda: self._faults.append(fault))

    def slow(self, seconds: float, path_regex: str = "") -> None:
        """Wait that long before each answer; 0 ends it."""

        def set_pace() -> None:
            self._slow_seconds, self._slow_path = seconds, re.compile(path_regex)

        self._do(set_pace)

    def break_watches(self) -> None:
        """Cut every open watch in the middle of its stream."""
        self._do(lambda: self._cut(lambda request: "watch" in request.query))

    def expire_watches(self) -> None:
        """Forget the history: open watches end with 410, old revisions and pages get it too."""
        self._do(self._api.store.forget)

    def heal(self) -> None:
        """Drop all planned faults."""
        self._do(self._faults.clear)
        self.slow(0.0)

    # -- outages -------------------------------------------------------------

    def start(self) -> None:
        self._run(self._serve())

    def stop(self) -> None:
        self._run(self._end())

    def pause(self, seconds: float) -> None:
        def set_end() -> None:
            self._paused_until = self._loop.time() + seconds

        self._do(set_end)

    def close(self) -> None:
        super().close()
        if self._loop.is_closed():
            return
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()
        if self._bugs:
            raise AssertionError(
                f"the double itself failed {len(self._bugs)} times: {self._bugs[0]}"
            )

    # -- inside --------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    def _do(self, act: Callable[[], T]) -> T:
        async def acted() -> T:
            return act()

        return self._run(acted())

    async def _serve(self) -> None:
        app = web.Application(client_max_size=MAX_BODY_BYTES + 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        # a timeout of 0 would be for ever
        limits: dict[str, Any] = {"shutdown_timeout": 0.01, "handler_cancellation": True}
        self._runner = web.AppRunner(app, access_log=None, **limits)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True).start()

    async def _end(self) -> None:
        if self._runner is None:
            return
        for site in list(self._runner.sites):
            await (
                site.stop()
            )  # first, or who is cut comes back at once and is never told of the end
        self._cut(lambda _: True)
        await self._runner.cleanup()
        self._runner = None

    def _cut(self, concerns: Callable[[web.Request], bool]) -> None:
        for request in list(self._open.values()):
            if concerns(request) and request.transport is not None:
                request.transport.abort()
                request.task.cancel()  # a watch waits for news, not for its client

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._open[id(request)] = request
        status = 0
        try:
            response = await self._faulty(request)
        except Exception:
            self._bugs.append(f"{request.method} {request.path}: {traceback.format_exc()}")
            raise
        else:
            status = response.status
            return response
        finally:
            del self._open[id(request)]
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            user = self._api.users.get(token)
            name = user.name if user else ""
            self.calls.append(Call(request.method, request.path, dict(request.query), name, status))

    async def _faulty(self, request: web.Request) -> web.StreamResponse:
        if self._slow_seconds and self._slow_path.search(request.path):
            await asyncio.sleep(self._slow_seconds)
        await asyncio.sleep(max(self._paused_until - self._loop.time(), 0.0))
        fault = self._next_fault(request)
        if fault is None:
            return await self._api.answer(request)
        if fault.is_storm:
            self._api.touch(request.path)
            return await self._api.answer(request)
        if fault.after:
            await self._api.answer(request)
        if fault.status == 0 and request.transport is not None:
            request.transport.abort()
        reason = REASONS.get(fault.status, "Unknown")
        error = ApiError(fault.status, reason, f"planned failure: {reason}")
        return json_response(error.body(), fault.status or 500, fault.headers)

    def _next_fault(self, request: web.Request) -> Fault | None:
        for fault in self._faults:
            if fault.of_watches and "watch" not in request.query:
                continue
            if fault.methods.fullmatch(request.method) and fault.path.search(request.path):
                fault.times -= 1
                self._faults = [f for f in self._faults if f.times > 0]
                return fault
        return None

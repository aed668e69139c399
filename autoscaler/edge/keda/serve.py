"""Runs the scaler: policies read beside it, gRPC up; as a process until SIGTERM, or inside the operator."""

import asyncio
import gc
import logging
import signal
import threading
from concurrent.futures import Future

from prometheus_client import CollectorRegistry

from autoscaler.edge.clock import Clock
from autoscaler.edge.keda.gateway import GatewayLook
from autoscaler.edge.keda.load import LoadLook
from autoscaler.edge.keda.looks import Looks, QueryApi
from autoscaler.edge.keda.metrics import ScalerMetrics
from autoscaler.edge.keda.plans import MAX_AGE_SECONDS, Plans
from autoscaler.edge.keda.server import Listening, ScalerServer
from autoscaler.edge.keda.source import PolicySource
from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.status_http import StatusServer
from models.contract import Labels

log = logging.getLogger("foreserve")
UNREAD_SECONDS = 10.0  # then ready all the same: GetMetricSpec needs no policies
STARTED_SECONDS = 30.0


class Scaler:
    """The scaler's parts; `answer` runs them, `serve` with a page for probes and metrics."""

    def __init__(
        self,
        api: KubeApi,
        version: str,
        clock: Clock | None = None,
        registry: CollectorRegistry | None = None,
        max_age_seconds: float = MAX_AGE_SECONDS,
    ) -> None:
        self.plans = Plans(clock or Clock(), max_age_seconds)
        self.metrics = ScalerMetrics(version, self.plans, registry)
        self.source = PolicySource(api, self.plans)
        self.load: LoadLook | None = None
        self._looks: tuple[Looks, ...] = ()
        self.port = 0
        self._begun = self.plans.clock.monotonic()
        self._serving = False

    def look_at(self, telemetry: QueryApi, labels: Labels) -> None:
        """Have services at zero woken by requests that wait, and old decisions raised by the load.

        To be called before `answer`.
        """
        gateway = GatewayLook(telemetry, labels, self.plans, self.metrics.looked)
        self.load = LoadLook(telemetry, labels, self.plans, self.metrics.load_looked)
        self._looks = (gateway, self.load)

    def health(self) -> str:
        """Return why the process should be restarted, "" if it need not be."""
        dead = [look.what for look in self._looks if not look.alive]
        if dead:
            return f"the {dead[0]} is no longer looked at"
        return "" if self.source.alive else "policies are no longer read"

    def readiness(self) -> str:
        """Return why KEDA should ask another replica, "" if it may ask this one."""
        if not self._serving:
            return "not serving"
        waited = self.plans.clock.monotonic() - self._begun
        if waited > UNREAD_SECONDS:
            return ""
        if not self.plans.listed:
            return self.source.problem
        # where a decision is too old, what runs may be less than what the load was told to have
        return "" if self.load is None or self.load.tried else "the load has not been looked at yet"

    async def serve(
        self, listening: Listening, http: tuple[str, int], stop: asyncio.Event | None = None
    ) -> None:
        """Serve until `stop`, or a signal where it is None; OSError: no such address, or bad TLS."""
        if stop is None:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        status = StatusServer(*http, self.health, self.readiness, self.metrics.render)
        status.start()
        started: Future[None] = Future()
        answering = asyncio.create_task(self.answer(listening, stop, started))
        try:
            await asyncio.wrap_future(started)
            gc.freeze()  # what is imported stays: no collection need walk through it meanwhile
            log.info("KEDA scaler: gRPC %d, HTTP %d", self.port, status.port)
            await answering
        finally:
            await asyncio.to_thread(status.close)
            log.info("ended")

    async def answer(
        self, listening: Listening, stop: asyncio.Event, started: "Future[None]"
    ) -> None:
        """Answer KEDA until `stop`; `started` tells when it does, or the OSError for which it cannot."""
        server = ScalerServer(self.plans, self.metrics, listening)
        try:
            await server.start()
        except Exception as error:  # noqa: BLE001 - raised where the start is waited for
            started.set_exception(error)
            return
        self.source.start()
        for look in self._looks:
            look.start()
        self.port, self._serving = server.port, True
        started.set_result(None)
        try:
            await stop.wait()
        finally:
            self._serving = False
            await server.stop()
            await asyncio.to_thread(self.source.close)
            for look in self._looks:
                await asyncio.to_thread(look.close)


class ScalerBeside:
    """A scaler in a thread of the operator's process."""

    def __init__(self, scaler: Scaler, listening: Listening) -> None:
        self.scaler = scaler
        self._listening = listening
        self._started: Future[None] = Future()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="scaler", daemon=True)

    def start(self) -> None:
        """Begin to answer; OSError: no such address, or bad TLS."""
        self._thread.start()
        self._started.result(STARTED_SECONDS)
        log.info("KEDA scaler: gRPC %d", self.scaler.port)

    def health(self) -> str:
        """Return why the process should be restarted, "" if it need not be."""
        return self.scaler.health() if self._thread.is_alive() else "the scaler has ended"

    def close(self) -> None:
        """Let calls end, then stop answering."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(self._listening.drain_seconds + STARTED_SECONDS)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self.scaler.answer(self._listening, self._stop, self._started))

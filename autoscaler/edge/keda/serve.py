"""Runs the scaler: policies read beside it, gRPC and /metrics up, until SIGTERM or SIGINT."""

import asyncio
import gc
import logging
import signal

from autoscaler.edge.clock import Clock
from autoscaler.edge.keda.metrics import ScalerMetrics
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.keda.server import Listening, ScalerServer
from autoscaler.edge.keda.source import PolicySource
from autoscaler.edge.kube.api import KubeApi
from autoscaler.edge.status_http import StatusServer

log = logging.getLogger("foreserve")
UNREAD_SECONDS = 10.0  # then ready all the same: GetMetricSpec needs no policies


class Scaler:
    """The process' parts; `serve` runs them."""

    def __init__(self, api: KubeApi, version: str, clock: Clock | None = None) -> None:
        self.plans = Plans(clock or Clock())
        self.metrics = ScalerMetrics(version, self.plans)
        self.source = PolicySource(api, self.plans)
        self.port = 0
        self._begun = self.plans.clock.monotonic()
        self._serving = False

    def health(self) -> str:
        """Return why the process should be restarted, "" if it need not be."""
        return "" if self.source.alive else "policies are no longer read"

    def readiness(self) -> str:
        """Return why KEDA should ask another replica, "" if it may ask this one."""
        if not self._serving:
            return "not serving"
        waited = self.plans.clock.monotonic() - self._begun
        return "" if self.plans.listed or waited > UNREAD_SECONDS else self.source.problem

    async def serve(
        self, listening: Listening, http: tuple[str, int], stop: asyncio.Event | None = None
    ) -> None:
        """Serve until `stop`, or a signal where it is None; OSError: no such address, or bad TLS."""
        if stop is None:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = ScalerServer(self.plans, self.metrics, listening)
        await server.start()
        self.source.start()
        status = StatusServer(*http, self.health, self.readiness, self.metrics.render)
        status.start()
        self.port, self._serving = server.port, True
        gc.freeze()  # what is imported stays: no collection need walk through it while KEDA waits
        log.info("KEDA scaler: gRPC %d, HTTP %d", server.port, status.port)
        try:
            await stop.wait()
        finally:
            self._serving = False
            await server.stop()
            await asyncio.to_thread(self.source.close)
            await asyncio.to_thread(status.close)
            log.info("ended")

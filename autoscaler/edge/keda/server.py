"""The gRPC server: limits, keepalive, TLS, health, reflection, and a quiet end."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined] # exported in effect
from grpc_reflection.v1alpha import reflection

from autoscaler.edge.keda import externalscaler_pb2  # noqa: F401 - reflection finds it registered
from autoscaler.edge.keda.metrics import ScalerMetrics
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.keda.service import SERVICE, ExternalScaler
from autoscaler.edge.keda.tls import ReloadedTls, TlsFiles
from autoscaler.edge.status_http import every_address

log = logging.getLogger("foreserve")
MESSAGE_BYTES = 64 << 10  # trigger metadata are a few hundred
CONNECTIONS = 256
# KEDA holds two streams for each ScaledObject, all of an address on one connection
STREAMS_PER_CONNECTION = 4096
CALLS = 8192
OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.per_message_decompression", 0),  # nobody asks compressed, and inflation has no limit
    ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),  # a client that is gone is noticed within 40 s
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # the longer of the two counts, and its default is 60 s
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # for clients that ask after us
)


@dataclass(frozen=True, slots=True)
class Listening:
    """Where and how to serve; host "" is every address, port 0 any free one."""

    host: str
    port: int
    tls: TlsFiles | None = None
    drain_seconds: float = 10.0


class ScalerServer:
    """One server; `start`, then `stop`, in one event loop."""

    def __init__(self, plans: Plans, metrics: ScalerMetrics, listening: Listening) -> None:
        self._listening = listening
        self._metrics = metrics
        self.scaler = ExternalScaler(plans, metrics)
        self._health = health_aio.HealthServicer()
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=CALLS)
        self._looking: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen; OSError if the address cannot be had or the TLS files cannot be used."""
        server = self._server
        server.add_generic_rpc_handlers([self.scaler.handlers()])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        await self._tell_health(health_pb2.HealthCheckResponse.SERVING)
        self.port = self._bind()
        await server.start()
        self._looking = asyncio.create_task(self.scaler.look_again_forever())

    async def stop(self) -> None:
        """Say so, end the streams, let calls end, for at most `drain_seconds`."""
        await self._health.enter_graceful_shutdown()
        self.scaler.end_streams()
        await self._server.stop(self._listening.drain_seconds)
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking

    async def _tell_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus") -> None:
        for name in ("", SERVICE):
            await self._health.set(name, status)

    def _bind(self) -> int:
        host, port, tls = self._listening.host, self._listening.port, self._listening.tls
        host = host or every_address()
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls is None:
                return self._server.add_insecure_port(address)
            reloaded = ReloadedTls(tls, self._metrics.reloaded)
            return self._server.add_secure_port(address, reloaded.credentials())
        except RuntimeError as error:
            raise OSError(f"{address}: {error}") from error

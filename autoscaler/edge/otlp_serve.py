"""Runs the OTLP receiver: both transports up, until SIGTERM or SIGINT, then everything written."""

import asyncio
import contextlib
import logging
import signal

from autoscaler.edge.otlp_grpc import start_grpc
from autoscaler.edge.otlp_http import OtlpHttp
from autoscaler.edge.otlp_receiver import Receiver, TlsFiles

log = logging.getLogger("foreserve")


async def serve(
    receiver: Receiver,
    host: str,
    ports: tuple[int, int],
    tls: TlsFiles | None = None,
    *,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve gRPC and HTTP on `ports` until `stop` is set, or a signal says so when it is None.

    Raises OSError if an address cannot be had or the TLS files cannot be used. The store is closed in
    any case, after what was received has been written.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    http = OtlpHttp(receiver)
    flushing = asyncio.create_task(receiver.flush_forever())
    grpc_server = None
    try:
        grpc_server, grpc_port = await start_grpc(receiver, host, ports[0], tls)
        http_port = await http.start(host, ports[1], tls)
        log.info("OTLP on %s: gRPC %d, HTTP %d", host, grpc_port, http_port)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, flushing}, return_when=asyncio.FIRST_COMPLETED)
        if flushing.done():
            flushing.result()  # it never ends by itself: an error
    finally:
        flushing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flushing
        drain_seconds = receiver.limits.drain_seconds
        await http.close(drain_seconds)
        if grpc_server is not None:
            await grpc_server.stop(drain_seconds)
        await receiver.close()
        log.info("OTLP closed: %s", dict(sorted(receiver.fold.counts.items())))

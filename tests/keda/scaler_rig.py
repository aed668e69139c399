"""A scaler in a thread, the questions as KEDA's operator asks them, and certificates to serve with."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from autoscaler.edge.clock import Clock
from autoscaler.edge.keda import externalscaler_pb2 as pb
from autoscaler.edge.keda.metrics import ScalerMetrics
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.keda.server import Listening, ScalerServer
from autoscaler.edge.keda.tls import TlsFiles

Json = dict[str, Any]
START_SECONDS = 1_790_000_000.0  # 2026-09-21T14:13:20Z
SERVICE = "/externalscaler.ExternalScaler/"
DEADLINE_SECONDS = 5.0
OPENSSL = shutil.which("openssl") or "openssl"


def until(told: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < end, "not seen in time"
        time.sleep(0.01)


@dataclass
class Hands:
    """A clock that the test moves."""

    elapsed: float = 0.0
    wall_ahead: float = 0.0  # of this machine's clock, compared with whoever wrote the status

    def clock(self) -> Clock:
        return Clock(
            wall=lambda: START_SECONDS + self.elapsed + self.wall_ahead,
            monotonic=lambda: 1000.0 + self.elapsed,
        )


def stamp(elapsed: float) -> str:
    """Return the time `elapsed` seconds after the start, as a status has it."""
    return datetime.fromtimestamp(START_SECONDS + elapsed, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def policy(
    name: str = "chat",
    desired: int | None = 7,
    *,
    current: int | None = 4,
    mode: str = "Keda",
    decided: float | None = 0.0,
    paused: bool = False,
    fallback: Json | None = None,
    namespace: str = "prod",
    concurrency: float | None = None,
) -> Json:
    """Return a ScalingPolicy of one variant with its status, as the API server has it."""
    told = {
        "name": "h100",
        "desired": desired,
        "current": current,
        "replicaConcurrency": concurrency,
    }
    status: Json = {
        "mode": "Paused" if paused else mode,
        "variants": [{k: v for k, v in told.items() if v is not None}],
    }
    if decided is not None:
        status["lastDecisionTime"] = stamp(decided)
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}"},
        "spec": {
            "variants": [{"name": "h100", "minReplicas": 0, "maxReplicas": 100}],
            "behavior": {"mode": mode},
            "fallback": {"afterSeconds": 600, **(fallback or {})},
        },
        "status": status,
    }


def ref(name: str = "chat", **metadata: str) -> pb.ScaledObjectRef:
    """Return what KEDA sends of a ScaledObject; scalerAddress comes along as it does from KEDA."""
    whole = {"scalerAddress": "foreserve-scaler:6000", "policy": name} | metadata
    return pb.ScaledObjectRef(
        name="chat", namespace="prod", scalerMetadata={k: v for k, v in whole.items() if v}
    )


class Keda:
    """The questions over one channel, as the operator's Go client has it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel

    def _ask(self, method: str, answer: Any) -> Any:
        return self.channel.unary_unary(
            f"{SERVICE}{method}",
            request_serializer=lambda m: m if isinstance(m, bytes) else m.SerializeToString(),
            response_deserializer=answer.FromString,
        )

    def spec(self, asked: Any = None) -> pb.GetMetricSpecResponse:
        ask = self._ask("GetMetricSpec", pb.GetMetricSpecResponse)
        return ask(asked or ref(), timeout=DEADLINE_SECONDS)

    def metrics(self, asked: Any = None, name: str = "foreserve-chat") -> pb.MetricValue:
        request = pb.GetMetricsRequest(scaledObjectRef=asked or ref(), metricName=name)
        ask = self._ask("GetMetrics", pb.GetMetricsResponse)
        (value,) = ask(request, timeout=DEADLINE_SECONDS).metricValues
        return value

    def count(self, asked: Any = None) -> float:
        """Return the value as KEDA reads it: the float if it is above zero."""
        value = self.metrics(asked)
        return value.metricValueFloat if value.metricValueFloat > 0 else value.metricValue

    def is_active(self, asked: Any = None) -> bool:
        ask = self._ask("IsActive", pb.IsActiveResponse)
        return bool(ask(asked or ref(), timeout=DEADLINE_SECONDS).result)

    def stream(self, method: str = "StreamIsActive", asked: Any = None) -> Any:
        answer = pb.IsActiveResponse if method == "StreamIsActive" else pb.GetMetricSpecResponse
        return self.channel.unary_stream(
            f"{SERVICE}{method}",
            request_serializer=pb.ScaledObjectRef.SerializeToString,
            response_deserializer=answer.FromString,
        )(asked or ref())


class Served:
    """A scaler whose loop runs in a thread."""

    def __init__(self, tls: TlsFiles | None = None, **listening: Any) -> None:
        self.hands = Hands()
        self.plans = Plans(self.hands.clock())
        self.metrics = ScalerMetrics("test", self.plans)
        self._listening = Listening("127.0.0.1", 0, tls, **({"drain_seconds": 2.0} | listening))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._channels: list[grpc.Channel] = []
        self._stopped = False
        self.server = self._do(self._start())
        self.address = f"127.0.0.1:{self.server.port}"

    async def _start(self) -> ScalerServer:
        server = ScalerServer(self.plans, self.metrics, self._listening)
        await server.start()
        return server

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20.0)

    def keda(self, credentials: grpc.ChannelCredentials | None = None) -> Keda:
        """Return KEDA on a connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = (
            grpc.insecure_channel(self.address, options)
            if credentials is None
            else grpc.secure_channel(
                self.address, credentials, [*options, ("grpc.ssl_target_name_override", "scaler")]
            )
        )
        self._channels.append(channel)
        return Keda(channel)

    def stop(self) -> None:
        """End the server as SIGTERM does."""
        if not self._stopped:
            self._stopped = True
            self._do(self.server.stop())

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    def exported(self, name: str) -> float | None:
        """Return a sample's value from /metrics: `name` with its labels as text."""
        for line in self.metrics.render("")[0].decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return None


class Wire:
    """A connection between two that can be cut without a word: nothing passes, and nobody is told."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._server = (host, int(port))
        self._dead = threading.Event()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._let_in, daemon=True).start()

    def cut(self) -> None:
        self._dead.set()

    def close(self) -> None:
        self._dead.set()
        self._door.close()

    def _let_in(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._door.accept()
                other = socket.create_connection(self._server)
                for ends in ((one, other), (other, one)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if self._dead.is_set():
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class Authority:
    """A CA that issues certificates for `scaler` and for clients."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder, self.name = folder, name
        self.certificate = folder / f"{name}.crt"
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        self._run(
            "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.crt",
            "-days", "2", "-subj", f"/CN={name}",
        )  # fmt: skip

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return a certificate for the host `scaler`, and its key."""
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        self._run(
            "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2",
            "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:scaler",
            "-CA", f"{self.name}.crt", "-CAkey", f"{self.name}.key",
        )  # fmt: skip
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    def _run(self, *arguments: str) -> None:
        subprocess.run([OPENSSL, *arguments], cwd=self.folder, check=True, capture_output=True)

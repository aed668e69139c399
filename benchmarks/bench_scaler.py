"""What the KEDA scaler costs: GetMetrics at a steady rate for a thousand policies, and its memory.

    python benchmarks/bench_scaler.py                      # 60 s at 2,000 a second
    python benchmarks/bench_scaler.py --seconds 600        # the same for ten minutes, a line each
    python benchmarks/bench_scaler.py --streams 500        # open streams beside them

The scaler runs in a process of its own on one core, the client on the others. Each call is a real one over
loopback, started when it is due and not when the one before has ended, so that a stall shows in all that
waited for it. Half of the policies' statuses change every minute meanwhile. What else the machine does
counts as well: its load average stands beside the figures, and the client's own share of a core.
"""

import argparse
import asyncio
import gc
import multiprocessing
import os
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from autoscaler.edge.clock import Clock, wall_seconds
from autoscaler.edge.keda import externalscaler_pb2 as pb
from autoscaler.edge.keda.metrics import ScalerMetrics
from autoscaler.edge.keda.plans import Plans
from autoscaler.edge.keda.server import Listening, ScalerServer

PATH = "/externalscaler.ExternalScaler"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
PART_SECONDS = 60.0  # of the table
CHANNELS = 4  # as of a few replicas of KEDA's operator and metrics server


def policy(number: int, desired: int) -> dict[str, Any]:
    """Return a policy as the operator writes it: one replica fewer runs, often inside the HPA's band."""
    current = max(desired - 1, 1)
    delivery = {
        "hpa": f"keda-hpa-chat-{number}",
        "metricType": "AverageValue",
        "target": 1.0,
        "minReplicas": 1,
        "maxReplicas": 100,
        "toleranceUp": 0.1,
        "toleranceDown": 0.1,
        "existing": current,
    }
    decided = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall_seconds()))
    return {
        "metadata": {"name": f"chat-{number}", "namespace": "prod"},
        "spec": {
            "variants": [{"name": "h100", "minReplicas": 0, "maxReplicas": 100}],
            "behavior": {"mode": "Keda"},
        },
        "status": {
            "mode": "Keda",
            "variants": [
                {
                    "name": "h100",
                    "desired": desired,
                    "current": current,
                    "ready": current,
                    "delivery": delivery,
                }
            ],
            "lastDecisionTime": decided,
        },
    }


async def change(plans: Plans, policies: int) -> None:
    """Change a status now and then, as the operator's writes come in."""
    number = 0
    while True:
        await asyncio.sleep(120.0 / policies)
        number += 1
        plans.apply("MODIFIED", policy(number % policies, 1 + number % 50))


async def serve(pipe: Connection, policies: int) -> None:
    plans = Plans(Clock())
    plans.replace([policy(n, 1 + n % 50) for n in range(policies)])
    server = ScalerServer(plans, ScalerMetrics("bench", plans), Listening("127.0.0.1", 0))
    await server.start()
    gc.freeze()  # as the command does
    changing = asyncio.create_task(change(plans, policies))
    pipe.send(server.port)
    await asyncio.to_thread(pipe.recv)
    changing.cancel()
    await server.stop()


def scaler(pipe: Connection, policies: int) -> None:
    os.sched_setaffinity(0, {0})
    asyncio.run(serve(pipe, policies))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * PAGE_BYTES / 2**20


def request(number: int) -> bytes:
    ref = pb.ScaledObjectRef(
        name=f"chat-{number}",
        namespace="prod",
        scalerMetadata={"scalerAddress": "foreserve-scaler:6000", "policy": f"chat-{number}"},
    )
    return pb.GetMetricsRequest(
        scaledObjectRef=ref, metricName=f"foreserve-chat-{number}"
    ).SerializeToString()


class Load:
    """Calls at a steady rate; how long each took from when it was due."""

    def __init__(self, port: int, arguments: argparse.Namespace) -> None:
        self.channels = [
            grpc.aio.insecure_channel(
                f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]
            )
            for _ in range(CHANNELS)
        ]
        self.asks = [c.unary_unary(f"{PATH}/GetMetrics") for c in self.channels]
        self.bodies = [request(n) for n in range(arguments.policies)]
        self.rate, self.policies = arguments.rate, arguments.policies
        self.streams: list[Any] = []
        self.took: list[float] = []  # seconds from due to done
        self.failed: Counter[str] = Counter()

    async def open(self, streams: int) -> None:
        for n in range(streams):
            body = request(n % self.policies)
            ref = pb.GetMetricsRequest.FromString(body).scaledObjectRef.SerializeToString()
            stream = self.channels[0].unary_stream(f"{PATH}/StreamIsActive")(ref)
            await stream.read()
            self.streams.append(stream)

    async def run(self, seconds: float) -> None:
        running: set[asyncio.Task[None]] = set()
        begun = time.perf_counter()
        for n in range(int(seconds * self.rate)):
            due = begun + n / self.rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._one(n, due))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)

    async def _one(self, n: int, due: float) -> None:
        try:
            await self.asks[n % CHANNELS](self.bodies[n % self.policies], timeout=5.0)
        except grpc.RpcError as error:
            self.failed[error.code().name] += 1
            return
        self.took.append(time.perf_counter() - due)

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()


class Usage:
    """CPU of scaler and client, and the clock, since the last time that somebody looked."""

    def __init__(self, pid: int) -> None:
        self._pids = (pid, os.getpid())
        self._last = self._now()

    def _now(self) -> tuple[float, float, float]:
        scaler, client = (cpu_seconds(pid) for pid in self._pids)
        return scaler, client, time.perf_counter()

    def since(self) -> tuple[float, float, float]:
        """Return seconds of the scaler's CPU, the client's, and of the clock."""
        before, self._last = self._last, self._now()
        scaler, client, spent = (now - was for now, was in zip(self._last, before, strict=True))
        return scaler, client, spent


def line(name: str, took: list[float], usage: tuple[float, float, float], mib: float) -> None:
    """Print one part of the run: calls, latency in ms, CPU of a core, memory, the machine's load."""
    scaler, client, spent = usage
    if not took:
        print(f"{name:>8}  no call ended")
        return
    p50, p99, worst = np.quantile(np.asarray(took) * 1e3, (0.5, 0.99, 1.0))
    print(
        f"{name:>8}{len(took) / spent:9.0f}{p50:9.2f}{p99:9.2f}{worst:9.1f}{scaler / spent:9.2f}"
        f"{scaler / len(took) * 1e6:9.0f}{client / spent:9.2f}{mib:9.1f}{os.getloadavg()[0]:9.2f}",
        flush=True,
    )


async def measure(pid: int, port: int, arguments: argparse.Namespace) -> None:
    load = Load(port, arguments)
    await load.open(arguments.streams)
    await load.run(5.0)  # warm
    load.took.clear()
    gc.freeze()  # pauses of the client would count as the scaler's
    print(
        f"GetMetrics at {arguments.rate}/s, {arguments.policies} policies, {arguments.streams} open"
        f" streams, one core of {os.cpu_count()} for the scaler; latency from due to done in ms"
    )
    print(
        f"{'minute':>8}{'calls/s':>9}{'p50':>9}{'p99':>9}{'max':>9}{'cores':>9}{'us/call':>9}"
        f"{'client':>9}{'MiB':>9}{'load':>9}"
    )
    whole, part = Usage(pid), Usage(pid)
    took: list[float] = []
    memory = [resident_mib(pid)]
    parts = max(1, round(arguments.seconds / PART_SECONDS))
    for n in range(parts):
        await load.run(arguments.seconds / parts)
        memory.append(resident_mib(pid))
        line(str(n + 1), load.took, part.since(), memory[-1])
        took += load.took
        load.took.clear()
    line("all", took, whole.since(), memory[-1])
    await load.close()
    print(f"failed: {load.failed.total()} {dict(load.failed) or ''}")
    settled = memory[min(2, len(memory) - 1)]
    print(
        f"resident: {memory[0]:.1f} MiB at the start, {settled:.1f} after minute {min(2, parts)},"
        f" {memory[-1]:.1f} at the end, {max(memory):.1f} at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--policies", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=2000, help="calls a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--streams", type=int, default=0)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=scaler, args=(theirs, arguments.policies))
    process.start()
    os.sched_setaffinity(0, set(range(1, os.cpu_count() or 2)) or {0})
    port = ours.recv()
    assert process.pid is not None
    asyncio.run(measure(process.pid, port, arguments))
    ours.send("end")
    process.join(20.0)


if __name__ == "__main__":
    main()

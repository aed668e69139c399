"""What the KEDA scaler costs: GetMetrics at a steady rate for a thousand policies, and its memory.

    python benchmarks/bench_scaler.py                      # 60 s at 2,000 a second
    python benchmarks/bench_scaler.py --seconds 600        # memory over ten minutes
    python benchmarks/bench_scaler.py --streams 500        # open streams beside them

The scaler runs in a process of its own on one core, the client on the others. Each call is a real one over
loopback, started when it is due and not when the one before has ended, so that a stall shows in all that
waited for it. Half of the policies' statuses change every minute meanwhile.
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
        self.took: list[float] = []
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


async def measure(pid: int, port: int, arguments: argparse.Namespace) -> None:
    load = Load(port, arguments)
    await load.open(arguments.streams)
    await load.run(5.0)  # warm
    load.took.clear()
    gc.freeze()  # pauses of the client would count as the scaler's
    memory = [resident_mib(pid)]
    used, begun = cpu_seconds(pid), time.perf_counter()
    own = cpu_seconds(os.getpid())
    for _ in range(6):
        await load.run(arguments.seconds / 6)
        memory.append(resident_mib(pid))
    spent = time.perf_counter() - begun
    used, own = cpu_seconds(pid) - used, cpu_seconds(os.getpid()) - own
    await load.close()
    took = np.asarray(load.took) * 1e3
    p50, p99, worst = np.quantile(took, (0.5, 0.99, 1.0))
    print(
        f"GetMetrics, {arguments.policies} policies, {arguments.streams} open streams: "
        f"{took.size / spent:.0f}/s (asked {arguments.rate}/s), "
        f"{load.failed.total()} failed {dict(load.failed) or ''}"
    )
    print(
        f"  from due to done, client included: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {worst:.1f} ms"
    )
    print(
        f"  scaler: {used / took.size * 1e6:.0f} us of CPU a call, {used / spent:.2f} cores; "
        f"client: {own / spent:.2f} cores"
    )
    print(f"  resident MiB over {spent:.0f} s: {' '.join(f'{m:.1f}' for m in memory)}")


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

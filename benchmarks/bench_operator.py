"""How long the operator's turn takes, all API calls included, and what it costs when nothing happens.

    KUBEBUILDER_ASSETS=/usr/local/kubebuilder/bin python benchmarks/bench_operator.py --policies 200

Starts a real kube-apiserver and etcd (KUBEBUILDER_ASSETS), a real Prometheus with live series of every
service, and `foreserve run` as a process of its own; reads its /metrics and its CPU time from /proc.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
for folder in ("ingest", "kube"):
    sys.path.insert(0, str(HERE.parent / "tests" / folder))
sys.path.insert(0, str(HERE))

import bench_ingest  # noqa: E402 - from the folders above
import servers  # noqa: E402
from apiserver import RealApiServer, binaries  # noqa: E402
from crd_setup import install  # noqa: E402
from operating import OWN_NAMESPACE, Workloads, deployment, policy  # noqa: E402

from autoscaler.edge.clock import wall_seconds  # noqa: E402

PODS_EACH = 2
SCRAPE_SECONDS = 15
LIVE_SECONDS = 3600
TICK = re.compile(
    r'^foreserve_tick_duration_seconds_(sum|count)\{phase="(\w+)"\} (\S+)', re.MULTILINE
)


def fill(kube: RealApiServer, count: int) -> None:
    install(kube)
    for name in (OWN_NAMESPACE, "prod"):
        kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    world = Workloads(kube, "prod")
    for i in range(count):
        name = f"svc-{i:04d}"
        own = policy("prod", name)
        own["spec"]["variants"][0]["name"] = "h100"
        own["spec"]["slo"]["objectives"][0]["targetSeconds"] = 60.0  # nothing is missed: idle
        world.put(deployment("prod", name, PODS_EACH), own)
        world.run_pods(name)


def prometheus_text(path: Path, count: int) -> None:
    bench_ingest.START = int(wall_seconds()) - 900
    bench_ingest.write(path, count, PODS_EACH, range(0, LIVE_SECONDS, SCRAPE_SECONDS))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def ticks(port: int) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return {(phase, what): float(value) for what, phase, value in TICK.findall(text)}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def log_mib(folder: Path) -> float:
    return sum(f.stat().st_size for f in folder.glob("*")) / 2**20


def measure(url: str, kubeconfig: Path, models: Path, seconds: float, interval: float) -> None:
    port, decisions = free_port(), kubeconfig.with_name("decisions")
    command = [
        sys.executable, "-c", "from autoscaler.cli import main; main()", "run",
        "--models", str(models), "--prometheus", url, "--kubeconfig", str(kubeconfig),
        "--interval-seconds", str(interval), "--http", f"127.0.0.1:{port}", "--no-history",
        "--decision-log", str(decisions),
    ]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        time.sleep(60)  # first statuses, first checkpoint, imports
        before, begun, cpu = ticks(port), time.monotonic(), cpu_seconds(process.pid)
        logged = log_mib(decisions)
        time.sleep(seconds)
        after, took = ticks(port), time.monotonic() - begun
        used = cpu_seconds(process.pid) - cpu
        logged = (log_mib(decisions) - logged) / took * 86_400
        turns = after["collect", "count"] - before["collect", "count"]
        parts = {
            phase: (after[phase, "sum"] - before[phase, "sum"]) / turns
            for phase in ("collect", "decide", "actuate")
        }
        print(
            f"{turns:.0f} turns: {sum(parts.values()):.2f} s a turn "
            f"({', '.join(f'{n} {s * 1000:.0f} ms' for n, s in parts.items())}), "
            f"CPU {used / took:.1%} of a core, peak {rss_mib(process.pid):.0f} MiB, "
            f"decision log {logged:.0f} MiB a day"
        )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--interval", type=float, default=15.0)
    parser.add_argument("--models", type=Path, default=Path("no-models"))
    args = parser.parse_args()
    assets = binaries()
    if assets is None:
        sys.exit(
            "bench_operator: no kube-apiserver and etcd; set KUBEBUILDER_ASSETS to their folder"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kube = RealApiServer(assets, folder)
        try:
            fill(kube, args.policies)
            prometheus_text(folder / "live.om", args.policies)
            with servers.prometheus(folder / "live", folder / "live.om") as url:
                config = kube.kubeconfig(folder / "kubeconfig")
                measure(url, config, args.models, args.seconds, args.interval)
        finally:
            kube.close()


if __name__ == "__main__":
    main()

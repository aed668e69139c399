"""What history and one tick cost against a local Prometheus, with vLLM's own buckets.

    python benchmarks/bench_ingest.py --services 200 --days 14 --keep DIR   # DIR: filled once, then reused
    python benchmarks/bench_ingest.py --services 200 --days 14 --keep DIR --kill
    python benchmarks/bench_ingest.py --live 1000                           # one tick's observation

Needs prometheus and promtool on PATH. Samples are made (one pod a service or --pods, scraped every 60 s for
history and every 15 s for the tick), written as OpenMetrics by the day and turned into blocks by
promtool. The ingest is the command that users run, in a process of its own. --kill runs it again, kills
it (SIGKILL) halfway, resumes, and wants the same bytes: no duplicate, no hole.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ingest"))

import servers
from fleet_policies import policy

from autoscaler.core.types import Policies
from autoscaler.edge.prometheus import PrometheusReader, ReaderSettings
from autoscaler.edge.prometheus_api import Access, PrometheusApi
from models.contract import Labels

START = 1_750_000_020
DAY = 86_400
TTFT = (
    *(
        "0.001",
        "0.005",
        "0.01",
        "0.02",
        "0.04",
        "0.06",
        "0.08",
        "0.1",
        "0.25",
        "0.5",
        "0.75",
        "1.0",
    ),
    *("2.5", "5.0", "7.5", "10.0", "20.0", "40.0", "80.0", "160.0", "640.0", "2560.0", "+Inf"),
)
TPOT = (
    *(
        "0.01",
        "0.025",
        "0.05",
        "0.075",
        "0.1",
        "0.15",
        "0.2",
        "0.3",
        "0.4",
        "0.5",
        "0.75",
        "1.0",
        "2.5",
    ),
    *("5.0", "7.5", "10.0", "20.0", "40.0", "80.0", "+Inf"),
)


def series(service: int, pod: int = 0) -> Iterator[tuple[str, int]]:
    """Yield every series of one pod with its growth per second (0: a gauge)."""
    name = f"svc-{service:04d}"
    mark = (
        f'namespace="prod",service="{name}",variant="h100",pod="{name}-{pod}",'
        f'instance="{name}-{pod}:8000",'
        f'engine="0",model_name="{name}"'
    )
    rate = 1 + service % 5
    yield f'vllm:request_success_total{{{mark},finished_reason="stop"}}', rate
    yield f"vllm:num_requests_running{{{mark}}}", 0
    yield f"vllm:num_requests_waiting{{{mark}}}", 0
    yield f"vllm:kv_cache_usage_perc{{{mark}}}", 0
    yield f"vllm:prefix_cache_queries_total{{{mark}}}", 400 * rate
    yield f"vllm:prefix_cache_hits_total{{{mark}}}", 100 * rate
    for what, tokens in (("prompt", 400), ("generation", 100)):
        yield f"vllm:request_{what}_tokens_sum{{{mark}}}", tokens * rate
        yield f"vllm:request_{what}_tokens_count{{{mark}}}", rate
    for metric, bounds in (("time_to_first_token", TTFT), ("request_time_per_output_token", TPOT)):
        for place, bound in enumerate(bounds):
            grown = 10 * rate * min(1.0, place / 12)
            yield f'vllm:{metric}_seconds_bucket{{{mark},le="{bound}"}}', int(grown)
        yield f"vllm:{metric}_seconds_count{{{mark}}}", 10 * rate


def write(path: Path, services: int, pods: int, times: range) -> int:
    count = 0
    with path.open("w") as out:
        for service, pod in itertools.product(range(services), range(pods)):
            for name, growth in series(service, pod):
                if growth:
                    out.writelines(f"{name} {growth * t} {START + t}\n" for t in times)
                else:
                    out.writelines(f"{name} {(t // times.step) % 2} {START + t}\n" for t in times)
                count += len(times)
        out.write("# EOF\n")
    return count


def fill(folder: Path, services: int, pods: int, days: float) -> None:
    """Backfill by the day: OpenMetrics of one day of 200 services is 3.6 GB."""
    made = {"services": services, "pods": pods, "days": days}
    note = folder / "filled.json"
    if note.exists():
        held = json.loads(note.read_text())
        assert held == made, f"{folder} holds {held}, not {made}; give another --keep"
        return
    seconds, count, begin = int(days * DAY), 0, time.perf_counter()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    assert not any((folder / "data").iterdir()), f"{folder}: a backfill was cut off; remove it"
    for first in range(0, seconds, DAY):
        last = min(first + DAY, seconds)
        text = folder / "day.om"
        count += write(
            text, services, pods, range(first, last + (60 if last == seconds else 0), 60)
        )
        servers.backfill(text, folder / "data")
        text.unlink()
    note.write_text(json.dumps(made))
    print(
        f"{count / 1e6:.0f} M samples backfilled in {time.perf_counter() - begin:.0f} s", flush=True
    )


@dataclass(frozen=True)
class Cost:
    wall_seconds: float
    own_cpu_seconds: float
    own_peak_mib: float
    server_cpu_seconds: float
    status: int

    def __str__(self) -> str:
        both = self.own_cpu_seconds + self.server_cpu_seconds
        return (
            f"{self.wall_seconds:.0f} s wall, {both:.0f} s CPU (own {self.own_cpu_seconds:.0f}, server "
            f"{self.server_cpu_seconds:.0f}), own peak {self.own_peak_mib:.0f} MiB"
        )


def server_pid(url: str) -> int:
    mark = f"--web.listen-address={url.removeprefix('http://')}".encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in entry.read_bytes().split(b"\0"):
                return int(entry.parent.name)
        except OSError:  # it has ended meanwhile
            continue
    raise AssertionError(f"no process listens at {url}")


def cpu_seconds(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(x.split()[1]) / 1024 for x in lines if x.startswith("VmHWM"))


def has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def ingest(
    url: str, days: float, parallel: int, out: Path, *more: str, kill_at_parts: int = 0
) -> Cost:
    """Run the command; SIGKILL as soon as there are so many parts."""
    command = [
        *(sys.executable, "-c", "from autoscaler.cli import main; main()", "ingest", "prometheus"),
        *(
            "--url",
            url,
            "--out",
            str(out),
            "--from",
            str(START),
            "--to",
            str(START + int(days * DAY)),
        ),
        *("--parallel", str(parallel), *more),
    ]
    pid, parts = server_pid(url), out / ".ingest" / "parts"
    begin, cpu = time.perf_counter(), cpu_seconds(pid)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while kill_at_parts and not has_ended(process.pid):
            if len(list(parts.glob("*.parquet"))) >= kill_at_parts:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.05)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Cost(
        time.perf_counter() - begin,
        used.ru_utime + used.ru_stime,
        used.ru_maxrss / 1024,
        cpu_seconds(pid) - cpu,
        process.returncode,
    )


def bench_history(args: argparse.Namespace, folder: Path) -> None:
    services, days, parallel = args.services, args.days, args.parallel
    server = args.keep or folder / "history"
    fill(server, services, args.pods, days)
    with servers.prometheus(server, None) as url:
        whole = folder / "whole"
        cost = ingest(url, days, parallel, whole)
        assert cost.status == 0, f"ended with {cost.status}"
        summary = json.loads((whole / "ingest.json").read_text())
        load = pd.read_parquet(whole / "load.parquet")
        steps = int(days * DAY) // 60
        assert len(load) == services * steps == len(load.drop_duplicates(["service", "ts"]))
        assert summary["load_gap_ratio"] == 0
        print(
            f"ingest of {services} services, {args.pods} pods each, {days:g} days: {cost}",
            flush=True,
        )
        if args.kill:
            count = len(list((whole / ".ingest" / "parts").glob("*.parquet")))
            out = folder / "killed"
            first = ingest(url, days, parallel, out, kill_at_parts=count // 2)
            kept = {p: p.stat().st_mtime_ns for p in (out / ".ingest" / "parts").glob("*.parquet")}
            assert first.status == -signal.SIGKILL, "it ended before it was killed"
            second = ingest(url, days, parallel, out, "--resume")
            assert second.status == 0
            assert all(p.stat().st_mtime_ns == at for p, at in kept.items()), "fetched twice"
            for name in ("load.parquet", "serving.parquet", "startups.parquet", "ingest.json"):
                assert (out / name).read_bytes() == (whole / name).read_bytes(), name
            print(f"killed with {len(kept)} of {count} parts: {first}")
            print(f"resumed: {second}; the same bytes as without a kill", flush=True)
        print(f"server's peak {peak_mib(server_pid(url)):.0f} MiB")


def bench_live(services: int, folder: Path) -> None:
    write(folder / "live.om", services, 1, range(0, 601, 15))
    names = [f"prod/svc-{i:04d}" for i in range(services)]
    policies = Policies({n: policy(n, "h100", model=n.split("/")[1]) for n in names}, ())
    with (
        servers.prometheus(folder / "live", folder / "live.om") as url,
        PrometheusApi(Access(url)) as api,
        PrometheusReader(api, Labels(), ReaderSettings()) as reader,
    ):
        for tick in range(5):
            begin = time.perf_counter()
            reading = reader.read(policies, START + 540.0 + tick)
            took = time.perf_counter() - begin
            print(
                f"tick {tick}: {took:.2f} s, {len(reading.observation.services)} services",
                flush=True,
            )
            assert not reading.failed, reading.failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=0)
    parser.add_argument("--pods", type=int, default=1, help="of each service")
    parser.add_argument("--days", type=float, default=1.0)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--live", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder of the server's data, for the next run")
    parser.add_argument("--kill", action="store_true", help="once more, killed halfway and resumed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.services:
            bench_history(args, Path(folder))
        if args.live:
            bench_live(args.live, Path(folder))


if __name__ == "__main__":
    main()

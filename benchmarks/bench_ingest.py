"""How long history and one tick take against a local Prometheus, with vLLM's own buckets.

    python benchmarks/bench_ingest.py --services 200 --days 1      # ingest; time grows with days
    python benchmarks/bench_ingest.py --live 1000                  # one tick's observation

Needs prometheus and promtool on PATH. Samples are made (one pod a service, scraped every 60 s for
history and every 15 s for the tick), written as OpenMetrics and turned into blocks by promtool.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ingest"))

import servers
from fleet_policies import policy

from autoscaler.core.types import Policies
from autoscaler.edge.prometheus import PrometheusReader, ReaderSettings
from autoscaler.edge.prometheus_api import Access, PrometheusApi
from models.contract import Labels
from training.ingest.plan import Request
from training.ingest.prometheus import ingest_prometheus

START = 1_750_000_020
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


def series(service: int) -> Iterator[tuple[str, int]]:
    """Yield every series of one pod with its growth per second (0: a gauge)."""
    name = f"svc-{service:04d}"
    mark = (
        f'namespace="prod",service="{name}",variant="h100",pod="{name}-0",instance="{name}:8000",'
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


def write(path: Path, services: int, seconds: int, scrape: int) -> int:
    times = range(0, seconds + 1, scrape)
    count = 0
    with path.open("w") as out:
        for service in range(services):
            for name, growth in series(service):
                if growth:
                    out.writelines(f"{name} {growth * t} {START + t}\n" for t in times)
                else:
                    out.writelines(f"{name} {(t // scrape) % 2} {START + t}\n" for t in times)
                count += len(times)
        out.write("# EOF\n")
    return count


def bench_history(services: int, days: float, parallel: int, folder: Path) -> None:
    seconds = int(days * 86_400)
    count = write(folder / "history.om", services, seconds, 60)
    print(f"{services} services, {days:g} days: {count / 1e6:.1f} M samples written", flush=True)
    with servers.prometheus(folder / "history", folder / "history.om") as url:
        (folder / "history.om").unlink()
        with PrometheusApi(Access(url, timeout_seconds=120)) as api:
            request = Request("bench", float(START), float(START + seconds), 60.0, Labels())
            begin, cpu = time.perf_counter(), time.process_time()
            summary = ingest_prometheus(
                api,
                request,
                folder / "out",
                resume=False,
                parallel=parallel,
                progress=lambda *_: None,
            )
            took, own = time.perf_counter() - begin, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert summary["services"] == services
    print(
        f"ingest: {took:.1f} s ({took / days:.1f} s a day; own CPU {own:.1f} s, peak {peak:.0f} MiB), "
        f"{summary['load_rows']} rows, gaps {summary['load_gap_ratio']:.2%}"
    )


def bench_live(services: int, folder: Path) -> None:
    write(folder / "live.om", services, 600, 15)
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
    parser.add_argument("--days", type=float, default=1.0)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--live", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.services:
            bench_history(args.services, args.days, args.parallel, Path(folder))
        if args.live:
            bench_live(args.live, Path(folder))


if __name__ == "__main__":
    main()

"""A real Prometheus scrapes a replayer of recorded vLLM pages: a restart, then the pod vanishes."""

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import samples
import servers

from autoscaler.edge.prometheus_api import Access, PrometheusApi
from models.contract import Labels
from training.ingest.plan import Request
from training.ingest.prometheus import ingest_prometheus
from training.telemetry import read_telemetry

STEP = 5.0
CONFIG = """
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs:
- job_name: engines
  static_configs:
  - targets: ["ADDRESS"]
    labels: {namespace: lab, service: tiny, variant: cpu, pod: tiny-0}
"""


def pages() -> list[str]:
    """Return recorded pages, 5 s apart, from where the load is well under way."""
    with gzip.open(samples.DATA / "sweep_scrapes.txt.gz", "rt") as text:
        return text.read().split("## scrape ")[100:140]


class Replayer(ThreadingHTTPServer):
    daemon_threads = True
    page = ""


class Handler(BaseHTTPRequestHandler):
    server: Replayer

    def do_GET(self) -> None:
        body = self.server.page.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def replaying() -> Iterator[Replayer]:
    server = Replayer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def body_of(page: str) -> str:
    return page.partition("\n")[2]


def finished(page: str) -> float:
    lines = [x for x in page.splitlines() if x.startswith("vllm:request_success_total")]
    return sum(float(x.rpartition(" ")[2]) for x in lines)


@pytest.mark.slow
def test_scraped_restarted_and_gone(tmp_path: Path) -> None:
    servers.needs("prometheus", "promtool")
    recorded = pages()
    with replaying() as replayer:
        replayer.page = body_of(recorded[0])
        address = f"127.0.0.1:{replayer.server_address[1]}"
        with servers.prometheus(
            tmp_path / "server", None, CONFIG.replace("ADDRESS", address)
        ) as url:
            time.sleep(3)
            begin = time.time_ns() / 1e9
            for page in recorded[:14]:
                replayer.page = body_of(page)
                time.sleep(1)
            # the container restarts: counters from zero, then a few seconds of the same load
            first = finished(recorded[14])
            for page in recorded[14:20]:
                gone = finished(page) - first
                lines = [x for x in body_of(page).splitlines() if "request_success" not in x]
                mark = 'engine="0",finished_reason="length",model_name="tiny-llama"'
                replayer.page = "\n".join(
                    [*lines, f"vllm:request_success_total{{{mark}}} {gone}", ""]
                )
                time.sleep(1)
            replayer.shutdown()
            replayer.server_close()
            time.sleep(9)
            start = np.floor((begin - 5) / STEP) * STEP
            request = Request("scraped", start, start + 40.0, STEP, Labels())
            with PrometheusApi(Access(url)) as api:
                summary = ingest_prometheus(
                    api,
                    request,
                    tmp_path / "out",
                    resume=False,
                    parallel=2,
                    progress=lambda *_: None,
                )
    load = read_telemetry(tmp_path / "out").load
    assert summary["scrape_seconds"] <= 2  # each second, but a busy machine skips some
    known = load.requests.dropna()
    assert len(known) >= 2  # of five: a busy machine skips scrapes, and thin intervals are gaps
    done = finished(recorded[13]) - finished(recorded[0])
    # the load goes on after the restart: 14 pages of a second, intervals of five
    assert known.mean() == pytest.approx(done * STEP / 14, rel=0.5)
    assert known.max() < done, "a counter that starts again is not a jump"
    assert load.requests.isna().iloc[-1], "the pod is gone: unknown, not zero"

"""`foreserve run` as a process of its own, beside a Prometheus that says what a test wants."""

import json
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from apiserver import ApiServer, free_ports
from foreserve_process import Process
from operating import OWN_NAMESPACE

from autoscaler.edge.clock import wall_seconds
from autoscaler.edge.prometheus import ReaderSettings
from models.contract import Labels
from models.contract_queries import live_queries

INTERVAL_SECONDS = 1.0
SCRAPE_SECONDS = 15.0
STARTED_SECONDS = 30.0
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OWN_NAMESPACE}/leases/foreserve"


@dataclass
class Traffic:
    """What Prometheus says: requests in flight by service (namespace/name), and what time it is."""

    running: dict[str, float] = field(default_factory=dict)
    ahead_seconds: float = 0.0
    hangs: bool = False
    asked_seconds: list[float] = field(default_factory=list)

    def now(self) -> float:
        return wall_seconds() + self.ahead_seconds

    def rows(self, name: str) -> list[dict[str, Any]]:
        values = {
            "completion_rate_rps": 2.0,
            "running": None,
            "waiting": 0.0,
            "running_change": 0.0,
            "waiting_change": 0.0,
            "isl_tokens": 500.0,
            "osl_tokens": 100.0,
            "samples": 100.0,
            "ready_replicas": 2.0,
            "age_seconds": 0.5,
        }
        if name not in values:
            return []
        out = []
        for service, running in self.running.items():
            namespace, _, short = service.partition("/")
            value = values[name]
            labels = {"namespace": namespace, "service": short, "variant": "default"}
            number = running if value is None else value
            out.append({"metric": labels, "value": [self.now(), str(number)]})
        return out


class Prometheus(ThreadingHTTPServer):
    """Knows the reader's own queries by their text, and no others."""

    daemon_threads = True

    def __init__(self, traffic: Traffic) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.traffic = traffic
        settings = ReaderSettings(INTERVAL_SECONDS, SCRAPE_SECONDS)
        queries = live_queries(Labels(), settings.window_seconds, settings.scrape_seconds)
        self.names = {text: name for name, text in queries.items()}
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(5.0)


class _Answer(BaseHTTPRequestHandler):
    server: Prometheus
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        traffic = self.server.traffic
        while traffic.hangs:
            time.sleep(0.05)
        asked = parse_qs(urlsplit(self.path).query)
        name = self.server.names.get(asked.get("query", [""])[0], "")
        traffic.asked_seconds += [float(t) for t in asked.get("time", ())]
        data = {"resultType": "vector", "result": traffic.rows(name)}
        body = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the base class looks for this name

    def date_time_string(self, _: float | None = None) -> str:
        return formatdate(self.server.traffic.now(), usegmt=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Running:
    """One process; `log` is what it wrote so far."""

    def __init__(
        self, kube: ApiServer, telemetry: str, folder: Path, name: str, *more: str
    ) -> None:
        (self._port,) = free_ports(1)
        self.identity = name
        self._file = folder / f"{name}.log"
        self.models, self.decisions = folder / "models", folder / f"{name}-decisions"
        self.models.mkdir(exist_ok=True)
        flags = {
            "--models": str(self.models),
            "--decision-log": str(self.decisions),
            "--prometheus": telemetry,
            "--kubeconfig": str(kube.kubeconfig(folder / "kubeconfig")),
            "--namespace": OWN_NAMESPACE,
            "--identity": name,
            "--interval-seconds": f"{INTERVAL_SECONDS:g}",
            "--scrape-seconds": f"{SCRAPE_SECONDS:g}",
            "--http": f"127.0.0.1:{self._port}",
        }
        arguments = [part for pair in flags.items() for part in pair]
        with self._file.open("wb") as log, Path(os.devnull).open("rb") as nothing:
            words = ["run", *arguments, *more, "--no-history"]
            self.process = Process(words, (nothing, log, log))

    @property
    def log(self) -> str:
        return self._file.read_text()

    def ask(self, path: str) -> tuple[int, str]:
        """Return status and body of a GET; 0 if nobody answers."""
        url = f"http://127.0.0.1:{self._port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=2.0) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def wait_ready(self) -> None:
        until(lambda: self.ask("/readyz")[0] == 200, STARTED_SECONDS, lambda: self.log)

    def terminate(self) -> float:
        """Send SIGTERM; return how long the process took to end."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=30.0) == 0, self.log
        return time.monotonic() - begun

    def kill(self) -> None:
        """Send SIGKILL."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=10.0)


def until(true: Callable[[], bool], seconds: float, told: Callable[[], str] = str) -> float:
    """Wait until it is true; return how long that took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, told()
        time.sleep(0.05)
    return time.monotonic() - begun


def holder(kube: ApiServer) -> str:
    """Return the name of the process that holds the Lease, without what makes it unique; "" nobody."""
    code, lease = kube.request("GET", LEASE)
    return "" if code == 404 else str(lease["spec"].get("holderIdentity") or "").partition("_")[0]

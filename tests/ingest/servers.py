"""Real Prometheus and VictoriaMetrics for tests: on loopback, free ports, data of the test's own."""

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_SECONDS = 30.0


def needs(*programs: str) -> None:
    """Skip, saying what is absent."""
    absent = [p for p in programs if shutil.which(p) is None]
    if absent:
        pytest.skip(
            f"not on PATH: {', '.join(absent)} (Debian: apt install prometheus victoria-metrics)"
        )


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def backfill(openmetrics: Path, data: Path) -> None:
    """Turn an OpenMetrics file into blocks of a month: those of two hours take forty times as long."""
    subprocess.run(
        [
            *("promtool", "tsdb", "create-blocks-from", "--max-block-duration=744h"),
            *("openmetrics", str(openmetrics), str(data)),
        ],
        check=True,
        capture_output=True,
        timeout=600,
    )


@contextmanager
def prometheus(
    folder: Path, openmetrics: Path | None, config: str = "", *flags: str
) -> Iterator[str]:
    """Yield the address of a Prometheus that holds the samples of an OpenMetrics file."""
    needs("prometheus", "promtool")
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "data"
    if openmetrics is not None:
        backfill(openmetrics, data)
    (folder / "prometheus.yml").write_text(config or "global: {}\n")
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=50y",
        f"--web.listen-address={address}",
        "--log.level=error",
        *flags,
    ]
    with _running(command, folder / "prometheus.log", f"http://{address}/-/ready"):
        yield f"http://{address}"


@contextmanager
def victoria_metrics(folder: Path, samples: Iterable[str]) -> Iterator[str]:
    """Yield the address of a VictoriaMetrics that holds samples (text format, times in ms)."""
    needs("victoria-metrics")
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    command = [
        "victoria-metrics",
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr={address}",
        "-retentionPeriod=100y",
        "-search.disableCache",
        "-memory.allowedBytes=256MB",
        "-loggerLevel=ERROR",
    ]
    with _running(command, folder / "victoria.log", f"http://{address}/health"):
        url = f"http://{address}"
        _post(f"{url}/api/v1/import/prometheus", "\n".join(samples).encode() + b"\n")
        _post(f"{url}/internal/force_flush", b"")
        yield url


@contextmanager
def _running(command: list[str], log: Path, ready_url: str) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            _wait(ready_url, process, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"{process.args!r} did not start: {log.read_text()[-800:]}")


def _post(url: str, body: bytes) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60):  # noqa: S310
        return

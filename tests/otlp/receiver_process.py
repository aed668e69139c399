"""The real `foreserve otlp` as a process of its own, for tests; its memory can be read."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = (sys.executable, "-c", "from autoscaler.cli import main; main()", "otlp")


@dataclass
class Running:
    process: "subprocess.Popen[str]"
    grpc_port: int
    http_port: int

    def rss_mib(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    def peak_mib(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024

    def stop(self) -> str:
        """Ask it to end as Kubernetes does; return what it logged since it listened."""
        self.process.send_signal(signal.SIGTERM)
        _, text = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, text
        return text


@contextmanager
def running(store: Path, *options: str) -> Iterator[Running]:
    command = [*COMMAND, "--store", str(store), "--grpc-port", "0", "--http-port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            found = re.search(r"gRPC (\d+), HTTP (\d+)", line)
            if found:
                break
        else:
            raise AssertionError("".join(lines))
        yield Running(process, int(found[1]), int(found[2]))
    finally:
        process.kill()
        process.communicate()

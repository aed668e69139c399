"""`foreserve` as a process of its own, forked from one that has imported everything already.

The imports take seconds, which most tests of a command would only wait for. A fork is a process like any
other: its own arguments, streams, folder, environment, signals and exit status. `cold` is the real start.
"""

import atexit
import functools
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO

COLD = (sys.executable, "-c", "from autoscaler.cli import main; main()")
WARM = (sys.executable, "-c", "from foreserve_process import serve; serve()")
IMPORTED = ("autoscaler.cli", "autoscaler.cli.wiring", "training.train", "training.contest")
POLL_SECONDS = 0.005
MOST_SECONDS = 300.0  # that a command may take: one that hangs must fail its test, not hold up all
Done = subprocess.CompletedProcess[str]


def cold(*words: object, stdin: str = "") -> Done:
    """Run it as a user does, imports and all."""
    command = [*COLD, *map(str, words)]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=MOST_SECONDS
    )


def run(
    *words: object,
    stdin: str = "",
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
) -> Done:
    """Run it to its end; what it read and wrote is text."""
    with (
        tempfile.TemporaryFile() as source,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        source.write(stdin.encode())
        source.seek(0)
        process = Process(words, (source, out, err), cwd=cwd, env=env)
        try:
            status = process.wait(MOST_SECONDS)
        finally:
            process.kill()
        said = [_whole(file).decode() for file in (out, err)]
    return Done([*COLD, *map(str, words)], status, *said)


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


class Process:
    """One that runs; the part of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        words: tuple[object, ...] | list[str],
        streams: tuple[IO[bytes], IO[bytes], IO[bytes]],
        *,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        asked = {
            "words": list(map(str, words)),
            "cwd": str(cwd or Path.cwd()),
            "env": dict(os.environ) if env is None else env,
        }
        self.returncode: int | None = None
        mine, its = socket.socketpair()
        with its:
            files = [file.fileno() for file in streams]
            text = json.dumps(asked).encode() + b"\n"
            requests = _server()
            sent = socket.send_fds(requests, [text], [its.fileno(), *files])
            requests.sendall(text[sent:])
        self._told = mine.makefile("rb")
        mine.close()
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        if self.returncode is None and not _runs(self.pid):
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        begun = time.monotonic()
        while timeout is not None and _runs(self.pid):
            if time.monotonic() - begun > timeout:
                raise subprocess.TimeoutExpired(COLD, timeout)
            time.sleep(POLL_SECONDS)
        if self.returncode is None:
            self.returncode = int(self._told.readline())
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@functools.cache
def _server() -> socket.socket:
    """Return the way to the process that forks; it ends with this one."""
    mine, its = socket.socketpair()
    with its:
        places = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            WARM, stdin=its, env=os.environ | {"PYTHONPATH": os.pathsep.join(places)}
        )
    atexit.register(process.wait)
    atexit.register(mine.close)
    return mine


def serve() -> None:
    """Import, then fork for everything that is asked for on stdin, a socket."""
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # as docs.python.org advises before a fork
    requests = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    while True:
        text, files, _, _ = socket.recv_fds(requests, 2**20, 4)
        while text and not text.endswith(b"\n"):
            text += requests.recv(2**20)
        if not text:
            return
        if os.fork() == 0:
            requests.close()
            break
        for file in files:
            os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told = socket.socket(fileno=files[0])
    child = os.fork()
    if child:
        told.sendall(b"%d\n" % child)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        told.sendall(b"%d\n" % status)
        os._exit(0)
    told.close()
    _become(json.loads(text), files[1:])
    os._exit(_status_of(import_module("autoscaler.cli").main))


def _status_of(main: Callable[[], None]) -> int:
    """Run it and all that runs at an exit, but for the taking apart of what was imported."""
    status = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _become(asked: dict[str, dict[str, str] | list[str] | str], streams: list[int]) -> None:
    """Take what a new process is given: arguments, streams, folder and environment."""
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[arg-type]
    os.chdir(str(asked["cwd"]))
    sys.argv[1:] = asked["words"]
    sys.stdin, sys.stdout = (os.fdopen(n, mode, closefd=False) for n, mode in ((0, "r"), (1, "w")))
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)

"""The operator's decision log: compressed files in a folder of bounded size, each replayable by itself.

A file begins with a header and everything that is in force; before each tick stands what has changed since
the one before (docs/design/014). Every tick is flushed to the operating system.
"""

import contextlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from autoscaler.core.accounts import Account
from autoscaler.core.outcome import Decisions, Outlook, State
from autoscaler.core.types import Observation
from autoscaler.edge.decision_changes import NOTHING, Inputs, differences
from autoscaler.edge.decision_log import (
    GZIP_BITS,
    Header,
    LogError,
    accounts_line,
    header_line,
    tick_line,
)
from autoscaler.edge.decisions import dump_line

PATTERN = "decisions-*.jsonl.gz"
FILE_BYTES = 32 << 20
FILES_PER_LIMIT = 4  # so that pruning drops a part of the history, not all of it
MAX_FILES = 1000  # a process that restarts all the time makes small ones
AGAIN_SECONDS = 60.0  # after a failure: a full disk need not be asked every few seconds
GZIP_LEVEL = 6


@dataclass(frozen=True, slots=True)
class LoggedTick:
    """One tick: what it was given, what it answered, and the state that it left.

    `accounts`: of the hour that it closed.
    """

    generation: str
    given: Inputs
    observation: Observation
    outlooks: Mapping[str, Outlook]
    decisions: Decisions
    after: State
    accounts: Mapping[str, Account] = field(default_factory=dict)


@dataclass(slots=True)
class _File:
    path: Path
    stream: BinaryIO
    generation: str
    known: Inputs = NOTHING  # what its reader has by now
    outlooks: Mapping[str, Outlook] | None = None
    size_bytes: int = 0


class DecisionFolder:
    """Writes ticks into files of one folder, the oldest of which go when `limit_bytes` is reached."""

    def __init__(self, folder: Path, process: str, limit_bytes: int) -> None:
        """`process` names the files, so that two may write into one folder."""
        self._folder = folder
        self._process = re.sub(r"[^\w.-]", "_", process)
        self._limit_bytes = limit_bytes
        self._file_bytes = min(FILE_BYTES, limit_bytes // FILES_PER_LIMIT)
        self._file: _File | None = None
        self._zip = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_BITS)
        self._wait_until = -1.0

    def write(self, tick: LoggedTick) -> str:
        """Append one tick; return why it could not be, "" if it was. Never raises for a bad disk."""
        now = tick.observation.now_seconds
        if now < self._wait_until:
            return f"{self._folder}: not written since it failed; again in a minute"
        try:
            if self._file is not None and self._is_over(self._file, tick.generation):
                self.close()
            if self._file is None:
                self._file = self._begin(tick)
            self._append(self._file, "".join(_lines(self._file, tick)))
        except (OSError, TypeError, ValueError) as error:
            self._abandon()
            self._wait_until = now + AGAIN_SECONDS
            return f"{self._folder}: a decision is not logged: {error}"
        self._file.known = Inputs(tick.given.policies, tick.given.starts, tick.after)
        self._file.outlooks = tick.outlooks
        return ""

    def close(self) -> None:
        """End the file that is open."""
        file, self._file = self._file, None
        if file is not None:
            with file.stream, contextlib.suppress(OSError):  # its lines are there all the same
                file.stream.write(self._zip.flush())

    def _is_over(self, file: _File, generation: str) -> bool:
        return file.generation != generation or file.size_bytes >= self._file_bytes

    def _begin(self, tick: LoggedTick) -> _File:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._prune()
        moment = datetime.fromtimestamp(tick.observation.now_seconds, UTC)
        name = f"decisions-{moment:%Y%m%dT%H%M%SZ}-{self._process}.jsonl.gz"
        path = self._folder / name
        self._zip = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_BITS)
        file = _File(path, path.open("xb"), tick.generation)
        self._file = file
        self._append(file, header_line(Header(tick.generation, ())))
        return file

    def _append(self, file: _File, text: str) -> None:
        data = self._zip.compress(text.encode()) + self._zip.flush(zlib.Z_SYNC_FLUSH)
        file.stream.write(data)
        file.stream.flush()
        file.size_bytes += len(data)

    def _abandon(self) -> None:
        """Leave the file as it is: nobody knows how much of the last line stands in it."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            file.stream.close()
        if file.known is NOTHING:  # not one tick: nothing is lost with it
            with contextlib.suppress(OSError):
                file.path.unlink()

    def _prune(self) -> None:
        """Delete the oldest files until there is room for another one."""
        files = sorted(self._folder.glob(PATTERN))
        sizes = {path: path.stat().st_size for path in files if path.exists()}
        room = self._limit_bytes - self._file_bytes
        for path in files:
            if sum(sizes.values()) <= room and len(sizes) < MAX_FILES:
                return
            path.unlink(missing_ok=True)  # another process may have been faster
            sizes.pop(path, None)


def _lines(file: _File, tick: LoggedTick) -> Iterator[str]:
    """Yield what has changed since the file's last tick, the hour that is over, then the tick."""
    for record in differences(file.known, tick.given):
        yield dump_line(record)
    if tick.accounts:
        yield accounts_line(tick.accounts)
    outlooks = tick.outlooks if tick.outlooks is not file.outlooks else None
    yield tick_line(tick.observation, outlooks, tick.decisions)


def files_of(path: Path) -> list[Path]:
    """Return the logs at a path: the file itself, or those in a folder, oldest first; LogError."""
    if not path.is_dir():
        return [path]
    files = sorted(path.glob(PATTERN))
    if not files:
        raise LogError(f"{path}: no {PATTERN}; allowed: a folder of `foreserve run --decision-log`")
    return files
